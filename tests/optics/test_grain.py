"""Noise that spreads over neighbours is told from independent noise, and from sample."""

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from otf_stream.optics.grain import grain_spectrum
from otf_stream.optics.noise import NoiseModel, estimate_noise
from simulators.microscope import image
from simulators.phantom import phantom


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
