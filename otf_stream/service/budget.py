"""When a stack must be done, how its time is spent, and what is given up when there is too little.

The deadline is ``max(first plane + total, last plane + tail)``. While planes still arrive the last one is predicted
from their rate. Where time is short, fewer YZ slices go through the network, or XZ slices alone. Whatever is being
done is given up at the last moment at which the stack, and those that come after it, can still be interpolated in time;
or sooner, where there is no hope. Progress through training, a number from 0 to 1, is all that training ever sees of a
clock, so that a fixed number of steps, which is reproducible, and a deadline, which is not, run the same code.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from enum import Enum, auto

from otf_stream.restore.deblurring import YZ_STEPS
from otf_stream.service.costs import Costs, RestoringTime
from otf_stream.service.demand import Demand, time_to_learn, time_to_spare

Clock = Callable[[], float]
"""UNIX time in seconds, as the journal stamps planes."""

# Share of the training time, where that is short and where there is more: deblurring is through with most of what there
# is to learn after some twenty seconds, and then it is the noise that is left in planes that limits it.
_DENOISING = 0.1, 0.35
_SHORT, _LONG = 30.0, 80.0  # seconds
_MOST_RESERVED = 0.6  # share of a stack's time that a first measurement may keep for restoring
_TRUSTED = 3  # measurements
_MEASURE_AGAIN = 30.0  # seconds
_JUDGED = 0.25  # share of a direction after which its speed is known
_HOPELESS = 2.0  # times as slow as it had to be
_WORTH = 3.0  # times as long has to be left for learning
_FINISHED = 0.3  # of the time to interpolate, which is all but writing
_WRITING = 0.6  # of the time to interpolate: what is left to do with XZ slices that are through
_AFFORDED = 0.8  # of the time after the last plane
# What measuring a network's statistics, examining it and preparing to restore take: some of it is as quick as training
# is, and some is not.
_ENDING, _ENDING_BESIDE = 15, 1.0  # steps, seconds
_SLABS = 1.35  # times as long as the whole takes, since slabs overlap
_REPEATED_MARGIN = 1.2  # of what was done once already
_LONGEST_TURN = 2.0  # seconds, of other stacks', that the last moment must not fall into
# What all YZ slices may take, as a share of a stack's time for learning, for every so manieth of them to be worth more
# than learning for longer.
_WORTH_YZ = {1: 0.05, 2: 0.5, 4: 1.25}


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


@dataclass
class _Pass:
    """Slices of one direction going through the network.

    Parameters
    ----------
    direction
        The first, XZ, or the second, YZ.
    since
        How long the stack had had the device when that was told last.
    done
        The share of the slices that are through.
    taken
        Seconds that they took.
    """

    direction: int
    since: float
    done: float = 0.0
    taken: float = 0.0


class Watch(Enum):
    """What the work on a stack is given up for."""

    NOTHING = auto()
    LAST_MOMENT = auto()
    NO_HOPE = auto()


class Schedule:
    """Divides the time of one stack between denoising, deblurring and restoring.

    Parameters
    ----------
    budget
        Of each stack.
    arrivals
        Asked anew whenever time is told.
    costs
        What work was found to cost on this device.
    interpolating
        Returns the seconds that interpolating and writing the volume takes.
    others
        What the other stacks ask of the device.
    ahead
        Whether slabs of the stack can be restored before its last plane.
    clock
        UNIX seconds.
    """

    def __init__(
        self,
        budget: Budget,
        arrivals: Callable[[], Arrivals],
        *,
        costs: Costs | None = None,
        interpolating: Callable[[], float] = lambda: 0.0,
        others: Callable[[], Sequence[Demand]] = lambda: (),
        ahead: Callable[[], bool] = lambda: False,
        clock: Clock = time.time,
    ) -> None:
        self._budget = budget
        self._arrivals = arrivals
        self._costs = costs or Costs()
        self._interpolating = interpolating
        self._others = others
        self._ahead = ahead
        self._clock = clock
        self._begun = clock()
        self._awaited = 0.0
        self._turns = 0.0
        self._turn: float | None = None
        self._latest = 0.0
        self._step = 0.0
        self._reached = 0.0
        self._denoising, self._denoised = _DENOISING[0], 0.0  # share of training, progress
        self._measured = float("-inf")
        self._measures: list[RestoringTime] = []
        self.trained = 0.0
        """Seconds that training steps have taken."""
        self.measured_at = 0.0
        """How long the stack had had the device when what restoring will take was measured last."""
        self.landed = 0.0
        """Share of the volume that has been restored."""
        self.watch = Watch.NOTHING
        """What is given up for now."""
        self.paused = False
        """Whether learning waits, as somebody asked; the deadline stands."""
        self.finishing = False
        """Whether learning is over, as somebody asked."""
        self.ending = _ENDING_BESIDE
        """Seconds from the last step to restoring, beside what is as quick as steps are."""
        self._yz: float | None = None
        self._pass: _Pass | None = None
        self._direction: float | None = None

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Have the device; only this time counts as spent."""
        self._turn = self._clock()
        try:
            yield
        finally:
            before, self._turns = self._turns, self.spent
            self._latest, self._turn = self._turns - before, None

    def stepped(self, seconds: float) -> None:
        """Take note of a training step and of what it took."""
        self.trained += seconds
        self._step = seconds

    @contextmanager
    def step(self) -> Iterator[None]:
        """Take a training step, and note what it took."""
        begun = time.perf_counter()
        yield
        self.stepped(time.perf_counter() - begun)

    @property
    def spent(self) -> float:
        """Seconds that the stack has had the device."""
        return self._turns + (self._clock() - self._turn if self._turn is not None else 0.0)

    def reserve(self, measure: Callable[[], RestoringTime], *, anew: bool = False) -> None:
        """Keep the time that restoring takes, and a margin, free at the end.

        Parameters
        ----------
        measure
            Returns what restoring would take now. Asked every half minute at the most, since what else
            the machine does changes, and never where steps are counted.
        anew
            Forget what was measured before: some of the work has been done.
        """
        if anew:
            self._measures.clear()
            self._measured = float("-inf")
        if self._budget.steps is None and self._clock() - self._measured > _MEASURE_AGAIN:
            self._measures.append(measure())
            self._measured, self.measured_at = self._clock(), self.spent

    @property
    def deadline(self) -> float:
        """When the stack must be restored, in UNIX seconds."""
        return self._budget.deadline(self._arrivals().first, self._last())

    def _last(self) -> float:
        """When the last plane comes; where it never came, when it was waited for no longer.

        Whoever stops a sequence, or falls silent, does so long after the last plane, and by that plane's clock there
        might be no time left for what has been learnt meanwhile.
        """
        arrivals, now = self._arrivals(), self._clock()
        if not arrivals.complete:
            self._awaited = now
        return max(arrivals.last(now), self._awaited)

    def measured(self, yz: float) -> float:
        """Seconds that restoring takes with such a share of the YZ slices, as measured, without a margin."""
        recent = sorted(time.of(yz) for time in self._measures[-_TRUSTED:])
        return recent[len(recent) // 2] if recent else 0.0

    @property
    def yz(self) -> float:
        """The share of the YZ slices that is to go through the network: all of them, unless time is short."""
        if self._yz is not None:
            return self._yz
        if self._budget.steps is not None:
            return 1.0
        learning = self.trained + self._time_to_learn(0.0)
        every = self._costs.corrected(self.measured(1.0) - self.measured(0.0))
        return next((1 / step for step in YZ_STEPS if every <= _WORTH_YZ[step] * learning), 0.0)

    def passed(self, direction: int, done: float) -> None:
        """Take note of how far restoring is.

        Parameters
        ----------
        direction
            The first, without which there is no volume, or the second.
        done
            The share of its slices that have gone through the network; 0 when it begins, and no more than before
            where another slab begins.
        """
        if self._pass is None or direction != self._pass.direction:
            self._pass = _Pass(direction, self.spent)
        if done > self._pass.done:
            self._pass.taken += self.spent - self._pass.since
        self._pass.since, self._pass.done = self.spent, done
        if done >= _JUDGED:
            slices = self._yz or 1.0 if direction == 2 else 1.0
            self._direction = self._pass.taken / done / slices

    def decide_yz_step(self) -> int:
        """Decide, once, by what XZ slices took, how many YZ slices go through the network too.

        Returns
        -------
        int
            One of `YZ_STEPS`, or 0 for none.
        """
        if self._yz is None:
            fitting = (1 / step for step in YZ_STEPS if self._budget.steps is not None or self._fits(step))
            self._yz = next(fitting, 0.0)
        return round(1 / self._yz) if self._yz else 0

    def give_up_yz(self) -> None:
        """Take note that there is no time for YZ slices after all."""
        self._yz = 0.0

    def _fits(self, step: int) -> bool:
        # The fewest need no margin: if they take longer they are given up. Of more, fewer would have fitted.
        left = (1.0 if step == YZ_STEPS[-1] else _REPEATED_MARGIN) * self._restoring_left(0.0, 1 / step)
        return self._leaves_time_for_others(left + _WRITING * self._interpolating())

    def _leaves_time_for_others(self, restoring: float) -> bool:
        """Whether all stacks can be restored if this one takes so long; what it has learnt more than others is past."""
        return time_to_learn(self._clock(), Demand(self.deadline, restoring, 0.0), self._others()) >= 0

    def spares(self, seconds: float) -> bool:
        """Whether there is time for something, in seconds, that makes learning better but is none itself."""
        return self._budget.steps is not None or self.time_to_train > _WORTH * seconds

    @property
    def yz_through(self) -> float:
        """The share of the YZ slices that are in the volume: as many as was decided, once all of those are through."""
        return self.yz if self._pass and self._pass.direction == 2 and self._pass.done == 1 else 0.0

    def begin_anew(self) -> bool:
        """Decide whether what was restored before the last plane is restored once more; then it is yet to be done."""
        restoring = self._costs.with_margin(self.measured(self.yz)) + self._interpolating()
        anew = self._leaves_time_for_others(restoring)
        if anew:
            self._pass = self._direction = None
        return anew

    def is_over(self) -> bool:
        """Whether what is being done must be given up."""
        if self.watch is Watch.NOTHING:
            return False
        return self.is_last_moment() if self.watch is Watch.LAST_MOMENT else self.is_out_of_time()

    def is_last_moment(self) -> bool:
        """Whether the stack must be interpolated now, for itself and those that come after it to be in time."""
        return self._budget.steps is None and self._spare() < _LONGEST_TURN

    def is_out_of_time(self) -> bool:
        """Whether restoring with the network must be given up: this is the last moment, or there is no hope.

        What was measured on a sample may have been measured in a busy moment, and a machine may become busy, or idle.
        What is given up is lost, so it is given up too late rather than too soon: as long as what is left, by what was
        done, ends before the last moment, it goes on; and so it does where interpolating would take longer.
        """
        if self._budget.steps is not None:
            return False
        left = self._restoring_left(self._costs.corrected(min((time.first for time in self._measures), default=0.0)))
        spare = self._spare()
        # What was measured beforehand includes writing, which interpolating does as well.
        writing = _WRITING * self._interpolating() if self._pass is None or self._direction is None else 0.0
        over = spare < min(_LONGEST_TURN, _REPEATED_MARGIN * left) or left - writing > _HOPELESS * spare
        return over and left - writing > _FINISHED * self._interpolating()

    def _spare(self) -> float:
        # Interpolating was measured when perhaps nothing else was to be done. If YZ slices are given up, there is a
        # volume of XZ slices.
        left = (_WRITING if self._pass and self._pass.direction == 2 else 1.0) * self._interpolating()
        if self._pass is None and self._measures:  # a graphics card may restore as fast as others interpolate
            left = min(left, self._costs.corrected(self.measured(0.0)))
        mine = Demand(self.deadline, 0.0, _REPEATED_MARGIN * left)
        return time_to_spare(self._clock(), mine, self._others())

    def _restoring_left(self, measured: float, yz: float | None = None) -> float:
        """Seconds that the network still takes, with a share ``yz`` of the YZ slices, or as many as was decided.

        Of ``measured`` ones, as long as what it takes is not known.
        """
        if self._pass is None or self._direction is None:
            return measured * (1 - self.landed)
        if yz is None:
            yz = self._yz or 0.0
        done = self._pass.done
        return self._direction * (1 - done + yz if self._pass.direction == 1 else yz * (1 - done))

    def demand(self) -> Demand:
        """Return what the stack asks of the device at the least: XZ slices, unless others have begun."""
        left = self._restoring_left(self._costs.with_margin(self.measured(0.0)))
        if self._pass is None:
            left += max(self._costs.preparing - (self.spent - self.trained), 0.0)
        return Demand(self.deadline, left, self._interpolating(), self.trained, self._last())

    @property
    def time_to_train(self) -> float:
        """Seconds from now until training must stop. Negative where there is no time left even to restore."""
        return self._time_to_learn(self.yz)

    def _time_to_learn(self, yz: float) -> float:
        now, deadline = self._clock(), self.deadline
        # YZ slices need less of a margin, since they can be left out, and may use that of the XZ slices.
        usual = self._costs.corrected(self.measured(yz))
        restoring = max(self._costs.with_margin(self.measured(0.0)), _REPEATED_MARGIN * usual)
        if len(self._measures) < _TRUSTED:
            # A measurement in a busy moment must not take all the time for learning away.
            restoring = min(restoring, _MOST_RESERVED * max(deadline - self._begun, 0.0))
        ending = _ENDING * self._step + self.ending if self._step else 0.0
        last = self._last()
        mine = Demand(deadline, restoring + ending, 0.0, self.trained, last - ending)
        left = time_to_learn(now, mine, self._others())
        if self._measures:
            # A graphics card restores as fast as it interpolates: the last moment is sooner than when it has to begin.
            left = min(left, self._spare() - _LONGEST_TURN - ending)
        if self._ahead() and deadline - last < restoring:
            slabs = replace(mine, restoring=_SLABS * restoring + ending, arrived=0.0)
            return min(left, time_to_learn(now, slabs, self._others()))
        return left

    def affords(self, measure: Callable[[], RestoringTime]) -> bool:
        """Whether a network leaves enough of the time after the last plane; where steps are counted, any does.

        Parameters
        ----------
        measure
            Returns what restoring with it would take; not asked where steps are counted.
        """
        if self._budget.steps is not None:
            return True
        now, took = self._clock(), measure()
        restoring = max(self._costs.with_margin(took.first), _REPEATED_MARGIN * self._costs.corrected(took.of(1.0)))
        deadline = self.deadline
        before = sum(other.restoring for other in self._others() if other.deadline <= deadline)
        return before + restoring <= _AFFORDED * (deadline - max(now, self._last()))

    def worth_learning(self, voxels: int) -> bool:
        """Whether there is time to learn something of a stack of ``voxels``, and perhaps to restore with it.

        Restoring may take far shorter than was measured in a busy moment: what counts is how long whole stacks took,
        once there were any.
        """
        best = self._costs.restoring_at_best(voxels)
        return self._budget.steps is not None or self._spare() > max(best, _LONGEST_TURN)

    def figures(self) -> dict[str, float]:
        """Return what decisions are based on, in seconds from now, for the journal."""
        now, others = self._clock(), self._others()
        return {
            "until_deadline_s": self.deadline - now,
            "to_spare_s": self._spare(),
            "to_learn_s": self.time_to_train,
            "yz": self.yz,
            "restoring_s": self._costs.with_margin(self.measured(self.yz)),
            "measured_s": self.measured(self.yz),
            "spent_s": self.spent,
            "trained_s": self.trained,
            "others": len(others),
            "others_restoring_s": sum(other.restoring for other in others),
        }

    @property
    def why_no_longer(self) -> str:
        """Why learning ends, in words."""
        if self.finishing:
            return "somebody asked to finish now"
        waiting = len(self._others())
        return f"its share of the time is over, beside {waiting} others" if waiting else "the time for it is over"

    def denoising(self, steps: int) -> float:
        """Progress of the denoiser after ``steps`` steps, from 0 to 1."""
        progress = self._progress(steps)
        if self._budget.steps is not None:
            return progress
        if self._denoised < 1:  # once it is over, its share is settled
            self._denoising = _denoising_share(self.trained + self.time_to_train)
            self._denoised = max(self._denoised, min(progress / self._denoising, 1.0))
        return self._denoised

    @property
    def left_for_denoising(self) -> float:
        """Seconds that are left to train the denoiser; where steps are counted, any number."""
        if self._budget.steps is not None:
            return math.inf
        return max(self._denoising * (self.trained + self.time_to_train) - self.trained, 0.0)

    def deblurring(self, steps: int) -> float:
        """Progress of the deblurring network after ``steps`` steps, from 0 to 1."""
        if self._budget.steps is not None:
            return self._progress(steps)
        return max(self._progress(steps) - self._denoising, 0.0) / (1 - self._denoising)

    def _progress(self, steps: int) -> float:
        if self.finishing:
            return 1.0
        if self._budget.steps is not None:
            return min(steps / max(self._budget.steps, 1), 1.0)
        left = max(self.time_to_train - self._latest, 0.0)  # a step that does not fit is not begun
        # Predictions of the last plane move; training never runs backwards.
        self._reached = max(self._reached, self.trained / (self.trained + left) if left else 1.0)
        return self._reached


def _denoising_share(training: float) -> float:
    """Return what share of so many seconds of training the denoiser is worth."""
    more = min(max((training - _SHORT) / (_LONG - _SHORT), 0.0), 1.0)
    return _DENOISING[0] + more * (_DENOISING[1] - _DENOISING[0])
