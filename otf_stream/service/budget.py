"""When a stack must be done, and how its time is spent.

The deadline is ``max(first plane + total, last plane + tail)``. While planes still arrive the last one is predicted
from their rate. Restoring takes the time measured on this device, and is kept free at the end; training takes
what lies before. Progress through training, a number from 0 to 1, is all that training ever sees of a clock, so that
a fixed number of steps, which is reproducible, and a deadline, which is not, run the same code.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

Clock = Callable[[], float]
"""UNIX time in seconds, as the journal stamps planes."""

_DENOISING = 0.1  # share of the training time; the denoiser comes pre-trained
_LEAST_TRAINING = 10.0  # seconds; a network that saw less of the stack does it no good
_MOST_RESERVED = 0.6  # share of a stack's time that may be kept for restoring
_MEASURE_AGAIN = 20.0  # seconds
# A busy machine is slower than one on which the time was measured.
_SAFETY = 1.6


@dataclass(frozen=True)
class Budget:
    """What a stack may take.

    Parameters
    ----------
    total
        Seconds from the first plane to the restored volume.
    tail
        Seconds that are granted after the last plane in any case.
    steps
        Train each network for so many steps instead; the clock is then not asked.
    """

    total: float = 300.0
    tail: float = 60.0
    steps: int | None = None

    def deadline(self, first: float, last: float) -> float:
        """Return the moment by which the stack must be restored, in UNIX seconds."""
        return max(first + self.total, last + self.tail)


@dataclass(frozen=True)
class Arrivals:
    """What is known of a stack's arrival: how many of its planes, and when the first and the latest came.

    ``complete`` is set when no more will come.
    """

    received: int
    expected: int
    first: float
    latest: float
    complete: bool

    def last(self, now: float) -> float:
        """Predict when the last plane comes, in UNIX seconds."""
        if self.complete or self.received < 2:
            return self.latest if self.complete else now
        interval = (self.latest - self.first) / (self.received - 1)
        return max(now, self.latest + interval * (self.expected - self.received))


class Schedule:
    """Divides the time of one stack between denoising, deblurring and restoring.

    Parameters
    ----------
    budget
        Of each stack.
    arrivals
        Asked anew whenever time is told.
    waiting
        How many stacks, this one included, share the device; each gets an equal share of the time.
    clock
        UNIX seconds.
    """

    def __init__(
        self,
        budget: Budget,
        arrivals: Callable[[], Arrivals],
        *,
        waiting: Callable[[], int] = lambda: 1,
        clock: Clock = time.time,
    ) -> None:
        self._budget = budget
        self._arrivals = arrivals
        self._waiting = waiting
        self._clock = clock
        self._begun = clock()
        self._restoring = 0.0
        self._reached = 0.0
        self._measured = float("-inf")
        self._measures: list[float] = []

    def reserve(self, measure: Callable[[], float]) -> None:
        """Keep the time that restoring takes, and a margin, free at the end.

        Parameters
        ----------
        measure
            Returns the seconds that restoring would take now. Asked every twenty seconds at the most, since what else
            the machine does changes, and never where steps are counted.
        """
        if self._budget.steps is None and self._clock() - self._measured > _MEASURE_AGAIN:
            self._measures.append(measure())
            self._restoring = statistics.median(self._measures[-3:]) * _SAFETY
            self._measured = self._clock()

    @property
    def deadline(self) -> float:
        """When the stack must be restored, in UNIX seconds."""
        arrivals = self._arrivals()
        return self._budget.deadline(arrivals.first, arrivals.last(self._clock()))

    @property
    def time_to_train(self) -> float:
        """Seconds from now until training must stop. Negative where there is no time left even to restore."""
        mine = (self.deadline - self._begun) / max(self._waiting(), 1)
        # A measurement in a busy moment must not take all the time for learning away.
        reserved = min(self._restoring, _MOST_RESERVED * mine)
        return self._begun + mine - self._clock() - reserved

    @property
    def worth_training(self) -> bool:
        """Whether there is time to learn something of the stack, and perhaps to restore with it.

        Restoring may take far shorter than was measured in a busy moment, so its time does not count yet.
        """
        return self._budget.steps is not None or self.time_to_train + self._restoring > _LEAST_TRAINING

    @property
    def time_to_restore(self) -> bool:
        """Whether restoring can end before the deadline, at the best speed that was measured."""
        return self._budget.steps is not None or self.deadline - self._clock() > min(self._measures, default=0.0)

    def denoising(self, steps: int) -> float:
        """Progress of the denoiser after ``steps`` steps, from 0 to 1."""
        return min(self._progress(steps) / (_DENOISING if self._budget.steps is None else 1.0), 1.0)

    def deblurring(self, steps: int) -> float:
        """Progress of the deblurring network after ``steps`` steps, from 0 to 1."""
        if self._budget.steps is not None:
            return self._progress(steps)
        return max(self._progress(steps) - _DENOISING, 0.0) / (1 - _DENOISING)

    def _progress(self, steps: int) -> float:
        if self._budget.steps is not None:
            return min(steps / max(self._budget.steps, 1), 1.0)
        spent = self._clock() - self._begun
        left = max(self.time_to_train, 0.0)
        # Predictions of the last plane move; training never runs backwards.
        self._reached = max(self._reached, spent / max(spent + left, 1e-9))
        return self._reached
