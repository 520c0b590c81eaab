"""The noise model is found from the data, whatever the camera and whatever the sample."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter

from otf_stream.optics.noise import NoiseModel, estimate_noise


def photographed(gain, offset, read_noise, *, photons=150.0, seed=0, shape=(6, 256, 256)):
    rng = np.random.default_rng(seed)
    sample = gaussian_filter(rng.normal(size=shape), (0, 6, 6))
    sample = np.clip(sample / sample.max(), 0, None) * photons
    return gain * rng.poisson(sample) + rng.normal(offset, read_noise, shape)


@settings(max_examples=12, deadline=None)
@given(gain=st.floats(0.2, 8.0), offset=st.floats(0, 500), read_noise=st.floats(0.5, 8.0), seed=st.integers(0, 2**16))
def test_the_variance_is_found_for_any_camera(gain, offset, read_noise, seed):
    estimate = estimate_noise(photographed(gain, offset, read_noise, seed=seed))
    level = offset + gain * np.array([5.0, 40.0, 100.0])
    truth = NoiseModel(gain, offset, read_noise).variance(level)
    np.testing.assert_allclose(estimate.variance(level), truth, rtol=0.3)


def test_edges_do_not_pass_for_noise():
    planes = photographed(2.0, 100.0, 3.0)
    planes[:, ::32] += 150  # bright lines through an eighth of all blocks
    level = np.array([120.0, 250.0])
    truth = NoiseModel(2.0, 100.0, 3.0).variance(level)
    np.testing.assert_allclose(estimate_noise(planes).variance(level), truth, rtol=0.35)


@pytest.mark.parametrize("seed", range(3))
def test_a_sample_that_is_mostly_dark_tells_the_gain(seed):
    rng = np.random.default_rng(seed)
    points = np.where(rng.random((16, 256, 256)) < 2e-4, 1500.0, 0.0)
    planes = 3.0 * rng.poisson(0.5 + gaussian_filter(points, (0, 3, 3))) + rng.normal(100.0, 6.0, points.shape)
    assert estimate_noise(planes).gain == pytest.approx(3.0, rel=0.1)


def test_a_constant_stack_has_no_noise():
    assert estimate_noise(np.full((4, 64, 64), 7, np.uint16)) == NoiseModel(0.0, 7.0, 0.0)


@pytest.mark.parametrize("shape", [(1, 4, 4), (1, 7, 300), (3, 8, 8)])
def test_tiny_planes_do_not_fail(shape):
    estimate = estimate_noise(np.random.default_rng(0).normal(10, 2, shape))
    assert np.isfinite([estimate.gain, estimate.offset, estimate.read_noise]).all()


def test_saturated_and_missing_pixels_are_left_out():
    planes = photographed(2.0, 100.0, 3.0)
    truth = estimate_noise(planes)
    planes[:, 64:128, 64:128] = planes.max() + 1
    planes[:, 200:220, 10:30] = np.nan
    level = np.array([120.0, 250.0])
    np.testing.assert_allclose(estimate_noise(planes).variance(level), truth.variance(level), rtol=0.15)


def test_counts_near_the_end_of_the_range_do_not_overflow():
    planes = photographed(2.0, 100.0, 3.0)
    level = np.array([120.0, 250.0])
    noise = estimate_noise((planes * 1e30).astype(np.float32))
    np.testing.assert_allclose(noise.variance(level * 1e30) / 1e60, estimate_noise(planes).variance(level), rtol=0.05)


def test_rescaling_keeps_the_noise():
    noise = NoiseModel(2.0, 100.0, 4.0)
    rescaled = noise.rescaled(100.0, 50.0)
    np.testing.assert_allclose(rescaled.variance(np.array([0.5])), noise.variance(np.array([125.0])) / 50.0**2)
