"""How near a restored volume comes to a reference, to what detail it agrees, and how sharp it is without one.

A microscope's grey values have an arbitrary gain and offset, so both are fitted, once for the whole volume, before
anything is compared: a method is judged by the structure that it finds, and cannot gain by fitting slice by slice.
Everything runs slice by slice or block by block, so a volume may be a memory map larger than memory.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from otf_stream.restore.correlation import ShellCorrelation, correlate

_SSIM_WINDOW = 7
_SHORTEST_AXIS = 8
_PEAK_VOXELS = 2**26
_ANOTHER_SAMPLE = 0.05  # of the reference's variance
_FWHM = 2 * math.sqrt(2 * math.log(2))

Volume = NDArray[Any]


@dataclass(frozen=True)
class Resolution:
    """Widths of the effective point-spread function, in voxels (full width at half maximum).

    NaN where an axis has too little structure to tell.
    """

    axial: float
    lateral: float

    @property
    def anisotropy(self) -> float:
        """How many times worse the volume is along z than across it; 1 is isotropic."""
        return self.axial / self.lateral


@dataclass(frozen=True)
class Evaluation:
    """What `evaluate` finds.

    Parameters
    ----------
    gain, offset
        ``gain · volume + offset`` comes nearest to the reference.
    psnr
        In dB.
    ssim
        Mean structural similarity of the XZ and YZ slices, at most 1.
    resolution, reference_resolution
        Widths of what blurs the volume, and of what blurs the reference, in voxels.
    correlation
        To what detail the two agree: low contrast does not count against a volume here, made-up structure does.
    explained
        Share of the reference's variance that the volume explains, from 0 to 1; of another sample, about none.
    """

    gain: float
    offset: float
    psnr: float
    ssim: float
    resolution: Resolution
    reference_resolution: Resolution
    correlation: ShellCorrelation
    explained: float

    def as_dict(self) -> dict[str, float | None]:
        """Return it for JSON; what is not finite becomes None."""
        values = {
            "psnr_db": self.psnr,
            "ssim": self.ssim,
            "axial_resolution_voxels": self.resolution.axial,
            "lateral_resolution_voxels": self.resolution.lateral,
            "reference_axial_resolution_voxels": self.reference_resolution.axial,
            "reference_lateral_resolution_voxels": self.reference_resolution.lateral,
            "fsc_axial_resolution_voxels": self.correlation.axial_resolution,
            "fsc_lateral_resolution_voxels": self.correlation.lateral_resolution,
            "explained_variance": self.explained,
            "gain": self.gain,
            "offset": self.offset,
        }
        return {key: value if math.isfinite(value) else None for key, value in values.items()}

    def as_text(self) -> str:
        """Return it for a human."""
        one, two, both = self.resolution, self.reference_resolution, self.correlation
        text = (
            f"PSNR {self.psnr:.2f} dB, SSIM {self.ssim:.4f} (fitted: gain {self.gain:.4g}, offset {self.offset:.4g})\n"
            f"resolution: axial {_voxels(one.axial)}, lateral {_voxels(one.lateral)} voxels "
            f"(reference: axial {_voxels(two.axial)}, lateral {_voxels(two.lateral)})\n"
            f"agrees with the reference down to: axial {_voxels(both.axial_resolution)}, lateral "
            f"{_voxels(both.lateral_resolution)} voxels (Fourier shell correlation above {both.threshold:.3f})"
        )
        if self.explained < _ANOTHER_SAMPLE:
            text += (
                f"\nthe volume explains {max(self.explained, 0):.1%} of what the reference shows: they are hardly of "
                "the same sample, or not on the same grid; voxel 0 of both must be the same place"
            )
        return text


def evaluate(volume: Volume, reference: Volume) -> Evaluation:
    """Compare a volume with the truth.

    Parameters
    ----------
    volume, reference
        ``(z, y, x)`` on the same isotropic grid, any real dtype.

    Returns
    -------
    Evaluation

    Raises
    ------
    ValueError
        If the shapes differ, an axis is shorter than 8 voxels, voxels are not finite, or the reference is constant.
    """
    fit = fit_gain_offset(volume, reference)
    missed = _mean_square(volume, reference, *fit)
    return Evaluation(
        gain=fit[0],
        offset=fit[1],
        psnr=_decibels(missed, reference),
        explained=1 - missed / _mean_square(reference, reference, 0.0, float(np.mean(reference, dtype=np.float64))),
        ssim=_ssim(volume, reference, *fit),
        resolution=resolution(volume),
        reference_resolution=resolution(reference),
        correlation=correlate(volume, reference),
    )


def fit_gain_offset(volume: Volume, reference: Volume) -> tuple[float, float]:
    """Fit ``reference ≈ gain · volume + offset`` by least squares over the whole volume.

    Parameters
    ----------
    volume, reference
        ``(z, y, x)``, same shape.

    Returns
    -------
    gain, offset : float
        Gain 0 for a constant volume.

    Raises
    ------
    ValueError
        If the shapes differ or voxels are not finite.
    """
    if volume.ndim != 3 or volume.shape != reference.shape:
        raise ValueError(
            f"the volume has shape {volume.shape} and the reference {reference.shape}; both must be (z, y, x) on the "
            "same grid, so bring the reference to the volume's isotropic grid"
        )
    mean_v = float(np.mean([plane.mean(dtype=np.float64) for plane in volume]))
    mean_r = float(np.mean([plane.mean(dtype=np.float64) for plane in reference]))
    if not (math.isfinite(mean_v) and math.isfinite(mean_r)):
        raise ValueError("the volume or the reference holds voxels that are not finite; replace them")
    covariance = variance = 0.0
    for v, r in zip(volume, reference, strict=True):
        centred = v.astype(np.float64) - mean_v
        covariance += float(np.vdot(centred, r.astype(np.float64) - mean_r))
        variance += float(np.vdot(centred, centred))
    gain = covariance / variance if variance > 0 else 0.0
    return gain, mean_r - gain * mean_v


def psnr(volume: Volume, reference: Volume) -> float:
    """Return the peak signal-to-noise ratio in dB, one gain and offset fitted.

    The peak is the reference's range without its brightest and darkest thousandths, so that one hot voxel cannot
    flatter a volume; infinite for a perfect volume.

    Parameters
    ----------
    volume, reference
        ``(z, y, x)``, same shape.

    Raises
    ------
    ValueError
        If the shapes differ, voxels are not finite, or the reference is constant.
    """
    return _decibels(_mean_square(volume, reference, *fit_gain_offset(volume, reference)), reference)


def ssim(volume: Volume, reference: Volume) -> float:
    """Return the mean structural similarity of the XZ and YZ slices, one gain and offset fitted for all of them.

    Slices along z, because there the axial blur shows; 7 × 7 uniform windows, the peak of `psnr` as data range.

    Parameters
    ----------
    volume, reference
        ``(z, y, x)``, same shape, every axis at least 7 voxels.

    Raises
    ------
    ValueError
        As for `psnr`, or if an axis is shorter than the window.
    """
    return _ssim(volume, reference, *fit_gain_offset(volume, reference))


def resolution(volume: Volume) -> Resolution:
    """Measure how sharp a volume is along z and across, without a reference.

    A sample is mostly edges, whose power spectrum along an axis falls as ``1/k²``, so ``k²·P(k)`` is flat but for the
    optics, which multiply it by the squared modulation transfer function. Where it has fallen to a quarter of its
    maximum the modulation has halved; the figure is the full width at half maximum of the Gaussian
    point-spread function that halves it there, ``0.441 / k``. The white noise floor, seen at the highest
    frequencies, is subtracted first, and only the first crossing counts, so that the side lobes that interpolation
    leaves along z do not pass for resolution.

    It is a figure to compare by: the sharper of two volumes of one sample gets the smaller number, and the ratio of
    axial to lateral tells how isotropic a volume is. As the width itself it is too small for broad blurs, because
    edges seldom lie square to the axis.

    Parameters
    ----------
    volume
        ``(z, y, x)``, every axis at least 8 voxels.

    Returns
    -------
    Resolution
        In voxels.

    Raises
    ------
    ValueError
        If an axis is too short.
    """
    if volume.ndim != 3 or min(volume.shape) < _SHORTEST_AXIS:
        raise ValueError(f"resolution needs three axes of at least {_SHORTEST_AXIS} voxels, got {volume.shape}")
    axial, along_y, along_x = (_width_along(volume, axis) for axis in range(3))
    return Resolution(axial=axial, lateral=(along_y + along_x) / 2)


def _voxels(width: float) -> str:
    return f"{width:.2f}" if math.isfinite(width) else "unknown"


def _mean_square(volume: Volume, reference: Volume, gain: float, offset: float) -> float:
    """Return the mean squared difference of the fitted volume and the reference."""
    squares = sum(
        float(np.sum((gain * v.astype(np.float64) + offset - r.astype(np.float64)) ** 2))
        for v, r in zip(volume, reference, strict=True)
    )
    return squares / reference.size


def _decibels(mean_square: float, reference: Volume) -> float:
    peak = _range(reference)
    return math.inf if mean_square == 0 else 10 * math.log10(peak**2 / mean_square)


def _ssim(volume: Volume, reference: Volume, gain: float, offset: float) -> float:
    from skimage.metrics import structural_similarity  # takes a second, and nothing else here needs it

    if min(volume.shape) < _SSIM_WINDOW:
        raise ValueError(f"SSIM needs three axes of at least {_SSIM_WINDOW} voxels, got shape {volume.shape}")
    peak = _range(reference)
    values = [
        structural_similarity(  # type: ignore[no-untyped-call]
            (gain * volume.take(index, axis) + offset).astype(np.float32),
            reference.take(index, axis).astype(np.float32),
            data_range=peak,
            win_size=_SSIM_WINDOW,
        )
        for axis in (1, 2)
        for index in range(volume.shape[axis])
    ]
    return float(np.mean(values))


def _range(reference: Volume) -> float:
    # Some 64 million voxels are enough to know a thousandth by.
    low, high = np.percentile(reference[:: max(reference.size // _PEAK_VOXELS, 1)], [0.1, 99.9])
    peak = float(high - low)
    if peak == 0:
        raise ValueError("the reference is all but constant; give a volume with structure to compare with")
    return peak


def _width_along(volume: Volume, axis: int) -> float:
    """Full width at half maximum along one axis, in voxels; NaN if the spectrum does not tell."""
    length = volume.shape[axis] - 1
    window = np.hanning(length + 2)[1:-1].astype(np.float32)
    power = np.zeros(length // 2 + 1)
    across = 1 if axis == 0 else 0
    for index in range(volume.shape[across]):
        lines = np.moveaxis(volume.take(index, axis=across).astype(np.float32), 0 if axis < 2 else 1, -1)
        # Differences first: they whiten edges, and leave nothing for the window to leak.
        power += (np.abs(np.fft.rfft(np.diff(lines) * window)) ** 2).sum(axis=0)
    k = np.arange(len(power)) / length
    transfer = np.where(k > 0, 2 * np.sin(np.pi * k), 1.0) ** 2
    spectrum = power / transfer
    edges = (2 * np.pi * k) ** 2 * (spectrum - np.median(spectrum[-max(2, len(k) // 10) :]))
    peak = int(np.argmax(edges))
    below = np.flatnonzero(edges[peak:] < edges[peak] / 4)
    if not edges[peak] > 0 or below.size == 0:
        return math.nan
    after = peak + int(below[0])
    high, low = edges[after - 1], edges[after]
    half = k[after - 1] + (high - edges[peak] / 4) / (high - low) / length
    return float(_FWHM * math.sqrt(math.log(4)) / (2 * math.pi * half))
