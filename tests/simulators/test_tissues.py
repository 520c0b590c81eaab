import numpy as np
import pytest

from otf_stream.optics.pointspread import Microscope
from simulators.microscope import physical_psf, pixel_size, through_optics
from simulators.phantom import seen_isotropically
from simulators.tissues import foam, vesicles

SHAPE = (60, 64, 64)


@pytest.mark.parametrize("draw", [foam, vesicles])
def test_a_seed_gives_one_sample_alike_along_all_axes(draw) -> None:
    sample = draw(SHAPE, seed=1)
    assert sample.shape == SHAPE
    assert np.array_equal(sample, draw(SHAPE, seed=1))
    assert not np.array_equal(sample, draw(SHAPE, seed=2))
    assert 0 < sample.min() < 0.05
    assert 0.3 < sample.max() < 3
    steps = [np.abs(np.diff(sample, axis=axis)).mean() for axis in range(3)]
    assert max(steps) < 1.3 * min(steps)


def test_a_physical_microscope_blurs_along_z_and_keeps_the_light() -> None:
    microscope = Microscope("confocal", 1.1)
    assert 0.05 < pixel_size(microscope) < 0.15
    psf = physical_psf(microscope)
    sample = vesicles(SHAPE, seed=3)
    seen, truth = through_optics(sample, psf), seen_isotropically(sample)
    assert seen.mean() == pytest.approx(sample.mean(), rel=0.05)
    roughness = [[np.diff(v, axis=axis).std() for axis in (0, 2)] for v in (seen, truth)]
    assert roughness[0][0] < 0.5 * roughness[1][0]
    assert roughness[0][1] == pytest.approx(roughness[1][1], rel=0.5)


def test_a_point_is_seen_as_the_psf() -> None:
    psf = physical_psf(Microscope("light-sheet", 0.8))
    sample = np.zeros((120, 64, 64), np.float32)
    sample[60, 32, 32] = 1
    seen = through_optics(sample, psf)
    assert np.allclose(seen[12:109, 8:57, 8:57], psf, atol=1e-7)
