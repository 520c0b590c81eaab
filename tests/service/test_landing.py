"""Regions land whatever stands in their way, as a disk that fails once."""

import sqlite3
from contextlib import closing

import numpy as np
import pytest
import torch
from stacks import small_stack

from otf_stream.learn.compute import choose_compute
from otf_stream.optics.noise import NoiseModel
from otf_stream.restore.fidelity import Fidelity
from otf_stream.restore.methods import interpolate
from otf_stream.restore.regions import Method
from otf_stream.restore.turns import Turn
from otf_stream.service.landing import landing, writing
from otf_stream.service.source import StackSource
from otf_stream.store.journal import Journal
from otf_stream.store.restored import RestoredWriter, read_restored

CPU = choose_compute("cpu")


def land(store, method, room=None, told=lambda stage, share: None):
    source = StackSource(store, (0, 0))
    grid = source.grid()
    writer = RestoredWriter.create(store, dtype="uint16")
    fidelity = Fidelity(grid, NoiseModel(1.0, 100.0, 1.0), torch.ones(1))
    room = room or (lambda write: writing(store.journal, write, patient=False))
    turns = list(landing(source, grid, method, fidelity, writer, CPU, told, room))
    return read_restored(store.path, (0, 0)), fidelity, turns


def wide_stack():
    return np.tile(small_stack(planes=6, side=100), (1, 6, 8))  # 600 × 800 pixels


def test_other_stacks_may_have_the_device_between_two_regions(session):
    store = session({(0, 0): wide_stack()})
    shares = []
    volume, fidelity, turns = land(
        store, interpolate(StackSource(store, (0, 0)).grid()), told=lambda stage, share: shares.append(share)
    )
    assert turns.count(Turn.READY) >= 3 * 4
    assert shares == [region / 12 for region in range(12)]
    assert fidelity.flux_ratio == pytest.approx(1, abs=0.01)
    np.testing.assert_array_equal(volume[:1], wide_stack()[:1])


def test_voxels_are_rounded_and_held_to_the_range_of_the_store(session):
    store = session({(0, 0): small_stack(planes=6, side=100)})
    given = torch.tensor([-7.0, 0.4, 1.5, 40000.6, 65535.2, 1e6])

    def restore(raw, region):
        yield Turn.READY
        return given.repeat(21, 100, 17)[:, :, :100]

    volume, _, _ = land(store, Method("made up", restore))
    np.testing.assert_array_equal(volume[:, :, :6], np.broadcast_to([0, 0, 2, 40001, 65535, 65535], (21, 100, 6)))


def test_voxels_that_are_not_finite_do_not_land(session):
    def restore(raw, region):
        yield Turn.READY
        return torch.full((21, 100, 100), float("nan"))

    with pytest.raises(ValueError, match="not finite"):
        land(session({(0, 0): small_stack(planes=6, side=100)}), Method("made up", restore))


def test_a_region_that_could_not_be_written_is_written_again(session, monkeypatch):
    stack = wide_stack()
    store = session({(0, 0): stack})
    write, failed = RestoredWriter.write, []

    def fail_once(self, index, region, volume):
        if region not in failed:
            failed.append(region)
            raise OSError(28, "No space left on device")
        write(self, index, region, volume)

    monkeypatch.setattr(RestoredWriter, "write", fail_once)
    monkeypatch.setattr("otf_stream.service.landing._ROOM_POLL", 0.0)
    volume, _, _ = land(
        store, interpolate(StackSource(store, (0, 0)).grid()), room=lambda w: writing(store.journal, w, patient=True)
    )
    assert failed
    assert (volume.reshape(21, -1).max(axis=1) > 0).all()
    assert (volume[:, -50:, -50:] > 0).any()


def test_a_locked_journal_is_waited_for_and_costs_no_volume(session, monkeypatch):
    store = session({(0, 0): wide_stack()})
    monkeypatch.setattr("otf_stream.service.landing._ROOM_POLL", 0.01)
    with closing(Journal.open(store.journal.path, patience=0.0)) as ours, closing(sqlite3.connect(ours.path)) as theirs:
        theirs.execute("BEGIN IMMEDIATE")
        work = writing(ours, lambda: ours.set_state((0, 0), "restoring"), patient=True)
        assert next(work) is Turn.WAITING
        assert next(work) is Turn.WAITING
        theirs.rollback()
        assert all(turn is Turn.WAITING for turn in work)
        assert ours.state((0, 0)) == "restoring"
        theirs.execute("BEGIN IMMEDIATE")
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            next(writing(ours, lambda: ours.set_state((0, 0), "restored"), patient=False))
