"""Previews: there when the planes are, flagged as such, and never painted over what is restored."""

import errno
import sqlite3
import threading

import numpy as np
import pytest
import torch
from stacks import small_stack, write
from waiting import until

from otf_stream.learn.compute import choose_compute
from otf_stream.restore.methods import Grid, interpolated
from otf_stream.restore.turns import Turn
from otf_stream.service import preview
from otf_stream.service.pending import PendingStacks
from otf_stream.service.preview import Previewer
from otf_stream.service.settings import Settings
from otf_stream.service.source import StackSource
from otf_stream.service.worker import Worker
from otf_stream.store.pyramid import halve
from otf_stream.store.restored import read_provenance, read_restored


@pytest.fixture
def previewer(tmp_path):
    pending = PendingStacks(tmp_path)
    yield Previewer(pending)
    pending.close()


def by_hand(stack):
    raw = torch.from_numpy(stack.astype(np.float32))
    return interpolated(Grid(range(len(stack)), 4.0, 4 * (len(stack) - 1) + 1), raw).numpy()


def test_a_stack_is_interpolated_as_soon_as_it_is_there(session, previewer):
    stack = small_stack()
    store = session({(0, 0): stack}, skip=(9,), close=False)
    previewer.write_all()
    assert not (store.path / "restored").exists()
    write(store, [((0, 0, 9), stack[9])])
    previewer.write_all()
    np.testing.assert_allclose(read_restored(store.path, (0, 0)), by_hand(stack), atol=0.51)
    assert read_provenance(store.path)["t0c0"]["preview"]
    (noted,) = (event.detail for event in store.journal.events() if event.kind == "preview")
    assert noted["level"] == 0
    assert store.journal.state((0, 0)) == "arrived"


def test_of_a_large_stack_the_coarser_levels_are_written(session, previewer, monkeypatch):
    stack = np.pad(small_stack(planes=20), ((0, 0), (0, 240), (0, 241)), mode="reflect")  # 77 × 312 × 313 voxels
    monkeypatch.setattr(preview, "_VOXELS", 2**20)
    monkeypatch.setattr(preview, "_FIRST_VOXELS", 2**18)
    store = session({(0, 0): stack})
    previewer.write_all()
    assert not read_restored(store.path, (0, 0)).any()
    np.testing.assert_allclose(read_restored(store.path, (0, 0), level=1), halve(by_hand(stack)), atol=0.51)


def test_planes_of_a_large_stack_are_pooled_as_they_come(session, previewer, monkeypatch):
    stack = np.pad(small_stack(planes=20), ((0, 0), (0, 240), (0, 241)), mode="reflect")
    monkeypatch.setattr(preview, "_VOXELS", 2**20)
    store = session({(0, 0): stack}, skip=(19,), close=False)
    for _ in range(3):  # some at a time
        previewer.write_all()
    read, planes = StackSource.read, []
    monkeypatch.setattr(StackSource, "read", lambda source, wanted: planes.extend(wanted) or read(source, wanted))
    write(store, [((0, 0, 19), stack[19])])
    previewer.write_all()
    assert planes == [19]
    np.testing.assert_allclose(read_restored(store.path, (0, 0), level=1), halve(by_hand(stack)), atol=0.51)


def test_the_coarser_levels_come_first(session, tmp_path, monkeypatch):
    stack = np.pad(small_stack(planes=20), ((0, 0), (0, 240), (0, 241)), mode="reflect")
    monkeypatch.setattr(preview, "_FIRST_VOXELS", 2**20)
    store = session({(0, 0): stack})
    (pending,) = PendingStacks(tmp_path).find()
    there = preview.write_preview(pending, StackSource(pending.store, (0, 0)))
    assert next(there) == 1
    assert not read_restored(store.path, (0, 0)).any()
    np.testing.assert_allclose(read_restored(store.path, (0, 0), level=1), halve(by_hand(stack)), atol=0.51)
    assert next(there) == 0
    np.testing.assert_allclose(read_restored(store.path, (0, 0)), by_hand(stack), atol=0.51)
    assert list(there) == []
    pending.store.close()


def test_the_restored_volume_takes_its_place(session, previewer, tmp_path):
    store = session({(0, 0): small_stack()})
    previewer.write_all()
    worker = Worker(tmp_path, Settings(method="richardson-lucy"), choose_compute("cpu"), claim=previewer.claim)
    while worker.work() is not None:
        pass
    told = read_provenance(store.path)["t0c0"]
    assert told["method"] == "richardson-lucy"
    assert "preview" not in told
    volume = read_restored(store.path, (0, 0))
    assert volume.astype(float).std() > by_hand(small_stack()).std()
    previewer.write_all()
    np.testing.assert_array_equal(read_restored(store.path, (0, 0)), volume)
    worker.close()


def test_a_stack_that_is_being_restored_is_left_alone(session, previewer):
    store = session({(0, 0): small_stack()})
    assert previewer.claim((store.session, (0, 0)))
    previewer.write_all()
    assert not (store.path / "restored").exists()


def test_restoring_waits_for_a_preview_that_is_being_written(session, previewer, tmp_path, monkeypatch):
    store = session({(0, 0): small_stack()})
    worker = Worker(tmp_path, Settings(method="interpolate"), choose_compute("cpu"), claim=previewer.claim)
    turns = []
    write_preview = preview.write_preview

    def meanwhile(pending, source, pooled):
        turns.extend(worker.work() for _ in range(3))
        assert store.journal.state((0, 0)) == "arrived"
        yield from write_preview(pending, source, pooled)

    monkeypatch.setattr(preview, "write_preview", meanwhile)
    previewer.write_all()
    assert turns[-1] is Turn.WAITING
    while worker.work() is not None:
        pass
    assert store.journal.state((0, 0)) == "restored"
    assert "preview" not in read_provenance(store.path)["t0c0"]
    worker.close()


def test_a_preview_that_fails_is_noted_and_stops_nobody(session, previewer, tmp_path):
    broken, sound = (session({(0, 0): small_stack()}, name=name) for name in ("broken", "sound"))
    (broken.path / "raw/0/c/0/0/3/0/0").write_bytes(b"torn")
    previewer.write_all()
    previewer.write_all()
    assert [event.kind for event in broken.journal.events()] == ["preview failed"]
    assert read_restored(sound.path, (0, 0)).any()


def test_a_preview_that_a_full_disk_does_not_take_is_no_failure(session, previewer, monkeypatch):
    def full(pending, *rest):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("otf_stream.service.preview.write_preview", full)
    store = session({(0, 0): small_stack()})
    previewer.write_all()
    assert store.journal.events() == []


def test_a_journal_that_cannot_be_written_is_not_the_end_of_previews(session, tmp_path, monkeypatch):
    monkeypatch.setattr(preview, "_AGAIN", 0.0)
    monkeypatch.setattr(preview, "_POLL", 0.0)
    store, pending, stop = session({(0, 0): small_stack()}), PendingStacks(tmp_path), threading.Event()
    find, failed = pending.find, []

    def fail_once():
        if not failed:
            failed.append(True)
            raise sqlite3.OperationalError("database is locked")
        return find()

    monkeypatch.setattr(pending, "find", fail_once)
    thread = threading.Thread(target=Previewer(pending).run, args=(stop,))
    thread.start()
    until(lambda: any(event.kind == "preview" for event in store.journal.events()))
    stop.set()
    thread.join()
