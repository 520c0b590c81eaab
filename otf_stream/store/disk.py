"""Waiting until files, and the folders that name them, are on the disk and survive a power cut; what may hinder it."""

from __future__ import annotations

import errno
import os
import sqlite3
from pathlib import Path

_FULL = {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)}

_PASSING = {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN, getattr(errno, "ESTALE", errno.EAGAIN)}


def is_full(error: BaseException) -> bool:
    """Whether ``error`` says that the disk, or the user's share of it, is full; it may have room again later."""
    return isinstance(error, OSError) and error.errno in _FULL


def passes(error: BaseException) -> bool:
    """Whether what was tried may well go later: the disk is full, too many files are open, the journal is locked."""
    if isinstance(error, sqlite3.OperationalError):
        return getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
    return is_full(error) or (isinstance(error, OSError) and error.errno in _PASSING)


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
