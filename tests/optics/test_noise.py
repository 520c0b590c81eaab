"""The noise model is found from the data, whatever the camera and whatever the sample."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter

from otf_stream.optics.noise import NoiseModel, estimate_noise, grain_spectrum
from simulators.microscope import image
from simulators.phantom import phantom


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


def test_rescaling_keeps_the_noise():
    noise = NoiseModel(2.0, 100.0, 4.0)
    rescaled = noise.rescaled(100.0, 50.0)
    np.testing.assert_allclose(rescaled.variance(np.array([0.5])), noise.variance(np.array([125.0])) / 50.0**2)


@pytest.mark.parametrize("grain", [(0.0, 0.0), (0.5, 0.0), (0.9, 0.9), (0.6, 1.2)])
def test_noise_that_spreads_over_neighbours_is_found(grain):
    rng = np.random.default_rng(1)
    sample = np.clip(gaussian_filter(rng.normal(size=(6, 256, 256)), (2, 6, 6)), 0, None)
    light = torch.from_numpy(100 + 400 * sample / sample.max())[:, None].float()
    truth = NoiseModel(2.0, 100.0, 3.0, grain)
    estimate = estimate_noise((light + truth.draw(light, torch.Generator().manual_seed(0)))[:, 0].numpy())
    np.testing.assert_allclose(estimate.grain, grain, atol=0.12)
    level = np.array([120.0, 200.0, 300.0])
    np.testing.assert_allclose(estimate.variance(level), truth.variance(level), rtol=0.3)


@pytest.mark.parametrize("axial_sigma", [1.5, 3.0])
def test_a_sample_everywhere_does_not_pass_for_grain(axial_sigma):
    stack = image(phantom((61, 128, 128), seed=2), anisotropy=4, axial_sigma=axial_sigma, seed=0)
    assert estimate_noise(stack).grain == (0.0, 0.0)
    rng = np.random.default_rng(0)
    tissue = gaussian_filter(rng.normal(size=(8, 128, 128)), (0.8, 1.5, 1.5))  # no dark place to look at
    counts = 500 + 200 * tissue / tissue.std() + rng.normal(0, 8, tissue.shape)
    assert estimate_noise(counts).grain == (0.0, 0.0)


def test_drawn_noise_has_the_variance_and_spectrum_of_the_model():
    noise = NoiseModel(2.0, 10.0, 3.0, (0.7, 1.2))
    light = torch.full((8, 1, 128, 128), 60.0)
    drawn = noise.draw(light, torch.Generator().manual_seed(0))[:, 0].numpy()
    assert drawn.shape == (8, 128, 128)
    assert drawn.var() == pytest.approx(noise.variance(np.array(60.0)), rel=0.1)
    power = (np.abs(np.fft.rfft(drawn, axis=2)) ** 2).mean(axis=(0, 1)) / 128 / drawn.var()
    np.testing.assert_allclose(power[1:40], grain_spectrum(1.2, np.fft.rfftfreq(128))[1:40], atol=0.35)
