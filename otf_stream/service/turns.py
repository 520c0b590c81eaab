"""Work on many stacks by turns, on one device.

Work is a generator that stops wherever another stack could go on. Threads would share the device as well, but nobody
could tell when, and a number of steps would no longer give the same volume.
"""

from __future__ import annotations

from collections.abc import Generator
from enum import Enum
from typing import TypeVar

Result = TypeVar("Result")


class Turn(Enum):
    """How a turn ended."""

    READY = "there is more to do"
    WAITING = "there is nothing to do until planes come, or the disk has room"


Work = Generator[Turn, None, Result]
"""Work that is done by turns, and its result."""
