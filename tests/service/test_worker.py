"""The worker finds its work in the stores, and no stack takes another down."""

import shutil
import time
import uuid

import numpy as np
import pytest
from stacks import small_stack, write

from otf_stream.acquisition import Acquisition
from otf_stream.learn.compute import choose_compute
from otf_stream.monitor.lookout import overview
from otf_stream.restore.trust import Trust
from otf_stream.restore.turns import Turn
from otf_stream.service.budget import Budget
from otf_stream.service.settings import Settings
from otf_stream.service.worker import Worker
from otf_stream.store.journal import journal_path, remove_journal
from otf_stream.store.restored import read_provenance, read_restored
from otf_stream.store.session import SessionStore

CPU = choose_compute("cpu")


def restored(store, stack):
    return lambda: store.journal.state(stack) == "restored"


def settle(worker, done=lambda: False):
    """Work until there is no stack left, or it is `done`."""
    while not done() and (turn := worker.work()) is not None:
        if turn is Turn.WAITING:
            time.sleep(0.05)


@pytest.fixture
def worker(tmp_path, weights):
    worker = Worker(tmp_path, Settings(budget=Budget(steps=2), weights=weights), CPU)
    yield worker
    worker.close()


def test_every_stack_of_every_session_is_restored(session, worker):
    stores = [
        session({(0, c): small_stack(seed=1 + c, side=48) for c in range(2)}, name="two channels"),
        session({(t, 0): small_stack(seed=3 + t, side=48) for t in range(2)}, name="two times"),
    ]
    settle(worker)
    for store in stores:
        for stack in store.acquisition.stacks():
            assert store.journal.state(stack) == "restored"
            assert read_restored(store.path, stack).max() > 100
        assert len(read_provenance(store.path)) == 2


def test_a_stack_that_was_being_restored_when_the_worker_died_is_restored_again(session, worker):
    store = session({(0, 0): small_stack(side=48)})
    store.journal.set_state((0, 0), "restoring")
    settle(worker)
    assert store.journal.state((0, 0)) == "restored"


def test_a_stack_that_cannot_be_restored_is_set_aside_with_its_reason(session, worker):
    broken = session({(0, 0): small_stack(side=48)}, name="broken")
    (broken.path / "raw/0/c/0/0/3/0/0").write_bytes(b"torn")
    sound = session({(0, 0): small_stack(side=48)}, name="sound")
    settle(worker)
    assert broken.journal.state((0, 0)) == "failed"
    failures = [event.detail["trace"] for event in broken.journal.events() if event.kind == "failure"]
    assert len(failures) == 2  # learnt, then interpolated
    assert "Traceback" in failures[0]
    assert sound.journal.state((0, 0)) == "restored"


def test_a_stack_that_cannot_even_be_begun_stops_nobody(session, worker, monkeypatch):
    odd, sound = (session({(0, 0): small_stack(side=48)}, name=name) for name in ("odd", "sound"))
    begin = Worker._begin
    monkeypatch.setattr(Worker, "_begin", lambda self, key: 1 / 0 if key[0] == odd.session else begin(self, key))
    settle(worker)
    assert odd.journal.state((0, 0)) == "failed"
    assert "ZeroDivisionError" in next(e.detail["trace"] for e in odd.journal.events() if e.kind == "failure")
    assert sound.journal.state((0, 0)) == "restored"


def test_a_stack_that_never_came_is_set_aside(session, worker):
    store = session({(0, 0): small_stack(side=48), (0, 1): small_stack(side=48)[:0]})
    settle(worker)
    assert store.journal.state((0, 0)) == "restored"
    assert store.journal.state((0, 1)) == "failed"


def test_an_idle_worker_has_nothing_to_do(worker):
    assert worker.work() is None


def test_channels_do_not_mix(session, worker):
    store = session({(0, 0): small_stack(side=48), (0, 1): np.full((10, 48, 48), 1000, np.uint16)})
    settle(worker)
    assert (read_restored(store.path, (0, 1)) == 1000).all()
    assert read_restored(store.path, (0, 0)).mean() < 500


def test_a_time_point_whose_planes_were_dropped_is_left_behind_while_others_arrive(session, worker):
    store = session({(0, 0): small_stack(side=48), (1, 0): small_stack(seed=1, side=48)}, skip=(4,), close=False)
    settle(worker, restored(store, (0, 0)))
    assert store.journal.state((0, 0)) == "restored"
    assert read_provenance(store.path)["t0c0"]["missing_planes"] == [4]


def test_a_new_session_may_take_the_name_of_a_deleted_one(session, worker):
    first = session({(0, 0): small_stack(side=48)})
    settle(worker)
    first.close()
    shutil.rmtree(first.path)
    remove_journal(journal_path(first.path))
    second = session({(0, 0): small_stack(seed=1, side=48)})
    settle(worker)
    assert second.journal.state((0, 0)) == "restored"


def test_a_damaged_journal_stops_nobody(session, worker, tmp_path):
    damaged = session({(0, 0): small_stack(side=48)}, name="damaged")
    damaged.close()
    journal = journal_path(damaged.path)
    remove_journal(journal)
    journal.write_bytes(b"this is no database" * 100)
    sound = session({(0, 0): small_stack(side=48)}, name="sound")
    assert [seen.store for seen in overview(tmp_path)] == [sound.path]
    settle(worker)
    assert sound.journal.state((0, 0)) == "restored"


def growing_session(tmp_path, name="growing"):
    acquisition = Acquisition(
        name=name,
        sizes={"z": 1, "y": 72, "x": 72},
        dtype="uint16",
        voxel_size={"z": 0.8, "y": 0.2, "x": 0.2},
        growing=True,
    )
    return SessionStore.create(tmp_path / f"{name}.ome.zarr", acquisition, session=uuid.uuid4().hex)


def test_an_acquisition_of_unknown_length_is_restored_as_it_grows(tmp_path, worker):
    store = growing_session(tmp_path)
    stacks = [small_stack(seed=1), small_stack(seed=2), small_stack(seed=3, planes=12)]
    for t, stack in enumerate(stacks[:2]):
        write(store, [((t, 0, z), plane) for z, plane in enumerate(stack)])
    settle(worker, restored(store, (0, 0)))  # the first time point is over, since the second has begun
    assert store.journal.state((0, 0)) == "restored"
    assert read_restored(store.path, (0, 0)).shape == (37, 72, 72)
    write(store, [((2, 0, z), plane) for z, plane in enumerate(stacks[2])])
    store.journal.close_arrivals("finished")
    settle(worker)
    assert [store.journal.state(stack) for stack in store.journal.stacks()] == ["restored"] * 3
    assert read_restored(store.path, (2, 0)).shape == (45, 72, 72)
    assert not read_restored(store.path, (1, 0))[37:].any()  # this one was less deep
    assert all(not said["missing_planes"] for said in read_provenance(store.path).values())
    store.close()


def test_stacks_that_wait_for_their_planes_make_no_other_late(session, tmp_path, weights, monkeypatch):
    monkeypatch.setattr("otf_stream.service.worker._AT_ONCE", 1)
    monkeypatch.setattr("otf_stream.service.worker._LAST_MOMENT", 2.0)  # too short for the network, however fast
    slow = growing_session(tmp_path)
    write(slow, [((0, 0, z), plane) for z, plane in enumerate(small_stack(side=72)[:3])])
    worker = Worker(tmp_path, Settings(budget=Budget(total=8, tail=0), weights=weights), CPU)
    assert worker.work() is Turn.WAITING
    quick = session({(0, 0): small_stack(seed=2, side=48)}, name="quick")
    until = time.time() + 11
    settle(worker, lambda: restored(quick, (0, 0))() or time.time() > until)
    told = read_provenance(quick.path)["t0c0"]
    assert not told["timing"]["late"]
    assert told["method"] == "interpolate"
    assert "no time to restore with the network before the deadline" in told["warnings"][0]
    assert slow.journal.state((0, 0)) != "restored"
    worker.close()
    slow.close()


def test_a_stack_that_falls_silent_is_restored_and_restored_anew_when_more_comes(tmp_path):
    worker = Worker(tmp_path, Settings(method="interpolate", silence=0.5), CPU)
    store = growing_session(tmp_path)
    stack = small_stack()
    write(store, [((0, 0, z), stack[z]) for z in range(6)])
    settle(worker)  # waits for half a second
    assert read_restored(store.path, (0, 0)).shape == (21, 72, 72)
    assert worker.work() is None
    write(store, [((0, 0, z), stack[z]) for z in range(6, 10)])
    settle(worker)
    assert read_restored(store.path, (0, 0))[36].max() > 100
    store.close()
    worker.close()


def test_a_sender_that_comes_back_is_noticed(session, tmp_path):
    worker = Worker(tmp_path, Settings(method="interpolate"), CPU)
    stack = small_stack()
    store = session({(0, 0): stack}, skip=(8, 9), close=False)
    store.journal.close_arrivals("silence")
    settle(worker)
    assert read_provenance(store.path)["t0c0"]["missing_planes"] == [8, 9]
    assert worker.work() is None
    store.journal.reopen_arrivals()
    write(store, [((0, 0, z), stack[z]) for z in (8, 9)])
    settle(worker)
    assert read_provenance(store.path)["t0c0"]["missing_planes"] == []
    worker.close()


def test_a_channel_has_zeros_where_it_has_no_planes(tmp_path):
    acquisition = Acquisition(
        name="ranges",
        sizes={"t": 2, "c": 3, "z": 12, "y": 72, "x": 72},
        dtype="uint16",
        voxel_size={"z": 0.5, "y": 0.2, "x": 0.2},
        z_ranges=((0, 12), (3, 10), (6, 7)),
        every=(1, 2, 1),
    )
    store = SessionStore.create(tmp_path / "ranges.ome.zarr", acquisition, session=uuid.uuid4().hex)
    stack = small_stack(planes=12)
    for t, c in [(0, 0), (0, 1), (1, 0)]:
        write(store, [((t, c, z), stack[z]) for z in acquisition.planes_of(c)])
    worker = Worker(tmp_path, Settings(method="interpolate"), CPU)
    settle(worker)
    assert [store.journal.state(index) for index in acquisition.stacks()] == ["restored"] * 3
    whole, part = (read_restored(store.path, (0, c)) for c in range(2))
    assert whole.shape == part.shape == (28, 72, 72)
    # Planes 3 to 9 lie at 7.5 to 22.5 voxels.
    assert not part[:8].any()
    assert not part[23:].any()
    np.testing.assert_array_equal(part[8:23], whole[8:23])
    assert read_provenance(store.path)["t0c1"]["missing_planes"] == []
    store.close()
    worker.close()


def test_a_time_point_starts_from_the_networks_of_the_one_before(session, worker, monkeypatch):
    monkeypatch.setattr(Trust, "best", "network")
    store = session({(t, 0): small_stack(seed=t, side=48) for t in range(2)})
    settle(worker)
    first, second = (read_provenance(store.path)[f"t{t}c0"] for t in range(2))
    assert first["method"] == second["method"] == "finetune"
    assert (first["training"]["started_from"], second["training"]["started_from"]) == (None, "t0c0")
    assert first["training"]["weights_sha256"] == second["training"]["weights_sha256"]
