"""What restoring will take is told by what networks take now."""

import pytest
from stacks import small_stack

from otf_stream.learn.checkpoints import network_to_deblur, shipped_network
from otf_stream.learn.compute import choose_compute
from otf_stream.service.source import StackSource
from otf_stream.service.speed import Speedometer, warm_up

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
