"""What stacks that share a device ask of it, and how the time until their deadlines is divided.

Stacks are served in the order of their deadlines, by short turns. What is left of the time until each deadline once
every stack up to it has been restored is spent on learning, the same for each. The last moment is when interpolating
all that are left is just what the time until their deadlines allows: up to it, anything better may be tried.

References
----------
Liu, Layland: Scheduling algorithms for multiprogramming in a hard-real-time environment, Journal of the ACM 20 (1973),
for the earliest deadline first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Demand:
    """What a stack still asks of the device.

    Parameters
    ----------
    deadline
        In UNIX seconds.
    restoring
        Seconds that restoring it with a network takes.
    interpolating
        Seconds that interpolating it takes.
    learnt
        Seconds that have been spent on training with it.
    arrived
        When its last plane comes, in UNIX seconds: it cannot be restored before.
    """

    deadline: float
    restoring: float
    interpolating: float
    learnt: float = 0.0
    arrived: float = 0.0


def time_to_learn(now: float, mine: Demand, others: Sequence[Demand]) -> float:
    """Divide the time that restoring leaves.

    Of the time until a deadline, what is left once all stacks up to that deadline have been restored belongs to
    learning from these stacks, and so does the time until the first of them has arrived, in which none can be restored.
    Every one of them is to be learnt from for as long as the others.

    Parameters
    ----------
    now
        UNIX seconds.
    mine
        The stack that asks.
    others
        The other stacks that wait for the device.

    Returns
    -------
    float
        Seconds; negative where not all stacks up to some deadline can be restored with a network.
    """
    earlier = [other for other in others if other.deadline <= mine.deadline]
    later = sorted((other for other in others if other.deadline > mine.deadline), key=lambda other: other.deadline)
    left = float("inf")
    for served in range(len(later) + 1):
        queue = [*earlier, mine, *later[:served]]
        spare = queue[-1].deadline - now - sum(demand.restoring for demand in queue)
        if (arriving := min(demand.arrived for demand in queue) - now) > 0:
            spare = max(spare, arriving)
        each = (spare + sum(demand.learnt for demand in queue)) / len(queue)
        left = min(left, spare, each - mine.learnt)
    return left


def time_to_spare(now: float, mine: Demand, others: Sequence[Demand]) -> float:
    """Return how long it is until stacks must be interpolated, one after the other, for none to be late.

    Another stack that could not be in time even if it were interpolated at once, or once it has arrived, takes its time
    but is no reason to hurry: that one is lost.

    Parameters
    ----------
    now
        UNIX seconds.
    mine, others
        The stacks that share the device.

    Returns
    -------
    float
        Seconds; negative where the last moment is over.
    """
    spare, end = float("inf"), now
    for demand in sorted([mine, *others], key=lambda demand: demand.deadline):
        end += demand.interpolating
        if demand is mine or max(now, demand.arrived) + demand.interpolating <= demand.deadline:
            spare = min(spare, demand.deadline - end)
    return spare
