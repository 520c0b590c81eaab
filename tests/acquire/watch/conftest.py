"""A listener, and a watch that runs in a thread beside the writer under test."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from otf_stream.acquire.listener import Listener
from otf_stream.acquire.watch.folder import FolderWatch
from otf_stream.acquire.watch.recording import Given
from otf_stream.acquisition import Acquisition, PlaneIndex, VoxelSize
from otf_stream.store.finding import find_sessions
from otf_stream.store.session import SessionStore

GIVEN = Given(voxel_size=VoxelSize(z=0.8, y=0.2, x=0.2))


@pytest.fixture
def stores(tmp_path: Path) -> Path:
    folder = tmp_path / "stores"
    folder.mkdir()
    return folder


@pytest.fixture
def listener(stores: Path, listening: Callable[..., Any]) -> Iterator[Listener]:
    with listening(stores) as listener:
        yield listener


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """Where the other program saves."""
    folder = tmp_path / "saved"
    folder.mkdir()
    return folder


@contextmanager
def watching(folder: Path, listener: Listener, given: Given = GIVEN, **settings: Any) -> Iterator[FolderWatch]:
    """Watch while the body writes, however slowly, and on until all that it wrote fell quiet."""
    watch = FolderWatch(folder, listener.address, given, quiet_s=60, **settings)
    written, given_up = threading.Event(), threading.Event()
    failed: list[BaseException] = []

    def run() -> None:
        try:
            while not (written.is_set() and watch.rests) and not given_up.is_set():
                watch.look()
                time.sleep(0.01)
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield watch
        watch.quiet_s = 0.15
        written.set()
        thread.join(20)
    finally:
        given_up.set()
        written.set()
        thread.join()
    assert not failed, failed
    assert watch.rests, watch.watched()
    watch.close(aborted=True)


def planes_of(stores: Path, name: str) -> tuple[Acquisition, dict[PlaneIndex, np.ndarray]]:
    """Return what a session holds."""
    store = SessionStore.open(stores / f"{name}.ome.zarr")
    try:
        return store.acquisition, {index: store.read_plane(index) for index in store.journal.durable()}
    finally:
        store.close()


def names(stores: Path) -> list[str]:
    return sorted(path.name.removesuffix(".ome.zarr") for path in find_sessions(stores))


def check(stores: Path, name: str, expected: dict[PlaneIndex, np.ndarray]) -> Acquisition:
    """Compare every plane of a session with what was written; return its description."""
    acquisition, planes = planes_of(stores, name)
    assert sorted(planes) == sorted(expected)
    assert all(np.array_equal(planes[index], expected[index]) for index in expected)
    return acquisition


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(100, 60000, shape).astype(np.uint16)
