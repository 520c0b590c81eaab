"""Each plane is read once, whatever is asked for; one that was replaced or has gone is not shown as it was."""

import os

import numpy as np
import pytest

from otf_stream.monitor.rows import Rows


@pytest.fixture
def files(tmp_path):
    return [tmp_path / str(z) for z in range(4)]


@pytest.fixture
def look(files):
    rows, read = Rows((4, 3), np.dtype("<u2")), []

    def row(file):
        read.append(files.index(file))
        return np.frombuffer(file.read_bytes(), "<u2").reshape(3)

    def look():
        read.clear()
        return rows.read(files, row).tolist(), read.copy()

    return look


def write(file, value, written_ns):
    file.write_bytes(np.full(3, value, "<u2").tobytes())
    os.utime(file, ns=(written_ns, written_ns))


def test_planes_that_were_read_are_not_read_again(files, look):
    write(files[0], 7, 1)
    assert look() == ([[7] * 3, [0] * 3, [0] * 3, [0] * 3], [0])
    write(files[2], 8, 2)
    assert look() == ([[7] * 3, [0] * 3, [8] * 3, [0] * 3], [2])
    assert look() == ([[7] * 3, [0] * 3, [8] * 3, [0] * 3], [])


def test_a_plane_that_came_again_is_read_again_and_one_that_has_gone_is_black(files, look):
    write(files[0], 7, 1)
    write(files[1], 8, 1)
    look()
    write(files[0], 9, 2)
    files[1].unlink()
    assert look() == ([[9] * 3, [0] * 3, [0] * 3, [0] * 3], [0])
    write(files[1], 8, 1)
    assert look()[0][1] == [8] * 3


def test_a_torn_plane_is_black(files, look):
    files[3].write_bytes(b"12345678")
    assert look()[0][3] == [0] * 3


def test_what_is_handed_out_stays_as_it_is(files):
    rows = Rows((1, 3), np.dtype("<u2"))
    first = rows.read(files[:1], lambda file: np.ones(3))
    write(files[0], 5, 1)
    rows.read(files[:1], lambda file: np.ones(3))
    assert first.tolist() == [[0] * 3]
