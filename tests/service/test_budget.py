"""The deadline, and how time is divided, under a clock that the test turns."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otf_stream.service.budget import _SAFETY, Arrivals, Budget, Schedule


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


@given(st.lists(st.floats(0.01, 3), min_size=1, max_size=200))
def test_progress_runs_from_denoising_to_the_end_and_never_back(pauses):
    stack = Stack()
    schedule = stack.schedule(Budget(total=60, tail=20))
    schedule.reserve(lambda: 8.0)
    before = (0.0, 0.0)
    for pause in pauses:
        stack.now += pause
        now = (schedule.denoising(0), schedule.deblurring(0))
        assert now[0] >= before[0]
        assert now[1] >= before[1]
        assert now[1] == 0 or now[0] == 1
        before = now
    if stack.now >= schedule.deadline - 8.0:
        assert before == (1.0, pytest.approx(1.0))


def test_time_to_restore_is_kept_free():
    stack = Stack()
    schedule = stack.schedule(Budget(total=60, tail=0))
    schedule.reserve(lambda: 5.0)
    stack.now = 130.0
    assert schedule.time_to_train == pytest.approx(160 - 130 - 5 * _SAFETY)
    assert schedule.worth_training
    stack.now = 152.0
    assert not schedule.worth_training
    assert schedule.time_to_restore
    stack.now = 156.0
    assert not schedule.time_to_restore
    assert schedule.deblurring(0) == 1


def test_a_busy_moment_is_not_the_last_word():
    stack = Stack()
    schedule = stack.schedule(Budget(total=60, tail=0))
    schedule.reserve(lambda: 500.0)
    assert schedule.worth_training
    assert schedule.time_to_train == pytest.approx(24)
    assert not schedule.time_to_restore
    stack.now += 10
    schedule.reserve(lambda: 5.0)  # too soon to measure again
    assert not schedule.time_to_restore
    stack.now += 11
    schedule.reserve(lambda: 5.0)
    assert schedule.time_to_restore
    stack.now += 21
    schedule.reserve(lambda: 5.0)
    assert schedule.time_to_train == pytest.approx(60 - 42 - 5 * _SAFETY)  # the median of three


def test_stacks_that_wait_share_the_time():
    stack = Stack()
    alone = stack.schedule(Budget(total=300, tail=0))
    shared = stack.schedule(Budget(total=300, tail=0), waiting=lambda: 3)
    assert shared.time_to_train == pytest.approx(alone.time_to_train / 3)
    stack.now += 50  # what is used up is the stack's own, the others keep their shares
    assert alone.time_to_train == pytest.approx(250)
    assert shared.time_to_train == pytest.approx(50)


def test_a_number_of_steps_asks_no_clock():
    def broken():
        raise AssertionError("the clock was asked")

    schedule = Schedule(Budget(total=1, tail=0, steps=10), broken)
    assert schedule.worth_training
    assert [schedule.denoising(k) for k in (0, 5, 10)] == [0.0, 0.5, 1.0]
    assert [schedule.deblurring(k) for k in (0, 5, 12)] == [0.0, 0.5, 1.0]
