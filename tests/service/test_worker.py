"""The worker finds its work in the stores, and no stack takes another down."""

import shutil

import numpy as np
import pytest
from stacks import small_stack

from otf_stream.learn.compute import choose_compute
from otf_stream.service.budget import Budget
from otf_stream.service.overview import overview
from otf_stream.service.stack import Settings
from otf_stream.service.worker import Worker
from otf_stream.store.journal import journal_path, remove_journal
from otf_stream.store.restored import read_provenance, read_restored

CPU = choose_compute("cpu")


@pytest.fixture
def worker(tmp_path):
    worker = Worker(tmp_path, Settings(budget=Budget(steps=2)), CPU)
    yield worker
    worker.close()


def test_every_stack_of_every_session_is_restored(session, worker):
    stores = [
        session({(0, 0): small_stack(seed=1), (0, 1): small_stack(seed=2)}, name="two channels"),
        session({(t, 0): small_stack(seed=3 + t) for t in range(2)}, name="two times"),
    ]
    while worker.work_once():
        pass
    for store in stores:
        for stack in store.acquisition.stacks():
            assert store.journal.state(stack) == "restored"
            assert read_restored(store.path, stack).max() > 100
        assert len(read_provenance(store.path)) == 2


def test_a_stack_that_was_being_restored_when_the_worker_died_is_restored_again(session, worker):
    store = session({(0, 0): small_stack()})
    store.journal.set_state((0, 0), "restoring")
    assert worker.work_once()
    assert store.journal.state((0, 0)) == "restored"


def test_a_stack_that_cannot_be_restored_is_set_aside_with_its_reason(session, worker):
    broken = session({(0, 0): small_stack()}, name="broken")
    (broken.path / "raw/0/c/0/0/3/0/0").write_bytes(b"torn")
    sound = session({(0, 0): small_stack()}, name="sound")
    while worker.work_once():
        pass
    assert broken.journal.state((0, 0)) == "failed"
    failures = [event.detail["trace"] for event in broken.journal.events() if event.kind == "failure"]
    assert len(failures) == 2  # learnt, then interpolated
    assert "Traceback" in failures[0]
    assert sound.journal.state((0, 0)) == "restored"


def test_a_stack_that_never_came_is_set_aside(session, worker):
    store = session({(0, 0): small_stack(), (0, 1): small_stack()[:0]})
    while worker.work_once():
        pass
    assert store.journal.state((0, 0)) == "restored"
    assert store.journal.state((0, 1)) == "failed"
    assert any(event.kind == "empty" for event in store.journal.events())


def test_an_idle_worker_has_nothing_to_do(worker):
    assert not worker.work_once()


def test_channels_do_not_mix(session, worker):
    store = session({(0, 0): small_stack(), (0, 1): np.full((10, 72, 72), 1000, np.uint16)})
    while worker.work_once():
        pass
    assert (read_restored(store.path, (0, 1)) == 1000).all()
    assert read_restored(store.path, (0, 0)).mean() < 500


def test_a_time_point_whose_planes_were_dropped_is_left_behind_while_others_arrive(session, worker):
    store = session({(0, 0): small_stack(), (1, 0): small_stack(seed=1)}, skip=(4,), close=False)
    assert worker.work_once()
    assert store.journal.state((0, 0)) == "restored"
    assert read_provenance(store.path)["t0c0"]["missing_planes"] == [4]


def test_a_new_session_may_take_the_name_of_a_deleted_one(session, worker):
    first = session({(0, 0): small_stack()})
    while worker.work_once():
        pass
    first.close()
    shutil.rmtree(first.path)
    remove_journal(journal_path(first.path))
    second = session({(0, 0): small_stack(seed=1)})
    assert worker.work_once()
    assert second.journal.state((0, 0)) == "restored"


def test_a_damaged_journal_stops_nobody(session, worker, tmp_path):
    damaged = session({(0, 0): small_stack()}, name="damaged")
    damaged.close()
    journal = journal_path(damaged.path)
    remove_journal(journal)
    journal.write_bytes(b"this is no database" * 100)
    sound = session({(0, 0): small_stack()}, name="sound")
    assert [seen.store for seen in overview(tmp_path)] == [sound.path]
    assert worker.work_once()
    assert sound.journal.state((0, 0)) == "restored"
