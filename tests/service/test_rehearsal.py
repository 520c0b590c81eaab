"""Slices of the stack on its side are shown as those of the stack are, and it is known what they should become."""

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from otf_stream.learn.checkpoints import shipped_network
from otf_stream.learn.compute import choose_compute
from otf_stream.learn.denoise import Denoiser
from otf_stream.learn.slices import CHANNELS
from otf_stream.optics.noise import NoiseModel
from otf_stream.restore.turns import at_once
from otf_stream.service.character import usual_psf
from otf_stream.service.cleaned import CleanStack
from otf_stream.service.rehearsal import rehearsed, share
from otf_stream.service.source import StackSource

CPU = choose_compute("cpu")
SCALE = 300.0


def tissue(planes):
    """Return a small stack whose planes have much in common: every fourth of a blurred volume."""
    rng = np.random.default_rng(0)
    blobs = gaussian_filter(rng.normal(size=(4 * planes, 72, 72)), (4, 2, 2))
    light = np.clip(blobs / blobs.max(), 0, None)[::4] * 150
    return (2 * rng.poisson(light) + 100).astype(np.uint16)


def on_its_side(store, side=192):
    source = StackSource(store, (0, 0))
    denoiser = Denoiser(shipped_network("denoise"), NoiseModel(2.0, 100.0, 4.0), SCALE, CPU)
    stack = CleanStack(source, denoiser, torch.Generator().manual_seed(0))
    at_once(stack.taking(at_once=True))
    slices = at_once(rehearsed(stack, usual_psf(source), SCALE, side=side))
    return stack, slices and slices.planes.float()


def test_both_lateral_axes_play_z_and_no_light_is_lost(session):
    _, slices = on_its_side(session({(0, 0): tissue(18)}))
    assert slices.shape == (2 * 18, CHANNELS + 1, 72, 72)
    deconvolved, interpolated, clean = slices.unbind(1)
    along_y, along_x = clean.split(18)
    torch.testing.assert_close(along_y, along_x.mT)
    assert float(clean.mean()) == pytest.approx(float(interpolated.mean()), rel=0.03)
    assert float(clean.mean()) == pytest.approx(float(deconvolved.mean()), rel=0.05)


def test_what_is_shown_is_blurred_along_the_axis_that_plays_z_alone(session):
    _, slices = on_its_side(session({(0, 0): tissue(18)}))
    _, interpolated, clean = slices.unbind(1)
    roughness = [
        float(interpolated.diff(dim=axis).square().mean() / clean.diff(dim=axis).square().mean()) for axis in (1, 2)
    ]
    assert roughness[0] < 0.7 * roughness[1]


def test_lateral_planes_of_the_stack_are_what_slices_should_become(session):
    stack, slices = on_its_side(session({(0, 0): tissue(18)}))
    clean = slices[:18, -1]
    for k in (4, 9, 13):
        plane = stack.light([k], slice(0, 72), slice(0, 72))[0] / SCALE
        alike = [float(torch.corrcoef(torch.stack([plane.flatten(), one.flatten()]))[0, 1]) for one in clean]
        assert int(torch.tensor(alike).argmax()) == k
        assert max(alike) > 0.5


def test_a_part_is_laid_on_its_side_that_is_no_larger_than_asked_for(session):
    _, slices = on_its_side(session({(0, 0): tissue(18)}), side=65)
    assert slices.shape == (2 * 18, CHANNELS + 1, 65, 65)


def test_few_planes_are_enough_and_gaps_are_bridged(session):
    _, slices = on_its_side(session({(0, 0): tissue(10)}, skip=(4,)))
    assert torch.isfinite(slices).all()
    assert float(slices[:, -1].std()) > 0


def test_planes_that_have_nothing_in_common_are_not_laid_on_their_side(session):
    flashes = np.full((18, 72, 72), 100, np.uint16)
    flashes[np.arange(18), 4 * (np.arange(18) % 2 * 9 + 2)] = 2000
    _, slices = on_its_side(session({(0, 0): flashes}))
    assert slices is None


def test_the_share_is_that_of_the_voxels():
    assert share((100, 72, 90), 192) == pytest.approx(72 / 90)
    assert share((256, 384, 384), 192) == pytest.approx(1 / 8)
