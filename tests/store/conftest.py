"""A small acquisition, its planes and its session store."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from otf_stream.acquisition import Acquisition, PlaneIndex, Sizes, VoxelSize
from otf_stream.store.session import SessionStore


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
def store(tmp_path: Path, acquisition: Acquisition) -> Iterator[SessionStore]:
    store = SessionStore.create(tmp_path / "cells.ome.zarr", acquisition, session="s1")
    yield store
    store.close()


@pytest.fixture
def pixels(acquisition: Acquisition) -> Callable[[PlaneIndex], np.ndarray]:
    """Random pixels of a plane, the same every time."""

    def plane(index: PlaneIndex) -> np.ndarray:
        rng = np.random.default_rng(index)
        return rng.integers(0, 65536, acquisition.sizes.shape[3:]).astype(acquisition.numpy_dtype)

    return plane


@pytest.fixture
def sent(pixels: Callable[[PlaneIndex], np.ndarray]) -> Callable[[PlaneIndex], tuple[PlaneIndex, memoryview, int]]:
    """A plane as the listener hands it to the store."""

    def plane(index: PlaneIndex) -> tuple[PlaneIndex, memoryview, int]:
        return index, pixels(index).data, zlib.crc32(pixels(index))

    return plane


@pytest.fixture
def store_path(tmp_path: Path, acquisition: Acquisition) -> Path:
    """A store that is open in no process."""
    path = tmp_path / "closed.ome.zarr"
    SessionStore.create(path, acquisition, session="s0").close()
    return path
