"""Planes in files: the only copies there are, whatever the disk, the system and other programs do meanwhile."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from otf_stream.acquire.leftovers import find_leftovers
from otf_stream.acquire.outbox import LostPlaneError, Outbox
from otf_stream.acquisition import Acquisition, PlaneIndex

Pixels = Callable[[PlaneIndex], np.ndarray]
PLANES: list[PlaneIndex] = [(0, 0, z) for z in range(3)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "otf_stream-0"


def kept(acquisition: Acquisition, folder: Path, pixels: Pixels) -> None:
    """Leave planes in files, as a publisher does that ends with nobody to take them."""
    outbox = Outbox(acquisition, memory=0, folder=folder)
    for plane in PLANES:
        outbox.put(plane, memoryview(pixels(plane).tobytes()), None)
    outbox.keep("finished")


@pytest.fixture
def left(acquisition: Acquisition, folder: Path, pixels: Pixels) -> Outbox:
    kept(acquisition, folder, pixels)
    return Outbox(acquisition, memory=0, folder=folder)


def files(folder: Path) -> int:
    return len(list(folder.glob("*.plane")))


def test_a_file_that_cannot_be_read_now_is_read_later(
    left: Outbox, folder: Path, pixels: Pixels, monkeypatch: pytest.MonkeyPatch
) -> None:
    def too_many(*_: object) -> memoryview:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    with monkeypatch.context() as patch:
        patch.setattr(left, "_read", too_many)
        assert left.take() is None
        assert left.take() is None  # and is left alone for a while
    assert (files(folder), left.in_flight, left.pending) == (3, 0, 3)
    left.put((0, 1, 0), memoryview(pixels((0, 1, 0)).tobytes()), None)
    assert (taken := left.take()) is not None
    assert taken.index == (0, 1, 0)  # what is in memory does not wait for it
    left._read_again = 0.0
    assert [held.index for _ in PLANES if (held := left.take())] == PLANES


def test_a_file_that_cannot_be_deleted_stops_nothing(
    left: Outbox, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert left.take() is not None

    def held_open(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "another program holds it")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", held_open)
        assert left.acknowledge(PLANES[0])
    assert (left.pending, files(folder)) == (2, 3)


def test_a_file_that_was_cut_short_is_told_and_one_of_another_acquisition_is_left_alone(
    acquisition: Acquisition, folder: Path, pixels: Pixels
) -> None:
    kept(acquisition, folder, pixels)
    first = min(folder.glob("*.plane"))
    first.write_bytes(first.read_bytes()[:-5])
    left = Outbox(acquisition, memory=0, folder=folder)
    assert left.pending == 3
    with pytest.raises(LostPlaneError, match="cut short"):
        left.take()
    smaller = acquisition.model_copy(update={"sizes": acquisition.sizes.model_copy(update={"y": 3})})
    assert Outbox(smaller, memory=0, folder=folder).pending == 0
    assert files(folder) == 3


def test_a_folder_without_its_description_gets_one_with_the_next_plane(
    acquisition: Acquisition, folder: Path, pixels: Pixels
) -> None:
    folder.mkdir()  # as a full disk leaves it
    assert find_leftovers(folder.parent) == []
    kept(acquisition, folder, pixels)
    (leftover,) = find_leftovers(folder.parent)
    assert (leftover.acquisition, leftover.planes) == (acquisition, 3)


def test_what_is_over_stays_so_until_a_plane_is_added(left: Outbox, folder: Path, pixels: Pixels) -> None:
    assert find_leftovers(folder.parent)[0].ended == "finished"  # whoever was to deliver it may have been killed
    left.put((0, 1, 0), memoryview(pixels((0, 1, 0)).tobytes()), None)
    left._write(left._held[0, 1, 0])
    assert find_leftovers(folder.parent)[0].ended is None
