"""The axial blur is found from the stack's own spectra."""

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter, gaussian_filter1d

from otf_stream.optics.noise import NoiseModel, estimate_noise
from otf_stream.optics.psf import AxialBlur, estimate_axial_blur, widest_blur
from simulators.microscope import image
from simulators.phantom import phantom


def blurred_sample(sigma, anisotropy, *, noise=0.0, seed=0):
    rng = np.random.default_rng(seed)
    sample = gaussian_filter(rng.normal(size=(32 * anisotropy, 128, 128)).astype(np.float32), 0.8)
    sample += 20 * gaussian_filter(rng.normal(size=sample.shape).astype(np.float32), 3)
    stack = gaussian_filter1d(sample, sigma, axis=0)[::anisotropy]
    return stack + noise * rng.normal(size=stack.shape)


@pytest.mark.parametrize("sigma", [1.5, 2.0, 3.0, 4.0])
@pytest.mark.parametrize("noise", [0.0, 0.05])
def test_the_width_is_found_within_the_family(sigma, noise):
    blur = estimate_axial_blur(blurred_sample(sigma, 4, noise=noise), 4.0, noise_variance=noise**2)
    assert blur.estimated
    assert sigma / blur.spread <= blur.sigma <= sigma * blur.spread


@pytest.mark.parametrize(("anisotropy", "sigma"), [(1.1, 1.0), (1.1, 2.0), (2.5, 2.0), (4.0, 3.0)])
def test_a_noisy_image_of_a_phantom_tells_its_blur(anisotropy, sigma):
    truth = phantom((61, 128, 128), seed=3)
    stack = image(truth, anisotropy=anisotropy, axial_sigma=sigma, seed=0)
    noise = float(estimate_noise(stack).variance(stack.astype(np.float32)).mean())
    blur = estimate_axial_blur(stack, anisotropy, noise_variance=noise)
    assert blur.estimated
    assert sigma / blur.spread <= blur.sigma <= sigma * blur.spread


def test_noise_with_grain_does_not_pass_for_blur():
    stack = blurred_sample(2.0, 4)
    light = torch.from_numpy(stack)[:, None].float()
    noise = NoiseModel(0.0, 0.0, 0.3, (0.9, 0.9))
    stack = (light + noise.draw(light, torch.Generator().manual_seed(0)))[:, 0].numpy()
    blur = estimate_axial_blur(stack, 4.0, noise_variance=0.3**2, grain=noise.grain)
    assert 2.0 / blur.spread <= blur.sigma <= 2.0 * blur.spread


@pytest.mark.parametrize("shape", [(3, 64, 64), (32, 8, 64)])
def test_too_small_a_stack_gets_the_default(shape):
    blur = estimate_axial_blur(np.random.default_rng(0).normal(size=shape), 4.0)
    assert not blur.estimated
    assert blur.sigma == 2.0


def test_a_constant_stack_gets_the_default():
    assert not estimate_axial_blur(np.ones((16, 64, 64), np.float32), 4.0).estimated


def test_members_stay_in_the_family_and_vary():
    draws = AxialBlur(2.0, 1.25, True).draw(1000, torch.Generator().manual_seed(0))
    assert 1.6 <= float(draws.min()) < 1.65
    assert 2.45 < float(draws.max()) <= 2.5
    assert float(draws.max()) < widest_blur(4.0)
