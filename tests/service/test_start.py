"""Which networks a stack starts from."""

from dataclasses import replace

import pytest
import torch
from stacks import small_stack

from otf_stream.learn.architecture import describe
from otf_stream.learn.checkpoints import digest, save_weights, shipped_network
from otf_stream.learn.compute import Compute, choose_compute
from otf_stream.learn.nafnet import NAFNet
from otf_stream.learn.slices import CHANNELS
from otf_stream.service.budget import Budget, Schedule
from otf_stream.service.memory import Lesson
from otf_stream.service.settings import Settings
from otf_stream.service.source import StackSource
from otf_stream.service.start import networks_to_start_from

CPU = choose_compute("cpu")
CARD = Compute(torch.device("cuda"), torch.bfloat16)  # nothing is computed where steps are counted
COUNTED = Settings(budget=Budget(steps=1))


@pytest.fixture
def start(session):
    source = StackSource(session({(0, 0): small_stack()}), (0, 0))

    def begin(settings, compute, earlier=None):
        return networks_to_start_from(source, settings, earlier, Schedule(settings.budget, source.arrivals), compute)

    return begin


@pytest.mark.parametrize(("compute", "name"), [(CPU, "deblur"), (CARD, "deblur-large")])
def test_the_larger_network_is_for_graphics_cards(start, compute, name):
    begun = start(COUNTED, compute)
    assert describe(begun.deblurring) == describe(shipped_network(name))
    assert begun.weights == digest(shipped=name)


def test_what_a_user_gives_is_taken_wherever_it_runs(start, tmp_path):
    network = NAFNet(width=4, guide_channels=CHANNELS - 1)
    save_weights(network, tmp_path / "own.safetensors", {})
    for compute in (CPU, CARD):
        begun = start(replace(COUNTED, weights=tmp_path / "own.safetensors"), compute)
        assert describe(begun.deblurring) == describe(network)
        assert begun.weights == digest(tmp_path / "own.safetensors")


def test_what_was_learnt_before_comes_first(start):
    lesson = Lesson((0, 0), NAFNet(width=4), NAFNet(width=8), "of old")
    begun = start(COUNTED, CARD, lesson)
    assert (begun.deblurring, begun.denoising, begun.weights) == (lesson.deblurring, lesson.denoising, "of old")
