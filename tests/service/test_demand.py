"""How stacks that share a device divide its time."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otf_stream.service.demand import Demand, time_to_learn, time_to_spare


def test_stacks_that_wait_share_what_restoring_them_leaves():
    mine = Demand(deadline=300, restoring=20, interpolating=1)
    assert time_to_learn(0, mine, []) == 280
    assert time_to_learn(0, mine, [mine, mine]) == pytest.approx((300 - 60) / 3)
    learnt = Demand(300, 20, 1, learnt=50)
    assert time_to_learn(50, learnt, [mine]) == pytest.approx((300 - 40) / 2 - 50)
    assert time_to_learn(50, mine, [learnt]) == pytest.approx((300 - 40) / 2)


def test_an_urgent_stack_takes_time_from_the_others_and_a_late_one_does_not():
    mine, urgent = Demand(300, 20, 1), Demand(60, 20, 1)
    assert time_to_learn(0, urgent, [mine]) == 40
    assert time_to_learn(0, mine, [urgent]) == 130
    assert time_to_learn(0, mine, [Demand(10_000, 20, 1)]) == 280
    # What must be restored soon after leaves less for this one.
    assert time_to_learn(0, Demand(100, 20, 1), [Demand(110, 80, 1)]) == pytest.approx(10 / 2)


def test_until_the_first_of_them_has_arrived_stacks_are_learnt_from_whatever_restoring_takes():
    mine = Demand(45, 20, 1, arrived=30)
    assert time_to_learn(0, mine, []) == 30  # rather than 25
    assert time_to_learn(28, mine, []) == 2
    assert time_to_learn(31, mine, []) == -6
    assert time_to_learn(0, mine, [Demand(46, 20, 1, arrived=30)]) == 15
    assert time_to_learn(0, mine, [Demand(46, 20, 1, arrived=4)]) == pytest.approx(3)


def test_the_last_moment_is_when_interpolating_all_that_are_left_just_fits():
    mine = Demand(100, 20, 5)
    assert time_to_spare(0, mine, []) == 95
    assert time_to_spare(0, mine, [Demand(110, 50, 5)]) == 95
    assert time_to_spare(0, mine, [Demand(103, 50, 5)]) == 93
    assert time_to_spare(0, mine, [Demand(90, 50, 5)]) == 85
    assert time_to_spare(0, mine, [Demand(92, 50, 5, arrived=88)]) == 90  # nothing done now saves that one
    assert time_to_spare(97, mine, [Demand(103, 50, 5)]) == -4
    assert time_to_spare(200, mine, []) == -105


@given(st.lists(st.builds(Demand, st.floats(0, 100), st.floats(0, 50), st.floats(0, 10)), min_size=1, max_size=8))
def test_whoever_is_not_lost_is_in_time_if_all_are_interpolated_at_the_last_moment(demands):
    spare = time_to_spare(0.0, demands[0], demands[1:])
    now = spare
    for demand in sorted(demands, key=lambda demand: demand.deadline):
        now += demand.interpolating
        assert now <= demand.deadline + 1e-6 or demand.interpolating > demand.deadline
