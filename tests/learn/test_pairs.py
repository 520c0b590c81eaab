"""Pairs look like the axial slices that restoration will see."""

import pytest
import torch
from kernels import family

from otf_stream.learn.pairs import PATCH, AxialPairs, SlicePairs, both, patch_side
from otf_stream.learn.planes import PlanePool
from otf_stream.learn.slices import CHANNELS


def pairs_of(planes, *, blur=None, errors=0.0, haze=None, anisotropy=4.0):
    generator = torch.Generator().manual_seed(0)

    def pooled(planes):
        pool = PlanePool(torch.device("cpu"), smallest=patch_side(anisotropy))
        pool.add(planes, generator)
        return pool

    wrong = torch.randn((24, 96, 96), generator=generator) * errors
    haze = None if haze is None else pooled(haze)
    return AxialPairs(pooled(planes), wrong, blur or family(2.0), anisotropy, generator, haze=haze)


@pytest.mark.parametrize("anisotropy", [0.6, 1.0, 1.103, 2.5, 4.0, 4.42, 10.0])
def test_a_ramp_survives_so_nothing_shifts(anisotropy):
    y = torch.arange(320, dtype=torch.float32)
    planes = (y[:, None] + y[None, :])[None, None]
    shown, clean = pairs_of(planes, anisotropy=anisotropy, blur=family(max(0.5 * anisotropy, 0.5), skew=1.0))()
    assert shown.shape == (8, CHANNELS, PATCH, PATCH)
    assert clean.shape == (8, 1, PATCH, PATCH)
    deconvolved, interpolated = shown[:, :1], shown[:, 1:]
    torch.testing.assert_close(interpolated, clean, atol=0.1, rtol=1e-3)
    torch.testing.assert_close(deconvolved, clean, atol=2.0, rtol=0.02)


def test_only_the_axial_direction_is_blurred():
    stripes = (torch.arange(320) % 8 < 4).float()
    planes = stripes[None, None, :, None].expand(1, 1, 320, 320).contiguous()
    shown, clean = pairs_of(planes, blur=family(4.0, spread=1.01, skew=1.0))()
    degraded = shown[:, 1:]
    along_z = clean.diff(dim=2).abs().sum(dim=(1, 2, 3)) > 0
    assert along_z.any()
    assert not along_z.all()
    assert degraded[along_z].var(dim=(2, 3)).max() < 0.05  # stripes across z are blurred away
    torch.testing.assert_close(degraded[~along_z], clean[~along_z], atol=1e-4, rtol=0)


def test_deconvolved_slices_are_sharper_than_interpolated_ones():
    planes = torch.rand(2, 1, 200, 200, generator=torch.Generator().manual_seed(3))
    planes = torch.nn.functional.avg_pool2d(planes, 5, stride=1, padding=2) ** 4 * 10
    shown, clean = pairs_of(planes, blur=family(2.0))()
    deconvolved, interpolated = ((shown[:, [c]] - clean).square().mean() for c in range(CHANNELS))
    assert deconvolved < 0.8 * interpolated


def test_errors_are_those_of_the_planes_and_are_interpolated_like_them():
    shown, clean = pairs_of(torch.zeros(1, 1, 320, 320), errors=0.5)()
    degraded = shown[:, 1:]
    assert clean.abs().max() == 0
    on_planes = degraded.var(dim=(1, 3)).max(dim=1).values.mean()  # rows that are planes keep the full variance, 0.25
    assert 0.2 < float(on_planes) < 0.4
    rows = degraded.diff(dim=2).diff(dim=2).abs().amax(dim=3)  # between two planes interpolation is a straight line
    assert float((rows < 1e-5).float().mean()) == pytest.approx(0.75, abs=0.05)


def test_draws_are_reproducible():
    planes = torch.rand(2, 1, 160, 160, generator=torch.Generator().manual_seed(5))
    first, second = (pairs_of(planes, errors=0.1)() for _ in range(2))
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])


def test_errors_run_on_from_plane_to_plane_as_they_do_in_the_stack():
    pairs = pairs_of(torch.zeros(1, 1, 320, 320))
    z = torch.arange(6, dtype=torch.float32)
    pairs.errors = z[:, None, None].expand(6, 80, 80).contiguous()  # fewer planes than a slice has
    shown, _ = pairs()
    steps = shown[:, 1, :, 0].diff(dim=1)
    assert (steps.abs() <= 0.25 + 1e-4).all()  # never more than one plane's difference in one z step
    assert (steps > 0.2).any()
    assert (steps < -0.2).any()


def test_haze_is_wrong_along_the_axis_that_plays_z():
    ramp = torch.arange(320, dtype=torch.float32).expand(1, 1, 320, 320)
    # It grows along whichever axis plays z.
    shown, clean = pairs_of(torch.zeros(1, 1, 320, 320), haze=torch.cat([ramp.mT, ramp], dim=1).half())()
    interpolated = shown[:, 1]
    assert clean.abs().max() == 0
    assert interpolated.max() < 0
    torch.testing.assert_close(interpolated.diff(dim=2), torch.zeros(8, PATCH, PATCH - 1))
    slope = interpolated.diff(dim=1)
    assert float(slope.std(dim=(1, 2)).max()) < 0.1
    assert 0 < float(slope.mean(dim=(1, 2)).abs().min()) < float(slope.mean(dim=(1, 2)).abs().max()) < 4.1


def test_haze_is_wrong_where_the_sample_is_that_it_belongs_to():
    y = torch.arange(320, dtype=torch.float32)
    planes = (y[:, None] + y[None, :] + 50)[None, None]
    blur = family(2.0, spread=1.001, skew=1.0)
    shown, clean = pairs_of(planes, blur=blur, haze=planes.expand(1, 2, 320, 320).half())()
    share = 1 - shown[:, 1] / clean[:, 0]  # of the sample that was taken for haze
    assert float(share.std(dim=(1, 2)).max()) < 0.02
    assert 0 < float(share.mean(dim=(1, 2)).min()) < 1 < float(share.mean(dim=(1, 2)).max()) < 4


def test_slices_and_what_they_should_become_are_cut_at_one_place():
    generator = torch.Generator().manual_seed(0)
    clean = torch.rand(3, 1, 90, 80, generator=generator)
    slices = PlanePool(torch.device("cpu"), smallest=PATCH)
    slices.add(torch.cat([clean + 1, clean + 2, clean], dim=1), generator)
    given, asked = SlicePairs(slices, generator, batch=5)()
    assert given.shape == (5, CHANNELS, PATCH, PATCH)
    torch.testing.assert_close(given - asked, torch.tensor([1.0, 2.0])[:, None, None].expand(5, 2, PATCH, PATCH))
    turned = clean.mT.unfold(2, PATCH, 1).unfold(3, PATCH, 1)
    assert all(float((turned - one).abs().amax(dim=(-1, -2)).min()) > 1e-3 for one in asked)  # z is never an x


def test_a_batch_of_both_is_one_of_each_given_with_what_is_clean():
    def drawn(value, n):
        return torch.full((n, CHANNELS, PATCH, PATCH), value), torch.full((n, 1, PATCH, PATCH), -value)

    given, clean = both(lambda: drawn(1.0, 2), lambda: drawn(2.0, 3))()
    assert given[:, 0, 0, 0].tolist() == [1, 1, 2, 2, 2]
    assert torch.equal(clean[:, 0], -given[:, 0])
