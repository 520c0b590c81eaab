"""The classical ways to restore, linear interpolation and Richardson–Lucy, and what every way knows of a stack.

All see a stack as planes at known positions on the isotropic grid. A plane that never came is a position that is not
there: every method then spans the gap from its neighbours.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from otf_stream.learn.denoise import Denoiser
from otf_stream.optics.deconvolution import deconvolved
from otf_stream.optics.forward import along_z, imaging_matrix, interpolation_matrix
from otf_stream.optics.haze import HazeField
from otf_stream.restore.regions import Method, Region
from otf_stream.restore.turns import Turn, Work

_DENOISED = 2**18  # pixels, in one turn
_DECONVOLVED = 2**19  # voxels, in one turn
_SAME = 1e-6  # voxels between a plane and a voxel that lie at the same place


@dataclass(frozen=True)
class Grid:
    """Where a stack's planes lie, and how deep its isotropic grid is.

    Parameters
    ----------
    planes
        Index of every plane that is there, ascending.
    anisotropy
        The z step in lateral pixels.
    depth
        Isotropic voxels along z.
    start
        Where the first of them lies on the isotropic grid, which begins at plane 0.
    """

    planes: Sequence[int]
    anisotropy: float
    depth: int
    start: int = 0

    def padding(self, depth: int) -> tuple[int, int]:
        """How many voxels of an image of ``depth`` lie before and after the grid, where the channel has no planes."""
        return self.start, depth - self.start - self.depth

    def positions(self, device: torch.device) -> Tensor:
        """Where the planes lie, in isotropic voxels from the first: ``(planes,)``, float32."""
        places = [k * self.anisotropy - self.start for k in self.planes]
        return torch.tensor(places, dtype=torch.float32, device=device)

    def interpolation(self, device: torch.device) -> Tensor:
        """Matrix ``(z', z)`` of linear interpolation."""
        return interpolation_matrix(self.depth, self.positions(device))

    def imaging(self, kernel: Tensor, device: torch.device) -> Tensor:
        """Matrix ``(z, z')`` of the axial blur, by ``kernel`` in voxels, and the sampling."""
        return imaging_matrix(self.depth, self.positions(device), kernel.to(device))

    def part(self, first: int, last: int, multiple: int) -> tuple[slice, Grid]:
        """Return which planes tell of the voxels from ``first`` to ``last``, and the grid between those.

        All voxels are counted as those of this grid are. The part begins at a ``multiple`` of them before its first
        plane, and ends at its last one, or where the grid does.
        """
        places = [k * self.anisotropy - self.start for k in self.planes]
        before = [i for i, place in enumerate(places) if 0 <= place <= first]
        after = [i for i, place in enumerate(places) if place >= last]
        one, other = (before[-1] if before else 0), (after[0] if after else len(places) - 1)
        start = int(places[one]) // multiple * multiple if before else 0
        stop = math.floor(places[other] + _SAME) + 1 if after else self.depth
        inner = slice(one, other + 1)
        return inner, Grid(self.planes[inner], self.anisotropy, stop - start, self.start + start)


Light = Callable[[Sequence[int], slice, slice], Tensor]
"""Reads a rectangle, rows and columns, of some planes without noise: ``(z, y, x)``, light in counts."""


@dataclass(frozen=True)
class CleanPlanes:
    """Planes without noise, and all that is known of how they came about.

    Parameters
    ----------
    grid
        Where they lie.
    light
        Reads them.
    field
        The haze in them.
    kernel
        Of the axial blur, ``(odd,)``, in voxels.
    origin
        Counts without light.
    scale
        Counts, haze left out, of the brightest thousandth.
    """

    grid: Grid
    light: Light
    field: HazeField
    kernel: Tensor
    origin: float
    scale: float

    def free(self, y: slice, x: slice) -> Tensor:
        """Read a rectangle without haze: ``(z, y, x)``, light in counts."""
        return self.field.removed(self.light(self.grid.planes, y, x), y, x)

    def part(self, first: int, last: int, multiple: int) -> CleanPlanes:
        """Return those that tell of the voxels from ``first`` to ``last``; see :meth:`Grid.part`."""
        planes, grid = self.grid.part(first, last, multiple)
        return replace(self, grid=grid, field=replace(self.field, coarse=self.field.coarse[planes]))

    def matrices(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Return the matrices of imaging and of interpolation."""
        return self.grid.imaging(self.kernel, device), self.grid.interpolation(device)


def denoised(denoiser: Denoiser, planes: Tensor, wanted: slice = slice(None)) -> Work[Tensor]:
    """Denoise the ``wanted`` ones of planes ``(n, y, x)``, counts, in the order in which they lie, by turns."""
    clean = planes.new_empty(len(range(len(planes))[wanted]), *planes.shape[1:], device=denoiser.compute.device)
    while True:
        pixels = 0
        try:
            for some, y, x, tiles in denoiser.parts(planes, wanted):
                clean[some, y, x] = tiles
                pixels += tiles.numel()
                if pixels >= _DENOISED:
                    pixels = 0
                    yield Turn.READY
            break
        except (RuntimeError, MemoryError) as error:
            denoiser = replace(denoiser, compute=denoiser.compute.with_smaller_images(error))
    yield Turn.READY
    return clean


def interpolate(grid: Grid) -> Method:
    """Linear interpolation along z."""

    def restore(raw: Tensor, region: Region) -> Work[Tensor]:
        yield Turn.READY
        return interpolated(grid, raw)

    return Method("interpolate", restore)


def interpolated(grid: Grid, planes: Tensor) -> Tensor:
    """Interpolate planes ``(z, y, x)`` linearly to voxels ``(z', y, x)``."""
    return along_z(grid.interpolation(planes.device), planes)


def richardson_lucy(grid: Grid, kernel: Tensor, background: float) -> Method:
    """Deconvolve along z.

    Parameters
    ----------
    kernel
        Of the axial blur, ``(odd,)``, in voxels.
    background
        Counts without light, left out of the deconvolution.
    """

    def restore(raw: Tensor, region: Region) -> Work[Tensor]:
        volume = yield from _deconvolve(grid, kernel, raw - background)
        return volume.add_(background)

    return Method("richardson-lucy", restore)


def clean_richardson_lucy(planes: CleanPlanes) -> Method:
    """Deconvolve planes without noise along z."""

    def restore(raw: Tensor, region: Region) -> Work[Tensor]:
        volume = yield from _deconvolve(planes.grid, planes.kernel, planes.free(*region))
        return volume.add_(planes.origin)

    return Method("richardson-lucy", restore)


def _deconvolve(grid: Grid, kernel: Tensor, light: Tensor) -> Work[Tensor]:
    """Deconvolve planes ``(z, y, x)``, counts above the background, to voxels ``(z', y, x)``, some rows a turn."""
    _, height, width = light.shape
    matrices = grid.imaging(kernel, light.device), grid.interpolation(light.device)
    volume = light.new_empty(grid.depth, height, width)
    rows = max(_DECONVOLVED // (grid.depth * width), 1)
    for top in range(0, height, rows):
        strip = light[:, top : top + rows]
        volume[:, top : top + rows] = deconvolved(*matrices, strip.flatten(1)).view(grid.depth, *strip.shape[1:])
        yield Turn.READY
    return volume
