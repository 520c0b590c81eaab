"""Axial kernels that tests blur with."""

import torch

from otf_stream.optics.psf import AxialBlur, SplitPsf


def gaussian(sigma, reach=30):
    """Gaussian kernel ``(2 · reach + 1,)``, sum 1; a point if ``sigma`` is 0."""
    z = torch.arange(-reach, reach + 1, dtype=torch.float32)
    kernel = torch.exp(-0.5 * (z / max(sigma, 1e-3)) ** 2)
    return kernel / kernel.sum()


def family(sigma, spread=1.15, skew=1.1):
    """A family of blurs around a Gaussian."""
    kernel = SplitPsf(gaussian(sigma), torch.zeros(61, 3, 3), 0.0).kernel
    return AxialBlur(kernel, spread=spread, skew=skew)
