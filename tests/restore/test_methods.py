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
    TooSlowError,
    clean_richardson_lucy,
    deblur,
    denoising,
    interpolate,
    interpolated,
    richardson_lucy,
)
from otf_stream.restore.regions import Region, restore_region, split_into_regions

CPU = choose_compute("cpu")


def sample(depth, side, seed=0):
    blobs = gaussian_filter(np.random.default_rng(seed).normal(size=(depth, side, side)).astype(np.float32), 2.0)
    return torch.from_numpy(np.clip(blobs / blobs.max(), 0, None) * 500 + 100)


def everywhere(raw):
    """The region that is all of ``raw``."""
    y, x = (slice(0, n) for n in raw.shape[1:])
    return Region(y, x, y, x)


def whole(method, raw):
    return restore_region(method, everywhere(raw), raw)


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
    at_once = whole(method, raw)
    tiled = torch.empty_like(at_once)
    regions = list(split_into_regions(10**9, 192, 192, block=64, halo=method.halo))
    assert len(regions) == 9
    for region in regions:
        tiled[:, region.y, region.x] = restore_region(method, region, raw[:, region.halo_y, region.halo_x])
    scale = float((at_once - interpolated(grid, raw)).abs().max())
    assert scale > 1  # the network does something
    assert float((tiled - at_once).abs().max()) < 0.02 * scale  # the last bits of bfloat16


def test_both_directions_are_treated_alike():
    raw = sample(9, 40)
    identity = Denoiser(denoising_network().eval(), NoiseModel(1.0, 100.0, 1.0), 500.0, CPU)
    grid, network = Grid(range(9), 2.0, 17), awake_network(guides=1)
    method = deblur(grid, denoising(identity), no_haze(raw), gaussian(1.0), network, CPU, origin=100.0, scale=500.0)
    turned = whole(method, raw.transpose(1, 2).contiguous()).transpose(1, 2)
    torch.testing.assert_close(turned, whole(method, raw), atol=0.5, rtol=0)


def test_where_time_is_short_one_direction_will_do():
    raw = sample(9, 40)
    identity = Denoiser(denoising_network().eval(), NoiseModel(1.0, 100.0, 1.0), 500.0, CPU)
    grid, network, told = Grid(range(9), 2.0, 17), awake_network(guides=1), []

    def one(seconds, region):
        told.append(seconds)
        return 1

    method, short = (
        deblur(
            grid, denoising(identity), no_haze(raw), gaussian(1.0), network, CPU,
            origin=100.0, scale=500.0, pace=Pace(directions),
        )
        for directions in (lambda seconds, region: 2, one)
    )  # fmt: skip
    xz, yz = whole(short, raw), whole(short, raw.transpose(1, 2).contiguous()).transpose(1, 2)
    assert float((xz - yz).abs().max()) > 1
    torch.testing.assert_close(0.5 * (xz + yz), whole(method, raw), atol=0.5, rtol=0)
    assert all(seconds > 0 for seconds in told)


def test_what_is_too_slow_is_given_up_and_of_the_second_direction_nothing_is_left():
    raw = sample(9, 40)
    identity = Denoiser(denoising_network().eval(), NoiseModel(1.0, 100.0, 1.0), 500.0, CPU)
    grid, network, told = Grid(range(9), 2.0, 17), awake_network(guides=1), []

    def given_up(wanted):
        def goes_on(direction, seconds, share, region):
            told.append((direction, share))
            return direction != wanted

        return deblur(
            grid, denoising(identity), no_haze(raw), gaussian(1.0), network, CPU,
            origin=100.0, scale=500.0, pace=Pace(goes_on=goes_on),
        )  # fmt: skip

    one = deblur(
        grid, denoising(identity), no_haze(raw), gaussian(1.0), network, CPU,
        origin=100.0, scale=500.0, pace=Pace(lambda seconds, region: 1),
    )  # fmt: skip
    assert torch.equal(whole(given_up(2), raw), whole(one, raw))
    assert told[0][0] == 1
    assert (1, 1.0) in told
    with pytest.raises(TooSlowError):
        whole(given_up(1), raw)


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
