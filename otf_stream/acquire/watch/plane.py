"""What every reader of growing files gives: planes that are whole, and what the files tell of them.

A reader is looked at again and again. Each look gives the planes that have become whole since the last one, by what
they are called in the file; their pixels are read when they are sent. A reader never waits, and takes what it cannot
make sense of for something that is not written yet, until it is told that nothing more comes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from otf_stream.acquire.hooks.growing import Plane
from otf_stream.store.formats.source import Spacing

Stat = tuple[int, int]
"""Size and time of the last change of a file."""


@dataclass(frozen=True)
class Told:
    """What the metadata of growing files tell so far.

    Parameters
    ----------
    spacing
        Voxel size.
    sizes
        Announced lengths along t, c and z; 1 where nothing is.
    channels
        Names of the channels, in order; empty where there are none.
    positions
        How many positions there are, where that is known.
    interval_s
        Seconds between time points.
    """

    spacing: Spacing
    sizes: tuple[int, int, int] = (1, 1, 1)
    channels: tuple[str, ...] = ()
    positions: int | None = None
    interval_s: float | None = None


class Growing(Protocol):
    """Files of one acquisition that another program writes.

    Attributes
    ----------
    path
        Of the file or folder, for messages and for the acquisition's name.
    faults
        What is wrong with the files, in sentences, each once.
    """

    path: Path
    faults: list[str]

    def look(self, *, last: bool = False) -> Iterator[Plane]:
        """Give the planes that have become whole since the last look.

        Parameters
        ----------
        last
            Nothing more is written: what is not whole now never will be.
        """
        ...

    def told(self) -> Told:
        """Return what the metadata tell so far."""
        ...


def stat(path: Path) -> Stat | None:
    """Return size and time of change of a file; None if it is not there."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns
