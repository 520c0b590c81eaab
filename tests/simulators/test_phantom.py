import numpy as np
import pytest

from simulators.phantom import phantom


def test_a_seed_gives_one_sample() -> None:
    first, again, other = phantom((30, 40, 50), seed=3), phantom((30, 40, 50), seed=3), phantom((30, 40, 50), seed=4)
    assert first.shape == (30, 40, 50)
    assert first.dtype == np.float32
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_it_is_light() -> None:
    sample = phantom((96, 96, 96), seed=0)
    assert sample.min() > 0
    assert 0.4 < sample.max() < 2
    assert np.median(sample) < 0.1  # Most of a sample is dark.


def test_its_statistics_are_the_same_along_all_axes() -> None:
    # One sample has few cells, so the axes are compared over several.
    spectra = np.zeros((3, 49))
    for seed in range(6):
        sample = phantom((96, 96, 96), seed=seed)
        for axis in range(3):
            lines = np.moveaxis(sample, axis, -1) * np.hanning(96)
            spectra[axis] += (np.abs(np.fft.rfft(lines)) ** 2).mean(axis=(0, 1))
    band = spectra[:, 3:30]
    assert np.allclose(band / band.mean(axis=0), 1, atol=0.3)
    assert np.allclose(band.sum(axis=1) / band.sum(axis=1).mean(), 1, atol=0.1)


def test_its_faces_cut_through_structure() -> None:
    samples = [phantom((64, 64, 64), seed=seed) for seed in range(8)]
    for axis in range(3):
        faces = np.mean([s.take([0, 1, -2, -1], axis=axis).mean() for s in samples])
        assert faces == pytest.approx(np.mean(samples), rel=0.25)


def test_it_is_well_sampled() -> None:
    sample = phantom((64, 64, 64), seed=0)
    for axis in range(3):
        window = np.hanning(64).reshape([-1 if a == axis else 1 for a in range(3)])
        power = (np.abs(np.fft.rfft(sample * window, axis=axis)) ** 2).sum(axis=tuple({0, 1, 2} - {axis}))
        assert power[-3:].max() < 1e-4 * power[1:].max()


@pytest.mark.parametrize("shape", [(0, 5, 5), (5, 5)])
def test_a_shape_that_cannot_be(shape: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="three axes"):
        phantom(shape, seed=0)


def test_a_single_plane() -> None:
    assert phantom((1, 20, 20), seed=0).shape == (1, 20, 20)
