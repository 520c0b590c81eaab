"""Restoring recordings: every stack, and never over the recording itself."""

import numpy as np
import pytest
from stacks import small_stack

from otf_stream.learn.compute import choose_compute
from otf_stream.service.budget import Budget
from otf_stream.service.folder import folder_lock
from otf_stream.service.recorded import restore_recording
from otf_stream.service.settings import Settings
from otf_stream.store.recordings import open_recording
from otf_stream.store.restored import read_restored

CPU = choose_compute("cpu")
FAST = Settings(method="interpolate", budget=Budget(steps=1))


def test_a_recording_is_never_its_own_output(session):
    store = session({(0, 0): small_stack()})
    before = store.read_plane((0, 0, 3))
    recording = open_recording(store.path)
    for out in (store.path, store.path / "again.ome.zarr"):
        with pytest.raises(ValueError, match="another output"):
            restore_recording(recording, out, FAST, CPU, overwrite=True)
    recording.close()
    assert np.array_equal(store.read_plane((0, 0, 3)), before)


def test_nothing_is_restored_by_hand_where_a_service_is_at_work(session, tmp_path):
    recording = open_recording(session({(0, 0): small_stack(planes=5)}).path)
    (tmp_path / "data").mkdir()
    with folder_lock(tmp_path / "data"), pytest.raises(ValueError, match="a service is at work in"):
        restore_recording(recording, tmp_path / "data" / "out.ome.zarr", FAST, CPU)
    recording.close()
    assert not (tmp_path / "data" / "out.ome.zarr").exists()


def test_every_stack_of_a_recording_is_restored(session, tmp_path):
    stacks = {(t, c): small_stack(planes=5, seed=2 * t + c) for t in range(2) for c in range(2)}
    recording = open_recording(session(stacks).path)
    told = []
    provenance = restore_recording(
        recording, tmp_path / "out.ome.zarr", FAST, CPU, progress=lambda stack, stage, done: told.append((stack, stage))
    )
    recording.close()
    assert set(provenance) == set(stacks)
    assert {((1, 1), "restore"), ((0, 0), "read")} <= set(told)
    for stack, planes in stacks.items():
        restored = read_restored(tmp_path / "out.ome.zarr", stack)
        assert np.array_equal(restored[::4], planes)
