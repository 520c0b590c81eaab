"""Drawn samples: varied, of one scale of intensity, without a preferred direction, and the same for the same seed."""

import numpy as np
import pytest

from otf_stream.learn import samples
from otf_stream.learn.samples import draw_sample

SHAPE = (48, 56, 64)


def test_a_seed_gives_the_same_sample():
    first, second, other = (draw_sample(SHAPE, np.random.default_rng(seed)) for seed in (3, 3, 4))
    assert np.array_equal(first, second)
    assert not np.array_equal(first, other)


def test_samples_are_normalised():
    rng = np.random.default_rng(0)
    for _ in range(12):
        sample = draw_sample(SHAPE, rng)
        assert sample.shape == SHAPE
        assert sample.dtype == np.float32
        assert np.isfinite(sample).all()
        assert sample.min() >= 0
        assert np.percentile(sample, 99.9) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("kind", ["_leaves", "_clouds", "_filaments", "_membranes", "_cells"])
def test_every_kind_draws_something_and_knows_no_direction(kind):
    roughness = np.zeros(3)
    for seed in range(8):
        volume = getattr(samples, kind)((48, 48, 48), np.random.default_rng(seed))
        assert volume.shape == (48, 48, 48)
        assert volume.min() >= 0
        assert volume.std() > 0.01
        roughness += [np.abs(np.diff(volume, axis=axis)).mean() / volume.std() for axis in range(3)]
    assert roughness.max() < 1.25 * roughness.min()
