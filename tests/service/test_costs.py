"""What work costs on a device, as the stacks before have shown."""

import pytest

from otf_stream.service.costs import Costs

VOXELS = 10**7


def test_interpolating_takes_what_it_usually_took_and_a_moment_for_each_stack():
    costs = Costs()
    guessed = costs.interpolating(VOXELS)
    assert guessed > costs.interpolating(0) > 0
    costs.interpolated(VOXELS, 0.1)
    assert costs.interpolating(VOXELS) == guessed  # a small stack on an idle machine is no promise
    for taken in (8.0, 9.0, 500.0):  # the last one was held up by something
        costs.interpolated(VOXELS, taken)
    assert costs.interpolating(VOXELS) == pytest.approx(costs.interpolating(0) + 8.5)
    for _ in range(8):
        costs.interpolated(VOXELS, 3.0)
    assert costs.interpolating(2 * VOXELS) == pytest.approx(costs.interpolating(0) + 6.0)


def test_nothing_is_known_of_a_device_that_has_restored_nothing():
    costs = Costs()
    assert costs.preparing == costs.restoring_at_best(VOXELS) == 0
    assert costs.restoring(VOXELS) > 0
    assert costs.corrected(3.0) == 3
    assert costs.with_margin(3.0) > 3


def test_the_margin_is_as_small_as_what_was_seen_allows():
    costs = Costs()
    untried = costs.with_margin(10.0)
    for _ in range(7):
        costs.restored(VOXELS, measured=10.0, landed=10.0, taken=15.0)
    steady = costs.with_margin(10.0)
    assert 10 < steady < untried
    costs.restored(VOXELS, measured=10.0, landed=18.0, taken=25.0)
    assert costs.corrected(10.0) == 10
    assert costs.with_margin(10.0) > 18
