"""How a microscope turns a sample into planes, and the interpolation that undoes the sampling only.

Blurring along z, sampling plane ``k`` at ``z = k·dz`` and interpolating back are all linear along one axis, so
each is a small matrix: exact at any ratio of z step to pixel, and one batched product on any device. Positions
are in isotropic voxels; ``anisotropy`` is the z step in that unit.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def plane_positions(planes: int, anisotropy: float, device: torch.device | None = None) -> Tensor:
    """Where planes lie on the isotropic grid: ``k·anisotropy``, shape ``(planes,)``, float32."""
    return torch.arange(planes, dtype=torch.float64, device=device).mul(anisotropy).float()


def imaging_matrix(
    length: int, positions: Tensor, kernel: Tensor, below: Tensor | None = None, above: Tensor | None = None
) -> Tensor:
    """Blur along one axis and sample, in one matrix.

    Parameters
    ----------
    length
        Voxels of the isotropic line.
    positions
        Where the planes lie, ``(..., planes)``, in voxels.
    kernel
        Image of a point, ``(odd,)``, in voxels.
    below, above
        How many times as wide its two sides are, ``(...)``; 1 if None.

    Returns
    -------
    Tensor
        ``(..., planes, length)``. Each row sums to one; at the ends of the line the kernel is cut and renormalised,
        which keeps the flux of a flat sample.
    """
    voxels = torch.arange(length, dtype=positions.dtype, device=positions.device)
    distance = positions[..., None] - voxels
    for width, side in ((below, distance < 0), (above, distance > 0)):
        if width is not None:
            distance = torch.where(side, distance / width[..., None, None], distance)
    middle = len(kernel) // 2
    at = distance + middle
    inside = (at > -1) & (at < len(kernel))
    # Beyond its ends a kernel falls to nothing within a voxel, so that no plane between two voxels is left without.
    padded = torch.cat([kernel.new_zeros(1), kernel, kernel.new_zeros(2)]).to(positions)
    at = (at + 1).clamp(0, len(kernel) + 1)
    first = at.floor().long()
    fraction = at - first
    weight = torch.where(inside, padded[first] * (1 - fraction) + padded[first + 1] * fraction, 0.0)
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


def reading_matrix(length: int, places: Tensor) -> Tensor:
    """Matrix ``(places, length)`` that reads a line between its voxels, linearly; beyond its ends, its ends."""
    return imaging_matrix(length, places.clamp(0, length - 1), torch.ones(1, device=places.device))


def along_z(matrix: Tensor, volume: Tensor) -> Tensor:
    """Apply a matrix ``(z', z)`` along the first axis of a volume ``(z, y, x)``: ``(z', y, x)``."""
    return (matrix @ volume.reshape(len(volume), -1)).reshape(-1, *volume.shape[1:])


def mirrored(places: Tensor, length: int) -> Tensor:
    """Return where whole ``places`` on a line of ``length`` voxels lie, if beyond its ends its mirror image goes on."""
    period = max(2 * length - 2, 1)
    within = places.remainder(period)
    return torch.minimum(within, period - within).clamp(max=length - 1)


def convolved(sample: Tensor, psf: Tensor) -> Tensor:
    """Blur in three dimensions.

    Parameters
    ----------
    sample
        ``(z, y, x)``, float32. Beyond its ends it is taken to continue as its mirror image.
    psf
        ``(z, y, x)``, float32, odd sides.

    Returns
    -------
    Tensor
        Of the shape of ``sample``.
    """
    margins = [min(n // 2, length - 1) for n, length in zip(psf.shape, sample.shape, strict=True)]
    padding = [margin for margin in reversed(margins) for _ in range(2)]
    padded = functional.pad(sample[None, None], padding, mode="reflect")[0, 0]
    domain = [fast_length(n + m) for n, m in zip(padded.shape, psf.shape, strict=True)]
    blurred = torch.fft.irfftn(torch.fft.rfftn(padded, domain) * torch.fft.rfftn(psf, domain), domain)
    inner = [
        slice(margin + n // 2, margin + n // 2 + length)
        for margin, n, length in zip(margins, psf.shape, sample.shape, strict=True)
    ]
    image: Tensor = blurred[tuple(inner)]
    return image


def fast_length(length: int) -> int:
    """Return the next length whose only prime factors are 2, 3 and 5: what a Fourier transform is fast at."""
    while True:
        rest = length
        for factor in (2, 3, 5):
            while rest % factor == 0:
                rest //= factor
        if rest == 1:
            return length
        length += 1
