"""How a microscope turns an isotropic line into planes, and the interpolation that undoes the sampling only.

Blurring along z, sampling plane ``k`` at ``z = k·dz`` and interpolating back are all linear along one axis, so
each is a small matrix: exact at any ratio of z step to pixel, and one batched product on any device. Positions
are in isotropic voxels; ``anisotropy`` is the z step in that unit.
"""

from __future__ import annotations

import torch
from torch import Tensor


def plane_positions(planes: int, anisotropy: float, device: torch.device | None = None) -> Tensor:
    """Where planes lie on the isotropic grid: ``k·anisotropy``, shape ``(planes,)``, float32."""
    return torch.arange(planes, dtype=torch.float64, device=device).mul(anisotropy).float()


def imaging_matrix(length: int, positions: Tensor, sigma: Tensor) -> Tensor:
    """Blur with a Gaussian and sample, in one matrix.

    Parameters
    ----------
    length
        Voxels of the isotropic line.
    positions
        Where the planes lie, ``(..., planes)``, in voxels.
    sigma
        Standard deviation of the Gaussian, in voxels, ``(...)``.

    Returns
    -------
    Tensor
        ``(..., planes, length)``. Each row sums to one; at the ends of the line the Gaussian is cut and
        renormalised, which keeps the flux of a flat sample.
    """
    voxels = torch.arange(length, dtype=positions.dtype, device=positions.device)
    distance = voxels - positions[..., None]
    # Narrower than 0.3 voxels a sampled Gaussian is no longer one; that is also sharper than any pixel.
    width = sigma.clamp(min=0.3)[..., None, None]
    weight = torch.exp(-0.5 * (distance / width) ** 2)
    return weight / weight.sum(-1, keepdim=True).clamp(min=1e-12)


def interpolation_matrix(length: int, positions: Tensor) -> Tensor:
    """Linear interpolation from planes to the voxels ``0 … length − 1``.

    Parameters
    ----------
    length
        Voxels of the isotropic line.
    positions
        Where the planes lie, ``(..., planes)``, in voxels, ascending.

    Returns
    -------
    Tensor
        ``(..., length, planes)``. Each row sums to one; voxels outside the planes take the nearest plane.
    """
    planes = positions.shape[-1]
    voxels = torch.arange(length, dtype=positions.dtype, device=positions.device)
    voxels = voxels.expand(*positions.shape[:-1], length).contiguous()
    if planes == 1:
        return torch.ones(*positions.shape[:-1], length, 1, dtype=positions.dtype, device=positions.device)
    upper = torch.searchsorted(positions.contiguous(), voxels, right=True).clamp(1, planes - 1)
    below, above = positions.gather(-1, upper - 1), positions.gather(-1, upper)
    fraction = ((voxels - below) / (above - below)).clamp(0, 1)
    matrix = torch.zeros(*voxels.shape, planes, dtype=positions.dtype, device=positions.device)
    matrix.scatter_(-1, (upper - 1)[..., None], (1 - fraction)[..., None])
    matrix.scatter_(-1, upper[..., None], fraction[..., None])
    return matrix
