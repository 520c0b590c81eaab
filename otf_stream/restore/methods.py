"""The ways to restore: linear interpolation, Richardson–Lucy, and the deblurring network.

All see a stack as planes at known positions on the isotropic grid. A plane that never came is a position that is not
there: every method then spans the gap from its neighbours.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from otf_stream.learn.compute import Compute
from otf_stream.learn.denoise import NEIGHBOURS, Denoiser
from otf_stream.learn.folding import folded
from otf_stream.learn.nafnet import NAFNet
from otf_stream.learn.slices import shown
from otf_stream.learn.training import apply_network
from otf_stream.optics.deconvolution import deconvolved
from otf_stream.optics.forward import imaging_matrix, interpolation_matrix
from otf_stream.optics.haze import spread
from otf_stream.restore.regions import Method, Region
from otf_stream.restore.turns import OutOfTimeError, Turn, Work

# Activations of so many pixels stay in the cache of a CPU core.
_SLICE_PIXELS = 2**17
_PLANES = 4  # denoised in one turn
_DECONVOLVED = 2**19  # voxels, in one turn


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


@dataclass(frozen=True)
class HazeField:
    """The haze of a stack, computed once for all of it.

    Parameters
    ----------
    coarse
        Counts in each bin of each plane that is there, ``(z, y, x)``.
    binning
        Pixels a bin.
    core_share
        What planes are divided by once they are freed of haze, to be as bright as they were.
    """

    coarse: Tensor
    binning: int
    core_share: float

    def removed(self, light: Tensor, y: slice, x: slice) -> Tensor:
        """Free planes ``(z, y, x)``, counts above the background, of haze; ``y`` and ``x`` say where they lie."""
        return (light - spread(self.coarse, self.binning, y, x).to(light.device)) / self.core_share

    def added(self, light: Tensor, y: slice, x: slice) -> Tensor:
        """Undo :meth:`removed`."""
        return light * self.core_share + spread(self.coarse, self.binning, y, x).to(light.device)


@dataclass(frozen=True)
class Cleaner:
    """A way to come by planes without noise: by denoising them, or by having kept them.

    Parameters
    ----------
    clean
        Maps raw planes ``(z, y, x)``, counts, and the region that they are of, halo included, to denoised ones, by
        turns.
    reach
        Lateral pixels around a pixel that its value depends on.
    multiple
        Regions are to begin at multiples of so many pixels.
    """

    clean: Callable[[Tensor, Region], Work[Tensor]]
    reach: int
    multiple: int


def denoising(denoiser: Denoiser) -> Cleaner:
    """Denoise planes when they are needed."""
    return Cleaner(lambda raw, region: denoised(denoiser, raw), denoiser.reach, denoiser.network.multiple)


def denoised(denoiser: Denoiser, planes: Tensor) -> Work[Tensor]:
    """Denoise planes ``(n, y, x)``, counts, in the order in which they lie, a few a turn."""
    parts = []
    for start in range(0, len(planes), _PLANES):
        before = min(start, NEIGHBOURS)
        window = planes[start - before : start + _PLANES + NEIGHBOURS]
        parts.append(denoiser(window, slice(before, before + _PLANES)))
        yield Turn.READY
    return torch.cat(parts)


def interpolate(grid: Grid) -> Method:
    """Linear interpolation along z."""

    def restore(raw: Tensor, region: Region) -> Work[Tensor]:
        yield Turn.READY
        return interpolated(grid, raw)

    return Method("interpolate", 0, restore)


def interpolated(grid: Grid, planes: Tensor) -> Tensor:
    """Interpolate planes ``(z, y, x)`` linearly to voxels ``(z', y, x)``."""
    return _along_z(grid.interpolation(planes.device), planes)


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

    return Method("richardson-lucy", 0, restore)


def clean_richardson_lucy(grid: Grid, cleaner: Cleaner, field: HazeField, kernel: Tensor, background: float) -> Method:
    """Denoise the planes, free them of haze, and deconvolve along z; parameters as elsewhere here."""

    def restore(raw: Tensor, region: Region) -> Work[Tensor]:
        clean = yield from cleaner.clean(raw, region)
        light = field.removed(clean - background, region.halo_y, region.halo_x)
        volume = yield from _deconvolve(grid, kernel, light)
        return volume.add_(background)

    halo = -(-cleaner.reach // cleaner.multiple) * cleaner.multiple
    return Method("richardson-lucy", halo, restore)


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


@dataclass(frozen=True)
class Pace:
    """Is told how far deblurring a region is, and decides how far it goes.

    Parameters
    ----------
    passed
        Given the direction, the share of its slices that have gone through the network, from 0 on, and the region.
    directions
        Given the region, once XZ slices are through: whether YZ slices go through the network too (2), or not (1).
    """

    passed: Callable[[int, float, Region], None] = lambda direction, share, region: None
    directions: Callable[[Region], int] = lambda region: 2


UNHURRIED = Pace()


def deblur(
    grid: Grid,
    cleaner: Cleaner,
    field: HazeField,
    kernel: Tensor,
    network: NAFNet,
    compute: Compute,
    *,
    origin: float,
    scale: float,
    pace: Pace = UNHURRIED,
) -> Method:
    """Denoise the planes, free them of haze, run every XZ and every YZ slice through the network, and average the two.

    Parameters
    ----------
    cleaner
        Of lateral planes.
    field
        The haze of the whole stack.
    kernel
        Of the axial blur, ``(odd,)``, in voxels.
    network
        Ready for inference.
    compute
        Where it runs.
    origin, scale
        The network sees ``(counts − origin) / scale`` of planes without haze.
    pace
        Decides how far to go. Where YZ slices run out of time, those of XZ do, if the region is the whole field of
        view: regions of one direction beside regions of two would show seams.
    """
    ready = folded(network)

    def restore(raw: Tensor, region: Region) -> Work[Tensor]:
        matrices = grid.imaging(kernel, raw.device), grid.interpolation(raw.device)
        clean = yield from cleaner.clean(raw, region)
        light = field.removed(clean - origin, region.halo_y, region.halo_x) / scale
        del clean

        def through(direction: int, light: Tensor) -> Work[Tensor]:
            return _through(ready, compute, *matrices, light, lambda share: pace.passed(direction, share, region))

        volume = yield from through(1, light)
        if pace.directions(region) == 2:
            try:
                # Turned, the YZ slices of a stack are the XZ slices of its mirror image.
                turned = yield from through(2, light.transpose(1, 2))
                volume.add_(turned.transpose(1, 2)).div_(2)
            except OutOfTimeError:
                if not region.is_whole:
                    raise
        return volume.mul_(scale).add_(origin)

    # Tiles are cut where the coarsest level of the networks has its pixels, or that level would see another grid.
    multiple = max(network.multiple, cleaner.multiple)
    halo = -(-(network.reach + cleaner.reach) // multiple) * multiple
    return Method("network", halo, restore)


def slices_at_once(depth: int, width: int) -> int:
    """How many slices of ``depth × width`` pixels go through a network together."""
    edge = 16  # what is mirrored around a slice counts as well
    return max(_SLICE_PIXELS // ((depth + edge) * (width + edge)), 1)


def _through(
    network: NAFNet,
    compute: Compute,
    imaging: Tensor,
    interpolation: Tensor,
    light: Tensor,
    passed: Callable[[float], None],
) -> Work[Tensor]:
    """Restore the slices of ``light``, ``(z, slices, width)``, into ``(z', slices, width)``, a few a turn.

    ``passed`` is told the share that is done.
    """
    _, slices, width = light.shape
    depth = len(interpolation)
    volume = light.new_empty(depth, slices, width)
    batch = slices_at_once(depth, width)

    def restore(start: int) -> int:
        sections = shown(imaging, interpolation, light[:, start : start + batch].transpose(0, 1))
        volume[:, start : start + batch] = apply_network(network, sections, compute)[:, 0].transpose(0, 1)
        return min(start + batch, slices)

    passed(0.0)
    for end in compute.map(restore, range(0, slices, batch)):
        passed(end / slices)
        if end < slices:
            yield Turn.READY
    return volume


def _along_z(matrix: Tensor, volume: Tensor) -> Tensor:
    depth = volume.shape[0]
    return (matrix @ volume.reshape(depth, -1)).reshape(-1, *volume.shape[1:])
