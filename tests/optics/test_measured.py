"""A measured point spread function keeps its shape on another grid; what is none is refused."""

import numpy as np
import pytest
import torch

from otf_stream.acquisition import VoxelSize
from otf_stream.optics.measured import PsfError, focus_sigma, on_grid
from otf_stream.optics.psf import split_psf

STACK = (20.0, 20.0, 20.0)


def bead(shape, voxel, sigma_um, *, shift=(0, 0, 0), background=100.0):
    """A Gaussian bead of ``sigma_um`` (z, lateral) on a background."""
    axes = [(np.arange(n) - n // 2 - s) * v for n, v, s in zip(shape, (voxel.z, voxel.y, voxel.x), shift, strict=True)]
    widths = (sigma_um[0], sigma_um[1], sigma_um[1])
    z, y, x = (np.exp(-0.5 * (a / w) ** 2) for a, w in zip(axes, widths, strict=True))
    return background + 900 * z[:, None, None] * y[:, None] * x


@pytest.mark.parametrize("voxel", [(0.1, 0.1, 0.1), (0.2, 0.05, 0.05), (0.3, 0.1, 0.1)])
def test_its_widths_survive_another_grid(voxel):
    voxel = VoxelSize(z=voxel[0], y=voxel[1], x=voxel[2])
    shape = tuple(int(length / size) | 1 for length, size in ((6, voxel.z), (3, voxel.y), (3, voxel.x)))
    psf = on_grid(bead(shape, voxel, (0.4, 0.12), shift=(1, -2, 1)), voxel, pixel_um=0.1, extent_um=STACK)
    assert psf.sum() == pytest.approx(1, abs=1e-5)
    assert psf.argmax() == psf.size // 2
    split = split_psf(torch.from_numpy(psf), focus_sigma(psf))
    assert focus_sigma(psf) == pytest.approx(1.2, rel=0.12)
    assert split.width == pytest.approx(2.3548 * 4, rel=0.08)
    assert split.core_share > 0.85


def test_what_is_no_point_spread_function_is_refused():
    voxel = VoxelSize(z=0.1, y=0.1, x=0.1)
    good = bead((31, 21, 21), voxel, (0.4, 0.12))
    with pytest.raises(PsfError, match=r"cannot be normalised.* add up to 0"):
        on_grid(np.full((9, 9, 9), 7.0), voxel, pixel_um=0.1, extent_um=STACK)
    with pytest.raises(PsfError, match=r"1 voxels .* not finite"):
        on_grid(_with_nan(good), voxel, pixel_um=0.1, extent_um=STACK)
    with pytest.raises(PsfError, match=r"3 µm long along z, but the stack only 2 µm"):
        on_grid(good, voxel, pixel_um=0.1, extent_um=(2.0, 20.0, 20.0))
    with pytest.raises(PsfError, match="at least 3 voxels"):
        on_grid(good[0], voxel, pixel_um=0.1, extent_um=STACK)


def _with_nan(volume):
    broken = volume.copy()
    broken[0, 0, 0] = np.nan
    return broken
