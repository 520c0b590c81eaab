"""Work by turns: its result does not depend on who gives the turns, and it can be ended wherever it stops."""

import pytest

from otf_stream.restore.turns import OutOfTimeError, Turn, at_once


def counting(to):
    done = 0
    while done < to:
        done += 1
        try:
            yield Turn.READY
        except OutOfTimeError:
            return -done
    return done


def test_work_is_done_to_its_end():
    assert at_once(counting(5)) == 5
    assert at_once(counting(0)) == 0


def test_work_that_has_run_out_of_time_may_have_a_result_all_the_same():
    work = counting(5)
    assert [next(work), next(work)] == [Turn.READY, Turn.READY]
    with pytest.raises(StopIteration) as ended:
        work.throw(OutOfTimeError)
    assert ended.value.value == -2
