"""What restoring will take is told by what networks take now."""

import pytest
import torch
from stacks import small_stack

from otf_stream.learn.checkpoints import network_to_deblur, shipped_network
from otf_stream.learn.compute import choose_compute
from otf_stream.service.source import StackSource
from otf_stream.service.speed import Speedometer, at_best_size, warm_up

CPU = choose_compute("cpu")


def test_what_is_left_is_told_by_one_measurement(session):
    source = StackSource(session({(0, 0): small_stack()}), (0, 0))
    speed = Speedometer(network_to_deblur(None), shipped_network("denoise"), source, CPU).measure()
    nothing, some, all_of_it = (speed.restoring_time(planes) for planes in (0, 5, 10))
    assert 0 < nothing.first < some.first < all_of_it.first < 60
    assert all_of_it.first - some.first == pytest.approx(some.first - nothing.first)
    assert nothing.second == all_of_it.second > 0  # a square field: YZ slices are as many as XZ slices


def test_a_device_is_made_ready():
    warm_up(CPU)


def test_the_size_that_is_best_is_measured(monkeypatch):
    given = []

    def measured(network, images, compute):
        given.append(images().shape[0] * 128 * 128)
        if len(given) == 4:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return [1.0, 0.8, 0.79][len(given) - 1]

    monkeypatch.setattr("otf_stream.service.speed._seconds_of_pixel", measured)
    assert at_best_size(CPU, [2**exponent for exponent in range(14, 20)]).pixels == 2**15
    assert given == [2**exponent for exponent in range(14, 18)]


def test_a_size_is_measured_on_this_device():
    assert at_best_size(CPU, [2**14, 2**15]).pixels in (2**14, 2**15)
