"""Restoring by regions: columns of the volume, each with the halo its method needs.

A region spans all of z and a rectangle of y and x. A method maps the raw planes of a region to its isotropic voxels,
and knows neither the store nor the other regions; so regions run one after another on one device or side by side on
many, and no volume has to fit in memory. What a method needs to know around a region, the halo, it reads itself: an XZ
slice needs pixels before and after it along x, and none along y.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from torch import Tensor

from otf_stream.restore.turns import Work

_VOXELS = 112 * 2**20


@dataclass(frozen=True)
class Region:
    """A rectangle of the lateral field of view, and the whole length that it has there."""

    y: slice
    x: slice
    height: int
    width: int

    @property
    def is_whole(self) -> bool:
        """Whether the region is all of the field of view."""
        return self.share == 1

    @property
    def is_first(self) -> bool:
        """Whether it is the region in the corner, with which restoring begins."""
        corner: bool = self.y.start == self.x.start == 0
        return corner

    @property
    def share(self) -> float:
        """How much of the field of view it is."""
        area: float = (self.y.stop - self.y.start) * (self.x.stop - self.x.start)
        return area / (self.height * self.width)

    def grown(self, *, y: int = 0, x: int = 0) -> Region:
        """Return the region with a halo, as far as the field of view goes."""
        return Region(_grown(self.y, y, self.height), _grown(self.x, x, self.width), self.height, self.width)


@dataclass(frozen=True)
class Method:
    """A way to restore.

    Parameters
    ----------
    name
        As in the provenance.
    restore
        Maps raw planes ``(z, y, x)``, float32 counts, and the region that they are of, to isotropic voxels
        ``(z', y, x)``, float32 counts, by turns.
    """

    name: str
    restore: Callable[[Tensor, Region], Work[Tensor]]


def split_into_regions(depth: int, height: int, width: int, *, block: int) -> Iterator[Region]:
    """Cut a field of view into regions aligned to the store's blocks, as large as memory allows.

    The larger they are, the less is their halo.

    Parameters
    ----------
    depth
        Isotropic voxels along z.
    height, width
        Pixels along y and x.
    block
        Lateral side of the blocks that the store writes whole. Regions are multiples of it.
    """
    side = block
    while depth * (2 * side) ** 2 <= _VOXELS and side < max(height, width):
        side *= 2
    for top in range(0, height, side):
        for left in range(0, width, side):
            y, x = slice(top, min(top + side, height)), slice(left, min(left + side, width))
            yield Region(y, x, height, width)


def split_further(region: Region, *, block: int) -> list[Region]:
    """Cut a region into halves along each side that is longer than a block; the region itself where there is none.

    Parameters
    ----------
    region
        Aligned to the blocks.
    block
        As of :func:`split_into_regions`.
    """
    return [
        Region(y, x, region.height, region.width) for y in _halves(region.y, block) for x in _halves(region.x, block)
    ]


def blocks(region: Region, *, block: int) -> Iterator[Region]:
    """Cut a region into the store's blocks."""
    for top in range(region.y.start, region.y.stop, block):
        for left in range(region.x.start, region.x.stop, block):
            y, x = slice(top, min(top + block, region.y.stop)), slice(left, min(left + block, region.x.stop))
            yield Region(y, x, region.height, region.width)


def _halves(side: slice, block: int) -> list[slice]:
    there = -(-(side.stop - side.start) // block)
    if there < 2:
        return [side]
    middle = side.start + there // 2 * block
    return [slice(side.start, middle), slice(middle, side.stop)]


def _grown(extent: slice, halo: int, limit: int) -> slice:
    return slice(max(extent.start - halo, 0), min(extent.stop + halo, limit))
