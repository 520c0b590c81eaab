"""Which planes of an acquisition there are, each with its checksum.

Both ends of the wire keep one, the publisher of what it was given, the listener of what is durable. Arrays
instead of dictionaries of tuples, because a time-lapse of days has millions of planes; their pages take memory only
once they are written.
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Sequence

import numpy as np
from numpy.typing import DTypeLike

from otf_stream.acquisition import Acquisition, PlaneIndex

_BLOCK = 1 << 16
_LARGE = 1 << 20


class Ledger:
    """The planes of one acquisition that are there.

    Parameters
    ----------
    acquisition
        Whose planes these are. If it grows, the ledger grows with the planes that are recorded.
    """

    def __init__(self, acquisition: Acquisition) -> None:
        self._acquisition = acquisition
        self._there = _zeros(acquisition.sizes.shape[:3], bool)
        self._crc = _zeros(acquisition.sizes.shape[:3], np.uint32)
        self.count = 0
        """How many planes there are."""

    @property
    def missing_count(self) -> int:
        """How many planes that were to come there are not."""
        return int((self._planned() & ~self._there).sum())

    def record(self, plane: PlaneIndex, crc: int) -> None:
        """Note that ``plane`` is there; the first note stands."""
        self._make_room(plane)
        if not self._there[plane]:
            self._there[plane] = True
            self._crc[plane] = crc
            self.count += 1

    def forget(self, plane: PlaneIndex) -> None:
        """Note that ``plane`` is not there after all."""
        if self.crc(plane) is not None:
            self._there[plane] = False
            self.count -= 1

    def crc(self, plane: PlaneIndex) -> int | None:
        """CRC-32 of ``plane``; None if it is not there."""
        inside = all(i < n for i, n in zip(plane, self._there.shape, strict=True))
        return int(self._crc[plane]) if inside and self._there[plane] else None

    def runs(self, limit: int) -> list[tuple[int, int, int, int]]:
        """List the planes that are there as runs ``(t, c, z0, z1)``, without ``z1``; at most ``limit`` of them."""
        if not self.count:  # as when a session is opened, however many planes it announces
            return []
        steps = np.diff(self._there.view(np.int8), axis=2, prepend=np.int8(0), append=np.int8(0))
        starts = np.argwhere(steps == 1)[:limit].tolist()
        stops = np.argwhere(steps == -1)[:limit, 2].tolist()
        return [(t, c, z0, z1) for (t, c, z0), z1 in zip(starts, stops, strict=True)]

    def missing(self, limit: int) -> list[PlaneIndex]:
        """List the first planes, at most ``limit``, that were to come and are not there."""
        missing = self._planned() & ~self._there
        places = np.unravel_index(_first(missing.ravel(), limit), missing.shape)
        return [(t, c, z) for t, c, z in np.transpose(places).tolist()]

    def _planned(self) -> np.ndarray:
        """Which planes were to come, ``(t, c, z)``.

        No loop over an axis: each may be announced with a million, and everybody else waits meanwhile.
        """
        if self._acquisition.growing:
            return self._presumed()
        t, _, z = (np.arange(n) for n in self._there.shape)
        planned = np.ones_like(self._there)
        if self._acquisition.every:
            planned &= (t[:, None] % np.array(self._acquisition.every) == 0)[:, :, None]
        if self._acquisition.z_ranges:
            first, stop = np.array(self._acquisition.z_ranges).T
            planned &= _between(z, first, stop)
        return planned

    def _presumed(self) -> np.ndarray:
        """Which planes were to come, where nobody announced it.

        At each time point that has planes of a channel: all between the first and the last that the channel ever had.
        """
        ever: np.ndarray = np.logical_or.reduce(self._there, axis=0)
        at_all: np.ndarray = np.logical_or.reduce(self._there, axis=2)
        length = ever.shape[1]
        first, stop = ever.argmax(axis=1), length - ever[:, ::-1].argmax(axis=1)
        return np.asarray(at_all[:, :, None] & _between(np.arange(length), first, stop))

    def _make_room(self, plane: PlaneIndex) -> None:
        """Extend the axes, in steps that double them, so that planes that come one by one are not copied each time."""
        lengths = [n if i < n else max(i + 1, 2 * n) for i, n in zip(plane, self._there.shape, strict=True)]
        if tuple(lengths) != self._there.shape:
            places = np.nonzero(self._there)
            there, crc = _zeros(lengths, bool), _zeros(lengths, np.uint32)
            # Nothing else is copied: what is not there takes no memory, however far away a plane is.
            there[places], crc[places] = True, self._crc[places]
            self._there, self._crc = there, crc


def _zeros(shape: Sequence[int], dtype: DTypeLike) -> np.ndarray:
    """Return zeros of which, if they are many, only pages that are written take memory.

    The heap gives such pages only as long as it has none that were used before, and may keep those that are freed.
    """
    size = math.prod(shape) * np.dtype(dtype).itemsize
    if size < _LARGE or not hasattr(mmap, "MAP_ANONYMOUS"):
        return np.zeros(shape, dtype)
    pages = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    return np.frombuffer(pages, dtype).reshape(shape)


def _between(z: np.ndarray, first: np.ndarray, stop: np.ndarray) -> np.ndarray:
    """Of each channel, which planes lie from its first to one before its stop: ``(c, z)``."""
    return (z >= first[:, None]) & (z < stop[:, None])


def _first(flags: np.ndarray, limit: int) -> np.ndarray:
    """Where the first ``limit`` flags are set, looked for block by block: there may be millions, of which few count."""
    found, count = [np.empty(0, np.intp)], 0
    for start in range(0, flags.size, _BLOCK):
        found.append(np.flatnonzero(flags[start : start + _BLOCK]) + start)
        count += found[-1].size
        if count >= limit:
            break
    return np.concatenate(found)[:limit]
