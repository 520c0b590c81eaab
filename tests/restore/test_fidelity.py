"""Flux and residual: two figures that need no truth."""

import numpy as np
import pytest
import torch
from kernels import gaussian

from otf_stream.optics.haze import HazeField
from otf_stream.optics.noise import NoiseModel
from otf_stream.restore.fidelity import Fidelity
from otf_stream.restore.methods import Grid
from otf_stream.restore.regions import Region

GRID = Grid(range(8), 2.0, 15)


def region(y, x):
    return Region(y, x)


EVERYWHERE = region(slice(0, 40), slice(0, 40))


def columns(seed=0):
    """Light that does not change along z: ``(y, x)`` counts, not rounded."""
    return torch.from_numpy(np.random.default_rng(seed).uniform(100, 900, (40, 40))).float()


def measured(raw, restored, noise, **options):
    fidelity = Fidelity(GRID, noise, gaussian(1.0), **options)
    fidelity.add(raw, restored, EVERYWHERE)
    return fidelity


def test_a_true_volume_differs_by_the_noise():
    light = columns()
    noise = NoiseModel(2.0, 100.0, 3.0)
    planes = light.expand(8, 1, 40, 40)
    raw = (planes + noise.draw(planes, torch.Generator().manual_seed(0)))[:, 0]
    fidelity = measured(raw, light.expand(15, 40, 40), noise)
    assert fidelity.residual == pytest.approx(1, abs=0.05)
    assert fidelity.unexplained == pytest.approx(0, abs=1e-3)
    other = measured(raw, columns(seed=1).expand(15, 40, 40), noise)
    assert other.unexplained == pytest.approx(2, abs=0.2)  # as far from it as two samples are
    assert measured(raw, raw.mean().expand(15, 40, 40), noise).unexplained == pytest.approx(1, abs=0.05)
    assert fidelity.flux_ratio == pytest.approx(1, abs=0.01)


def test_a_clean_recording_differs_by_the_rounding():
    light = columns()
    fidelity = measured(light.round().expand(8, 40, 40), light.expand(15, 40, 40), NoiseModel(0, 100, 0), step=1.0)
    assert fidelity.residual == pytest.approx(1, abs=0.05)


def test_regions_add_up():
    light = columns()
    raw, volume = light.round().expand(8, 40, 40), light.expand(15, 40, 40) * 1.1
    whole = measured(raw, volume, NoiseModel(1, 100, 1))
    parts = Fidelity(GRID, NoiseModel(1, 100, 1), gaussian(1.0))
    for part in (slice(0, 16), slice(16, 40)):
        parts.add(raw[:, part], volume[:, part], region(part, slice(0, 40)))
    assert parts.residual == pytest.approx(whole.residual)
    assert parts.flux_ratio == pytest.approx(whole.flux_ratio)
    assert whole.flux_ratio > 1.1  # light was added


def test_haze_that_was_taken_away_is_put_back_before_comparing():
    light = columns()
    field = HazeField(torch.full((8, 20, 20), 60.0), 2, 0.5)
    noise = NoiseModel(2.0, 100.0, 3.0)
    planes = field.added((light - 100).expand(8, 40, 40), slice(0, 40), slice(0, 40)) + 100
    raw = planes + noise.draw(planes[:, None], torch.Generator().manual_seed(0))[:, 0]
    assert measured(raw, light.expand(15, 40, 40), noise, field=field).residual == pytest.approx(1, abs=0.05)
    assert measured(raw, light.expand(15, 40, 40), noise).residual > 2
