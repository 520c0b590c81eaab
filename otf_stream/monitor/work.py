"""What the worker tells of itself: a small file in the data folder, written anew every second by a thread of its own.

Which stack must be done by when follows from planes that are still to come and from what the worker has measured, so
only the worker knows it; it changes too often for the journals. A thread writes the file, so that a worker that
computes something long is not taken for a dead one; when its last turn began tells one from a worker that hangs.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any

from otf_stream.acquire.status import write_told

FILE = "worker.json"
MOST = 200
"""Stacks that are told of, those that must be done first."""
_OLD = 10.0  # seconds after which nobody writes it any more
_STARTING = 20.0  # seconds that the start may take, most of them for importing torch
_INTERVAL = 1.0


@dataclass(frozen=True)
class Awaited:
    """A stack that the worker knows to be restored.

    Parameters
    ----------
    session, t, c
        Which.
    deadline
        When it must be done, in UNIX seconds; a guess as long as planes come.
    restoring_s
        Seconds that restoring it still takes, as far as that was measured.
    begun
        Whether it is at work on it.
    """

    session: str
    t: int
    c: int
    deadline: float
    restoring_s: float
    begun: bool


@dataclass(frozen=True)
class WorkerStatus:
    """A worker at one moment.

    Parameters
    ----------
    at
        When, in UNIX seconds.
    pid
        Of its process.
    device
        That it computes on.
    turn
        When its last turn began, in UNIX seconds.
    stacks
        How many it knows to be restored.
    awaited
        Those that must be done first, at most `MOST`.
    starting
        Whether it is not at work yet.
    """

    at: float
    pid: int
    device: str
    turn: float
    stacks: int = 0
    awaited: tuple[Awaited, ...] = ()
    starting: bool = False

    @property
    def current(self) -> bool:
        """Whether it is at work."""
        return self.is_current(time.time())

    def is_current(self, now: float) -> bool:
        """Whether it was at work at ``now``, in UNIX seconds."""
        return not self.starting and now - self.at < _OLD

    def is_starting(self, now: float) -> bool:
        """Whether it had been started just before ``now``, in UNIX seconds."""
        return self.starting and now - self.at < _STARTING


def write_work(folder: Path, status: WorkerStatus) -> None:
    """Write the status into a data folder, as `write_told` does."""
    write_told(folder / FILE, status)


def read_work(folder: Path) -> WorkerStatus | None:
    """Read what the worker of a data folder said last; None if it never did."""
    try:
        told: dict[str, Any] = json.loads((folder / FILE).read_bytes())
        return WorkerStatus(**told | {"awaited": tuple(Awaited(**stack) for stack in told["awaited"])})
    except (OSError, ValueError, TypeError, KeyError):
        return None


def tell_of_start(folder: Path) -> None:
    """Write that this process will be the worker of a data folder soon."""
    with suppress(OSError):
        now = time.time()
        write_work(folder, WorkerStatus(now, os.getpid(), "", now, starting=True))


def keep_telling(folder: Path, status: Callable[[float, int], WorkerStatus], stop: Event) -> None:
    """Write what ``status`` tells, given the time and the process, every second until ``stop`` is set."""
    while not stop.is_set():
        # A disk without room for this has none for volumes either; and a folder may be deleted meanwhile.
        with suppress(OSError, RuntimeError):
            write_work(folder, status(time.time(), os.getpid()))
        stop.wait(_INTERVAL)
