"""The verdict: how large a stack may be for its volume, restored by a network that learnt from it, to be in time.

A stack meets its deadline here if a service would say so: its `Schedule` is asked, with what was measured on this
machine in place of what a worker measures on a stack. There is no second model of what things cost.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass

from otf_stream.doctor.findings import Finding, Fitting
from otf_stream.service.budget import Arrivals, Budget, Schedule
from otf_stream.service.costs import Costs, RestoringTime

STEPS = 100
"""Training steps for which there must be time; docs/curves.md tells what they give."""
DEPTHS = (16, 32, 64, 128, 256)
"""Planes of the stacks that the verdict tells of."""
ANISOTROPY = 4.0
"""Their z step, in pixels."""
LARGEST = 4096
"""Pixels of the largest camera that is thought of."""
_SIDES = range(64, LARGEST + 1, 64)
_MEASUREMENTS = 3  # of restoring, after which a schedule trusts them
_BETWEEN = 40.0  # seconds between two of them, longer than a schedule lets them stand

Restoring = Callable[[int, int], RestoringTime]
"""What restoring so many planes, with sides of so many pixels, takes with a network."""


@dataclass(frozen=True)
class Speed:
    """What was measured of this machine.

    Parameters
    ----------
    device
        Where it computes, in words.
    on_processor
        Whether that is a processor.
    step_s
        Seconds of a training step.
    restoring
        What restoring takes.
    """

    device: str
    on_processor: bool
    step_s: float
    restoring: Restoring


@dataclass(frozen=True)
class Plan:
    """What a service would plan for a stack, at its first plane.

    Parameters
    ----------
    restoring_s
        Seconds kept for restoring it with every XZ and YZ slice.
    learning_s
        Seconds for learning from it.
    in_time
        Whether restoring it fits between its last plane and its deadline.
    """

    restoring_s: float
    learning_s: float
    in_time: bool


def plan(speed: Speed, planes: int, side: int, budget: Budget, planes_per_second: float | None) -> Plan:
    """Ask the schedule of a stack, as if what restoring takes had been measured as often as is trusted.

    Parameters
    ----------
    speed
        Of this machine.
    planes, side
        Of the stack.
    budget
        What it may take.
    planes_per_second
        Of the camera; None: all planes come at once.
    """
    costs, took = Costs(on_processor=speed.on_processor), speed.restoring(planes, side)
    voxels, last = depth_of(planes) * side**2, _last_plane(planes, planes_per_second)
    arrivals = Arrivals(planes, planes, first=0.0, latest=last, complete=True)
    now = -_MEASUREMENTS * _BETWEEN
    schedule = Schedule(
        budget, lambda: arrivals, costs=costs, interpolating=lambda: costs.interpolating(voxels), clock=lambda: now
    )
    for _ in range(_MEASUREMENTS):
        schedule.reserve(lambda: took)
        now += _BETWEEN
    schedule.stepped(speed.step_s)
    # What a sample does not tell of (noise, blur, haze, the pyramid) is in the margin of a device that was not tried
    # yet; a whole stack took 0.9 times as long as this (32 planes of 512 × 512 in docs/performance.md).
    restoring = costs.with_margin(took.of(1.0))
    learning = min(schedule.time_to_train, max(schedule.deadline - restoring, last))
    return Plan(restoring, learning, schedule.affords(lambda: took) and last + restoring <= schedule.deadline)


def _last_plane(planes: int, planes_per_second: float | None) -> float:
    """When the last plane comes, in seconds from the first."""
    return 0.0 if planes_per_second is None else (planes - 1) / planes_per_second


def depth_of(planes: int) -> int:
    """Isotropic voxels along z of a stack of so many planes."""
    return int((planes - 1) * ANISOTROPY) + 1


def largest(speed: Speed, planes: int, budget: Budget, planes_per_second: float | None) -> Fitting:
    """Find the largest stack of so many planes that is in time.

    Parameters
    ----------
    speed
        Of this machine.
    planes
        Of the stack.
    budget
        What it may take.
    planes_per_second
        Of the camera; None: all planes come at once.
    """

    def planned(side: int) -> Plan:
        return plan(speed, planes, side, budget, planes_per_second)

    def learns(side: int) -> bool:
        found = planned(side)
        return found.in_time and found.learning_s >= STEPS * speed.step_s

    def interpolates(side: int) -> bool:
        costs, last = Costs(on_processor=speed.on_processor), _last_plane(planes, planes_per_second)
        return last + costs.interpolating(depth_of(planes) * side**2) <= budget.deadline(0.0, last)

    side, interpolated = _last(learns), _last(interpolates)
    if not side:
        return Fitting(planes, 0, 0.0, 0, interpolated)
    found = planned(side)
    return Fitting(planes, side, found.restoring_s, int(found.learning_s / speed.step_s), interpolated)


def _last(fits: Callable[[int], bool]) -> int:
    """Return the largest side that fits; 0 if none does."""
    found = bisect_left(_SIDES, True, key=lambda side: not fits(side))
    return _SIDES[found - 1] if found else 0


def verdict(speed: Speed, fitting: list[Fitting], budget: Budget, planes_per_second: float | None) -> str:
    """Say in plain words which stacks are in time.

    Parameters
    ----------
    speed
        Of this machine.
    fitting
        The largest stacks.
    budget
        What they may take.
    planes_per_second
        Of the camera.
    """
    minutes = f"{budget.total / 60:g} minutes" if budget.total >= 120 else f"{budget.total:g} s"
    camera = "all planes at once" if planes_per_second is None else f"{planes_per_second:g} planes a second"
    fits = [stack for stack in fitting if stack.learnt_px]
    if not fits:
        return (
            f"This machine ({speed.device}) is too slow to learn from a stack within {minutes} ({camera}): stacks are "
            "interpolated. Give them more time (budget_s), or a graphics card"
        )
    told = ", ".join(f"{s.planes} planes of up to {_side(s.learnt_px)}" for s in fits)
    return (
        f"This machine ({speed.device}) learns from a stack, and has its volume {minutes} after the first plane "
        f"({camera}, z step {ANISOTROPY:g} pixels), of {told}. "
        "Larger ones are in time with fewer slices, or interpolated"
    )


def judge_speed(speed: Speed, fitting: list[Fitting], budget: Budget, planes_per_second: float | None) -> Finding:
    """Say how fast this machine computes, and what that comes to for each depth.

    Parameters
    ----------
    speed
        Of this machine.
    fitting
        The largest stacks.
    budget
        What they may take.
    planes_per_second
        Of the camera.
    """
    figures = {
        "device": speed.device,
        "training_step_s": speed.step_s,
        "budget_s": budget.total,
        "tail_s": budget.tail,
        "planes_per_second": planes_per_second,
        "anisotropy": ANISOTROPY,
        "fewest_steps": STEPS,
    }
    said = f"{speed.device}: {1 / speed.step_s:.1f} training steps a second"
    if any(stack.learnt_px for stack in fitting):
        return Finding("computing", "ok", said, "", figures)
    return Finding("computing", "warning", f"{said}, too slow to learn", "more time (budget_s), or a GPU", figures)


def _side(pixels: int) -> str:
    return f"{pixels} × {pixels}" + (" or more" if pixels == LARGEST else "")
