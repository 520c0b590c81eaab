"""Planes that land on a real disk, in threads of the landing's own."""

from __future__ import annotations

import select
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from waiting import until

from otf_stream.acquire.landing import Landing
from otf_stream.acquire.protocol import Plane, ProtocolError
from otf_stream.acquisition import Acquisition, PlaneIndex
from otf_stream.config import Sync
from otf_stream.store.chunks import chunk_file
from otf_stream.store.session import SessionStore

Pixels = Callable[[PlaneIndex], np.ndarray]


@pytest.fixture
def stores(tmp_path: Path, acquisition: Acquisition) -> Iterator[list[SessionStore]]:
    stores = [
        SessionStore.create(tmp_path / f"{digit}.ome.zarr", acquisition, session=digit * 32) for digit in ("a", "b")
    ]
    yield stores
    for store in stores:
        store.close()


@pytest.fixture
def landing() -> Iterator[Landing]:
    landing = Landing(1 << 20)
    yield landing
    landing.close()


def header(store: SessionStore, index: PlaneIndex, pixels: np.ndarray) -> Plane:
    t, c, z = index
    return Plane(session=store.session, t=t, c=c, z=z, crc=zlib.crc32(pixels.data), taken=float(z))


def files_below(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.is_file()}


def test_planes_of_several_sessions_land_and_are_told_once(
    landing: Landing, stores: list[SessionStore], indices: list[PlaneIndex], pixels: Pixels
) -> None:
    for index in indices:
        for store, peer in zip(stores, (b"one", b"two"), strict=True):
            landing.put(store, header(store, index, pixels(index)), pixels(index).data, peer)
            assert landing.holds(store.session, index)
    landing.settle()
    assert select.select([landing.ear], [], [], 0)[0]
    landed = landing.landed()
    assert not select.select([landing.ear], [], [], 0)[0]
    assert landing.landed() == []
    assert [each.error for each in landed] == [None] * 40
    assert {(each.store, each.message.index, each.peer) for each in landed} == {
        (store, index, peer) for index in indices for store, peer in zip(stores, (b"one", b"two"), strict=True)
    }
    for store in stores:
        assert list(store.journal.durable()) == indices
        for index in indices:
            assert not landing.holds(store.session, index)
            np.testing.assert_array_equal(store.read_plane(index), pixels(index))
            assert store.journal.taken(index) == index[2]


@pytest.mark.parametrize("sync", ["plane", "group", "interval"])
def test_planes_land_whenever_they_are_synchronised(
    tmp_path: Path, acquisition: Acquisition, indices: list[PlaneIndex], pixels: Pixels, sync: Sync
) -> None:
    store = SessionStore.create(tmp_path / "a.ome.zarr", acquisition, session="a" * 32, deferred=sync == "interval")
    landing = Landing(1 << 20, sync=sync, interval=0.01)
    for index in indices:
        landing.put(store, header(store, index, pixels(index)), pixels(index).data, b"one")
    landing.settle()
    assert [each.error for each in landing.landed()] == [None] * len(indices)
    until(lambda: not store._unsettled)
    landing.close()
    store.close()
    with closing(SessionStore.open(store.path)) as again:
        assert list(again.journal.durable()) == indices
        assert not list(again.damaged(again.journal.durable().items()))


def test_altered_pixels_are_not_written(landing: Landing, stores: list[SessionStore], pixels: Pixels) -> None:
    before = files_below(stores[0].path)
    landing.put(stores[0], header(stores[0], (0, 0, 0), pixels((0, 0, 0))), pixels((0, 0, 1)).data, b"one")
    landing.settle()
    (landed,) = landing.landed()
    assert isinstance(landed.error, ProtocolError)
    assert landed.error.code == "bad-checksum"
    assert files_below(stores[0].path) == before


def test_a_failing_disk_fails_its_planes_and_leaves_nothing(
    landing: Landing, stores: list[SessionStore], pixels: Pixels, tmp_path: Path
) -> None:
    broken, other = stores
    stack = chunk_file(broken.path, (0, 0, 0)).parents[2]
    stack.parent.mkdir(parents=True)
    stack.write_text("in the way")
    for z in range(5):
        for store in stores:
            landing.put(store, header(store, (0, 0, z), pixels((0, 0, z))), pixels((0, 0, z)).data, b"one")
    landing.settle()
    failed = {each.store: isinstance(each.error, OSError) for each in landing.landed()}
    assert failed == {broken: True, other: False}
    assert broken.journal.durable() == {}
    assert len(other.journal.durable()) == 5
    stack.unlink()
    landing.put(broken, header(broken, (0, 0, 0), pixels((0, 0, 0))), pixels((0, 0, 0)).data, b"one")
    landing.settle()
    assert landing.landed()[0].error is None
    np.testing.assert_array_equal(broken.read_plane((0, 0, 0)), pixels((0, 0, 0)))


def test_a_journal_that_cannot_be_written_fails_the_group_and_drops_what_was_staged(
    landing: Landing, stores: list[SessionStore], pixels: Pixels
) -> None:
    stores[0].journal.close()
    landing.put(stores[0], header(stores[0], (0, 0, 0), pixels((0, 0, 0))), pixels((0, 0, 0)).data, b"one")
    landing.settle()
    (landed,) = landing.landed()
    assert landed.error is not None
    assert not list(stores[0].path.rglob("*.partial"))


def test_is_full_until_the_pixels_are_written(stores: list[SessionStore], pixels: Pixels) -> None:
    landing = Landing(1)
    assert not landing.full
    # The journal is locked by somebody else: planes are written, and not committed yet.
    with stores[0].journal._lock:
        for z in range(2):
            landing.put(stores[0], header(stores[0], (0, 0, z), pixels((0, 0, z))), pixels((0, 0, z)).data, b"one")
        with landing._changed:
            assert landing._changed.wait_for(lambda: not landing.full, 60)
        assert landing.landed() == []
        assert landing.holds(stores[0].session, (0, 0, 0))
    landing.close()
    assert len(landing.landed()) == 2


def test_leaves_no_threads_and_closes_twice(stores: list[SessionStore], pixels: Pixels) -> None:
    before = set(threading.enumerate())
    landing = Landing(1 << 20)
    landing.put(stores[0], header(stores[0], (0, 0, 0), pixels((0, 0, 0))), pixels((0, 0, 0)).data, b"one")
    landing.close()
    landing.close()
    assert {thread for thread in threading.enumerate() if not thread.name.startswith("store")} <= before
    assert list(stores[0].journal.durable()) == [(0, 0, 0)]
