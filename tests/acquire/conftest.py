"""A small acquisition, its planes, and listeners that run in threads."""

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
from otf_stream.acquisition import Acquisition, PlaneIndex, Sizes, VoxelSize

Pixels = Callable[[PlaneIndex], np.ndarray]


@pytest.fixture
def acquisition() -> Acquisition:
    return Acquisition(
        name="cells",
        sizes=Sizes(t=2, c=2, z=5, y=12, x=20),
        dtype="uint16",
        voxel_size=VoxelSize(z=0.5, y=0.2, x=0.2),
        channels=("DAPI", "GFP"),
    )


@pytest.fixture
def indices(acquisition: Acquisition) -> list[PlaneIndex]:
    sizes = acquisition.sizes
    return [(t, c, z) for t in range(sizes.t) for c in range(sizes.c) for z in range(sizes.z)]


@pytest.fixture
def pixels(acquisition: Acquisition) -> Pixels:
    """Random pixels of a plane, the same every time."""

    def plane(index: PlaneIndex) -> np.ndarray:
        rng = np.random.default_rng(index)
        return rng.integers(0, 65536, acquisition.sizes.shape[3:]).astype(acquisition.numpy_dtype)

    return plane


@contextmanager
def running(data_folder: Path, address: str = "tcp://127.0.0.1:*", **settings: Any) -> Iterator[Listener]:
    """Run a listener in a thread."""
    settings.setdefault("disk_reserve", 0)
    stop = threading.Event()
    with Listener(data_folder, address, **settings) as listener:
        thread = threading.Thread(target=listener.run, args=(stop,))
        thread.start()
        try:
            yield listener
        finally:
            stop.set()
            thread.join(30)
    assert not thread.is_alive()


@pytest.fixture
def listening() -> Callable[..., Any]:
    return running


@pytest.fixture
def until() -> Callable[[Callable[[], object]], None]:
    """Wait for a condition."""

    def wait(condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + 60
        while not condition():
            assert time.monotonic() < deadline, "waited too long"
            time.sleep(0.01)

    return wait
