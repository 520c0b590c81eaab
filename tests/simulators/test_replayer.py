from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tifffile

from otf_stream.acquire.listener import Listener
from otf_stream.acquisition import PlaneIndex, VoxelSize
from otf_stream.store.recordings import Recording, open_recording
from otf_stream.store.session import SessionStore
from simulators.replayer import replay

PLANES = np.random.default_rng(0).integers(0, 4000, (6, 24, 32)).astype(np.uint16)
VOXEL_SIZE = VoxelSize(z=1, y=0.25, x=0.25)


@pytest.fixture
def recording(tmp_path: Path) -> Iterator[Recording]:
    tifffile.imwrite(tmp_path / "cells.tif", PLANES, photometric="minisblack", metadata={"axes": "ZYX"})
    recording = open_recording(tmp_path / "cells.tif", voxel_size=VOXEL_SIZE)
    yield recording
    recording.close()


def test_all_planes_arrive(recording: Recording, listener: Listener, tmp_path: Path) -> None:
    seen: list[PlaneIndex] = []
    summary = replay(recording, listener.address, on_plane=seen.append)
    assert seen == [(0, 0, z) for z in range(6)]
    assert (summary.planes, summary.missing, summary.bytes) == (6, 0, PLANES.nbytes)
    assert summary.as_dict()["name"] == "cells"
    assert "6 planes" in summary.as_text()
    store = SessionStore.open(tmp_path / "data" / "cells.ome.zarr")
    assert store.session == summary.session
    assert store.acquisition == recording.acquisition
    assert all(np.array_equal(store.read_plane((0, 0, z)), PLANES[z]) for z in range(6))
    store.close()


def test_missing_planes_are_skipped(listener: Listener, tmp_path: Path) -> None:
    first = SessionStore.create(tmp_path / "holes.ome.zarr", _acquisition(tmp_path), session="0" * 32)
    for z in (0, 1, 3, 5):
        first.write_planes([((0, 0, z), PLANES[z].tobytes(), 0)])
    first.close()
    recording = open_recording(tmp_path / "holes.ome.zarr", name="again")
    summary = replay(recording, listener.address)
    recording.close()
    assert (summary.planes, summary.missing) == (4, 2)
    assert "2 missing" in summary.as_text()
    store = SessionStore.open(tmp_path / "data" / "again.ome.zarr")
    assert store.journal.planes_of((0, 0)) == [0, 1, 3, 5]
    assert store.journal.closed is not None
    store.close()


def test_planes_come_no_faster_than_asked(recording: Recording, listener: Listener) -> None:
    assert replay(recording, listener.address, planes_per_second=50).seconds >= 5 / 50


def test_a_rate_that_cannot_be(recording: Recording) -> None:
    with pytest.raises(ValueError, match="above 0"):
        replay(recording, "tcp://127.0.0.1:9", planes_per_second=0)


def _acquisition(tmp_path: Path):
    tifffile.imwrite(tmp_path / "holes.tif", PLANES, photometric="minisblack", metadata={"axes": "ZYX"})
    recording = open_recording(tmp_path / "holes.tif", voxel_size=VOXEL_SIZE)
    recording.close()
    return recording.acquisition
