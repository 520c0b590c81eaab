"""The camera's noise, estimated from the planes alone.

A photon-transfer curve without calibration frames: variance against mean is a straight line whose slope is the
gain. Local variances come from a second-difference filter, which is blind to slopes, in blocks small enough
that most of them hold no edge; in each intensity bin the lower blocks speak for the noise, because
structure only ever adds variance.

How many blocks are low by chance must be known for that. So each pixel counts relative to the noise that its own
brightness lets expect: in a block whose light is in a few pixels, as of a thin fibre, the mean of plain squares
scatters far more than in an even one. And no bin is narrower than blocks scatter: blocks of one brightness, sorted by a
mean that differs by noise alone, tell a gain that is too low, all the more where most of a stack is dark.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from scipy.ndimage import convolve1d, gaussian_filter
from torch import Tensor
from torch.nn.functional import conv2d

from otf_stream.optics.grain import estimate_grain, second_difference, spreading

Array = TypeVar("Array", np.ndarray, torch.Tensor)

_BLOCK = 8
_AROUND = 1.0  # pixels: the brightness of a pixel is averaged over a Gaussian of this σ
_BINS = 256  # at the most
_NARROWEST_BIN = 6.0  # standard deviations of the mean of a block
_FEWEST_BLOCKS = 16
_REFITS = 12


@dataclass(frozen=True)
class NoiseModel:
    """Variance of a pixel as a function of its expectation, shot noise plus read noise, and how far it spreads.

    Parameters
    ----------
    gain
        Counts per photon; the slope of variance against mean.
    offset
        Counts without light.
    read_noise
        Standard deviation without light, in counts.
    grain
        Standard deviations, along y and x in pixels, of the Gaussian that spreads the noise of a pixel over its
        neighbours; 0 where pixels are independent.
    """

    gain: float
    offset: float
    read_noise: float
    grain: tuple[float, float] = (0.0, 0.0)

    def variance(self, expectation: Array) -> Array:
        """Variance, in counts², where the expectation is ``expectation`` counts (any shape)."""
        return (expectation - self.offset).clip(0) * self.gain + self.read_noise**2

    def rescaled(self, origin: float, scale: float) -> NoiseModel:
        """Return the same noise for intensities expressed as ``(counts − origin) / scale``."""
        return NoiseModel(self.gain / scale, (self.offset - origin) / scale, self.read_noise / scale, self.grain)

    def draw(self, expectation: Tensor, generator: torch.Generator) -> Tensor:
        """Draw noise for planes whose expectation is ``expectation``, ``(n, 1, y, x)`` counts; the same shape."""
        n, channels, height, width = expectation.shape
        y, x = (torch.from_numpy(spreading(grain)).float() for grain in self.grain)
        shape = (n, channels, height + len(y) - 1, width + len(x) - 1)
        noise = torch.randn(shape, generator=generator, device=expectation.device)
        if len(y) * len(x) > 1:
            noise = conv2d(conv2d(noise, y.to(noise.device)[None, None, :, None]), x.to(noise.device)[None, None, None])
        return noise * self.variance(expectation).sqrt()


def estimate_noise(planes: np.ndarray) -> NoiseModel:
    """Estimate gain, offset, read noise and grain from a few planes.

    Parameters
    ----------
    planes
        ``(n, y, x)``, any real dtype, in counts. NaN and infinities are ignored. The grain is read where planes that
        follow each other differ, best from neighbours.

    Returns
    -------
    NoiseModel
        With ``gain`` 0 where variance does not grow with the mean, and all zero noise for constant planes.

    References
    ----------
    Immerkær: Fast noise variance estimation, CVIU 64 (1996), for the second-difference filter.
    Foi et al.: Practical Poissonian–Gaussian noise modeling and fitting, IEEE TIP 17 (2008).
    """
    planes = np.asarray(planes, dtype=np.float32)
    # Squares of counts near the end of float32's range would pass it. A power of two changes no other bit.
    unit = 2.0 ** float(np.ceil(np.log2(np.max(np.abs(planes), where=np.isfinite(planes), initial=1.0))))
    planes = planes / np.float32(unit)
    grain = estimate_grain(planes)
    means, brightness, squares = _local_statistics(planes, grain)
    if means.size == 0:
        return NoiseModel(0.0, 0.0, 0.0)
    # Below the darkest percent of block means lies only light's absence, as far as the data can tell.
    offset = float(np.percentile(means, 1))
    gain, intercept = _lower_line(brightness, squares)
    read_noise = float(np.sqrt(max(intercept + gain * offset, 0.0)))
    return NoiseModel(gain, offset, read_noise, grain).rescaled(0.0, 1 / unit)


def _local_statistics(planes: np.ndarray, grain: tuple[float, float]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean of every block, and brightness around and squared noise of its pixels, ``(blocks, pixels)``.

    Saturated and non-finite blocks are left out.
    """
    _, height, width = planes.shape
    rows, columns = height // _BLOCK, width // _BLOCK
    if rows == 0 or columns == 0:
        return np.empty(0), np.empty((0, _BLOCK**2)), np.empty((0, _BLOCK**2))
    finite = planes[np.isfinite(planes)]
    ceiling = finite.max() if finite.size and np.ptp(finite) > 0 else np.inf  # where the camera may have saturated
    filters = [second_difference(along) for along in grain]
    means, brightness, squares = [], [], []
    for plane in planes:
        trusted = np.isfinite(plane) & (plane < ceiling)
        residual = light = np.where(trusted, plane, 0.0)
        for axis, filtered in enumerate(filters):
            residual = convolve1d(residual, filtered, axis=axis, mode="reflect")
        smooth = [gaussian_filter(image, _AROUND, mode="reflect") for image in (light, trusted.astype(np.float32))]
        pixels, around, squared, within = (
            image[: rows * _BLOCK, : columns * _BLOCK]
            .reshape(rows, _BLOCK, columns, _BLOCK)
            .swapaxes(1, 2)
            .reshape(-1, _BLOCK**2)
            for image in (light, smooth[0] / np.maximum(smooth[1], 1e-3), residual**2, trusted)
        )
        keep = within.all(axis=1)
        means.append(pixels[keep].mean(axis=1, dtype=float))
        brightness.append(around[keep])
        squares.append(squared[keep])
    return np.concatenate(means), np.concatenate(brightness), np.concatenate(squares)


def _lower_line(brightness: np.ndarray, squares: np.ndarray) -> tuple[float, float]:
    """Slope (not negative) and intercept of the line of pure noise under block variances that structure has raised.

    The line is refitted to what the lower half of each bin says relative to the line before. Parameters as
    :func:`_local_statistics` returns them; blocks are sorted by what is around their pixels, which scatters less.
    """
    means, variances = brightness.mean(axis=1, dtype=float), squares.mean(axis=1, dtype=float)
    bins = np.searchsorted(_edges(means, variances), means, side="right")
    members = [inside for index in range(_BINS) if (inside := np.flatnonzero(bins == index)).size >= _FEWEST_BLOCKS]
    if not members:
        return 0.0, float(np.median(variances))
    level = np.array([means[inside].mean() for inside in members])
    weight = np.sqrt([inside.size for inside in members])
    slope, intercept = 0.0, float(np.median(variances))
    faintest = 1e-3 * max(float(variances.mean()), 1e-12)
    for _ in range(_REFITS):
        line = np.maximum(slope * brightness + intercept, faintest)
        ratios = (squares / line).mean(axis=1)
        pure = [_lower_half_mean(ratios[inside]) for inside in members]
        expected = np.maximum(slope * level + intercept, faintest)
        slope, intercept = _weighted_line(level, np.array(pure) * expected, weight / expected)
    return slope, intercept


def _edges(means: np.ndarray, variances: np.ndarray) -> list[float]:
    """Return where bins of blocks end: at quantiles of the means that are farther apart than noise puts them."""
    order = np.argsort(means)
    edges = [float(means[order[0]])]
    for some in np.array_split(order, _BINS)[1:]:
        if some.size and means[some[0]] - edges[-1] >= _NARROWEST_BIN * np.sqrt(np.median(variances[some])) / _BLOCK:
            edges.append(float(means[some[0]]))
    return edges[1:]


def _lower_half_mean(ratios: np.ndarray) -> float:
    """Mean of pure-noise blocks, read from the lower half of a bin.

    The mean of 64 squared, weakly correlated Gaussian residuals scatters by a third of the variance; the
    lower half of that distribution averages 0.744 of its mean (simulated).
    """
    ordered = np.sort(ratios)
    return float(ordered[: max(len(ordered) // 2, 1)].mean() / 0.744)


def _weighted_line(x: np.ndarray, y: np.ndarray, weight: np.ndarray) -> tuple[float, float]:
    """Slope, not negative, and intercept of the line through ``(x, y)``, outliers weighted down (Cauchy)."""
    if np.ptp(x) == 0:
        return 0.0, float(np.average(y, weights=weight))
    design = np.stack([x, np.ones_like(x)], axis=1)
    w, slope, intercept = weight, 0.0, 0.0
    for _ in range(5):
        slope, intercept = np.linalg.lstsq(design * w[:, None], y * w, rcond=None)[0]
        residual = (y - slope * x - intercept) * weight
        spread = max(1.4826 * float(np.median(np.abs(residual))), 1e-9)
        w = weight / np.sqrt(1 + (residual / (2.4 * spread)) ** 2)
    if slope <= 0:
        return 0.0, float(np.average(y, weights=weight))
    return float(slope), float(intercept)
