"""A small acquisition, its planes, and listeners that run in threads."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import waiting
from listeners import running

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


@pytest.fixture
def listening() -> Callable[..., Any]:
    return running


@pytest.fixture
def until() -> Callable[[Callable[[], object]], None]:
    return partial(waiting.until, seconds=60, pause=0.01)
