"""Restoration on the isotropic grid: exact places, no seams, and no plane needed that never came."""

import numpy as np
import pytest
import torch
from kernels import gaussian
from scipy.ndimage import gaussian_filter, gaussian_filter1d

from otf_stream.acquisition import VoxelSize, isotropic_depth
from otf_stream.learn.compute import choose_compute
from otf_stream.learn.denoise import Denoiser, denoising_network
from otf_stream.learn.nafnet import NAFNet
from otf_stream.optics.noise import NoiseModel
from otf_stream.restore.fidelity import Fidelity
from otf_stream.restore.methods import (
    Grid,
    HazeField,
    Pace,
    clean_richardson_lucy,
    deblur,
    denoising,
    interpolate,
    interpolated,
    richardson_lucy,
)
from otf_stream.restore.regions import Region, restore_region, split_into_regions
from otf_stream.restore.turns import OutOfTimeError, Turn, at_once

CPU = choose_compute("cpu")


def sample(depth, side, seed=0):
    blobs = gaussian_filter(np.random.default_rng(seed).normal(size=(depth, side, side)).astype(np.float32), 2.0)
    return torch.from_numpy(np.clip(blobs / blobs.max(), 0, None) * 500 + 100)


def everywhere(raw):
    """The region that is all of ``raw``."""
    y, x = (slice(0, n) for n in raw.shape[1:])
    return Region(y, x, y, x)


def whole(method, raw):
    return at_once(restore_region(method, everywhere(raw), raw))


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


@pytest.mark.parametrize(
    ("planes", "step", "depth"), [(26, 2.5, 63), (32, 4.0, 125), (25, 1.103, 27), (1, 4.0, 1), (5, 0.5, 3)]
)
def test_the_grid_starts_where_the_planes_start(planes, step, depth):
    assert isotropic_depth(planes, VoxelSize(z=step, y=1, x=1)) == depth
    raw = torch.arange(planes, dtype=torch.float32)[:, None, None].expand(planes, 2, 3) * step
    volume = interpolated(Grid(range(planes), step, depth), raw)
    torch.testing.assert_close(volume[:, 1, 2], torch.arange(depth, dtype=torch.float32), atol=1e-3, rtol=0)


def gentle_denoiser():
    return Denoiser(awake_network(seed=1, guides=5), NoiseModel(1.0, 100.0, 1.0), 500.0, CPU)


def test_richardson_lucy_sharpens_and_keeps_the_light():
    truth = sample(61, 16)
    imaged = torch.from_numpy(gaussian_filter1d(truth.numpy(), 2.0, axis=0)[::4].copy())
    grid = Grid(range(16), 4.0, 61)
    errors = [
        float((whole(method, imaged) - truth).square().mean())
        for method in (interpolate(grid), richardson_lucy(grid, gaussian(2.0), 100.0))
    ]
    assert errors[1] < 0.8 * errors[0]
    volume = whole(richardson_lucy(grid, gaussian(2.0), 100.0), imaged)
    assert float((volume - 100).sum() / (interpolated(grid, imaged) - 100).sum()) == pytest.approx(1, abs=0.03)


def test_regions_cover_the_field_of_view_once():
    seen = np.zeros((700, 1300), int)
    for region in split_into_regions(500, 700, 1300, block=256, halo=40):
        seen[region.y, region.x] += 1
        assert region.halo_y.start <= region.y.start
        assert region.y.start % 256 == region.x.start % 256 == 0
    assert (seen == 1).all()


def test_regions_are_invisible_in_the_result():
    raw = sample(9, 192)
    grid = Grid(range(9), 2.5, 21)
    # Networks of different depth, as the real ones: the halo must fit the grids of both.
    network = awake_network(levels=3, guides=1)
    denoiser = Denoiser(awake_network(seed=1, levels=1, guides=5), NoiseModel(1.0, 100.0, 1.0), 500.0, CPU)
    method = deblur(grid, denoising(denoiser), haze_of(raw), gaussian(2.0), network, CPU, origin=100.0, scale=500.0)
    assert (network.reach + denoiser.reach) % network.multiple != 0
    untiled = whole(method, raw)
    tiled = torch.empty_like(untiled)
    regions = list(split_into_regions(10**9, 192, 192, block=64, halo=method.halo))
    assert len(regions) == 9
    for region in regions:
        tiled[:, region.y, region.x] = at_once(restore_region(method, region, raw[:, region.halo_y, region.halo_x]))
    scale = float((untiled - interpolated(grid, raw)).abs().max())
    assert scale > 1  # the network does something
    assert float((tiled - untiled).abs().max()) < 0.02 * scale  # the last bits of bfloat16


def test_both_directions_are_treated_alike():
    raw = sample(9, 40)
    identity = Denoiser(denoising_network().eval(), NoiseModel(1.0, 100.0, 1.0), 500.0, CPU)
    grid, network = Grid(range(9), 2.0, 17), awake_network(guides=1)
    method = deblur(grid, denoising(identity), no_haze(raw), gaussian(1.0), network, CPU, origin=100.0, scale=500.0)
    turned = whole(method, raw.transpose(1, 2).contiguous()).transpose(1, 2)
    torch.testing.assert_close(turned, whole(method, raw), atol=0.5, rtol=0)


def paced(raw, **pace):
    """A method with a network, at a pace."""
    identity = Denoiser(denoising_network().eval(), NoiseModel(1.0, 100.0, 1.0), 500.0, CPU)
    grid, network = Grid(range(9), 2.0, 17), awake_network(guides=1)
    return deblur(
        grid, denoising(identity), no_haze(raw), gaussian(1.0), network, CPU,
        origin=100.0, scale=500.0, pace=Pace(**pace),
    )  # fmt: skip


def test_where_time_is_short_one_direction_will_do():
    raw = sample(9, 40)
    method, short = paced(raw), paced(raw, directions=lambda region: 1)
    xz, yz = whole(short, raw), whole(short, raw.transpose(1, 2).contiguous()).transpose(1, 2)
    assert float((xz - yz).abs().max()) > 1
    torch.testing.assert_close(0.5 * (xz + yz), whole(method, raw), atol=0.5, rtol=0)


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
    work = restore_region(method, region, raw)
    while told[-1][0] != direction:
        assert next(work) is Turn.READY
    try:
        work.throw(OutOfTimeError)
    except StopIteration as done:
        return done.value


def test_if_time_runs_out_slices_of_one_direction_are_left(monkeypatch):
    raw = sample(9, 40)
    monkeypatch.setattr("otf_stream.restore.methods._SLICE_PIXELS", 20 * 44 * 48)  # some slices a turn
    expected = whole(paced(raw, directions=lambda region: 1), raw)
    assert torch.equal(run_out(raw, everywhere(raw), direction=2), expected)
    with pytest.raises(OutOfTimeError):
        run_out(raw, everywhere(raw), direction=1)


def test_a_part_of_a_volume_goes_as_far_as_the_others_or_nowhere(monkeypatch):
    monkeypatch.setattr("otf_stream.restore.methods._SLICE_PIXELS", 20 * 44 * 48)
    raw = sample(9, 40)
    part = Region(slice(0, 20), slice(0, 40), slice(0, 40), slice(0, 40))
    with pytest.raises(OutOfTimeError):
        run_out(raw, part, direction=2)


def test_an_untrained_network_is_richardson_lucy():
    raw = sample(9, 40)
    grid, kernel = Grid(range(9), 2.0, 17), gaussian(1.0)
    untrained = Denoiser(denoising_network().eval(), NoiseModel(1.0, 100.0, 1.0), 500.0, CPU)
    network = NAFNet(width=8, guide_channels=1).eval()
    method = deblur(grid, denoising(untrained), no_haze(raw), kernel, network, CPU, origin=100.0, scale=500.0)
    lucy = clean_richardson_lucy(grid, denoising(untrained), no_haze(raw), kernel, 100.0)
    torch.testing.assert_close(whole(method, raw), whole(lucy, raw), atol=0.05, rtol=1e-3)


def test_fidelity_is_one_for_the_truth_and_tells_of_lost_light():
    rng = np.random.default_rng(0)
    truth = sample(61, 64)
    grid = Grid(range(16), 4.0, 61)
    noise = NoiseModel(2.0, 100.0, 4.0)
    expected = (grid.imaging(gaussian(2.0), torch.device("cpu")) @ truth.flatten(1)).reshape(16, 64, 64)
    raw = (
        expected + torch.from_numpy(rng.normal(size=(16, 64, 64)).astype(np.float32)) * noise.variance(expected).sqrt()
    )
    honest, dim = (Fidelity(grid, noise, gaussian(2.0)) for _ in range(2))
    for half in (slice(0, 32), slice(32, 64)):
        honest.add(raw[:, half], truth[:, half], everywhere(raw[:, half]))
        dim.add(raw[:, half], (truth[:, half] - 100) * 0.7 + 100, everywhere(raw[:, half]))
    assert honest.residual == pytest.approx(1, abs=0.02)
    assert honest.flux_ratio == pytest.approx(1, abs=0.03)
    assert dim.residual > 1.5
    assert dim.flux_ratio == pytest.approx(0.7, abs=0.03)
