"""Restoring with a network: no seams, both directions alike, and as many YZ slices as there is time for."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from kernels import gaussian
from volumes import everywhere, sample, whole

from otf_stream.learn import nafnet
from otf_stream.learn.compute import choose_compute
from otf_stream.learn.denoise import Denoiser
from otf_stream.learn.nafnet import NAFNet
from otf_stream.learn.training import padded_pixels, with_statistics
from otf_stream.optics.haze import HazeField
from otf_stream.optics.noise import NoiseModel
from otf_stream.restore.deblurring import CONTEXT, YZ_STEPS, Deblurring, pixels_through
from otf_stream.restore.methods import CleanPlanes, Grid, clean_richardson_lucy, denoised, interpolated
from otf_stream.restore.regions import Region
from otf_stream.restore.turns import OutOfTimeError, Turn, at_once
from otf_stream.store.scratch import Scratch

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
    return with_statistics(network, [torch.rand(4, 1 + guides, 32, 32)], CPU)


def clean(raw, grid, field=None, kernel=None):
    """Planes as if they had no noise."""
    kernel = gaussian(1.0) if kernel is None else kernel
    place = {z: at for at, z in enumerate(grid.planes)}
    return CleanPlanes(
        grid, lambda planes, y, x: raw[[place[z] for z in planes], y, x] - 100.0, field or no_haze(raw), kernel,
        origin=100.0, scale=500.0,
    )  # fmt: skip


def deblurring(planes, raw, folder, network=None, compute=CPU, **told):
    network, shape = network or awake_network(guides=1), (planes.grid.depth, *raw.shape[1:])
    return Deblurring(network, compute, shape, lambda *image: Scratch(folder, *image), **told)


def restored(raw, folder, step=1, **told):
    """Restore in one part, with every so manieth YZ slice."""
    planes = clean(raw, Grid(range(9), 2.0, 17))
    work = deblurring(planes, raw, folder, **told)
    at_once(work.go_across(planes))
    return whole(work.method(planes, step), raw)


def test_planes_are_denoised_by_turns(monkeypatch):
    raw = sample(9, 48)
    denoiser = Denoiser(
        awake_network(seed=1, guides=5), NoiseModel(1.0, 100.0, 1.0), 500.0, replace(CPU, pixels=2 * 48**2)
    )
    monkeypatch.setattr("otf_stream.restore.methods._DENOISED", 3 * 48**2)
    work = denoised(denoiser, raw, slice(1, 8))
    assert list(zip(range(3), work, strict=False)) == [(turn, Turn.READY) for turn in range(3)]
    torch.testing.assert_close(at_once(denoised(denoiser, raw, slice(1, 8))), denoiser(raw)[1:8])


@pytest.mark.parametrize("step", [*YZ_STEPS, 0])
def test_regions_are_invisible_in_the_result(tmp_path, step):
    raw = sample(9, 130)
    network = awake_network(levels=3, guides=1)
    planes = clean(raw, Grid(range(9), 2.5, 21), haze_of(raw), gaussian(2.0))
    work = deblurring(planes, raw, tmp_path, network)
    at_once(work.go_across(planes))
    untiled = whole(work.method(planes, step), raw)
    method, tiled = work.method(planes, step), torch.empty_like(untiled)
    for left in range(0, 130, 64):
        for top in range(0, 130, 64):
            region = Region(slice(top, min(top + 64, 130)), slice(left, min(left + 64, 130)))
            tiled[:, region.y, region.x] = at_once(method.restore(raw[:, region.y, region.x], region))
    scale = float((untiled - interpolated(planes.grid, raw)).abs().max())
    assert scale > 1  # the network does something
    assert float((tiled - untiled).abs().max()) < 0.02 * scale  # the last bits of bfloat16


def starved(network, most):
    """Let a network have memory for so many pixels and no more; return the sizes that it is given."""
    forward, given = type(network).forward, []

    def limited(self, x):
        given.append(x.shape[-1] * x.shape[-2] * len(x))
        if given[-1] > most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(self, x)

    return limited, given


def test_planes_that_are_too_large_for_the_memory_are_denoised_in_smaller_tiles(monkeypatch):
    raw = sample(5, 210)
    denoiser = Denoiser(awake_network(seed=1, guides=5), NoiseModel(1.0, 100.0, 1.0), 500.0, CPU)
    expected = denoiser(raw)
    limited, given = starved(denoiser.network, 20_000)
    monkeypatch.setattr(nafnet.NAFNet, "forward", limited)
    torch.testing.assert_close(at_once(denoised(denoiser, raw)), expected, atol=1.0, rtol=0)
    assert max(given) > 20_000
    limited, given = starved(denoiser.network, 100)
    monkeypatch.setattr(nafnet.NAFNet, "forward", limited)
    with pytest.raises(torch.OutOfMemoryError):
        at_once(denoised(denoiser, raw))


def test_slices_that_are_too_large_for_the_memory_are_cut_and_it_does_not_show(tmp_path, monkeypatch):
    raw = sample(9, 210)
    network = awake_network(levels=1, guides=1)
    planes = clean(raw, Grid(range(9), 2.0, 17))

    def both_ways():
        work = deblurring(planes, raw, tmp_path, network)
        at_once(work.go_across(planes))
        return whole(work.method(planes, 2), raw)

    expected = both_ways()
    limited, given = starved(network, 5000)
    monkeypatch.setattr("otf_stream.learn.compute._FEWEST_PIXELS", 1000)
    monkeypatch.setattr(nafnet.NAFNet, "forward", limited)
    torch.testing.assert_close(both_ways(), expected, atol=1.0, rtol=0)
    assert max(given) > 5000
    limited, given = starved(network, 100)
    monkeypatch.setattr(nafnet.NAFNet, "forward", limited)
    with pytest.raises(torch.OutOfMemoryError):
        both_ways()


def test_an_error_of_another_kind_is_not_taken_for_want_of_memory(tmp_path, monkeypatch):
    given = []

    def broken(self, x):
        given.append(x)
        raise RuntimeError("shapes cannot be multiplied")

    monkeypatch.setattr(nafnet.NAFNet, "forward", broken)
    with pytest.raises(RuntimeError, match="shapes"):
        restored(sample(9, 40), tmp_path)


def test_what_goes_through_the_network_is_known_before():
    network = awake_network(levels=3, guides=1)
    assert pixels_through(network, 125, 512, 2**17) == padded_pixels(network, 125, 512)
    cut = pixels_through(network, 397, 2048, 2**17)
    assert 1 < cut / padded_pixels(network, 397, 2048) < 1.5


def test_both_directions_are_treated_alike(tmp_path):
    raw = sample(9, 40)
    turned_raw = raw.transpose(1, 2).contiguous()
    turned = restored(turned_raw, tmp_path).transpose(1, 2)
    torch.testing.assert_close(turned, restored(raw, tmp_path), atol=0.5, rtol=0)


def xz_and_yz(raw, folder):
    """What XZ slices alone make of a stack, and what YZ slices alone do."""
    turned = raw.transpose(1, 2).contiguous()
    return restored(raw, folder, step=0), restored(turned, folder, step=0).transpose(1, 2)


def test_where_time_is_short_one_direction_will_do(tmp_path):
    raw = sample(9, 40)
    xz, yz = xz_and_yz(raw, tmp_path)
    assert float((xz - yz).abs().max()) > 1
    torch.testing.assert_close(0.5 * (xz + yz), restored(raw, tmp_path), atol=0.5, rtol=0)


@pytest.mark.parametrize("step", YZ_STEPS)
def test_of_yz_slices_that_are_left_out_the_difference_to_xz_slices_is_interpolated(tmp_path, step):
    raw = sample(9, 43)
    xz, yz = xz_and_yz(raw, tmp_path)
    passed = []
    found = restored(raw, tmp_path, step, passed=lambda *told: passed.append(told))
    expected = xz.clone()
    for x in range(43):
        before, after = (min(place, 42 // step * step) for place in (x // step * step, x // step * step + step))
        share = x % step / step
        difference = (1 - share) * (yz - xz)[:, :, before] + share * (yz - xz)[:, :, after]
        expected[:, :, x] += 0.5 * difference
    torch.testing.assert_close(found, expected, atol=0.5, rtol=0)
    assert passed[-1] == (2, 1.0)


def test_it_is_told_how_far_each_direction_is(tmp_path):
    told = []
    restored(sample(9, 40), tmp_path, passed=lambda *one: told.append(one))
    assert told == sorted(told)
    assert {(1, 0.0), (1, 1.0), (2, 0.0), (2, 1.0)} <= set(told)


def test_slices_go_through_by_turns_and_may_run_out_of_time(tmp_path):
    raw = sample(9, 40)
    planes = clean(raw, Grid(range(9), 2.0, 17))
    some = replace(CPU, pixels=5 * 33 * 56)  # some slices a turn
    work = deblurring(planes, raw, tmp_path, compute=some)
    across = work.go_across(planes)
    assert next(across) is Turn.READY
    with pytest.raises(OutOfTimeError):
        across.throw(OutOfTimeError)
    assert work.across == 0
    at_once(work.go_across(planes))
    fused = work.method(planes, 1).restore(raw, everywhere(raw))
    assert next(fused) is Turn.READY
    with pytest.raises(OutOfTimeError):
        fused.throw(OutOfTimeError)
    assert torch.equal(whole(work.method(planes, 0), raw), restored(raw, tmp_path, step=0))


def test_slabs_are_restored_before_the_last_planes_are_there(tmp_path):
    raw = sample(60, 40)
    grid = Grid(range(60), 4.0, 237)
    planes, network = clean(raw, grid), awake_network(guides=1)
    whole_at_once, by_slabs = (deblurring(planes, raw, tmp_path, network) for _ in range(2))
    at_once(whole_at_once.go_across(planes))
    expected = whole(whole_at_once.method(planes, 0), raw)
    for stop, there in ((60, 30), (130, 50)):
        assert there * 4 > stop + CONTEXT
        early = clean(raw[:there], Grid(range(there), 4.0, 237))
        at_once(by_slabs.go_across(early, stop))
        assert by_slabs.across == stop
    at_once(by_slabs.go_across(planes))
    found = whole(by_slabs.method(planes, 0), raw)
    assert by_slabs.across == 237
    np.testing.assert_allclose(found.numpy(), expected.numpy(), atol=0.5)


def test_an_untrained_network_is_richardson_lucy(tmp_path):
    raw = sample(9, 40)
    planes = clean(raw, Grid(range(9), 2.0, 17))
    work = deblurring(planes, raw, tmp_path, NAFNet(width=8, guide_channels=1).eval())
    at_once(work.go_across(planes))
    found = whole(work.method(planes, 1), raw)
    torch.testing.assert_close(found, whole(clean_richardson_lucy(planes), raw), atol=0.2, rtol=1e-3)
