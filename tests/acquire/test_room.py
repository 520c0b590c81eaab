from __future__ import annotations

import errno
import shutil
from pathlib import Path

import pytest

from otf_stream.acquire.protocol import ErrorCode, ProtocolError
from otf_stream.acquire.room import Room, storage_error


def test_planes_find_room_beside_the_reserve(tmp_path: Path) -> None:
    total = shutil.disk_usage(tmp_path).total
    Room(tmp_path, 0).check(1)
    for reserve, size in ((total, 1), (0, total + 1)):
        with pytest.raises(ProtocolError, match="make room") as error:
            Room(tmp_path, reserve).check(size)
        assert error.value.code is ErrorCode.NO_SPACE


def test_a_full_disk_is_told_from_a_broken_one() -> None:
    assert storage_error(OSError(errno.ENOSPC, "full")).code is ErrorCode.NO_SPACE
    for broken in (OSError(errno.EIO, "broken"), RuntimeError("bug")):
        error = storage_error(broken)
        assert error.code is ErrorCode.INTERNAL
        assert repr(broken) in error.message
