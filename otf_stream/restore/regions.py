"""Restoring by regions: columns of the volume, each with the halo its method needs.

A region spans all of z and a rectangle of y and x. A method maps the raw planes of a region, halo included, to its
isotropic voxels, and knows neither the store nor the other regions; so regions run one after another on one device
or side by side on many, and no volume has to fit in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from torch import Tensor

from otf_stream.restore.turns import Work

_VOXELS = 96 * 2**20


@dataclass(frozen=True)
class Region:
    """A rectangle of the lateral field of view, with its halo inside the field of view."""

    y: slice
    x: slice
    halo_y: slice
    halo_x: slice

    @property
    def inner(self) -> tuple[slice, slice]:
        """Where the region lies within itself and its halo."""
        return _within(self.y, self.halo_y), _within(self.x, self.halo_x)

    @property
    def is_whole(self) -> bool:
        """Whether the region is all of the field of view; every other has a halo on some side."""
        return (self.y, self.x) == (self.halo_y, self.halo_x)


@dataclass(frozen=True)
class Method:
    """A way to restore.

    Parameters
    ----------
    name
        As in the provenance.
    halo
        Lateral pixels around a region that its voxels depend on.
    restore
        Maps raw planes ``(z, y, x)``, float32 counts, and the region that they are of, to isotropic voxels
        ``(z', y, x)``, float32 counts, by turns. Both include the halo.
    """

    name: str
    halo: int
    restore: Callable[[Tensor, Region], Work[Tensor]]


def split_into_regions(depth: int, height: int, width: int, *, block: int, halo: int) -> Iterator[Region]:
    """Cut a field of view into regions aligned to the store's blocks, as large as memory allows.

    Parameters
    ----------
    depth
        Isotropic voxels along z.
    height, width
        Pixels along y and x.
    block
        Lateral side of the blocks that the store writes whole. Regions are multiples of it.
    halo
        Lateral pixels that the method needs around a region.
    """
    side = block
    while depth * (2 * side + 2 * halo) ** 2 <= _VOXELS and side < max(height, width):
        side *= 2
    for top in range(0, height, side):
        for left in range(0, width, side):
            y, x = slice(top, min(top + side, height)), slice(left, min(left + side, width))
            yield Region(y, x, _grown(y, halo, height), _grown(x, halo, width))


def split_further(region: Region, height: int, width: int, *, block: int, halo: int) -> list[Region]:
    """Cut a region into halves along each side that is longer than a block; the region itself where there is none.

    Parameters
    ----------
    region
        Aligned to the blocks.
    height, width, block, halo
        As of :func:`split_into_regions`.
    """
    return [
        Region(y, x, _grown(y, halo, height), _grown(x, halo, width))
        for y in _halves(region.y, block)
        for x in _halves(region.x, block)
    ]


def restore_region(method: Method, region: Region, raw: Tensor) -> Work[Tensor]:
    """Restore one region, by turns.

    Parameters
    ----------
    method
        The way to restore.
    region
        The region.
    raw
        Its planes, halo included: ``(z, y, x)``, float32 counts.

    Returns
    -------
    Tensor
        ``(z', y, x)`` without the halo, float32 counts.
    """
    y, x = region.inner
    volume = yield from method.restore(raw, region)
    return volume[:, y, x]


def _halves(side: slice, block: int) -> list[slice]:
    blocks = -(-(side.stop - side.start) // block)
    if blocks < 2:
        return [side]
    middle = side.start + blocks // 2 * block
    return [slice(side.start, middle), slice(middle, side.stop)]


def _grown(extent: slice, halo: int, limit: int) -> slice:
    return slice(max(extent.start - halo, 0), min(extent.stop + halo, limit))


def _within(inner: slice, outer: slice) -> slice:
    return slice(inner.start - outer.start, inner.stop - outer.start)
