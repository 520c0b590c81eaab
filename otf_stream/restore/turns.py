"""Work on many stacks by turns, on one device.

Work is a generator that stops wherever another stack could go on. Threads would share the device as well, but nobody
could tell when, and a number of steps would no longer give the same volume. Whoever gives the turns may end work that
has run out of time, wherever it stopped, by throwing :class:`OutOfTimeError` into it.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from enum import Enum
from typing import TypeVar

Result = TypeVar("Result")


class Turn(Enum):
    """How a turn ended."""

    READY = "there is more to do"
    WAITING = "there is nothing to do until planes come, or the disk has room"


Work = Generator[Turn, None, Result]
"""Work that is done by turns, and its result."""

Room = Callable[[Callable[[], None]], Work[None]]
"""Writes what it is given to write, and may wait for room on the disk."""


def unhindered(write: Callable[[], None]) -> Work[None]:
    """Write, where there is room."""
    yield from ()
    write()


class OutOfTimeError(Exception):
    """There is no time to go on; what can be had without going on is wanted."""


def at_once(work: Work[Result]) -> Result:
    """Do work to its end, nobody else having turns."""
    while True:
        try:
            next(work)
        except StopIteration as done:
            result: Result = done.value
            return result
