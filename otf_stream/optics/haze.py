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

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor
from torch.nn import functional

from otf_stream.optics.forward import fast_length
from otf_stream.optics.psf import SplitPsf

_FAINTEST = 1e-6
_ITERATIONS = 40
_PART = 2**19  # voxels that are transformed at once
_COARSELY = torch.bfloat16  # is good enough for the last correction, but not for what voxels are divided by each time


def binned(planes: Tensor, binning: int) -> Tensor:
    """Average ``planes``, ``(z, y, x)``, over squares of ``binning`` pixels; those at the far edges are filled up."""
    height, width = planes.shape[1:]
    padded = functional.pad(planes[:, None], (0, -width % binning, 0, -height % binning), mode="replicate")
    return functional.avg_pool2d(padded, binning)[:, 0]


@dataclass(frozen=True)
class HazeField:
    """The haze of a stack, computed once for all of it.

    Parameters
    ----------
    coarse
        Counts in each bin of each plane that is there, ``(z, y, x)``.
    binning
        Pixels a bin.
    core_share
        What planes are divided by once they are freed of haze, to be as bright as they were.
    """

    coarse: Tensor
    binning: int
    core_share: float

    @classmethod
    def of(
        cls, light: Tensor, psf: SplitPsf, anisotropy: float, binning: int, wanted: slice | Tensor = slice(None)
    ) -> Self:
        """Compute it for the ``wanted`` ones of binned planes.

        Those are ``(z, y, x)``, at an even distance; see :func:`haze`.
        """
        coarse = haze(light, psf, anisotropy, binning=binning)[wanted]
        return cls(coarse, binning, share_left(light[wanted], coarse, psf))

    def removed(self, light: Tensor, y: slice, x: slice) -> Tensor:
        """Free planes ``(z, y, x)``, counts above the background, of haze; ``y`` and ``x`` say where they lie."""
        return light.sub(spread(self.coarse, self.binning, y, x).to(light.device)).div_(self.core_share)

    def added(self, light: Tensor, y: slice, x: slice) -> Tensor:
        """Undo :meth:`removed`."""
        return light.mul(self.core_share).add_(spread(self.coarse, self.binning, y, x).to(light.device))


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
    grid = CoarseGrid.around(light.shape, psf, anisotropy, binning, light.device)
    sample = _estimated(light, grid.optics(grid.whole), iterations)
    return grid.optics(grid.tail).imaged(sample)


def _estimated(light: Tensor, optics: CoarseOptics, iterations: int) -> Tensor:
    """Estimate the sample that fills the domain, ``(z', y, x)``, by Richardson–Lucy; ``light`` is above zero."""
    norm = optics.returned(torch.ones_like(light), light.new_empty(optics.domain)).clamp_(min=1e-3)

    def improve(sample: Tensor, into: Tensor) -> None:
        ratio = torch.div(light, optics.imaged(sample).clamp_(min=_FAINTEST))
        optics.returned(ratio, into).mul_(sample).div_(norm)

    return _accelerated(improve, torch.full_like(norm, float(light.mean())), iterations)


@dataclass(frozen=True)
class CoarseGrid:
    """Voxels on which a sample is estimated from binned planes: as wide as a bin, and about as deep.

    Parameters
    ----------
    domain
        How many, ``(z', y, x)``, those included that lie beyond the planes and that planes see light of.
    inner
        Which ones lie within the planes.
    between
        Of them, every so manieth along z is in a plane.
    whole, tail
        The point spread function, and its tail, in such voxels.
    """

    domain: Sequence[int]
    inner: Sequence[slice]
    between: int
    whole: Tensor
    tail: Tensor

    @classmethod
    def around(
        cls, planes: Sequence[int], psf: SplitPsf, anisotropy: float, binning: int, device: torch.device
    ) -> CoarseGrid:
        """Return the grid of binned planes of a shape ``(z, y, x)``; see :func:`haze`."""
        # Planes must lie on the grid; between two of them lie about as many voxels as a bin has pixels.
        between = max(round(anisotropy / binning), 1)
        whole, tail = (_resampled(part.to(device), anisotropy / between, binning) for part in (psf.whole, psf.tail))
        shape = (planes[0] - 1) * between + 1, *planes[1:]
        # Beyond its ends the sample is unknown, and part of the estimate: nothing has to wrap around.
        margins = [n // 2 for n in whole.shape]
        inner = tuple(slice(m, m + n) for m, n in zip(margins, shape, strict=True))
        domain = [fast_length(s.stop + m) for s, m in zip(inner, margins, strict=True)]
        return cls(domain, inner, between, whole, tail)

    def optics(self, psf: Tensor) -> CoarseOptics:
        """Return how a sample on this grid is imaged by ``psf``."""
        return CoarseOptics(psf, self.domain, self.inner, self.between)


class CoarseOptics:
    """Images a sample in planes, and returns light to where it came from, in little memory.

    What fills the domain is most of what a process needs. Of Fourier transforms there is one at a time: along z, the
    planes are transformed, filtered and transformed back by rows, and along y and x some planes at a time.

    Parameters
    ----------
    psf
        Of the way through the microscope.
    domain
        Shape of the sample, ``(z', y, x)``.
    inner
        Where in it there are planes, every ``between`` ones.
    """

    def __init__(self, psf: Tensor, domain: Sequence[int], inner: Sequence[slice], between: int) -> None:
        self.domain = tuple(domain)
        self._z = slice(inner[0].start, inner[0].stop, between)
        self._lateral = inner[1:]
        padded = psf.new_zeros(self.domain)
        padded[tuple(slice(n) for n in psf.shape)] = psf
        self._transfer = torch.fft.rfftn(padded.roll([-(n // 2) for n in psf.shape], (0, 1, 2)))
        self._spectrum = torch.empty_like(self._transfer)

    def imaged(self, sample: Tensor) -> Tensor:
        """Image a sample: planes ``(z, y, x)``."""
        spectrum = self._spectrum
        for some in self._planes(len(sample)):
            spectrum[some] = torch.fft.rfftn(sample[some], dim=(1, 2))
        for rows in self._rows():
            part = torch.fft.fft(spectrum[:, rows], dim=0).mul_(self._transfer[:, rows])
            seen = torch.fft.ifft(part, dim=0)[self._z]
            spectrum[: len(seen), rows] = seen
        spectrum = spectrum[: len(seen)]
        planes = sample.new_empty(len(seen), *(side.stop - side.start for side in self._lateral))
        for some in self._planes(len(planes)):
            planes[some] = self._back(spectrum[some])[:, *self._lateral]
        return planes

    def returned(self, planes: Tensor, into: Tensor) -> Tensor:
        """Return light to where it came from, ``(z', y, x)``, written into a volume that is there."""
        length, height, width = self.domain
        spectrum = self._spectrum.zero_()
        for some in self._planes(len(planes)):
            scattered = planes.new_zeros(len(planes[some]), height, width)
            scattered[:, *self._lateral] = planes[some]
            spectrum[self._z][some] = torch.fft.rfftn(scattered, dim=(1, 2))
        for rows in self._rows():
            # The conjugate transfer returns light to where it came from.
            part = torch.fft.fft(spectrum[:, rows], dim=0).mul_(self._transfer[:, rows].conj())
            spectrum[:, rows] = torch.fft.ifft(part, dim=0)
        for some in self._planes(length):
            torch.clamp(self._back(spectrum[some]), min=0, out=into[some])
        return into

    def _planes(self, length: int) -> Iterator[slice]:
        return _parts(length, self.domain[1] * self.domain[2], self._transfer.device)

    def _rows(self) -> Iterator[slice]:
        return _parts(self.domain[1], self.domain[0] * self.domain[2], self._transfer.device)

    def _back(self, spectrum: Tensor) -> Tensor:
        planes: Tensor = torch.fft.irfftn(spectrum, self.domain[1:], dim=(1, 2))
        return planes


def _parts(length: int, voxels: int, device: torch.device) -> Iterator[slice]:
    """Say which ones of so many planes, or rows, of so many ``voxels`` each are worked on at once.

    On a graphics card all are: there, to begin something takes longer than to do it by parts would save.
    """
    step = max(_PART // voxels, 1) if device.type == "cpu" else length
    return (slice(start, start + step) for start in range(0, length, step))


def _accelerated(improve: Callable[[Tensor, Tensor], None], estimate: Tensor, iterations: int) -> Tensor:
    """Iterate ``improve``, each time from a point farther on along the way that the estimate has come.

    Coarse haze needs hundreds of plain iterations; these need tens. How far is read off the last two corrections, as
    Biggs and Andrews do. ``improve`` is given a sample, and where to write a better one.
    """
    before, better = estimate.clone(), torch.empty_like(estimate)
    last, stride = torch.zeros_like(estimate, dtype=_COARSELY), 0.0
    for _ in range(iterations):
        ahead = before.lerp_(estimate, 1 + stride).clamp_(min=0)
        improve(ahead, better)
        correction = ahead.neg_().add_(better)
        agreement, size = _product(correction, last), max(_product(last, last), _FAINTEST)
        stride = min(max(agreement / size, 0.0), 1.0)
        last.copy_(correction)
        before, estimate, better = estimate, better, correction
    return estimate


def _product(one: Tensor, other: Tensor) -> float:
    """Return the inner product of two volumes."""
    parts = ((one[some].flatten(), other[some].flatten()) for some in _parts(len(one), one[0].numel(), one.device))
    return sum(float(torch.dot(left.float(), right.float())) for left, right in parts)


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
