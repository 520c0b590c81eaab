"""Haze rehearsed: how wrong it is computed, found out on a sample of which it is known.

Where a microscope has a missing cone, planes do not tell at which depth broad structure lies: a sample smeared along z
explains them as well. Its haze is another one, and what is left of planes when it is subtracted is wrong by up to the
contrast of the sample itself. The true error nobody knows, but what it looks like can be seen: the stack is laid on its
side, so that a lateral axis, along which it is known sharply, plays z. This sample is imaged, the haze in its planes is
computed as that of the stack was, and held against what was put in. A lateral plane of the stack is an axial slice
there, and so has an error that belongs to it, which it can be shown with to a network (:mod:`otf_stream.learn.pairs`).
"""

from __future__ import annotations

import torch
from torch import Tensor

from otf_stream.optics.forward import imaging_matrix, interpolation_matrix
from otf_stream.optics.haze import CoarseGrid, estimated
from otf_stream.optics.psf import SplitPsf

_FAINTEST = 1e-6


def haze_errors(planes: Tensor, positions: Tensor, psf: SplitPsf, anisotropy: float, *, binning: int) -> Tensor:
    """Return by how much haze is overestimated where a lateral axis of a stack plays z.

    Parameters
    ----------
    planes
        Binned planes ``(z, y, x)``, float32, free of haze, as bright as they were with it.
    positions
        Where they lie along z, ``(z,)``, in lateral pixels, ascending.
    psf
        Of the microscope.
    anisotropy
        The z step in lateral pixels.
    binning
        Pixels that were averaged along y and x.

    Returns
    -------
    Tensor
        ``(2, z, y, x)``, on the bins of ``planes``, in their unit: first with y playing z, then with x. It varies
        slowly along that axis, so that planes may be sampled from it anywhere.
    """
    length = int(float(positions[-1] - positions[0]) / binning) + 1
    along_z = (positions - positions[0]) / binning
    sample = _along_first(interpolation_matrix(length, along_z), planes).clamp_(min=0)
    # The axis that plays z comes first, the old z last, which is but one of the lateral axes there.
    laid = (sample.permute(1, 2, 0), sample.permute(2, 1, 0))
    wrong = [_rehearsed(on_its_side, psf, anisotropy, binning) for on_its_side in laid]
    back = _read(length, along_z)
    return torch.stack([_along_first(back, wrong[0].permute(2, 0, 1)), _along_first(back, wrong[1].permute(2, 1, 0))])


def _rehearsed(sample: Tensor, psf: SplitPsf, anisotropy: float, binning: int) -> Tensor:
    """Return by how much the haze in planes of a sample, cubes of ``binning`` pixels, is overestimated, on its grid."""
    pixels = torch.arange(len(sample), device=sample.device) * float(binning)
    count = int(float(pixels[-1]) / anisotropy) + 1
    grid = CoarseGrid.around((count, *sample.shape[1:]), psf, anisotropy, binning, sample.device)
    depth = grid.inner[0].stop - grid.inner[0].start
    voxels = torch.arange(depth, device=sample.device) * (anisotropy / grid.between)
    filled = _along_first(_read(len(sample), voxels / binning), sample)
    for axis, (inner, length) in enumerate(zip(grid.inner, grid.domain, strict=True)):
        filled = _mirrored(filled, axis, inner.start, length)
    whole, tail = grid.optics(grid.whole), grid.optics(grid.tail)
    light, true = whole.imaged(filled), tail.imaged(filled)
    missed = tail.imaged(estimated(light.clamp_(min=_FAINTEST), whole)).sub_(true)
    return _along_first(_read(count, pixels / anisotropy), missed)


def _mirrored(sample: Tensor, axis: int, before: int, length: int) -> Tensor:
    """Continue a sample along an axis as its mirror image: ``before`` voxels before it, ``length`` in all."""
    there = sample.shape[axis]
    period = max(2 * there - 2, 1)
    place = (torch.arange(length, device=sample.device) - before).remainder(period)
    return sample.index_select(axis, torch.minimum(place, period - place).clamp(0, there - 1))


def _read(length: int, places: Tensor) -> Tensor:
    """Matrix ``(places, length)`` that reads a line between its voxels, linearly; beyond its ends, its ends."""
    return imaging_matrix(length, places.clamp(0, length - 1), torch.ones(1, device=places.device))


def _along_first(matrix: Tensor, volume: Tensor) -> Tensor:
    return (matrix @ volume.reshape(len(volume), -1)).view(-1, *volume.shape[1:])
