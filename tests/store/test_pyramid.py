from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otf_stream.store.pyramid import halve, level_places, level_shapes

shapes = st.tuples(*[st.integers(1, 9)] * 3)


@settings(deadline=None)
@given(shapes)
def test_halving_averages_what_lies_together(shape: tuple[int, int, int]) -> None:
    volume = np.random.default_rng(0).random(shape).astype(np.float32)
    halved = halve(volume)
    assert halved.shape == tuple(-(-n // 2) for n in shape)
    z, y, x = (n - 1 for n in halved.shape)
    block = volume[2 * z : 2 * z + 2, 2 * y : 2 * y + 2, 2 * x : 2 * x + 2]
    assert halved[z, y, x] == pytest.approx(block.mean(), rel=1e-5)


def test_levels_end_at_the_largest_side() -> None:
    assert level_shapes((3, 600, 257), 256) == [(3, 600, 257), (2, 300, 129), (1, 150, 65)]
    assert level_shapes((256, 10, 10), 256) == [(256, 10, 10)]


def test_a_ramp_stays_where_it_is() -> None:
    """Intensity equal to position: each level's voxels must show the positions that its metadata state."""
    shape, voxel = (8, 16, 32), 0.25
    volume = np.add.outer(np.add.outer(np.arange(8.0) * 10000, np.arange(16.0) * 100), np.arange(32.0)) * voxel
    places = list(level_places(level_shapes(shape, 8), voxel))
    assert places[0] == ([0.25] * 3, [0.0] * 3)
    for scale, origin in places[1:]:
        volume = halve(volume)
        z, y, x = (np.arange(n) * s + o for n, s, o in zip(volume.shape, scale, origin, strict=True))
        np.testing.assert_allclose(volume, np.add.outer(np.add.outer(z * 10000, y * 100), x), rtol=1e-6)


def test_an_axis_of_length_one_keeps_its_voxel() -> None:
    places = list(level_places([(1, 4, 4), (1, 2, 2)], 1.0))
    assert places[1] == ([1.0, 2.0, 2.0], [0.0, 0.5, 0.5])
