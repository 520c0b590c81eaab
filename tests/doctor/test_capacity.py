"""The verdict follows from what was measured, by the arithmetic of the service's own budget."""

from __future__ import annotations

import pytest

from otf_stream.config import ServiceConfig
from otf_stream.doctor.capacity import DEPTHS, LARGEST, STEPS, Speed, depth_of, judge_speed, largest, plan, verdict
from otf_stream.doctor.measuring import measure
from otf_stream.service.budget import Budget
from otf_stream.service.costs import RestoringTime

BUDGET = Budget()


def speed(voxels_per_second: float, step_s: float = 0.1) -> Speed:
    def restoring(planes: int, side: int) -> RestoringTime:
        seconds = depth_of(planes) * side**2 / voxels_per_second
        return RestoringTime(seconds, seconds / 2)

    return Speed("cpu in float32, 2 cores", True, step_s, restoring)


def test_the_largest_stack_is_in_time_and_the_next_one_is_not() -> None:
    machine = speed(1e5)
    found = largest(machine, 32, BUDGET, None)
    for side, fits in ((found.learnt_px, True), (found.learnt_px + 64, False)):
        planned = plan(machine, 32, side, BUDGET, None)
        assert (planned.in_time and planned.learning_s >= STEPS * machine.step_s) is fits
        assert not fits or planned.restoring_s + STEPS * machine.step_s <= BUDGET.total
    assert found.steps >= STEPS
    assert found.restoring_s < 300
    assert found.interpolated_px > found.learnt_px


def test_a_faster_machine_a_shallower_stack_and_more_time_allow_more() -> None:
    usual = largest(speed(1e5), 64, BUDGET, None).learnt_px
    assert largest(speed(1e6), 64, BUDGET, None).learnt_px > usual
    assert largest(speed(1e5), 16, BUDGET, None).learnt_px > usual
    assert largest(speed(1e5), 64, Budget(total=3000), None).learnt_px > usual
    assert largest(speed(1e5), 64, BUDGET, 0.25).learnt_px < usual  # the last plane comes after 252 s
    assert largest(speed(1e12, 1e-6), 64, BUDGET, None).learnt_px == LARGEST


def test_slow_training_leaves_no_time_for_enough_steps() -> None:
    assert largest(speed(1e12, step_s=4.0), 32, BUDGET, None).learnt_px == 0
    assert largest(speed(1e12, step_s=2.0), 32, BUDGET, None).learnt_px > 0


def test_the_verdict_is_in_plain_words() -> None:
    machine = speed(1e5)
    found = [largest(machine, planes, BUDGET, None) for planes in DEPTHS]
    said = verdict(machine, found, BUDGET, None)
    assert said.startswith(
        "This machine (cpu in float32, 2 cores) learns from a stack, and has its volume 5 minutes after"
    )
    assert f"32 planes of up to {found[1].learnt_px} × {found[1].learnt_px}" in said
    assert judge_speed(machine, found, BUDGET, None).level == "ok"
    slow = speed(1.0)
    nothing = [largest(slow, planes, BUDGET, 2.0) for planes in DEPTHS]
    assert "too slow to learn from a stack within 5 minutes (2 planes a second)" in verdict(slow, nothing, BUDGET, 2.0)
    assert judge_speed(slow, nothing, BUDGET, 2.0).level == "warning"


def test_this_machine_is_measured() -> None:
    import torch

    before = torch.get_num_threads()
    try:
        found = measure(ServiceConfig(device="cpu", threads=1), [32])
    finally:
        torch.set_num_threads(before)
    assert found.step_s > 0
    small, large = found.restoring(32, 128), found.restoring(32, 512)
    assert 0 < small.first < large.first
    with pytest.raises(KeyError):
        found.restoring(64, 128)
