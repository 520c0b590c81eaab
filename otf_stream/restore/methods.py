"""The ways to restore: linear interpolation, Richardson–Lucy, and the deblurring network.

All see a stack as planes at known positions on the isotropic grid. A plane that never came is a position that is not
there: every method then spans the gap from its neighbours.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from otf_stream.learn.compute import Compute
from otf_stream.learn.denoise import Denoiser
from otf_stream.learn.folding import folded
from otf_stream.learn.nafnet import NAFNet
from otf_stream.learn.slices import shown
from otf_stream.learn.training import apply_network
from otf_stream.optics.deconvolution import deconvolved
from otf_stream.optics.forward import imaging_matrix, interpolation_matrix
from otf_stream.optics.haze import spread
from otf_stream.restore.regions import Method, Region

# Activations of so many pixels stay in the cache of a CPU core.
_SLICE_PIXELS = 2**17


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
        Maps raw planes ``(z, y, x)``, counts, and the region that they are of, halo included, to denoised ones.
    reach
        Lateral pixels around a pixel that its value depends on.
    multiple
        Regions are to begin at multiples of so many pixels.
    """

    clean: Callable[[Tensor, Region], Tensor]
    reach: int
    multiple: int


def denoising(denoiser: Denoiser) -> Cleaner:
    """Denoise planes when they are needed."""
    return Cleaner(lambda raw, region: denoiser(raw), denoiser.reach, denoiser.network.multiple)


def interpolate(grid: Grid) -> Method:
    """Linear interpolation along z."""
    return Method("interpolate", 0, lambda raw, region: interpolated(grid, raw))


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

    def restore(raw: Tensor, region: Region) -> Tensor:
        return _deconvolve(grid, kernel, raw - background) + background

    return Method("richardson-lucy", 0, restore)


def clean_richardson_lucy(grid: Grid, cleaner: Cleaner, field: HazeField, kernel: Tensor, background: float) -> Method:
    """Denoise the planes, free them of haze, and deconvolve along z; parameters as elsewhere here."""

    def restore(raw: Tensor, region: Region) -> Tensor:
        light = field.removed(cleaner.clean(raw, region) - background, region.halo_y, region.halo_x)
        return _deconvolve(grid, kernel, light) + background

    halo = -(-cleaner.reach // cleaner.multiple) * cleaner.multiple
    return Method("richardson-lucy", halo, restore)


def _deconvolve(grid: Grid, kernel: Tensor, light: Tensor) -> Tensor:
    """Deconvolve planes ``(z, y, x)``, counts above the background, to voxels ``(z', y, x)``."""
    device = light.device
    voxels = deconvolved(grid.imaging(kernel, device), grid.interpolation(device), light.flatten(1))
    return voxels.view(grid.depth, *light.shape[1:])


class TooSlowError(RuntimeError):
    """Restoring was given up because it would not have ended in time."""


@dataclass(frozen=True)
class Pace:
    """Decides, as a region is deblurred, how far to go.

    Parameters
    ----------
    directions
        Given the seconds that XZ slices took, and the region: whether YZ slices go through the network too (2), or XZ
        slices alone do (1).
    goes_on
        Given the direction, the seconds that it has taken, the share of it that is done, and the region: whether to go
        on.
    """

    directions: Callable[[float, Region], int] = lambda seconds, region: 2
    goes_on: Callable[[int, float, float, Region], bool] = lambda direction, seconds, share, region: True


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
        Decides how far to go; restoring raises :class:`TooSlowError` where that is not as far as all XZ slices.
    """
    ready = folded(network)

    def restore(raw: Tensor, region: Region) -> Tensor:
        matrices = grid.imaging(kernel, raw.device), grid.interpolation(raw.device)
        light = field.removed(cleaner.clean(raw, region) - origin, region.halo_y, region.halo_x) / scale
        begun, through = time.perf_counter(), 1

        def goes_on(share: float) -> bool:
            return pace.goes_on(through, time.perf_counter() - begun, share, region)

        volume = _through(ready, compute, *matrices, light, goes_on)
        if volume is None:
            raise TooSlowError("XZ slices would not have gone through the network in time")
        if pace.directions(time.perf_counter() - begun, region) == 2:
            begun, through = time.perf_counter(), 2
            # Turned, the YZ slices of a stack are the XZ slices of its mirror image.
            turned = _through(ready, compute, *matrices, light.transpose(1, 2), goes_on)
            volume = volume if turned is None else volume.add_(turned.transpose(1, 2)).div_(2)
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
    goes_on: Callable[[float], bool],
) -> Tensor | None:
    """Restore the slices of ``light``, ``(z, slices, width)``, into ``(z', slices, width)``; None if it was given up.

    ``goes_on`` is told the share that is done.
    """
    _, slices, width = light.shape
    depth = len(interpolation)
    volume = light.new_empty(depth, slices, width)
    batch = slices_at_once(depth, width)

    def restore(start: int) -> int:
        sections = shown(imaging, interpolation, light[:, start : start + batch].transpose(0, 1))
        volume[:, start : start + batch] = apply_network(network, sections, compute)[:, 0].transpose(0, 1)
        return min(start + batch, slices)

    return volume if all(goes_on(end / slices) for end in compute.map(restore, range(0, slices, batch))) else None


def _along_z(matrix: Tensor, volume: Tensor) -> Tensor:
    depth = volume.shape[0]
    return (matrix @ volume.reshape(depth, -1)).reshape(-1, *volume.shape[1:])
