"""To what detail a restored volume agrees with a reference, along z and across: Fourier shell correlation by direction.

At each spatial frequency, the correlation of the two spectra tells how much of what the volume shows there is in the
reference too: 1 where they agree, 0 where they have nothing in common. It is taken within a cone around z and within a
band around the xy plane, since a mean over whole shells is little but the lateral one. The correlation looks at
structure, not at contrast: a blur that leaves the noise far below the sample costs nothing, while structure that was
made up, or lost in noise, does. It complements `otf_stream.restore.evaluate.resolution`, which looks at contrast alone
and takes made-up structure for true.

There is no such figure from one volume alone. The single-image method of Koho et al. splits an image into interleaved
halves and correlates these, which presupposes that the noise of neighbouring voxels is independent. In a restored
volume it is not: voxels were interpolated along z, denoised over a neighbourhood, and drawn by a network that looks
tens of voxels far, so that their errors are common to both halves and pass for sample. Measured: planes of noise alone,
interpolated four-fold along z and smoothed across by a Gaussian of 0.7 to 1.5 voxels, pass for a sample resolved to 4.0
to 4.9 voxels in every direction, where 4 is the finest that halves can show. No calibration, theirs being one of raw
images, can tell that from resolution.

A volume is cut into blocks whose spectra are summed, so it may be a memory map larger than memory.

References
----------
Harauz, van Heel: Exact filters for general geometry three dimensional reconstruction, Optik 73 (1986) 146.
Rosenthal, Henderson: Optimal determination of particle orientation, absolute hand, and contrast loss in single-particle
electron cryomicroscopy, J. Mol. Biol. 333 (2003) 721 (on the threshold of 1/7).
Koho et al.: Fourier ring correlation simplifies image restoration in fluorescence microscopy, Nature Communications 10
(2019) 3103 (on sections by direction, and the single-image method).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.fft import rfftn

_SHORTEST_AXIS = 8
_BLOCK = 128
_NYQUIST = 0.5  # cycles a voxel

Volume = NDArray[Any]
Curve = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class ShellCorrelation:
    """What `correlate` finds.

    Parameters
    ----------
    frequencies
        ``(shells,)``, cycles a voxel, ascending: the middle of each shell.
    axial, lateral
        ``(shells,)``, −1 to 1: the correlation within the cone around z and within the band around the xy plane; 0
        where one of the volumes has nothing at all.
    threshold
        Above which the volumes agree.
    """

    frequencies: Curve
    axial: Curve
    lateral: Curve
    threshold: float

    @property
    def axial_resolution(self) -> float:
        """The finest period along z to which the volumes agree, in voxels.

        At least 2, which voxels cannot fall below; NaN where they do not agree even in the coarsest shell.
        """
        return _finest_period(self.frequencies, self.axial, self.threshold)

    @property
    def lateral_resolution(self) -> float:
        """The same across z."""
        return _finest_period(self.frequencies, self.lateral, self.threshold)


def correlate(
    volume: Volume, reference: Volume, *, threshold: float = 1 / 7, half_angle: float = 20.0
) -> ShellCorrelation:
    """Correlate a volume with a reference, shell by shell of spatial frequency, along z and across.

    Neither a gain above 0 nor an offset of either volume matters.

    Parameters
    ----------
    volume, reference
        ``(z, y, x)`` on the same isotropic grid, any real dtype, every axis at least 8 voxels. Read block by block, of
        at most 128 voxels a side, in some 130 MB of memory; periods longer than half a side are not looked at.
    threshold
        Correlation above which the volumes agree, between 0 and 1. The usual 1/7 is meant for two equally noisy
        volumes, of which each then has a correlation of 1/2 with the noise-free sample (Rosenthal and Henderson 2003):
        0.5 is as strict where the reference has no noise.
    half_angle
        In degrees, between 0 and 45: how far from z the cone, and how far from the xy plane the band, opens. Wider ones
        hold more voxels and blend the directions; at 20° a figure along z may be up to 6 % too fine.

    Returns
    -------
    ShellCorrelation
        Shells lie one lowest frequency of the shortest side of a block apart, the second such frequency being the
        coarsest, and overlap by half.

    Raises
    ------
    ValueError
        If the shapes differ, an axis is too short, voxels are not finite, or an option is out of its range.
    """
    if volume.ndim != 3 or volume.shape != reference.shape or min(volume.shape) < _SHORTEST_AXIS:
        raise ValueError(
            f"the volume has shape {volume.shape} and the reference {reference.shape}; both must be (z, y, x) on the "
            f"same grid, with axes of at least {_SHORTEST_AXIS} voxels"
        )
    if not 0 < threshold < 1:
        raise ValueError(f"the threshold is {threshold}, but a correlation to agree by lies between 0 and 1")
    if not 0 < half_angle <= 45:
        raise ValueError(f"the half angle is {half_angle}°; give one above 0° and up to 45°")
    sides = [_side(length) for length in volume.shape]
    window = _window(sides)
    sections = _Sections(sides, math.radians(half_angle))
    sums = np.zeros((3, 2, sections.shells))
    for block in _blocks(volume.shape, sides):
        one, two = _spectrum(volume[block], window), _spectrum(reference[block], window)
        # The imaginary part of the product cancels between opposite frequencies.
        cross = one.real * two.real + one.imag * two.imag
        sums += [sections.sum(cross), sections.sum(_power(one)), sections.sum(_power(two))]
    product, norm = sums[0], np.sqrt(sums[1]) * np.sqrt(sums[2])
    axial, lateral = np.divide(product, norm, out=np.zeros_like(norm), where=norm > 0)
    return ShellCorrelation(sections.frequencies, axial, lateral, threshold)


class _Sections:
    """Which frequencies of a block's spectrum belong to which shell of the cone around z, and of the band across.

    Parameters
    ----------
    sides
        Of a block, ``(z, y, x)``.
    half_angle
        In radians.
    """

    def __init__(self, sides: list[int], half_angle: float) -> None:
        along_z, along_y, along_x = np.fft.fftfreq(sides[0]), np.fft.fftfreq(sides[1]), np.fft.rfftfreq(sides[2])
        axial = np.abs(along_z)[:, None, None]
        across = np.hypot(along_y[:, None], along_x)[None]
        width = 1 / min(sides)
        ring = np.rint(np.hypot(axial, across) / width).astype(np.int64)
        # A real volume's spectrum is kept by half: all but its two outer faces stand for two frequencies.
        count = np.where((along_x == 0) | (along_x == _NYQUIST), 1.0, 2.0)
        last = math.floor(_NYQUIST / width)
        self.shells = last - 1
        self.frequencies: Curve = np.asarray(width * np.arange(2, last + 1), np.float64)
        self._rings = last + 1
        slope = math.tan(half_angle)
        inside = (ring > 0) & (ring <= self._rings)
        self._members = [
            (np.flatnonzero(part), ring[part] - 1, np.broadcast_to(count, ring.shape)[part])
            for part in (inside & (across <= slope * axial), inside & (axial <= slope * across))
        ]

    def sum(self, values: Curve) -> Curve:
        """Sum ``values``, of the shape of the spectrum, into ``(2, shells)``: axial and lateral."""
        flat = values.ravel()
        rings = np.stack(
            [np.bincount(ring, flat[at] * count, minlength=self._rings) for at, ring, count in self._members]
        )
        # A coarse ring of the cone holds a frequency or two, whose agreement is chance: neighbours count by half.
        return np.asarray(rings[:, :-2] + 2 * rings[:, 1:-1] + rings[:, 2:])


def _side(length: int) -> int:
    """Length of the blocks that an axis is cut into: as few as there can be, all alike."""
    return math.ceil(length / math.ceil(length / _BLOCK))


def _blocks(shape: tuple[int, ...], sides: list[int]) -> Iterator[tuple[slice, ...]]:
    """Blocks that together cover a volume; where they do not fit in, they overlap by a few voxels."""
    cuts = [
        [slice(start, start + side) for start in np.linspace(0, length - side, math.ceil(length / side)).astype(int)]
        for length, side in zip(shape, sides, strict=True)
    ]
    return itertools.product(*cuts)


def _window(sides: list[int]) -> Curve:
    """Taper off the faces of a block, which would otherwise agree in both volumes at every frequency."""
    # Half of each side keeps its full weight: a Hann window would leave a third as many independent frequencies.
    from scipy.signal.windows import tukey  # takes two seconds, and nothing else here needs it

    z, y, x = (tukey(side + 2, 0.5)[1:-1] for side in sides)
    return np.asarray(z[:, None, None] * y[:, None] * x, np.float64)


def _spectrum(block: Volume, window: Curve) -> NDArray[np.complex128]:
    values = block.astype(np.float64)
    if not np.isfinite(values).all():
        raise ValueError("the volume or the reference holds voxels that are not finite; replace them")
    # First a voxel of its own, so that rounding leaves nothing of a constant block; then the mean that the window sees.
    values -= values[0, 0, 0]
    values -= np.vdot(window, values) / window.sum()
    return np.asarray(rfftn(values * window), np.complex128)


def _power(spectrum: NDArray[np.complex128]) -> Curve:
    return np.asarray(spectrum.real**2 + spectrum.imag**2, np.float64)


def _finest_period(frequencies: Curve, correlation: Curve, threshold: float) -> float:
    """Period, in voxels, at which the correlation first falls below the threshold."""
    below = np.flatnonzero(correlation < threshold)
    if below.size == 0:
        return 1 / _NYQUIST
    after = int(below[0])
    if after == 0:
        return math.nan
    high, low = correlation[after - 1], correlation[after]
    step = frequencies[after] - frequencies[after - 1]
    return float(1 / (frequencies[after - 1] + step * (high - threshold) / (high - low)))
