"""The axial blur is found from the stack's own spectra."""

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter, gaussian_filter1d

from otf_stream.optics.psf import AxialBlur, estimate_axial_blur, widest_blur


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
