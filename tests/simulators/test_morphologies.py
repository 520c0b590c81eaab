import numpy as np
import pytest

from simulators.morphologies import beads, clouds, membrane, neurites, nuclei
from simulators.phantom import seen_isotropically

SHAPE = (96, 112, 128)


@pytest.mark.parametrize("draw", [nuclei, neurites, membrane, clouds, beads])
def test_a_seed_gives_one_sample(draw) -> None:
    sample = draw(SHAPE, seed=3)
    assert sample.shape == SHAPE
    assert sample.dtype == np.float32
    assert np.array_equal(sample, draw(SHAPE, seed=3))
    assert not np.array_equal(sample, draw(SHAPE, seed=4))
    assert 0 <= sample.min() < 0.1
    assert 0.3 < sample.max() < 5


@pytest.mark.parametrize(("draw", "count"), [(nuclei, 1), (neurites, 8), (membrane, 1), (clouds, 1), (beads, 1)])
def test_samples_are_alike_along_all_axes(draw, count) -> None:
    """Of neurites on average: a small volume holds but a handful of branches."""
    seen = [seen_isotropically(draw(SHAPE, seed=seed)) for seed in range(count)]
    steps = [np.mean([np.abs(np.diff(volume, axis=axis)).mean() for volume in seen]) for axis in range(3)]
    assert max(steps) < 1.3 * min(steps)


def test_each_has_what_the_others_lack() -> None:
    """Points and branches lie in the dark; clouds have no edges."""
    lit = {draw: (draw(SHAPE, seed=5) > 0.1).mean() for draw in (nuclei, neurites, beads)}
    assert lit[beads] < 0.02
    assert lit[neurites] < 0.05
    assert lit[nuclei] > 0.2
    steepest = {draw: np.abs(np.diff(draw(SHAPE, seed=5), axis=0)).max() for draw in (nuclei, membrane, clouds)}
    assert steepest[clouds] < 0.5 * min(steepest[nuclei], steepest[membrane])
