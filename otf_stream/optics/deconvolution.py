"""Deconvolution along z: what the physics of the microscope alone says of a sample, before anything is learnt.

Blurring and sampling along one axis are small matrices (:mod:`otf_stream.optics.forward`), so that Richardson–Lucy is a
few products that any device is fast at, exact at any z step.

References
----------
Richardson 1972; Lucy 1974.
"""

from __future__ import annotations

import torch
from torch import Tensor

_ITERATIONS = 20  # more amplify noise
_FAINTEST = 1e-6
_SEEN = 1e-3  # of a plane: what is seen less than this is not worth asking for


def deconvolved(imaging: Tensor, interpolation: Tensor, light: Tensor) -> Tensor:
    """Deconvolve planes along z, by Richardson–Lucy. What no plane sees, since planes never came, stays interpolated.

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
    seen = imaging.sum(-2)[..., None]
    for _ in range(_ITERATIONS):
        ratio = light / (imaging @ estimate).clamp(min=1e-9)
        estimate = torch.where(seen > _SEEN, estimate * (imaging.mT @ ratio) / seen.clamp(min=_SEEN), estimate)
    return estimate
