"""Restoring with a network: no seams, both directions alike, and as many YZ slices as there is time for."""

import pytest
import torch
from kernels import gaussian
from volumes import everywhere, sample, whole

from otf_stream.learn.compute import choose_compute
from otf_stream.learn.denoise import Denoiser
from otf_stream.learn.nafnet import NAFNet
from otf_stream.optics.noise import NoiseModel
from otf_stream.restore.deblurring import YZ_STEPS, Pace, deblur
from otf_stream.restore.methods import Grid, HazeField, clean_richardson_lucy, denoised, interpolated
from otf_stream.restore.regions import Region, split_into_regions
from otf_stream.restore.turns import OutOfTimeError, Turn, at_once

CPU = choose_compute("cpu")


def haze_of(raw, binning=2):
    """A haze that changes from place to place."""
    planes, height, width = raw.shape
    coarse = torch.rand(planes, -(-height // binning), -(-width // binning), generator=torch.Generator().manual_seed(7))
    return HazeField(coarse * 40, binning, 0.8)


def no_haze(raw):
    return HazeField(torch.zeros(len(raw), 1, 1), 10**6, 1.0)


def awake_network(seed=0, levels=2, guides=0):
    torch.manual_seed(seed)
    network = NAFNet(
        guide_channels=guides, width=8, enc_blk_nums=(1,) * levels, middle_blk_num=1, dec_blk_nums=(1,) * levels
    )
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn(parameter.shape) * 0.1)
        network.train()(torch.rand(4, 1 + guides, 32, 32))
    return network.eval()


def light_of(raw):
    """Planes as if they had no noise."""
    return lambda y, x: raw[:, y, x] - 100.0


def test_planes_are_denoised_by_turns(monkeypatch):
    raw = sample(9, 48)
    denoiser = Denoiser(awake_network(seed=1, guides=5), NoiseModel(1.0, 100.0, 1.0), 500.0, CPU)
    monkeypatch.setattr("otf_stream.restore.methods._DENOISED", 3 * 48**2)
    work = denoised(denoiser, raw, slice(1, 8))
    assert list(zip(range(3), work, strict=False)) == [(turn, Turn.READY) for turn in range(3)]
    torch.testing.assert_close(at_once(denoised(denoiser, raw, slice(1, 8))), denoiser(raw)[1:8])


@pytest.mark.parametrize("step", [*YZ_STEPS, 0])
def test_regions_are_invisible_in_the_result(step):
    raw = sample(9, 194)
    grid, network = Grid(range(9), 2.5, 21), awake_network(levels=3, guides=1)
    method = deblur(
        grid, light_of(raw), haze_of(raw), gaussian(2.0), network, CPU,
        origin=100.0, scale=500.0, pace=Pace(yz_step=lambda region: step),
    )  # fmt: skip
    untiled = whole(method, raw)
    tiled = torch.empty_like(untiled)
    regions = list(split_into_regions(10**9, 194, 194, block=64))
    assert len(regions) == 16
    for region in regions:
        tiled[:, region.y, region.x] = at_once(method.restore(raw[:, region.y, region.x], region))
    scale = float((untiled - interpolated(grid, raw)).abs().max())
    assert scale > 1  # the network does something
    assert float((tiled - untiled).abs().max()) < 0.02 * scale  # the last bits of bfloat16


def paced(raw, **pace):
    """A method with a network, at a pace."""
    grid, network = Grid(range(9), 2.0, 17), awake_network(guides=1)
    return deblur(
        grid, light_of(raw), no_haze(raw), gaussian(1.0), network, CPU,
        origin=100.0, scale=500.0, pace=Pace(**pace),
    )  # fmt: skip


def test_both_directions_are_treated_alike():
    raw = sample(9, 40)
    turned_raw = raw.transpose(1, 2).contiguous()
    turned = whole(paced(turned_raw), turned_raw).transpose(1, 2)
    torch.testing.assert_close(turned, whole(paced(raw), raw), atol=0.5, rtol=0)


def xz_and_yz(raw):
    """What XZ slices alone make of a stack, and what YZ slices alone do."""
    turned = raw.transpose(1, 2).contiguous()
    return (
        whole(paced(raw, yz_step=lambda region: 0), raw),
        whole(paced(turned, yz_step=lambda region: 0), turned).transpose(1, 2),
    )


def test_where_time_is_short_one_direction_will_do():
    raw = sample(9, 40)
    xz, yz = xz_and_yz(raw)
    assert float((xz - yz).abs().max()) > 1
    torch.testing.assert_close(0.5 * (xz + yz), whole(paced(raw), raw), atol=0.5, rtol=0)


@pytest.mark.parametrize("step", YZ_STEPS)
def test_of_yz_slices_that_are_left_out_the_difference_to_xz_slices_is_interpolated(step):
    raw = sample(9, 43)
    xz, yz = xz_and_yz(raw)
    passed = []
    method = paced(raw, yz_step=lambda region: step, passed=lambda *told: passed.append(told[:2]))
    expected = xz.clone()
    for x in range(43):
        before, after = (min(place, 42 // step * step) for place in (x // step * step, x // step * step + step))
        share = x % step / step
        difference = (1 - share) * (yz - xz)[:, :, before] + share * (yz - xz)[:, :, after]
        expected[:, :, x] += 0.5 * difference
    torch.testing.assert_close(whole(method, raw), expected, atol=0.5, rtol=0)
    assert passed[-1] == (2, 1.0)


def test_it_is_told_how_far_each_direction_is():
    raw, told = sample(9, 40), []
    whole(paced(raw, passed=lambda direction, share, region: told.append((direction, share))), raw)
    assert told == sorted(told)
    assert {(1, 0.0), (1, 1.0), (2, 0.0), (2, 1.0)} <= set(told)
    assert all(region_share <= 1 for _, region_share in told)


def run_out(raw, region, direction):
    """Restore until some slices of `direction` are through; then there is no more time."""
    told = [(0, 0.0)]
    method = paced(raw, passed=lambda direction, share, region: told.append((direction, share)))
    work = method.restore(raw, region)
    while told[-1][0] != direction:
        assert next(work) is Turn.READY
    try:
        work.throw(OutOfTimeError)
    except StopIteration as done:
        return done.value


def test_if_time_runs_out_slices_of_one_direction_are_left(monkeypatch):
    raw = sample(9, 40)
    monkeypatch.setattr("otf_stream.restore.deblurring._SLICE_PIXELS", 20 * 44 * 48)  # some slices a turn
    expected = whole(paced(raw, yz_step=lambda region: 0), raw)
    assert torch.equal(run_out(raw, everywhere(raw), direction=2), expected)
    with pytest.raises(OutOfTimeError):
        run_out(raw, everywhere(raw), direction=1)


def test_a_part_of_a_volume_goes_as_far_as_the_others_or_nowhere(monkeypatch):
    monkeypatch.setattr("otf_stream.restore.deblurring._SLICE_PIXELS", 20 * 44 * 48)
    raw = sample(9, 40)
    part = Region(slice(0, 20), slice(0, 40), 40, 40)
    with pytest.raises(OutOfTimeError):
        run_out(raw, part, direction=2)


def test_an_untrained_network_is_richardson_lucy():
    raw = sample(9, 40)
    grid, kernel = Grid(range(9), 2.0, 17), gaussian(1.0)
    network = NAFNet(width=8, guide_channels=1).eval()
    method = deblur(grid, light_of(raw), no_haze(raw), kernel, network, CPU, origin=100.0, scale=500.0)
    lucy = clean_richardson_lucy(grid, light_of(raw), no_haze(raw), kernel, 100.0)
    torch.testing.assert_close(whole(method, raw), whole(lucy, raw), atol=0.05, rtol=1e-3)
