"""Deconvolution along z: what the physics of the microscope alone says of a sample, before anything is learnt.

Blurring and sampling along one axis are small matrices (:mod:`otf_stream.optics.forward`), so that Richardson–Lucy is a
few products that any device is fast at, exact at any z step.

References
----------
Richardson 1972; Lucy 1974.
"""

from __future__ import annotations

from torch import Tensor

_ITERATIONS = 20  # more amplify noise
_FAINTEST = 1e-6


def deconvolved(imaging: Tensor, interpolation: Tensor, light: Tensor) -> Tensor:
    """Deconvolve planes along z, by Richardson–Lucy.

    Parameters
    ----------
    imaging
        From voxels to planes, ``(..., z, z')``.
    interpolation
        From planes to voxels, ``(..., z', z)``: where the iteration begins.
    light
        Above the background, ``(..., z, pixels)``, float32.

    Returns
    -------
    Tensor
        ``(..., z', pixels)``.
    """
    light = light.clamp(min=_FAINTEST)
    estimate = interpolation @ light
    norm = imaging.sum(-2)[..., None].clamp(min=_FAINTEST)
    for _ in range(_ITERATIONS):
        ratio = light / (imaging @ estimate).clamp(min=1e-9)
        estimate = estimate * (imaging.mT @ ratio) / norm
    return estimate
