"""Whose a data folder is: a service keeps others out for as long as it runs.

Two services would close each other's sessions, and a stack that is restored by hand where a service is at work would be
restored by both. The lock is the system's, which gives it back if the process that has it is killed.
"""

from __future__ import annotations

from pathlib import Path

from filelock import FileLock, Timeout

LOCK = ".service.lock"
"""In the data folder."""


def folder_lock(data: Path) -> FileLock:
    """Return the lock that a service has on its data folder, not yet taken."""
    return FileLock(data / LOCK)


def is_served(data: Path) -> bool:
    """Whether a service has this folder now."""
    if not (data / LOCK).exists():
        return False
    try:
        with folder_lock(data).acquire(timeout=0):
            return False
    except Timeout:
        return True
