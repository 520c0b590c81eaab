"""Slices of the stack on its side are shown as those of the stack are, and it is known what they should become."""

import pytest
import torch
from stacks import small_stack

from otf_stream.learn.checkpoints import shipped_network
from otf_stream.learn.compute import choose_compute
from otf_stream.learn.denoise import Denoiser
from otf_stream.learn.slices import CHANNELS
from otf_stream.learn.training import with_statistics
from otf_stream.optics.noise import NoiseModel
from otf_stream.restore.turns import at_once
from otf_stream.service.character import usual_psf
from otf_stream.service.cleaned import CleanStack
from otf_stream.service.rehearsal import rehearsed, share
from otf_stream.service.source import StackSource

CPU = choose_compute("cpu")
SCALE = 300.0


def on_its_side(store, side=192):
    source = StackSource(store, (0, 0))
    denoiser = Denoiser(shipped_network("denoise"), NoiseModel(2.0, 100.0, 4.0), SCALE, CPU)
    stack = CleanStack(source, denoiser, torch.Generator().manual_seed(0))
    at_once(stack.taking(at_once=True))
    network = with_statistics(shipped_network("deblur"), [torch.rand(2, CHANNELS, 64, 64)], CPU)
    slices = at_once(rehearsed(stack, usual_psf(source), SCALE, network, side=side)).planes
    return stack, slices.float()


def test_both_lateral_axes_play_z_and_no_light_is_lost(session):
    stack, slices = on_its_side(session({(0, 0): small_stack(planes=18)}))
    depth = stack.grid().depth
    assert slices.shape == (2 * depth, CHANNELS + 1, 72, 72)
    deconvolved, interpolated, clean = slices.unbind(1)
    along_y, along_x = clean.split(depth)
    torch.testing.assert_close(along_y, along_x.mT)
    assert float(clean.mean()) == pytest.approx(float(interpolated.mean()), rel=0.03)
    assert float(clean.mean()) == pytest.approx(float(deconvolved.mean()), rel=0.05)


def test_what_is_shown_is_blurred_along_the_axis_that_plays_z_alone(session):
    _, slices = on_its_side(session({(0, 0): small_stack(planes=18)}))
    _, interpolated, clean = slices.unbind(1)
    roughness = [
        float(interpolated.diff(dim=axis).square().mean() / clean.diff(dim=axis).square().mean()) for axis in (1, 2)
    ]
    assert roughness[0] < 0.7 * roughness[1]


def test_lateral_planes_of_the_stack_are_what_slices_should_become(session):
    stack, slices = on_its_side(session({(0, 0): small_stack(planes=18)}))
    clean = slices[: stack.grid().depth, -1]
    for k in (4, 9, 13):
        plane = stack.light([k], slice(0, 72), slice(0, 72))[0] / SCALE
        alike = [float(torch.corrcoef(torch.stack([plane.flatten(), one.flatten()]))[0, 1]) for one in clean]
        assert abs(int(torch.tensor(alike).argmax()) - k * stack.anisotropy) <= 1.5
        assert max(alike) > 0.5


def test_a_part_is_laid_on_its_side_that_is_no_larger_than_asked_for(session):
    stack, slices = on_its_side(session({(0, 0): small_stack(planes=18)}), side=65)
    assert slices.shape == (2 * stack.grid().depth, CHANNELS + 1, 65, 65)


def test_few_planes_are_enough_and_gaps_are_bridged(session):
    _, slices = on_its_side(session({(0, 0): small_stack(planes=6)}, skip=(2,)))
    assert torch.isfinite(slices).all()
    assert float(slices[:, -1].std()) > 0


def test_the_share_is_that_of_the_voxels():
    assert share((100, 72, 90), 192) == pytest.approx(72 / 90)
    assert share((256, 384, 384), 192) == pytest.approx(1 / 8)
