"""The ways to restore: linear interpolation, Richardson–Lucy, and the deblurring network.

All see a stack as planes at known positions on the isotropic grid. A plane that never came is a position that is not
there: every method then spans the gap from its neighbours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from otf_stream.learn.compute import Compute
from otf_stream.learn.denoise import Denoiser
from otf_stream.learn.nafnet import NAFNet
from otf_stream.learn.training import apply_network
from otf_stream.optics.forward import imaging_matrix, interpolation_matrix
from otf_stream.restore.regions import Method

_ITERATIONS = 20
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
    """

    planes: Sequence[int]
    anisotropy: float
    depth: int

    def positions(self, device: torch.device) -> Tensor:
        """Where the planes lie, in isotropic voxels: ``(planes,)``, float32."""
        return torch.tensor([k * self.anisotropy for k in self.planes], dtype=torch.float32, device=device)

    def interpolation(self, device: torch.device) -> Tensor:
        """Matrix ``(z', z)`` of linear interpolation."""
        return interpolation_matrix(self.depth, self.positions(device))

    def imaging(self, sigma: float, device: torch.device) -> Tensor:
        """Matrix ``(z, z')`` of the axial blur, with standard deviation ``sigma`` in voxels, and the sampling."""
        return imaging_matrix(self.depth, self.positions(device), torch.tensor(sigma, device=device))


def interpolate(grid: Grid) -> Method:
    """Linear interpolation along z."""

    def restore(raw: Tensor) -> Tensor:
        return _along_z(grid.interpolation(raw.device), raw)

    return Method("interpolate", 0, restore)


def richardson_lucy(grid: Grid, sigma: float, background: float) -> Method:
    """Deconvolve along z with a Gaussian.

    Parameters
    ----------
    sigma
        Standard deviation of the axial blur, in voxels.
    background
        Counts without light, left out of the deconvolution.

    References
    ----------
    Richardson 1972; Lucy 1974. Twenty iterations; more amplify noise.
    """

    def restore(raw: Tensor) -> Tensor:
        imaging = grid.imaging(sigma, raw.device)
        light = (raw - background).clamp(min=1e-3)
        estimate = _along_z(grid.interpolation(raw.device), light)
        norm = imaging.sum(0)[:, None, None].clamp(min=1e-6)
        for _ in range(_ITERATIONS):
            ratio = light / _along_z(imaging, estimate).clamp(min=1e-6)
            estimate = estimate * _along_z(imaging.T, ratio) / norm
        return estimate + background

    return Method("richardson-lucy", 0, restore)


def deblur(grid: Grid, denoiser: Denoiser, network: NAFNet, compute: Compute, *, origin: float, scale: float) -> Method:
    """Denoise the planes, run every XZ and every YZ slice through the network, and average the two.

    Parameters
    ----------
    denoiser
        Of lateral planes.
    network
        Ready for inference.
    compute
        Where it runs.
    origin, scale
        The network sees ``(counts − origin) / scale``.
    """

    def restore(raw: Tensor) -> Tensor:
        matrix = grid.interpolation(raw.device)
        light = (denoiser(raw[:, None])[:, 0] - origin) / scale
        volume = _through(network, compute, matrix, light)
        # Turned, the YZ slices of a stack are the XZ slices of its mirror image.
        volume += _through(network, compute, matrix, light.transpose(1, 2)).transpose(1, 2)
        return volume.mul_(0.5 * scale).add_(origin)

    # Tiles are cut where the coarsest level of the network has its pixels, or that level would see another grid.
    halo = -(-(network.reach + denoiser.reach) // network.multiple) * network.multiple
    return Method("network", halo, restore)


def slices_at_once(depth: int, width: int) -> int:
    """How many slices of ``depth × width`` pixels go through a network together."""
    edge = 16  # what is mirrored around a slice counts as well
    return max(_SLICE_PIXELS // ((depth + edge) * (width + edge)), 1)


def _through(network: NAFNet, compute: Compute, matrix: Tensor, light: Tensor) -> Tensor:
    """Restore the slices of ``light``, ``(z, slices, width)``, into ``(z', slices, width)``."""
    _, slices, width = light.shape
    depth = matrix.shape[0]
    volume = light.new_empty(depth, slices, width)
    batch = slices_at_once(depth, width)
    for start in range(0, slices, batch):
        sections = torch.einsum("jk,kyx->yjx", matrix, light[:, start : start + batch])
        volume[:, start : start + batch] = apply_network(network, sections[:, None], compute)[:, 0].transpose(0, 1)
    return volume


def _along_z(matrix: Tensor, volume: Tensor) -> Tensor:
    depth = volume.shape[0]
    return (matrix @ volume.reshape(depth, -1)).reshape(-1, *volume.shape[1:])
