"""Pairs look like the axial slices that restoration will see."""

import pytest
import torch

from otf_stream.learn.pairs import PATCH, AxialPairs, patch_side
from otf_stream.learn.planes import PlanePool
from otf_stream.optics.noise import NoiseModel
from otf_stream.optics.psf import AxialBlur

SILENT = NoiseModel(0.0, 0.0, 0.0)


FAMILY = AxialBlur(2.0, 1.25, True)


def pairs_of(planes, *, blur=FAMILY, noise=SILENT, anisotropy=4.0):
    pool = PlanePool(torch.device("cpu"), smallest=patch_side(anisotropy))
    generator = torch.Generator().manual_seed(0)
    pool.add(planes, generator)
    return AxialPairs(pool, blur, noise, anisotropy, generator)


@pytest.mark.parametrize("anisotropy", [0.6, 1.0, 1.103, 2.5, 4.0, 4.42, 10.0])
def test_a_ramp_survives_so_nothing_shifts(anisotropy):
    y = torch.arange(320, dtype=torch.float32)
    planes = (y[:, None] + y[None, :])[None, None]
    degraded, clean = pairs_of(planes, anisotropy=anisotropy, blur=AxialBlur(0.5 * anisotropy, 1.25, True))()
    assert degraded.shape == clean.shape == (8, 1, PATCH, PATCH)
    torch.testing.assert_close(degraded, clean, atol=0.1, rtol=1e-3)


def test_only_the_axial_direction_is_blurred():
    stripes = (torch.arange(320) % 8 < 4).float()
    planes = stripes[None, None, :, None].expand(1, 1, 320, 320).contiguous()
    degraded, clean = pairs_of(planes, blur=AxialBlur(4.0, 1.01, True))()
    along_z = clean.diff(dim=2).abs().sum(dim=(1, 2, 3)) > 0
    assert along_z.any()
    assert not along_z.all()
    assert degraded[along_z].var(dim=(2, 3)).max() < 0.05  # stripes across z are blurred away
    torch.testing.assert_close(degraded[~along_z], clean[~along_z], atol=1e-4, rtol=0)


def test_noise_is_that_of_the_camera_and_is_interpolated_like_the_planes():
    noise = NoiseModel(0.0, 0.0, 0.5)
    degraded, clean = pairs_of(torch.zeros(1, 1, 320, 320), noise=noise)()
    assert clean.abs().max() == 0
    on_planes = degraded.var(dim=(1, 3)).max(dim=1).values.mean()  # rows that are planes keep the full variance
    assert 0.2 < float(on_planes) < 0.4
    rows = degraded.diff(dim=2).diff(dim=2).abs().amax(dim=3)  # between two planes interpolation is a straight line
    assert float((rows < 1e-5).float().mean()) == pytest.approx(0.75, abs=0.05)


def test_draws_are_reproducible():
    planes = torch.rand(2, 1, 160, 160, generator=torch.Generator().manual_seed(5))
    noise = NoiseModel(0.01, 0.0, 0.1)
    first, second = (pairs_of(planes, noise=noise)() for _ in range(2))
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])
