"""What is seen of a data folder is what its journals hold, whatever happened between two looks."""

import shutil
import time

import pytest
from monitor_folders import at_work, land, stack

from otf_stream.acquire.status import OpenStatus
from otf_stream.monitor import looking, planes, stories
from otf_stream.monitor.lookout import Lookout, overview
from otf_stream.monitor.state import Gap
from otf_stream.monitor.work import Awaited
from otf_stream.store.controls import ask
from otf_stream.store.journal import Journal, journal_path, remove_journal


@pytest.fixture
def lookout(tmp_path):
    with Lookout(tmp_path) as lookout:
        yield lookout


def seen(lookout):
    """Look, and see that what is counted from look to look is what the journal counts anew."""
    (session,) = lookout.look().sessions
    journal = Journal.open(journal_path(session.store))
    assert session.durable == journal.count()
    assert session.states == journal.states()
    assert session.closed == journal.closed
    journal.close()
    return session


def gaps(session):
    return [(gap.t, gap.c, gap.first, gap.last) for gap in session.gaps]


def test_planes_are_followed_from_the_first_to_the_volume(session, lookout):
    store = session(t=3)
    assert seen(lookout).durable == 0
    land(store, *stack(0, [0, 1]))
    assert (seen(lookout).missing, gaps(seen(lookout))) == (0, [])
    land(store, *stack(0, [4]))
    assert (seen(lookout).missing, gaps(seen(lookout))) == (2, [(0, 0, 2, 3)])  # passed by
    land(store, *stack(0, [2]))
    assert gaps(seen(lookout)) == [(0, 0, 3, 3)]
    land(store, *stack(2, range(6)))
    first = seen(lookout)
    assert first.states == {"arriving": 2, "arrived": 1}
    land(store, *stack(1, range(6)))  # out of order
    store.journal.set_state((2, 0), "restoring")
    assert seen(lookout).states == {"arriving": 1, "restoring": 1, "arrived": 1}
    store.journal.finish_stack((2, 0), 6)
    store.journal.close_arrivals("finished")
    last = seen(lookout)
    assert (last.expected, last.durable, last.missing) == (18, 16, 2)
    assert gaps(last) == [(0, 0, 3, 3), (0, 0, 5, 5)]
    assert not last.done
    for t in (0, 1):
        store.journal.set_state((t, 0), "restored")
    assert seen(lookout).done
    later = time.time() + 100
    again = [lookout.look(later + second).sessions[0] for second in range(3)]
    assert again[1] is again[2]  # nothing has changed, nothing is made anew


def test_planes_that_land_side_by_side_are_missing_only_if_they_stay_away(session, lookout, monkeypatch):
    monkeypatch.setattr(planes, "_PATIENCE_S", 3.0)
    store = session(z=12)
    land(store, *stack(0, [0, 1, 2, 6]))
    now = time.time()
    assert lookout.look(now).sessions[0].missing == 0
    assert "planes-missing" not in {alarm.kind for alarm in lookout.look(now).alarms}
    land(store, *stack(0, [3, 5]))
    assert lookout.look(now + 1).sessions[0].missing == 0
    (late,) = lookout.look(now + 3.5).sessions  # though nobody has written since
    assert (late.missing, gaps(late)) == (1, [(0, 0, 4, 4)])
    land(store, *stack(0, [9]))
    (both,) = lookout.look(time.time() + 1).sessions
    assert (both.missing, gaps(both)) == (0, [])  # to this look, all came just now
    (late,) = lookout.look(time.time() + 4).sessions
    assert (late.missing, gaps(late)) == (3, [(0, 0, 4, 4), (0, 0, 7, 8)])
    land(store, *stack(0, [4]))
    assert gaps(lookout.look(time.time() + 5).sessions[0]) == [(0, 0, 7, 8)]


def test_late_planes_and_damaged_ones_are_noticed_in_stacks_that_were_done(session, lookout):
    store = session()
    land(store, *stack(0, range(5)))
    store.journal.finish_stack((0, 0), 5)
    assert gaps(seen(lookout)) == [(0, 0, 5, 5)]
    land(store, *stack(0, [5]))  # and restored anew before anybody looks
    store.journal.note("restored", stack=[0, 0], method="interpolate", warnings=["w"], in_hand_s=-3.0)
    store.journal.finish_stack((0, 0), 6)
    (one,) = seen(lookout).stacks
    assert (one.missing, one.method, one.warnings, one.in_hand_s) == (0, "interpolate", ("w",), -3.0)
    store.journal.forget_planes([(0, 0, 2)])
    store.journal.note("damaged", planes=[[0, 0, 2]], count=1)
    damaged = seen(lookout)
    assert (damaged.damaged, gaps(damaged)) == (1, [(0, 0, 2, 2)])
    land(store, (0, 0, 2))  # it came again
    assert (seen(lookout).damaged, gaps(seen(lookout))) == (0, [])


def test_the_gain_that_is_told_is_that_of_what_was_delivered(session, lookout):
    store = session()
    land(store, *stack(0, range(6)))
    gains = {"gain_db": -0.5, "richardson_lucy_gain_db": 1.2}
    store.journal.note("training", stack=[0, 0], stage="examined", steps=9, **gains)
    (one,) = seen(lookout).stacks
    assert one.gain_db == -0.5
    store.journal.note("restored", stack=[0, 0], method="richardson-lucy", in_hand_s=3.0)
    store.journal.finish_stack((0, 0), 6)
    (one,) = seen(lookout).stacks
    assert one.gain_db == 1.2


def test_planes_of_earlier_time_points_are_found_in_the_end(session, tmp_path):
    store = session(t=9)
    with Lookout(tmp_path) as lookout:
        land(store, *stack(8, range(6)))
        lookout.look(1000.0)
        land(store, *stack(1, range(6)))
        lookout.look(1001.0)
        (late,) = lookout.look(1040.0).sessions  # all are gone through, though nobody has written
        assert late.durable == 12


def test_stacks_that_never_came_are_gaps_and_so_are_single_planes(session, lookout):
    store = session(t=2, c=2, z_ranges=((0, 6), (3, 4)))
    land(store, *stack(0, range(6)), (0, 1, 3))
    assert seen(lookout).states == {"arrived": 1, "arriving": 1}
    store.journal.close_arrivals("finished")
    closed = seen(lookout)
    assert (closed.expected, closed.missing) == (14, 7)
    assert gaps(closed) == [(1, 0, 0, 5), (1, 1, 3, 3)]


def test_a_growing_session_is_as_deep_as_its_channels_were(session, lookout):
    store = session(z=1, growing=True)
    land(store, *stack(0, range(5)), *stack(1, range(4)))
    assert seen(lookout).missing == 0
    store.journal.close_arrivals("finished")
    assert (seen(lookout).expected, gaps(seen(lookout))) == (10, [(1, 0, 4, 4)])


def test_what_the_worker_and_the_listener_tell_is_shown(session, tmp_path, lookout):
    store = session()
    land(store, *stack(0, range(3)))
    at_work(
        tmp_path,
        opened={store.session: OpenStatus(received=5, duplicates=2, silent_s=1.5)},
        awaited=[Awaited(store.session, 0, 0, deadline=1e10, restoring_s=4.0, begun=True)],
    )
    store.journal.note("stage", stack=[0, 0], stage="finetune")
    store.journal.note("decision", stack=[0, 0], decision="learn", reason="why", until_deadline_s=9.0, others=1)
    store.journal.note("training", stack=[0, 0], stage="finetune", steps=3, loss=0.5)
    store.journal.note("training", stack=[0, 0], stage="examined", steps=4, gain_db=2.5)
    ask(store.journal, "pause")
    ask(store.journal, "finish", (0, 0))
    shown = seen(lookout)
    assert (shown.received, shown.duplicates, shown.silent_s, shown.paused) == (5, 2, 1.5, True)
    (one,) = shown.stacks
    assert (one.deadline, one.restoring_s, one.gain_db, one.finishing) == (1e10, 4.0, 2.5, True)
    assert (one.decision.decision, one.decision.figures) == ("learn", {"until_deadline_s": 9.0, "others": 1.0})
    assert [(curve.stage, curve.steps, curve.loss) for curve in one.training] == [("finetune", (3,), (0.5,))]
    assert [note.kind for note in shown.events] == ["stage", "decision", "control", "control"]
    snapshot = lookout.look()
    assert (snapshot.listener.current, snapshot.worker.current, snapshot.alarms) == (True, True, ())


def test_after_the_end_the_journal_tells_what_came(session, lookout):
    store = session()
    land(store, *stack(0, range(6)))
    store.journal.note("ended", reason="finished", received=8, duplicates=2, missing_count=0)
    assert (seen(lookout).received, seen(lookout).duplicates) == (8, 2)


def test_a_look_reads_only_new_events(session, lookout, monkeypatch):
    store = session()
    land(store, *stack(0, range(6)))
    for number in range(10):
        store.journal.note("stage", stack=[0, 0], stage=str(number))
    lookout.look()
    asked = []
    events = Journal.events
    monkeypatch.setattr(Journal, "events", lambda self, after=0, **kw: asked.append(after) or events(self, after, **kw))
    lookout.look()
    assert asked == []
    store.journal.note("stage", stack=[0, 0], stage="last")
    assert lookout.look().sessions[0].stage == "last"
    assert asked == [10]


def test_a_session_of_which_one_stack_is_restored_waits_with_the_others(session, lookout):
    store = session()
    land(store, *stack(0, range(6)))
    store.journal.note("stage", stack=[0, 0], stage="restored")
    assert seen(lookout).stage == "waiting"


def test_what_is_told_is_bounded(session, lookout, monkeypatch):
    monkeypatch.setattr(looking, "MOST_PENDING", 3)
    monkeypatch.setattr(looking, "MOST_DONE", 2)
    store = session(t=12, z=2)
    for t in range(10):
        land(store, *stack(t, range(2)))
        if t < 5:
            store.journal.finish_stack((t, 0), 2)
    for step in range(3 * stories.MOST_EVENTS):
        store.journal.note("stage", stack=[0, 0], stage=str(step))
    for step in range(1000):
        store.journal.note_in_passing("training", stack=[0, 0], stage="finetune", steps=step, loss=1.0)
    shown = seen(lookout)
    assert [one.t for one in shown.stacks] == [3, 4, 5, 6, 7]
    assert len(shown.events) == stories.MOST_EVENTS
    assert shown.states == {"restored": 5, "arrived": 5, "arriving": 2}


def test_a_damaged_journal_hides_no_other_and_a_store_may_go(session, tmp_path, lookout):
    damaged, sound = session("damaged"), session("sound")
    damaged.close()
    remove_journal(journal_path(damaged.path))
    journal_path(damaged.path).write_bytes(b"this is no database" * 100)
    assert [one.name for one in overview(tmp_path)] == ["sound"]
    assert [one.name for one in lookout.look().sessions] == ["sound"]
    sound.close()
    shutil.rmtree(sound.path)
    remove_journal(journal_path(sound.path))
    assert lookout.look().sessions == ()
    again = session("sound", z=7)
    assert [(one.id, one.expected) for one in lookout.look().sessions] == [(again.session, 7)]


def test_sessions_that_are_done_are_closed_and_looked_at_again_when_they_change(session, lookout, monkeypatch):
    monkeypatch.setattr("otf_stream.monitor.lookout._MOST_OPEN", 0)
    store = session()
    land(store, *stack(0, range(5)))
    store.journal.close_arrivals("silence")
    store.journal.finish_stack((0, 0), 5)
    assert seen(lookout).done
    assert lookout._looks == {}
    store.journal.reopen_arrivals()
    land(store, *stack(0, [5]))
    assert seen(lookout).durable == 6


def test_a_gap_has_both_its_ends():
    assert Gap(t=0, c=0, first=2, last=3).model_dump() == {"t": 0, "c": 0, "first": 2, "last": 3}
