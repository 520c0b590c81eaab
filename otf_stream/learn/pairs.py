"""Pairs to learn from: clean lateral patches, and what they would look like as axial slices of this stack.

One axis of a patch plays z. It is blurred with a member of the axial family, sampled at the real z step, given the
errors of real planes and shown to the network exactly as an axial slice of the real stack is. Denoising comes
first because blur and noise are separate steps in the microscope: blurring a noisy plane would blur its noise too.

Real planes are denoised before they are restored: a plane shows the denoiser two directions of the sample that an
axial slice does not hold, and slices denoised on their own would differ from their neighbours in stripes. The
errors are therefore those that the camera's noise leaves in a denoised plane. A denoiser that looks at the
neighbours of a plane makes errors that run on from plane to plane: they are cut, as the slices are, out of a stack
of them.

Planes are freed of haze as well, and what is computed of it is wrong in a way of its own: broad, and like a shadow of
the sample along z. Where that is known of a plane (:mod:`otf_stream.optics.haze_errors`), a pair carries it, or the
network would take every shadow for sample. By how much the stack at hand errs, nobody knows: pairs carry from none to
several times of it.
"""

from __future__ import annotations

import math
import random

import torch
from torch import Tensor

from otf_stream.learn.planes import PlanePool, Windows, random_patches, random_windows
from otf_stream.learn.slices import CHANNELS, shown
from otf_stream.learn.training import Pairs
from otf_stream.optics.forward import imaging_matrix, interpolation_matrix, mirrored, plane_positions
from otf_stream.optics.psf import AxialBlur

PATCH = 64
"""Side of a training pair, in pixels."""

WIDEST_BLUR = 32
"""Lateral pixels that a kernel spreads light over, on each side of the focus; what goes further is cut off."""

_BATCH = 8
_HAZE_ERRORS = 4.0  # times those rehearsed, at most: real ones are up to twice as large, a network may be warier still
_AROUND = 16  # voxels on each side of a pair that are restored with it: a pair is no stack that ends there


def patch_side(anisotropy: float) -> int:
    """Side of the largest clean patch that a pair is cut from: the blur must see what lies beyond the pair."""
    return PATCH + 2 * (_AROUND + math.ceil(WIDEST_BLUR + anisotropy))


class AxialPairs:
    """Draws batches of pairs: slices as :func:`otf_stream.learn.slices.shown`, and clean ones ``(n, 1, z, x)``.

    Parameters
    ----------
    clean
        Clean lateral planes, normalised, with sides of at least :func:`patch_side`.
    errors
        What denoising leaves of the noise in a stack of such planes: ``(z, y, x)``, in the same unit, y and x at least
        :data:`PATCH`.
    blur
        The family of axial blurs.
    anisotropy
        The z step in lateral pixels.
    generator
        Source of randomness, on the pool's device.
    haze
        By how much the haze of each plane of ``clean`` is overestimated, where its y plays z and where its x does:
        ``(n, 2, y, x)``, in the same unit. None where there is no haze.

    Notes
    -----
    ``clean``, ``errors``, ``haze`` and ``blur`` may be replaced by better ones at any time, and ``batch``, how many
    pairs there are in one, by another number.
    """

    def __init__(
        self,
        clean: PlanePool,
        errors: Tensor,
        blur: AxialBlur,
        anisotropy: float,
        generator: torch.Generator,
        *,
        haze: PlanePool | None = None,
        batch: int = _BATCH,
    ) -> None:
        self.clean = clean
        self.haze = haze
        self.errors = errors
        self.blur = blur
        self._anisotropy = anisotropy
        self._generator = generator
        self.batch = batch
        # What decides between two ways to go must be known here; asked of the device, it would be waited for.
        self._coin = random.Random(int(torch.randint(2**31, (), generator=generator, device=generator.device)))  # noqa: S311

    def __call__(self) -> tuple[Tensor, Tensor]:
        """Draw one batch."""
        # Past the outermost plane that the interpolation reads, the blur must still see the sample.
        margin = math.ceil(min(self.blur.reach, WIDEST_BLUR) + self._anisotropy)
        depth = PATCH + 2 * _AROUND
        windows = random_windows(self.clean.planes, self.batch, depth + 2 * margin, PATCH, self._generator)
        clean = windows.of(self.clean.planes)
        n, _, length, width = clean.shape
        below, above = self.blur.draw(n, self._generator)
        # Where a slice is cut, its first plane lies anywhere within one z step before it, on whole voxels if it can.
        start = torch.rand((n, 1), generator=self._generator, device=clean.device) * self._anisotropy
        if self._anisotropy % 1 == 0:
            start = start.floor()
        count = math.ceil((depth + self._anisotropy) / self._anisotropy) + 1
        positions = plane_positions(count, self._anisotropy, clean.device) - start
        planes = imaging_matrix(length, positions + margin, self.blur.kernel, below, above) @ clean[:, 0]
        planes = planes + self._error_slices(n, count, width)
        if self.haze is not None:
            planes = planes - self._haze_slices(self.haze, windows, positions + margin)
        # Which member of the family the blur is, nobody tells who restores.
        imaging = imaging_matrix(depth, positions, self.blur.kernel)
        slices = shown(imaging, interpolation_matrix(depth, positions), planes)
        return slices[:, :, _AROUND:-_AROUND], clean[:, :, margin + _AROUND : margin + _AROUND + PATCH]

    def _haze_slices(self, haze: PlanePool, windows: Windows, positions: Tensor) -> Tensor:
        """Cut out by how much the haze in planes at these positions is overestimated: ``(n, count, width)``."""
        n, count = positions.shape
        along_y, along_x = windows.of(haze.planes).float().unbind(1)
        wrong = torch.where(windows.turned, along_x, along_y)
        # It varies slowly: the nearest pixel will do.
        nearest = positions.round().long().clamp(0, wrong.shape[1] - 1)
        share = torch.rand((n, 1, 1), generator=self._generator, device=wrong.device) * _HAZE_ERRORS
        return share * wrong.gather(1, nearest[..., None].expand(n, count, wrong.shape[2]))

    def _error_slices(self, n: int, count: int, width: int) -> Tensor:
        """Cut axial slices ``(n, count, width)`` out of the errors; a stack too thin goes on as its mirror image."""
        slices = self.errors.permute(2, 0, 1) if self._coin.random() < 0.5 else self.errors.transpose(0, 1)
        planes = slices.shape[1]
        if planes < count:
            slices = slices[:, mirrored(torch.arange(count, device=slices.device), planes)]
        return random_patches(slices[:, None], n, count, width, self._generator, turned=False)[:, 0]


class SlicePairs:
    """Draws batches from whole slices of which it is known what they should become.

    Parameters
    ----------
    slices
        As :func:`otf_stream.learn.slices.shown`, then as they should become: ``(n, CHANNELS + 1, z, x)``.
    generator
        Source of randomness, on the pool's device.
    batch
        Pairs in a batch.
    """

    def __init__(self, slices: PlanePool, generator: torch.Generator, *, batch: int = _BATCH) -> None:
        self._slices = slices
        self._generator = generator
        self._batch = batch

    def __call__(self) -> tuple[Tensor, Tensor]:
        """Draw one batch: what the network is shown, ``(n, CHANNELS, z, x)``, and clean, ``(n, 1, z, x)``."""
        planes = self._slices.planes
        both = random_patches(planes, self._batch, PATCH, PATCH, self._generator, turned=False).float()
        return both[:, :CHANNELS], both[:, CHANNELS:]


def both(one: Pairs, other: Pairs) -> Pairs:
    """Return what draws a batch of each, and makes one of the two."""

    def drawn() -> tuple[Tensor, Tensor]:
        (given, clean), (more_given, more_clean) = one(), other()
        return torch.cat([given, more_given]), torch.cat([clean, more_clean])

    return drawn
