"""What people ask for is done by the real worker, and is known again after a restart."""

import time

import pytest
from stacks import small_stack, write

from otf_stream.learn.compute import choose_compute
from otf_stream.restore.turns import Turn
from otf_stream.service.budget import Budget
from otf_stream.service.settings import Settings
from otf_stream.service.worker import Worker
from otf_stream.store.controls import Controls, ask
from otf_stream.store.restored import read_provenance, read_restored

CPU = choose_compute("cpu")


@pytest.fixture
def settings(weights):
    """A budget that no test waits for, and a network that is small."""
    return Settings(budget=Budget(total=600, tail=600), weights=weights)


@pytest.fixture
def worker(tmp_path, settings):
    worker = Worker(tmp_path, settings, CPU)
    yield worker
    worker.close()


def work(worker, done):
    """Work until it is done."""
    end = time.monotonic() + 120
    while not done():
        assert time.monotonic() < end, "waited too long"
        if worker.work() is not Turn.READY:
            time.sleep(0.02)


def events(store, kind):
    return [event.detail for event in store.journal.events(kinds=(kind,))]


def decisions(store):
    return [detail["decision"] for detail in events(store, "decision")]


def learns(store):
    return lambda: events(store, "training")


def test_a_stack_that_is_cancelled_is_left_as_it_is(session, worker, tmp_path, settings):
    unwanted, wanted = (session({(0, 0): small_stack(side=48)}, name=name, close=False) for name in ("no", "yes"))
    work(worker, learns(unwanted))
    ask(unwanted.journal, "cancel", (0, 0))
    work(worker, lambda: unwanted.journal.state((0, 0)) == "failed")
    assert events(unwanted, "cancelled") == [{"stack": [0, 0], "reason": "cancelled"}]
    assert wanted.journal.state((0, 0)) != "failed"
    ask(wanted.journal, "cancel", (0, 0))
    again = Worker(tmp_path, settings, CPU)
    work(again, lambda: wanted.journal.state((0, 0)) == "failed")
    assert again.work() is None
    again.close()


def test_planes_that_come_after_it_was_cancelled_change_nothing(session, worker):
    stack = small_stack(side=48)
    store = session({(0, 0): stack}, skip=(9,), close=False)
    ask(store.journal, "cancel", (0, 0))
    work(worker, lambda: store.journal.state((0, 0)) == "failed")
    write(store, [((0, 0, 9), stack[9])])
    assert store.journal.state((0, 0)) != "failed"
    work(worker, lambda: store.journal.state((0, 0)) == "failed")
    assert decisions(store) == []


def test_finish_now_ends_learning_and_waits_for_no_plane(session, worker):
    stack = small_stack(side=48)
    store = session({(0, 0): stack}, skip=(9,), close=False)
    work(worker, learns(store))
    ask(store.journal, "finish", (0, 0))
    work(worker, lambda: events(store, "restored"))
    told = read_provenance(store.path)["t0c0"]
    assert told["missing_planes"] == [9]
    assert any("as somebody asked" in warning for warning in told["warnings"])
    assert {"decision": "stop learning", "reason": "somebody asked to finish now"}.items() <= next(
        detail for detail in events(store, "decision") if detail["decision"] == "stop learning"
    ).items()
    assert "finish now" in decisions(store)
    assert store.journal.state((0, 0)) == "restored"
    # It was asked for once: what comes later is restored anew, at the end and not at once.
    write(store, [((0, 0, 9), stack[9])])
    asked = Controls()
    asked.read(store.journal)
    assert asked.finishing == set()
    begun = len(decisions(store))
    work(worker, lambda: "learn" in decisions(store)[begun:])
    assert "finish now" not in decisions(store)[begun:]


def test_learning_waits_while_it_is_paused_and_what_is_not_learning_goes_on(session, worker):
    learnt = session({(0, 0): small_stack(side=48)}, name="learnt")
    other = session({(0, 0): small_stack(side=48)}, name="other")
    ask(learnt.journal, "pause")
    ask(other.journal, "pause")
    work(worker, lambda: "learn" in decisions(learnt) and "learn" in decisions(other))
    for _ in range(20):
        worker.work()
    assert worker.work() is Turn.WAITING
    assert events(learnt, "training") == events(other, "training") == []
    assert "pause learning" in decisions(learnt)
    ask(other.journal, "finish", (0, 0))  # with the networks as they are
    work(worker, lambda: other.journal.state((0, 0)) == "restored")
    assert read_restored(other.path, (0, 0)).max() > 100
    assert events(learnt, "training") == []
    ask(learnt.journal, "resume")
    work(worker, learns(learnt))
    assert decisions(learnt)[-1] == "resume learning"


def test_what_was_asked_for_must_make_sense(session):
    journal = session({(0, 0): small_stack(side=48)}).journal
    for control, stack in (("stop", None), ("cancel", None), ("pause", (0, 0))):
        with pytest.raises(ValueError, match=control):
            ask(journal, control, stack)
    assert journal.events() == []
