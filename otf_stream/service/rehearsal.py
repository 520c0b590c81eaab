"""The stack laid on its side: what deblurring is learnt from, beside lateral crops.

Errors of restoring belong to the sample. A denoiser blurs what is fine and faint and leaves what is bright as it is;
haze is overestimated beside bright bodies. A network that is taught with errors drawn elsewhere
(:mod:`otf_stream.learn.pairs`) takes what was blurred for the sample's own shape, and keeps it. So the middle of the
stack is deconvolved, by physics alone, and laid on its side, so that a lateral axis, along which it is sharp, plays z.
This sample is imaged, recorded by the camera, denoised, freed of haze and cut into axial slices, exactly as the stack
is, and what those of them should become that lie in planes of the stack is known: the planes.

Restoring the sample by the network first was tried: between planes it is better, and the volumes are not. So were
drawn samples beside it, whose truth is exact, imaged the same way: volumes are the same, or 0.07 dB worse.

What is taught so depends on the point spread function more than what lateral crops teach, whose blur is drawn from a
family: with one that is too wide the sample is deconvolved too much, and has too much contrast. The demo's volume, at
85 s, has 36.1 dB with the true one (36.0 without what is laid on its side), 35.7 with the one that is estimated (35.9),
and had 35.4 with kernels 4 % wider than the estimate (35.9). Samples imaged with a wider and with a narrower one, and
with less and more haze, as far as the estimate is undecided, were tried: volumes are the same, or 0.3 dB worse.
"""

from __future__ import annotations

import torch
from torch import Tensor

from otf_stream.learn.pairs import PATCH
from otf_stream.learn.planes import PlanePool
from otf_stream.learn.slices import shown
from otf_stream.optics.deconvolution import deconvolved
from otf_stream.optics.forward import along_z, convolved, reading_matrix
from otf_stream.optics.haze import HazeField, binned
from otf_stream.restore.methods import Grid, denoised
from otf_stream.restore.turns import Turn, Work
from otf_stream.service.character import FoundPsf, middle
from otf_stream.service.cleaned import CleanStack

SIDES = (192, 128, 96)
"""Pixels of what is laid on its side: as large as there is time for."""

TAKES = 3.0
"""Times as long as the XZ slices of as much take to be restored."""

_DEEPEST = 128  # voxels along z that are laid on their side
_FAINTEST = 1e-6
_BRIGHTER = 1.15  # times what is between them: planes that have nothing in common make no sample


def share(shape: tuple[int, int, int], side: int) -> float:
    """Return the share of a volume of a shape ``(z', y, x)`` that is laid on its side."""
    depth, height, width = shape
    return min(_DEEPEST / depth, 1) * min(side, height, width) ** 2 / (height * width)


def rehearsed(stack: CleanStack, found: FoundPsf, scale: float, *, side: int) -> Work[PlanePool | None]:
    """Lay the middle of a stack on its side, and restore it up to where the network comes in; by turns.

    Parameters
    ----------
    stack
        Its planes, as far as they have been denoised.
    found
        Its point spread function.
    scale
        The unit of the network, in counts.
    side
        Of the part, in pixels.

    Returns
    -------
    PlanePool or None
        Slices as the network is shown them, and as they should become: ``(n, CHANNELS + 1, z', x)``, half precision.
        First those in which y plays z, then those in which x does. None where planes do not make a sample: they have
        so little in common that one deconvolved is much brighter in them than between.
    """
    part, volume = yield from _deconvolved(stack, found, scale, side)
    # Between two planes a sample that was deconvolved is a mixture of both.
    planes = part.positions(volume.device).round().long().clamp(0, len(volume) - 1)
    pool = PlanePool(volume.device, smallest=PATCH)
    for on_its_side in (volume.permute(1, 0, 2), volume.permute(2, 0, 1)):
        slices = yield from _slices(on_its_side, planes, stack, found, scale)
        if slices is None:
            return None
        pool.add(slices, stack.generator)
        yield Turn.READY
    return pool


def _deconvolved(stack: CleanStack, found: FoundPsf, scale: float, side: int) -> Work[tuple[Grid, Tensor]]:
    """Deconvolve the middle of a stack: where its planes lie, and ``(z', y, x)``, in the unit of the network."""
    planes = stack.clean(stack.grid(), found, scale)
    start = planes.grid.start + max(planes.grid.depth - _DEEPEST, 0) // 2
    planes = planes.part(start, start + _DEEPEST, 1)
    side = min(side, *(axis.stop for axis in stack.lateral))
    lines = planes.free(*(middle(axis.stop, side) for axis in stack.lateral)).div_(scale).permute(1, 0, 2)
    yield Turn.READY
    return planes.grid, deconvolved(*planes.matrices(lines.device), lines).permute(1, 0, 2)


def _slices(sample: Tensor, wanted: Tensor, stack: CleanStack, found: FoundPsf, scale: float) -> Work[Tensor | None]:
    """Image a sample ``(z', y, x)``: its ``wanted`` slices along y, ``(n, CHANNELS + 1, z', x)``; None as above."""
    denoiser, binning, anisotropy = stack.denoiser, stack.binning, stack.anisotropy
    grid = Grid(range(int((len(sample) - 1) / anisotropy) + 1), anisotropy, len(sample))
    imaged = convolved(sample * scale, found.psf.of_planes.to(sample.device))
    seen = along_z(reading_matrix(len(sample), grid.positions(sample.device)), imaged)
    yield Turn.READY
    recorded = denoiser.recorded(seen + denoiser.noise.offset, stack.generator)
    light = (yield from denoised(denoiser, recorded)) - denoiser.noise.offset
    field = HazeField.of(binned(light, binning), found.psf, anisotropy, binning)
    yield Turn.READY
    free = field.removed(light, *(slice(0, length) for length in light.shape[1:])).div_(scale)
    matrices = grid.imaging(found.psf.kernel, free.device), grid.interpolation(free.device)
    given, clean = shown(*matrices, free[:, wanted].permute(1, 0, 2)), sample[:, wanted].permute(1, 0, 2)
    # What is deconvolved is brightest in its planes, at the cost of what is between: light is not to be learnt to grow.
    brighter = float(clean.mean() / given[:, 1].mean().clamp(min=_FAINTEST))
    if not 1 / _BRIGHTER < brighter < _BRIGHTER:
        return None
    given *= brighter
    return torch.cat([given, clean[:, None]], dim=1).half()
