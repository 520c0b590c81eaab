"""Planes that are put aside come back as they were, and leave nothing behind."""

import numpy as np
import pytest

from otf_stream.store.scratch import Scratch


def planes(count=4):
    return np.random.default_rng(0).random((count, 30, 50), np.float32)


def test_windows_of_planes_come_back_in_any_order(tmp_path):
    scratch, stack = Scratch(tmp_path, 30, 50, np.float32), planes()
    for z in (2, 0, 3, 1):
        scratch.put(z, stack[z])
    scratch.put(0, -stack[0])  # once more
    stack[0] *= -1
    np.testing.assert_array_equal(scratch.read([3, 0, 1], slice(5, 20), slice(40, 50)), stack[[3, 0, 1], 5:20, 40:50])
    with pytest.raises(KeyError):
        scratch.read([4])
    assert 3 in scratch
    assert 4 not in scratch


def test_what_was_read_does_not_change_with_the_file(tmp_path):
    scratch, stack = Scratch(tmp_path, 30, 50, np.float32), planes()
    scratch.put(0, stack[0])
    read = scratch.read([0])
    scratch.put(0, stack[1])
    np.testing.assert_array_equal(read[0], stack[0])


def test_what_is_forgotten_makes_room_for_others(tmp_path):
    scratch, stack = Scratch(tmp_path, 30, 50, np.float32), planes(9)
    for first in (0, 3, 6):
        scratch.forget(before=first)
        for z in range(first, first + 3):
            scratch.put(z, stack[z])
    np.testing.assert_array_equal(scratch.read([6, 7, 8]), stack[6:])
    assert 5 not in scratch
    assert scratch._file.seek(0, 2) == 3 * 30 * 50 * 4


def test_another_kind_of_image_is_refused(tmp_path):
    scratch = Scratch(tmp_path, 30, 50, np.float32)
    with pytest.raises(ValueError, match=r"\(30, 50\) float32"):
        scratch.put(0, planes()[0].astype(np.float64))


def test_nothing_is_left_behind(tmp_path):
    scratch = Scratch(tmp_path, 30, 50, np.float32)
    scratch.put(0, planes()[0])
    del scratch
    assert list(tmp_path.iterdir()) == []
