"""Alarms say what is wrong and what to do, from when on, and no longer than it is so."""

import time

from monitor_folders import at_work, land, stack

from otf_stream.acquire.status import OpenStatus
from otf_stream.monitor import alarms
from otf_stream.monitor.lookout import Lookout
from otf_stream.monitor.work import Awaited, tell_of_start


def kinds(snapshot):
    return {alarm.kind: alarm for alarm in snapshot.alarms}


def test_a_service_that_is_well_has_none(session, tmp_path):
    land(session(), *stack(0, range(6)))
    at_work(tmp_path)
    with Lookout(tmp_path) as lookout:
        assert lookout.look().alarms == ()


def test_processes_that_are_not_at_work_come_first_and_since_when(tmp_path):
    with Lookout(tmp_path) as lookout:
        assert set(kinds(lookout.look())) == {"listener-down", "worker-down"}
        at_work(tmp_path)
        assert lookout.look().alarms == ()
        now = time.time()
        first, again = (kinds(lookout.look(now + later)) for later in (60, 120))
    assert first["worker-down"].severity == "critical"
    assert first["worker-down"].since == again["worker-down"].since < now + 60


def test_a_worker_that_starts_is_not_at_work_and_no_reason_for_an_alarm(tmp_path):
    at_work(tmp_path, worker=False)
    tell_of_start(tmp_path)
    with Lookout(tmp_path) as lookout:
        snapshot = lookout.look()
        assert (snapshot.worker.current, snapshot.worker.starting, snapshot.alarms) == (False, True, ())
        late = lookout.look(time.time() + 25)
        assert "worker-down" in kinds(late)
        assert not late.worker.starting
        at_work(tmp_path, listener=False)
        assert lookout.look().worker.current


def test_a_worker_that_hangs_is_told_of(session, tmp_path):
    store = session()
    land(store, (0, 0, 0))
    now = time.time()
    at_work(tmp_path, awaited=[Awaited(store.session, 0, 0, now + 900, 1.0, True)])
    with Lookout(tmp_path) as lookout:
        snapshot = lookout.look(now)
    worker = snapshot.worker.model_copy(update={"turn": now - 400})
    (alarm,) = alarms.alarms(snapshot.model_copy(update={"worker": worker}))
    assert (alarm.kind, alarm.since) == ("worker-stuck", now - 400)


def test_the_disk_and_refusals(tmp_path):
    with Lookout(tmp_path) as lookout:
        at_work(tmp_path)
        assert lookout.look().alarms == ()  # nobody knows when those were refused
        at_work(tmp_path, disk_free=2_100_000_000)
        assert set(kinds(lookout.look())) == {"disk-low"}
        counters = {"received": 9, "durable": 6, "duplicates": 1, "bytes": 9, "refused": {"bad-shape": 5}}
        at_work(tmp_path, holding=True, counters=counters)
        now = time.time()
        snapshot = lookout.look(now)
        assert [alarm.kind for alarm in snapshot.alarms] == ["planes-held", "refused"]  # the graver first
        assert snapshot.alarms[1].text.startswith("3 messages")
        at_work(tmp_path, counters=counters)
        lookout.look(now + 5)
        assert set(kinds(lookout.look(now + 8))) == {"refused"}
        for later in (40, 70):
            snapshot = lookout.look(now + later)
        assert "refused" not in kinds(snapshot)


def test_of_a_session_without_a_plane_nothing_is_said_to_be_bridged(session, tmp_path):
    store = session()
    store.journal.close_arrivals("aborted")
    at_work(tmp_path)
    with Lookout(tmp_path) as lookout:
        missing = kinds(lookout.look())["planes-missing"]
    assert "6 of 6 planes" in missing.text
    assert missing.remedy.startswith("there is nothing to restore")


def test_planes_that_are_missing_and_a_sender_that_is_silent(session, tmp_path):
    store = session()
    land(store, *stack(0, [0, 1, 4]))
    at_work(tmp_path, opened={store.session: OpenStatus(3, 0, silent_s=45.0)})
    with Lookout(tmp_path) as lookout:
        found = kinds(lookout.look())
        assert set(found) == {"planes-missing", "session-silent"}
        assert "2 of 6 planes of cells are missing (t0 c0 z2–3)" in found["planes-missing"].text
        assert found["planes-missing"].session == store.session
        store.journal.close_arrivals("silence")
        store.journal.forget_planes([(0, 0, 1)])
        store.journal.note("damaged", planes=[[0, 0, 1]], count=1)
        at_work(tmp_path)
        assert set(kinds(lookout.look())) == {"planes-missing", "planes-damaged", "session-silent"}
        store.journal.set_state((0, 0), "restored")
        lookout.look()
        assert "planes-missing" in kinds(lookout.look())
        at_work(tmp_path)
    later = time.time() + alarms.RECENT + 60
    with Lookout(tmp_path) as lookout:
        assert set(kinds(lookout.look(later))) == {"listener-down", "worker-down"}


def test_stacks_that_are_late_failed_or_set_aside(session, tmp_path):
    store = session(t=5, z=2)
    for t in range(5):
        land(store, *stack(t, range(2)))
    journal = store.journal
    journal.note("restored", stack=[0, 0], method="interpolate", warnings=[], in_hand_s=-7.0)
    journal.set_state((0, 0), "restored")
    journal.note("failure", stack=[1, 0], trace="Traceback\nValueError: torn")
    journal.set_state((1, 0), "failed")
    journal.note("set aside", stack=[2, 0], stage="turn", crashes=2, report="r.txt")
    journal.set_state((2, 0), "failed")
    journal.note("cancelled", stack=[3, 0], reason="cancelled")
    journal.set_state((3, 0), "failed")
    now = time.time()
    at_work(tmp_path, awaited=[Awaited(store.session, 4, 0, now - 5, 1.0, True)])
    with Lookout(tmp_path) as lookout:
        found = {alarm.t: alarm for alarm in lookout.look(now).alarms}
    assert {t: (alarm.kind, alarm.severity) for t, alarm in found.items()} == {
        0: ("stack-late", "warning"),
        1: ("stack-failed", "critical"),
        2: ("stack-set-aside", "critical"),
        4: ("stack-late", "critical"),
    }
    assert found[1].text.endswith("ValueError: torn")
    assert found[4].since == now - 5
    assert all(alarm.remedy for alarm in found.values())
