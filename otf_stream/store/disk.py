"""Waiting until files, and the folders that name them, are on the disk and survive a power cut."""

from __future__ import annotations

import errno
import os
from pathlib import Path

_FULL = {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)}


def is_full(error: BaseException) -> bool:
    """Whether ``error`` says that the disk, or the user's share of it, is full; it may have room again later."""
    return isinstance(error, OSError) and error.errno in _FULL


def fsync_folder(folder: Path) -> None:
    """Wait until the names in ``folder`` are on disk."""
    if os.name == "nt":  # Windows cannot open folders; NTFS keeps a log of its entries.
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def fsync_file(path: Path) -> None:
    """Wait until what was written to ``path``, by whatever library, is on disk."""
    with path.open("rb+") as file:  # Windows synchronises only what is open for writing.
        os.fsync(file.fileno())


def fsync_tree(top: Path) -> None:
    """Wait until every file and folder below ``top`` is on disk."""
    for folder, _, names in os.walk(top):
        for name in names:
            fsync_file(Path(folder) / name)
        fsync_folder(Path(folder))
