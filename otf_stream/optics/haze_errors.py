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

from otf_stream.optics.forward import along_z, interpolation_matrix, mirrored, reading_matrix
from otf_stream.optics.haze import CoarseGrid, haze
from otf_stream.optics.psf import SplitPsf


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
    places = (positions - positions[0]) / binning
    sample = along_z(interpolation_matrix(length, places), planes).clamp_(min=0)
    # The axis that plays z comes first, the old z last, which is but one of the lateral axes there.
    laid = (sample.permute(1, 2, 0), sample.permute(2, 1, 0))
    wrong = [_rehearsed(on_its_side, psf, anisotropy, binning) for on_its_side in laid]
    back = reading_matrix(length, places)
    return torch.stack([along_z(back, wrong[0].permute(2, 0, 1)), along_z(back, wrong[1].permute(2, 1, 0))])


def _rehearsed(sample: Tensor, psf: SplitPsf, anisotropy: float, binning: int) -> Tensor:
    """Return by how much the haze in planes of a sample, cubes of ``binning`` pixels, is overestimated, on its grid."""
    pixels = torch.arange(len(sample), device=sample.device) * float(binning)
    count = int(float(pixels[-1]) / anisotropy) + 1
    grid = CoarseGrid.around((count, *sample.shape[1:]), psf, anisotropy, binning, sample.device)
    depth = grid.inner[0].stop - grid.inner[0].start
    voxels = torch.arange(depth, device=sample.device) * (anisotropy / grid.between)
    filled = along_z(reading_matrix(len(sample), voxels / binning), sample)
    for axis, (inner, length) in enumerate(zip(grid.inner, grid.domain, strict=True)):
        places = torch.arange(length, device=sample.device) - inner.start
        filled = filled.index_select(axis, mirrored(places, filled.shape[axis]))
    light, true = (grid.optics(part).imaged(filled) for part in (grid.whole, grid.tail))
    missed = haze(light, psf, anisotropy, binning=binning).sub_(true)
    return along_z(reading_matrix(count, pixels / anisotropy), missed)
