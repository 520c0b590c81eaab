"""Optics as most simulators have them: Gaussians, without diffraction.

Published methods are often shown on stacks blurred by such kernels. None of the physics that
`otf_stream.optics.pointspread` takes for granted is in them: no rings, no haze in the axial section of a confocal
microscope, no aberration. A restoration that expects all that must not find it here.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.signal import fftconvolve
from scipy.stats import exponnorm, norm

from simulators.phantom import Volume

_REACH = 40  # voxels along z that a point spreads over


def gaussian_psf(lateral: float, axial: float, *, tail: float = 0.0, aside: float = 0.0) -> Volume:
    """Draw a point spread function that is a Gaussian across and along.

    Parameters
    ----------
    lateral, axial
        σ in voxels.
    tail
        Share of the light in a Lorentzian along z, half as wide again as the Gaussian.
    aside
        Mean length, in voxels, of an exponential tail to one side; the centre of mass stays in the middle.

    Returns
    -------
    ndarray
        float32 ``(z, y, x)``, odd sides, sum 1.
    """
    z, reach = np.arange(-_REACH, _REACH + 1), int(np.ceil(5 * lateral))
    along = exponnorm.pdf(z, aside / axial, loc=-aside, scale=axial) if aside else norm.pdf(z, scale=axial)
    lorentzian = 1 / (1 + (z / (1.5 * axial)) ** 2)
    along = (1 - tail) * along / along.sum() + tail * lorentzian / lorentzian.sum()
    across = norm.pdf(np.arange(-reach, reach + 1), scale=lateral)
    return _normalised(along[:, None, None] * across[:, None] * across)


def cone_psf(waist: float, range_z: float) -> Volume:
    """Draw the point spread function of a Gaussian beam: every plane has as much light, spread over a cone.

    Parameters
    ----------
    waist
        σ across in focus, in voxels.
    range_z
        Distance, in voxels, at which a plane is √2 times as wide.

    Returns
    -------
    ndarray
        float32 ``(z, y, x)``, odd sides, sum 1.
    """
    z, y, x = np.ix_(np.arange(-48, 49), *[np.arange(-30, 31)] * 2)
    width = waist * np.sqrt(1 + (z / range_z) ** 2)
    return _normalised(np.exp(-0.5 * (x**2 + y**2) / width**2) / width**2)


def imaged(sample: Volume, psf: Volume) -> Volume:
    """Image the inner part of a sample, of which all light that reaches it is known.

    Parameters
    ----------
    sample
        ``(z, y, x)``, sharp.
    psf
        ``(z, y, x)``, odd sides, sum 1.

    Returns
    -------
    ndarray
        float32; smaller than the sample by the sides of the kernel, less one.
    """
    return np.asarray(np.clip(fftconvolve(sample, psf, mode="valid"), 0, None), np.float32)


def _normalised(psf: NDArray[np.float64]) -> Volume:
    return np.asarray(psf / psf.sum(), np.float32)
