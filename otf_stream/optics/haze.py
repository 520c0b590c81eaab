"""Haze: the light of a plane that comes from far above and below it, computed and taken away.

No plane of a stack shows the sample without the tail of the point spread function (:mod:`otf_stream.optics.psf`),
so a network that learns from planes learns to keep it. But because the tail is broad, a coarse estimate of the
sample is enough to compute what it adds: accelerated Richardson–Lucy on binned planes. What is left when that is
subtracted looks as if the microscope had only the core.

References
----------
Richardson 1972; Lucy 1974.
Biggs, Andrews: Acceleration of iterative image restoration algorithms, Applied Optics 36 (1997).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from otf_stream.optics.forward import fast_length
from otf_stream.optics.psf import SplitPsf

_FAINTEST = 1e-6
_ITERATIONS = 40


def binned(planes: Tensor, binning: int) -> Tensor:
    """Average ``planes``, ``(z, y, x)``, over squares of ``binning`` pixels; those at the far edges are filled up."""
    height, width = planes.shape[1:]
    padded = functional.pad(planes[:, None], (0, -width % binning, 0, -height % binning), mode="replicate")
    return functional.avg_pool2d(padded, binning)[:, 0]


def haze(light: Tensor, psf: SplitPsf, anisotropy: float, *, binning: int, iterations: int = _ITERATIONS) -> Tensor:
    """Compute the haze in planes.

    Parameters
    ----------
    light
        Binned planes ``(z, y, x)``, float32, at an even distance, background subtracted, best denoised.
    psf
        Of the microscope.
    anisotropy
        The z step in lateral pixels.
    binning
        Pixels that were averaged along y and x.
    iterations
        Of Richardson–Lucy; more of them see finer haze.

    Returns
    -------
    Tensor
        Of the shape of ``light``: the haze in the middle of each bin. :func:`spread` makes full planes of it.
    """
    light = light.clamp(min=_FAINTEST)
    # Planes must lie on the grid; between two of them lie about as many voxels as a bin has pixels.
    between = max(round(anisotropy / binning), 1)
    step = anisotropy / between
    whole, tail = (_resampled(part.to(light.device), step, binning) for part in (psf.whole, psf.tail))
    depth = (len(light) - 1) * between + 1
    # Beyond its ends the sample is unknown, and part of the estimate: nothing has to wrap around.
    margins = [n // 2 for n in whole.shape]
    inner = tuple(slice(m, m + n) for m, n in zip(margins, (depth, *light.shape[1:]), strict=True))
    domain = [fast_length(s.stop + m) for s, m in zip(inner, margins, strict=True)]
    transfer = _transfer(whole, domain)

    # Volumes are written over wherever they can be: a dozen of them at once would be most of what a process needs.
    def imaged(sample: Tensor, through: Tensor) -> Tensor:
        planes: Tensor = torch.fft.irfftn(torch.fft.rfftn(sample).mul_(through), domain)[inner][::between]
        return planes.contiguous()

    def returned(planes: Tensor) -> Tensor:
        scattered = planes.new_zeros(domain)
        scattered[inner][::between] = planes
        # The conjugate transfer returns light to where it came from.
        spectrum = torch.fft.rfftn(scattered).conj_physical_().mul_(transfer).conj_physical_()
        del scattered
        volume: Tensor = torch.fft.irfftn(spectrum, domain)
        return volume.clamp_(min=0)

    norm = returned(torch.ones_like(light)).clamp_(min=1e-3)

    def improved(sample: Tensor) -> Tensor:
        ratio = torch.div(light, imaged(sample, transfer).clamp_(min=_FAINTEST))
        return returned(ratio).mul_(sample).div_(norm)

    estimate = torch.full(domain, float(light.mean()), device=light.device)
    estimate = _accelerated(improved, estimate, iterations)
    return imaged(estimate, _transfer(tail, domain))


def _accelerated(improved: Callable[[Tensor], Tensor], estimate: Tensor, iterations: int) -> Tensor:
    """Iterate ``improved``, each time from a point farther on along the way that the estimate has come.

    Coarse haze needs hundreds of plain iterations; these need tens. How far is read off the last two corrections, as
    Biggs and Andrews do.
    """
    before, last, stride = estimate.clone(), torch.zeros_like(estimate), 0.0
    for _ in range(iterations):
        ahead = before.lerp_(estimate, 1 + stride).clamp_(min=0)
        before, estimate = estimate, improved(ahead)
        correction = ahead.neg_().add_(estimate)
        agreement = float(torch.dot(correction.view(-1), last.view(-1)))
        size = max(float(torch.dot(last.view(-1), last.view(-1))), _FAINTEST)
        stride, last = min(max(agreement / size, 0.0), 1.0), correction
    return estimate


def share_left(light: Tensor, added: Tensor, psf: SplitPsf) -> float:
    """Return by how much planes, freed of haze, must be divided to be as bright as they were: no light is lost or won.

    That is the core's share of the light, but for what has come from outside the field of view. ``light`` and the haze
    ``added`` to it are ``(z, y, x)``.
    """
    whole, left = float(light.mean()), float((light - added).mean())
    return left / whole if whole > 0 and left > 0.2 * psf.core_share * whole else psf.core_share


def spread(coarse: Tensor, binning: int, y: slice, x: slice) -> Tensor:
    """Interpolate what :func:`haze` returns to a rectangle of the full planes.

    Parameters
    ----------
    coarse
        ``(z, y, x)``, binned.
    binning
        Pixels a bin.
    y, x
        The rectangle, in pixels of the full planes.

    Returns
    -------
    Tensor
        ``(z, y, x)``. A pixel's value does not depend on the rectangle it was asked in.
    """
    places = []
    for axis, along in ((1, y), (2, x)):
        at = (torch.arange(along.start, along.stop, device=coarse.device) + 0.5) / binning - 0.5
        places.append(at.clamp(0, coarse.shape[axis] - 1))
    # Bins that are far from the rectangle are left out first: of a single column, that is most of the work.
    first = [int(at.min()) for at in places]
    coarse = coarse[:, first[0] : int(places[0].max()) + 2, first[1] : int(places[1].max()) + 2]
    for axis, at, start in zip((1, 2), places, first, strict=True):
        below = (at.floor().long() - start).clamp(max=max(coarse.shape[axis] - 2, 0))
        above = (below + 1).clamp(max=coarse.shape[axis] - 1)
        fraction = (at - start - below).reshape([-1 if a == axis else 1 for a in range(3)])
        coarse = coarse.index_select(axis, below) * (1 - fraction) + coarse.index_select(axis, above) * fraction
    return coarse


def _resampled(psf: Tensor, step: float, binning: int) -> Tensor:
    """Express a point spread function in voxels of ``step`` × ``binning`` × ``binning``, its light kept."""
    box = torch.ones(1, 1, binning, binning, device=psf.device) / binning**2
    # A bin collects from a bin: the box of the one is read at the centres of the other.
    side = psf.shape[1] + 2 * binning
    half = side // 2 // binning
    grown = functional.pad(psf[:, None], (binning, binning, binning, binning))
    offset = (torch.arange(-half, half + 1, device=psf.device) * binning + side // 2).clamp(0, side - 1)
    blurred = functional.conv2d(functional.pad(grown, ((binning - 1) // 2, binning // 2) * 2), box)[:, 0]
    if binning % 2 == 0:  # an even box is centred between pixels: two of them, half each
        other = functional.conv2d(functional.pad(grown, (binning // 2, (binning - 1) // 2) * 2), box)[:, 0]
        blurred = 0.5 * (blurred + other)
    lateral = blurred[:, offset][:, :, offset] * binning**2
    reach = int((len(psf) // 2) / step)
    at = torch.arange(-reach, reach + 1, device=psf.device) * step + len(psf) // 2
    below = at.floor().long().clamp(max=len(psf) - 2)
    weight = (at - below)[:, None, None]
    along = lateral[below] * (1 - weight) + lateral[below + 1] * weight
    # What a fine z step would have summed; the light must be that of the original.
    return along * (psf.sum() / along.sum()) if abs(float(along.sum())) > _FAINTEST else along


def _transfer(psf: Tensor, domain: list[int]) -> Tensor:
    padded = psf.new_zeros(domain)
    padded[tuple(slice(n) for n in psf.shape)] = psf
    transfer: Tensor = torch.fft.rfftn(padded.roll([-(n // 2) for n in psf.shape], (0, 1, 2)))
    return transfer
