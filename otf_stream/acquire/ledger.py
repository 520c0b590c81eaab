"""Which planes of an acquisition there are, each with its checksum.

Both ends of the wire keep one, the publisher of what it was given, the listener of what is durable. Arrays
instead of dictionaries of tuples, because a time-lapse of days has millions of planes; their pages take memory only
once they are written.
"""

from __future__ import annotations

import numpy as np

from otf_stream.acquisition import PlaneIndex, Sizes


class Ledger:
    """The planes of one acquisition that are there.

    Parameters
    ----------
    sizes
        Of the acquisition.
    """

    def __init__(self, sizes: Sizes) -> None:
        self._there = np.zeros(sizes.shape[:3], bool)
        self._crc = np.zeros(sizes.shape[:3], np.uint32)
        self.count = 0
        """How many planes there are."""

    @property
    def missing_count(self) -> int:
        """How many planes of the announced ones there are not."""
        return self._there.size - self.count

    def record(self, plane: PlaneIndex, crc: int) -> None:
        """Note that ``plane`` is there; the first note stands."""
        if not self._there[plane]:
            self._there[plane] = True
            self._crc[plane] = crc
            self.count += 1

    def crc(self, plane: PlaneIndex) -> int | None:
        """CRC-32 of ``plane``; None if it is not there."""
        return int(self._crc[plane]) if self._there[plane] else None

    def runs(self, limit: int) -> list[tuple[int, int, int, int]]:
        """List the planes that are there as runs ``(t, c, z0, z1)``, without ``z1``; at most ``limit`` of them."""
        steps = np.diff(self._there.view(np.int8), axis=2, prepend=np.int8(0), append=np.int8(0))
        starts = np.argwhere(steps == 1)[:limit].tolist()
        stops = np.argwhere(steps == -1)[:limit, 2].tolist()
        return [(t, c, z0, z1) for (t, c, z0), z1 in zip(starts, stops, strict=True)]

    def missing(self, limit: int) -> list[PlaneIndex]:
        """List the first planes, at most ``limit``, that are not there."""
        found: list[PlaneIndex] = []
        for t, there in enumerate(self._there):
            found += [(t, c, z) for c, z in np.argwhere(~there)[: limit - len(found)].tolist()]
            if len(found) == limit:
                break
        return found
