"""Pairs to learn from: clean lateral patches, and what they would look like as axial slices of this stack.

One axis of a patch plays z. It is blurred with a member of the axial family, sampled at the real z step, given the
errors of real planes and interpolated back, exactly as an axial slice of the real stack is. Denoising comes
first because blur and noise are separate steps in the microscope: blurring a noisy plane would blur its noise too.

Real planes are denoised before they are restored: a plane shows the denoiser two directions of the sample that an
axial slice does not hold, and slices denoised on their own would differ from their neighbours in stripes. The
errors are therefore those that the camera's noise leaves in a denoised plane, drawn from a pool of them.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from otf_stream.learn.planes import PlanePool
from otf_stream.optics.forward import imaging_matrix, interpolation_matrix, plane_positions
from otf_stream.optics.psf import AxialBlur, widest_blur

PATCH = 64
"""Side of a training pair, in pixels."""

_BATCH = 8


def patch_side(anisotropy: float) -> int:
    """Side of the largest clean patch that a pair is cut from: the blur must see what lies beyond the pair."""
    return PATCH + 2 * _margin(widest_blur(anisotropy), anisotropy)


def _margin(widest: float, anisotropy: float) -> int:
    # Three standard deviations past the outermost plane that the interpolation reads.
    return math.ceil(3 * widest + anisotropy)


class AxialPairs:
    """Draws batches of ``(degraded, clean)`` pairs, ``(n, 1, z, x)`` each.

    Parameters
    ----------
    pool
        Clean lateral planes, normalised, with sides of at least :func:`patch_side`.
    errors
        What denoising leaves of the noise in such planes, in the same unit and with sides of at least :data:`PATCH`.
    blur
        The family of axial blurs, in lateral pixels. May be replaced by a better estimate at any time.
    anisotropy
        The z step in lateral pixels.
    generator
        Source of randomness, on the pool's device.
    """

    def __init__(
        self,
        pool: PlanePool,
        errors: PlanePool,
        blur: AxialBlur,
        anisotropy: float,
        generator: torch.Generator,
        *,
        batch: int = _BATCH,
    ) -> None:
        self._pool = pool
        self._errors = errors
        self.blur = blur
        self._anisotropy = anisotropy
        self._generator = generator
        self._batch = batch

    def __call__(self) -> tuple[Tensor, Tensor]:
        """Draw one batch."""
        margin = _margin(self.blur.sigma * self.blur.spread, self._anisotropy)
        clean = self._pool.patches(self._batch, PATCH + 2 * margin, PATCH, self._generator)
        return self.degrade(clean, margin), clean[:, :, margin : margin + PATCH]

    def degrade(self, clean: Tensor, margin: int) -> Tensor:
        """Image ``clean``, ``(n, 1, margin + z + margin, x)``, as axial slices ``(n, 1, z, x)``."""
        n, _, length, width = clean.shape
        depth = length - 2 * margin
        sigma = self.blur.draw(n, self._generator)
        # Where a slice is cut, its first plane lies anywhere within one z step before it, on whole voxels if it can.
        start = torch.rand((n, 1), generator=self._generator, device=clean.device) * self._anisotropy
        if self._anisotropy % 1 == 0:
            start = start.floor()
        count = math.ceil((depth + self._anisotropy) / self._anisotropy) + 1
        positions = plane_positions(count, self._anisotropy, clean.device) - start
        planes = imaging_matrix(length, positions + margin, sigma) @ clean[:, 0]
        # Planes are independent recordings: the rows of one slice take their errors from different places.
        planes = planes + self._errors.patches(n * count, 1, width, self._generator).view(n, count, width)
        return (interpolation_matrix(depth, positions) @ planes)[:, None]
