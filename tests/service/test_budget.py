"""The deadline, and how time is divided, under a clock that the test turns."""

from bisect import bisect_right
from contextlib import contextmanager, suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otf_stream.restore.turns import OutOfTimeError
from otf_stream.service.budget import Arrivals, Budget, Schedule
from otf_stream.service.costs import Costs, RestoringTime
from otf_stream.service.demand import Demand

MARGIN = Costs().with_margin(1.0)


class Stack:
    """A stack of 30 planes that arrive one a second from second 100 on."""

    def __init__(self, expected=30, first=100.0, interval=1.0):
        self.now = first
        self.first, self.interval, self.expected = first, interval, expected

    def arrivals(self):
        received = min(int((self.now - self.first) / self.interval) + 1, self.expected)
        latest = self.first + (received - 1) * self.interval
        return Arrivals(received, self.expected, self.first, latest, received == self.expected)

    def schedule(self, budget, **more):
        return Schedule(budget, self.arrivals, clock=lambda: self.now, **more)


@given(total=st.floats(1, 1000), tail=st.floats(0, 1000), first=st.floats(0, 1e6), duration=st.floats(0, 1e4))
def test_the_deadline_is_that_of_the_contract(total, tail, first, duration):
    last = first + duration
    assert Budget(total, tail).deadline(first, last) == max(first + total, last + tail)


def test_the_last_plane_is_predicted_from_the_rate():
    stack = Stack()
    schedule = stack.schedule(Budget(total=20, tail=10))
    stack.now = 110.0
    assert schedule.deadline == pytest.approx(129 + 10)


def test_a_stalled_stack_puts_its_deadline_off_and_closing_it_fixes_it():
    arrivals = Arrivals(5, 30, 100.0, 104.0, False)
    assert arrivals.last(200.0) == 200.0
    assert Arrivals(5, 30, 100.0, 104.0, True).last(200.0) == 104.0


def test_a_stack_that_is_ended_long_after_its_last_plane_still_has_the_time_that_a_last_plane_grants():
    arrivals, now = Arrivals(150, 160, 0.0, 200.0, False), 200.0
    schedule = Schedule(Budget(total=300, tail=60), lambda: arrivals, interpolating=lambda: 5.0, clock=lambda: now)
    assert schedule.deadline == 300.0
    now = 320.0  # nobody has said a word for two minutes
    assert not schedule.is_last_moment()
    arrivals = Arrivals(150, 160, 0.0, 200.0, True)
    now = 321.0
    assert schedule.deadline == 320.0 + 60
    assert not schedule.is_last_moment()
    assert schedule.demand().arrived == 320.0


@given(st.lists(st.floats(0.01, 3), min_size=1, max_size=200))
def test_progress_runs_from_denoising_to_the_end_and_never_back(pauses):
    stack = Stack()
    schedule = stack.schedule(Budget(total=60, tail=20))
    schedule.reserve(lambda: RestoringTime(8.0, 0.0))
    before = (0.0, 0.0)
    with schedule.turn():
        for pause in pauses:
            stack.now += pause
            schedule.trained += pause
            now = (schedule.denoising(0), schedule.deblurring(0))
            assert now[0] >= before[0]
            assert now[1] >= before[1]
            assert now[1] == 0 or now[0] == 1
            before = now
    if stack.now >= schedule.deadline - 8.0:
        assert before == (1.0, pytest.approx(1.0))


def test_only_time_on_the_device_counts_as_spent_and_only_training_as_progress():
    stack = Stack()
    schedule = stack.schedule(Budget(total=100, tail=0))
    with schedule.turn():
        stack.now += 10
    stack.now += 40
    assert schedule.spent == 10
    assert schedule.denoising(0) == 0
    with schedule.turn():
        stack.now += 10
        schedule.trained += 10
        assert schedule.spent == 20
        # The next turn may take ten seconds as well.
        assert schedule.denoising(0) == 1
        assert schedule.deblurring(0) == pytest.approx((10 / (10 + 40 - 10) - 0.2) / 0.8)


def test_what_is_left_for_denoising_is_its_share_without_what_it_has_had():
    stack = Stack(expected=1)
    schedule = stack.schedule(Budget(total=100, tail=0))
    with schedule.turn():
        assert schedule.denoising(0) == 0
        assert schedule.left_for_denoising == pytest.approx(0.35 * 100)
        stack.now += 20
        schedule.trained += 10  # the other ten went elsewhere
        schedule.denoising(0)
        assert schedule.left_for_denoising == pytest.approx(0.35 * 90 - 10)
        stack.now += 30
        schedule.trained += 30
        assert schedule.left_for_denoising == 0
    assert stack.schedule(Budget(steps=3)).left_for_denoising == float("inf")


@pytest.mark.parametrize(("training", "share"), [(20, 0.1), (30, 0.1), (55, 0.225), (80, 0.35), (400, 0.35)])
def test_denoising_gets_more_of_more_time_and_its_share_is_settled_once_it_is_over(training, share):
    stack = Stack(expected=1)
    schedule = stack.schedule(Budget(total=training, tail=0))
    with schedule.turn():
        stack.now += share * training * 0.98
        schedule.trained += share * training * 0.98
        assert 0.9 < schedule.denoising(0) < 1
        stack.now += share * training * 0.04
        schedule.trained += share * training * 0.04
        assert schedule.denoising(0) == 1
        before = schedule.deblurring(0)
        assert 0 < before < 0.1
        schedule.reserve(lambda: RestoringTime(0.4 * training, 0.0))  # there is less time now
        assert schedule.denoising(0) == 1
        assert schedule.deblurring(0) >= before


def test_time_to_restore_is_kept_free():
    stack = Stack()
    schedule = stack.schedule(Budget(total=60, tail=0))
    schedule.reserve(lambda: RestoringTime(5.0, 0.0))
    stack.now = 130.0
    assert schedule.time_to_train == pytest.approx(160 - 130 - 5 * MARGIN)
    assert schedule.worth_learning(10**6)
    stack.now = 157.0
    assert schedule.worth_learning(10**6)
    assert not schedule.is_out_of_time()
    stack.now = 157.6  # not even if it were twice as fast as was measured
    assert schedule.is_out_of_time()
    assert not schedule.is_last_moment()
    stack.now = 158.5
    assert schedule.is_last_moment()
    assert not schedule.worth_learning(10**6)
    assert schedule.deblurring(0) == 1


@pytest.mark.parametrize(
    ("tail", "restoring", "ends"),
    [
        (20, 10, 149 - 10 * MARGIN),  # after the last plane there is time enough
        (10, 10, 139 - 1.35 * 10 * MARGIN),  # slabs have to be restored before it, and overlap
    ],
)
def test_learning_ends_sooner_if_there_is_too_little_time_after_the_last_plane(tail, restoring, ends):
    stack = Stack()
    schedule = stack.schedule(Budget(total=10, tail=tail), ahead=lambda: True)
    stack.now = 101.0
    schedule.reserve(lambda: RestoringTime(restoring, 0.0))
    assert schedule.time_to_train == pytest.approx(ends - stack.now)
    stack.now = 100.0
    waiting = stack.schedule(Budget(total=10, tail=tail))
    stack.now = 101.0
    waiting.reserve(lambda: RestoringTime(restoring, 0.0))
    assert waiting.time_to_train == pytest.approx(max(ends, 129.0) - stack.now)


def test_slabs_are_restored_anew_if_there_is_time():
    for spare, anew in ((0.1, True), (-0.1, False)):
        stack = Stack()
        schedule = stack.schedule(Budget(total=100, tail=0), interpolating=lambda: 3.0)
        schedule.reserve(lambda: RestoringTime(20.0, 0.0))
        stack.now = 200.0 - 20 * MARGIN - 3 - spare
        with schedule.turn():
            schedule.passed(1, 0.0)
            stack.now += 0.01
            schedule.passed(1, 0.5)
            assert schedule.begin_anew() == anew
            assert schedule.demand().restoring == pytest.approx(20 * MARGIN if anew else 0.01)


def test_time_for_the_exam_is_kept_free_too():
    stack = Stack()
    schedule = stack.schedule(Budget(total=100, tail=0))
    stack.now = 150.0
    before = schedule.time_to_train
    schedule.stepped(0.2)
    assert schedule.trained == 0.2
    assert schedule.time_to_train == pytest.approx(before - 15 * 0.2 - 1.0)


def test_a_busy_moment_is_not_the_last_word():
    stack = Stack()
    schedule = stack.schedule(Budget(total=100, tail=0))
    schedule.reserve(lambda: RestoringTime(500.0, 0.0))
    assert schedule.time_to_train == pytest.approx(40)
    assert schedule.is_out_of_time()
    stack.now += 10
    schedule.reserve(lambda: RestoringTime(5.0, 0.0))  # too soon to measure again
    assert schedule.is_out_of_time()
    for _ in range(2):
        stack.now += 31
        schedule.reserve(lambda: RestoringTime(5.0, 0.0))
        assert not schedule.is_out_of_time()
    assert schedule.time_to_train == pytest.approx(100 - 72 - 5 * MARGIN)  # the median of three


def test_what_restoring_really_took_corrects_what_is_measured():
    costs = Costs()
    assert costs.restoring_at_best(10**6) == 0
    costs.restored(10**6, measured=10.0, landed=20.0, taken=30.0)
    assert costs.corrected(10.0) == 20
    assert 20 < costs.with_margin(10.0) < 20 * MARGIN
    assert costs.restoring(2 * 10**6) == pytest.approx(10 + 2 * 20)  # ten seconds before, whatever the size
    for _ in range(3):
        costs.restored(10**6, measured=10.0, landed=90.0, taken=190.0)
    assert costs.restoring(10**6) == pytest.approx(190)
    assert costs.restoring_at_best(10**6) == pytest.approx(30)
    stack = Stack()
    schedule = stack.schedule(Budget(total=40, tail=0), costs=costs)
    assert schedule.worth_learning(10**6)
    assert not schedule.worth_learning(2 * 10**6)


@contextmanager
def restoring(stack, **more):
    """A schedule in the middle of a turn, when restoring has just begun."""
    schedule = stack.schedule(Budget(total=30, tail=15), interpolating=lambda: 2.0, **more)
    stack.now = 130.0
    with schedule.turn():
        schedule.passed(1, 0.0)
        yield schedule


@pytest.mark.parametrize(
    ("seconds", "done", "given_up"),
    [
        (4.0, 0.5, False),
        (5.0, 0.5, False),  # it will take a little longer than there is, but may become faster
        (6.0, 0.3, True),  # but not twice as fast
        (6.0, 0.1, False),  # too early to tell
        (9.4, 0.7, False),
        (9.7, 0.8, True),  # now or never
        (9.7, 0.9, False),  # it will end before that
        (11.9, 0.99, False),  # it is all but finished
    ],
)
def test_restoring_goes_on_while_there_is_hope_and_time_to_interpolate(seconds, done, given_up):
    stack = Stack()
    with restoring(stack) as schedule:
        assert schedule.deadline == 144.0
        assert not schedule.is_out_of_time()
        stack.now += seconds
        schedule.passed(1, done)
        assert schedule.is_out_of_time() == given_up


@pytest.mark.parametrize(("tail", "affordable"), [(20, False), (30, True)])
def test_a_network_is_affordable_if_restoring_leaves_some_of_the_time_after_the_last_plane(tail, affordable):
    stack = Stack()
    schedule = stack.schedule(Budget(total=1, tail=tail))
    stack.now = 110.0
    assert schedule.affords(lambda: RestoringTime(10.0, 10.0)) == affordable
    assert stack.schedule(Budget(steps=1)).affords(never)


def test_a_network_that_is_as_fast_as_interpolating_is_not_given_up_for_it():
    for restoring, given_up in ((8.0, False), (15.0, True)):
        stack = Stack(expected=1)
        schedule = stack.schedule(Budget(total=100, tail=0), interpolating=lambda: 10.0)
        schedule.reserve(lambda restoring=restoring: RestoringTime(restoring, 0.0))
        stack.now = 187.0
        assert schedule.is_last_moment() == given_up


def test_learning_leaves_a_device_that_restores_quickly_the_time_to_begin():
    stack = Stack(expected=1)
    schedule = stack.schedule(Budget(total=20, tail=0), interpolating=lambda: 1.9)
    schedule.reserve(lambda: RestoringTime(1.6, 0.0))
    schedule.stepped(0.02)
    schedule.ending = 1.5
    stack.now += schedule.time_to_train + schedule.ending
    assert not schedule.is_last_moment()
    assert stack.now < schedule.deadline - 1.6 * MARGIN
    stack.now += 0.4
    assert schedule.is_last_moment()


def test_that_a_volume_takes_long_to_write_is_no_reason_to_interpolate_it():
    for restoring, given_up in ((24.0, False), (37.0, True)):  # of which 12 s are for writing
        stack = Stack(expected=1)
        schedule = stack.schedule(Budget(total=100, tail=0), interpolating=lambda: 20.0)
        schedule.reserve(lambda restoring=restoring: RestoringTime(restoring, 0.0))
        stack.now = 200.0 - 36
        assert schedule.is_out_of_time() == given_up


def test_what_other_stacks_need_is_kept_free():
    stack = Stack()
    with restoring(stack, others=lambda: [Demand(145.0, 50.0, 3.0), Demand(300.0, 50.0, 3.0)]) as schedule:
        stack.now += 7.5
        schedule.passed(1, 0.8)
        assert not schedule.is_out_of_time()
        stack.now += 0.2
        assert schedule.is_out_of_time()  # 1.2 · 2 s for this one, 3 s, and 2 s for a turn


def test_what_is_left_is_as_slow_as_what_was_done():
    stack = Stack(expected=5, interval=0.1)
    schedule = stack.schedule(Budget(total=60, tail=0))
    stack.now = 110.0
    with schedule.turn():
        schedule.passed(1, 0.0)
        stack.now += 2
        schedule.passed(1, 0.5)
        assert schedule.demand().restoring == pytest.approx(2)
        stack.now += 2
        schedule.passed(1, 1.0)
        assert schedule.demand().restoring == pytest.approx(0)
        assert schedule.decide_yz_step() == 1
        assert schedule.demand().restoring == pytest.approx(4)
        schedule.passed(2, 0.0)
        stack.now += 3
        schedule.passed(2, 0.5)
        assert schedule.demand().restoring == pytest.approx(3)


@contextmanager
def xz_slices_through(schedule, stack, *, seconds):
    """A turn in which the XZ slices have just gone through the network."""
    with schedule.turn():
        schedule.passed(1, 0.0)
        stack.now += seconds
        schedule.passed(1, 1.0)
        yield


@pytest.mark.parametrize(("total", "planned"), [(1000, 1), (200, 0.5), (145, 0.25), (130, 0)])
def test_yz_slices_are_for_those_who_have_the_time(total, planned):
    stack = Stack()
    schedule = stack.schedule(Budget(total=total, tail=0))
    for _ in range(3):
        schedule.reserve(lambda: RestoringTime(20.0, 20.0))
        stack.now += 31
    assert schedule.yz == planned
    assert schedule.measured(schedule.yz) == 20 + 20 * planned
    # YZ slices may use the margin of the XZ slices.
    before = schedule.time_to_train
    assert before == pytest.approx(total - 93 - max(20 * MARGIN, 1.2 * (20 + 20 * planned)))
    stack.now += before / 2
    schedule.trained += before / 2
    assert schedule.yz == planned  # that does not depend on how much of the time for learning is over


def test_what_was_decided_holds():
    stack = Stack(expected=5, interval=0.1)
    schedule = stack.schedule(Budget(total=60, tail=0))
    stack.now = 110.0
    with xz_slices_through(schedule, stack, seconds=1):
        assert schedule.decide_yz_step() == 1
        stack.now = 159.0
        assert schedule.decide_yz_step() == schedule.yz == 1


@pytest.mark.parametrize(
    ("spare", "others", "yz", "step"),
    [
        (1.0, [], 1, 1),
        (-1.0, [], 1, 2),
        (1.0, [], 0.5, 2),
        (-1.0, [], 0.5, 4),
        (1.0, [], 0.25, 4),
        (-1.0, [], 0.25, 0),
        (1.0, [Demand(195.0, 25.0, 1.0)], 1, 0),
    ],
)
def test_as_many_yz_slices_follow_as_there_is_time_for_after_the_xz_slices(spare, others, yz, step):
    stack = Stack(expected=5, interval=0.1)
    stack.now = 198.0
    left = (1.2 if yz > 0.25 else 1.0) * 10 * yz  # ten seconds a direction; the fewest need no margin
    schedule = stack.schedule(
        Budget(total=108 + spare + left + 0.6 * 3, tail=0), interpolating=lambda: 3.0, others=lambda: others
    )
    with xz_slices_through(schedule, stack, seconds=10):
        assert schedule.decide_yz_step() == step
        assert schedule.yz == (1 / step if step else 0)


def test_whoever_has_learnt_for_longer_than_others_restores_no_worse_for_it():
    stack = Stack(expected=5, interval=0.1)
    stack.now = 198.0
    others = [Demand(600.0, 5.0, 1.0) for _ in range(8)]  # that came later, and have learnt nothing
    schedule = stack.schedule(Budget(total=300, tail=0), interpolating=lambda: 3.0, others=lambda: others)
    schedule.trained = 80.0
    with xz_slices_through(schedule, stack, seconds=10):
        assert schedule.time_to_train < 0
        assert schedule.why_no_longer == "its share of the time is over, beside 8 others"
        assert schedule.decide_yz_step() == 1


def test_what_is_done_between_two_slabs_does_not_make_them_slower():
    stack = Stack()
    schedule = stack.schedule(Budget(total=100, tail=0))
    with schedule.turn():
        schedule.passed(1, 0.0)
        stack.now += 4
        schedule.passed(1, 0.4)
        stack.now += 20  # planes are denoised
        schedule.passed(1, 0.35)
        stack.now += 2
        schedule.passed(1, 0.6)
        assert schedule.demand().restoring == pytest.approx(0.4 * (4 + 2) / 0.6)


def test_yz_slices_that_are_fewer_take_less_time():
    stack = Stack(expected=5, interval=0.1)
    schedule = stack.schedule(Budget(total=132, tail=0))
    stack.now = 198.0
    with xz_slices_through(schedule, stack, seconds=20):
        assert schedule.decide_yz_step() == 2
        schedule.passed(2, 0.0)
        assert schedule.demand().restoring == pytest.approx(10)
        stack.now += 6  # they are slower
        schedule.passed(2, 0.5)
        assert schedule.demand().restoring == pytest.approx(6)
        assert schedule.yz_through == 0
        stack.now += 6
        schedule.passed(2, 1.0)
        assert schedule.demand().restoring == 0
        assert schedule.yz_through == 0.5


def test_what_makes_learning_better_may_not_take_its_time():
    stack = Stack()
    schedule = stack.schedule(Budget(total=60, tail=0))
    stack.now = 148.0
    assert schedule.spares(3.9)
    assert not schedule.spares(4.1)


def test_a_number_of_steps_asks_no_clock():
    def broken():
        raise AssertionError("the clock was asked")

    schedule = Schedule(Budget(total=1, tail=0, steps=10), broken)
    assert schedule.worth_learning(10**6)
    assert schedule.spares(10**6)
    assert not schedule.is_out_of_time()
    assert schedule.yz == schedule.decide_yz_step() == 1
    assert [schedule.denoising(k) for k in (0, 5, 10)] == [0.0, 0.5, 1.0]
    assert [schedule.deblurring(k) for k in (0, 5, 12)] == [0.0, 0.5, 1.0]


def never():
    return False


class Device:
    """A device under a fake clock, and stacks that share it, the nearest deadline first."""

    BATCHES = 24  # of the slices of a direction
    LANDING = 0.5  # of the time to interpolate

    def __init__(self, budget, stacks, *, step, slowness):
        self.now = 0.0
        self.step, self.slowness = step, slowness
        self.costs = Costs()
        self.stacks = stacks
        for stack in stacks:
            stack.schedule = Schedule(
                budget, lambda stack=stack: stack.arrivals(self.now), costs=self.costs,
                interpolating=lambda stack=stack: stack.interpolating,
                others=lambda stack=stack: self.others(stack), clock=lambda: self.now,
            )  # fmt: skip
            stack.work = self.through(stack)

    def demand(self, stack):
        if stack.schedule.spent:
            return stack.schedule.demand()
        return Demand(stack.schedule.deadline, stack.restoring, stack.interpolating)

    def others(self, stack):
        return [self.demand(other) for other in self.stacks if other is not stack and other.waits(self.now)]

    def run(self):
        while any(stack.done is None for stack in self.stacks):
            waiting = sorted((s for s in self.stacks if s.waits(self.now)), key=lambda s: s.schedule.deadline)
            for stack in waiting:
                with stack.schedule.turn():
                    if stack.work.throw(OutOfTimeError) if stack.is_over() else next(stack.work):
                        break
            else:
                self.now = min(stack.next_plane(self.now) for stack in self.stacks if stack.done is None)

    def through(self, stack):
        """Yield whether there was something to do."""
        try:
            yield from self.learns_and_deblurs(stack)
            stack.method = "network"
        except OutOfTimeError:
            stack.is_over = never
            while not stack.arrivals(self.now).complete:
                yield False
            self.now += stack.interpolating
            stack.method = "interpolate"
        stack.done, stack.deadline = self.now, stack.schedule.deadline
        yield True

    def learns_and_deblurs(self, stack):
        schedule = stack.schedule
        stack.is_over = schedule.is_last_moment
        for _ in range(4):
            self.now += stack.before / 4
            yield True
        schedule.reserve(stack.measured)
        if not schedule.worth_learning(10**6):
            raise OutOfTimeError
        while schedule.deblurring(0) < 1:
            self.now += self.step
            schedule.reserve(stack.measured)
            stack.trained += self.step
            schedule.trained += self.step
            yield True
        while not stack.arrivals(self.now).complete:
            yield False
        stack.is_over = schedule.is_out_of_time
        yield True
        took = stack.measured().first * self.slowness
        yield from self.through_the_network(schedule, 1, took)
        if step := schedule.decide_yz_step():
            with suppress(OutOfTimeError):
                yield from self.through_the_network(schedule, 2, took / step)
        stack.is_over = never
        self.now += self.LANDING * stack.interpolating

    def through_the_network(self, schedule, direction, took):
        schedule.passed(direction, 0.0)
        for batch in range(self.BATCHES):
            self.now += took / self.BATCHES
            schedule.passed(direction, (batch + 1) / self.BATCHES)
            yield True


class Arriving:
    """A stack of the device: planes at an even pace, in bursts of `burst`, with a stall of `stall` seconds midway."""

    def __init__(
        self, *, first=0.0, planes=30, interval=1.0, burst=1, stall=0.0, restoring=20.0, interpolating=2.0, before=0.0
    ):
        at = [first + (z // burst * burst) * interval + stall * (z >= planes // 2) for z in range(planes)]
        self.at = at
        self.restoring, self.interpolating, self.before = restoring, interpolating, before
        self.is_over = never
        self.done, self.method, self.trained, self.deadline = None, "", 0.0, 0.0

    def measured(self):
        return RestoringTime(0.5 * self.restoring, 0.5 * self.restoring)

    def waits(self, now):
        return self.done is None and now >= self.at[0]

    def arrivals(self, now):
        there = bisect_right(self.at, now)
        return Arrivals(there, len(self.at), self.at[0], self.at[max(there - 1, 0)], there == len(self.at))

    def next_plane(self, now):
        there = bisect_right(self.at, now)
        return self.at[there] if there < len(self.at) else float("inf")


def restored_by(budget, stacks, *, step=0.5, slowness=1.0):
    device = Device(budget, stacks, step=step, slowness=slowness)
    device.run()
    return device


STACKS = st.lists(
    st.builds(
        Arriving,
        first=st.floats(0, 100),
        planes=st.integers(2, 60),
        interval=st.floats(0.05, 8),
        burst=st.integers(1, 10),
        stall=st.floats(0, 60),
        restoring=st.floats(1, 40),
        interpolating=st.floats(0.1, 2),
        before=st.floats(0, 8),
    ),
    min_size=1,
    max_size=5,
)


@settings(max_examples=40, deadline=None)
@given(STACKS, st.floats(0.4, 1.5), st.floats(0.3, 2.5))
def test_no_stack_is_late_whatever_comes(stacks, step, slowness):
    restored_by(Budget(), stacks, step=step, slowness=slowness)
    assert [stack.done - stack.deadline for stack in stacks if stack.done > stack.deadline] == []


def test_time_points_are_learnt_from_for_about_as_long_as_each_other():
    stacks = [Arriving(first=16 * t, planes=32, interval=0.5, restoring=30) for t in range(3)]
    restored_by(Budget(), stacks)
    assert [stack.method for stack in stacks] == ["network"] * 3
    trained = [stack.trained for stack in stacks]
    assert min(trained) > 35
    assert max(trained) < 2 * min(trained)


def test_a_slow_acquisition_does_not_hold_up_a_quick_one_that_comes_meanwhile():
    slow, quick = Arriving(planes=60, interval=15), Arriving(first=100, planes=20, interval=0.5)
    restored_by(Budget(), [slow, quick])
    assert quick.done < quick.deadline < slow.at[-1]
    assert slow.method == quick.method == "network"


def test_two_slow_acquisitions_that_end_together_are_both_learnt_from():
    stacks = [Arriving(first=t, planes=60, interval=10, restoring=12) for t in range(2)]
    restored_by(Budget(total=300, tail=60), stacks)
    assert [stack.method for stack in stacks] == ["network"] * 2
    assert min(stack.trained for stack in stacks) > 0.5 * max(stack.trained for stack in stacks)
    assert all(stack.done <= stack.deadline for stack in stacks)


def test_under_too_great_a_load_stacks_are_interpolated_and_none_is_late():
    stacks = [Arriving(first=t, planes=10, interval=0.1, restoring=60, interpolating=5) for t in range(20)]
    restored_by(Budget(), stacks)
    assert all(stack.done <= stack.deadline for stack in stacks)
    methods = [stack.method for stack in stacks]
    assert 2 <= methods.count("network") <= 9
    assert methods.count("interpolate") == 20 - methods.count("network")
