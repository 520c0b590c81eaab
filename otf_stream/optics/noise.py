"""The camera's noise, estimated from the planes alone.

A photon-transfer curve without calibration frames: variance against mean is a straight line whose slope is the
gain. Local variances come from a second-difference filter, which is blind to slopes, in blocks small enough
that most of them hold no edge; in each intensity bin the lower blocks speak for the noise, because
structure only ever adds variance.

Detectors with a slow amplifier, and every recording that was resampled, spread the noise over neighbouring pixels.
A denoiser that takes such noise for independent takes its grain for structure, and a network then sharpens it. The
grain is read from the quietest blocks of the differences between planes, which hold no sample.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from scipy.ndimage import convolve1d
from torch import Tensor
from torch.nn.functional import conv2d

Array = TypeVar("Array", np.ndarray, torch.Tensor)

_BLOCK = 8
_BINS = 24
_FEWEST_BLOCKS = 16
_REFITS = 12
_SECOND_DIFFERENCE = np.array([1.0, -2.0, 1.0])
_INDEPENDENT = 0.1  # correlation below which pixels count as independent
_GRAIN_BLOCK = 16
_GRAIN_BINS = 5
_NO_NEIGHBOUR = 4  # pixels
_QUIET = 0.2  # share of the blocks of a bin that hold the least structure
_SHARED = 0.15  # correlation between planes above which blocks hold structure
_GRAINS = np.linspace(0.3, 3.0, 136)  # pixels


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


def spreading(grain: float) -> np.ndarray:
    """Return the kernel, ``(odd,)``, float64, that gives independent noise this grain and leaves its variance at 1."""
    radius = int(np.ceil(3 * grain))
    kernel = np.exp(-0.5 * (np.arange(-radius, radius + 1) / max(grain, 1e-3)) ** 2)
    return np.asarray(kernel / np.sqrt((kernel**2).sum()))


def grain_spectrum(grain: float, frequency: np.ndarray) -> np.ndarray:
    """Power of noise of this grain at ``frequency``, cycles per pixel, relative to independent noise; any shape."""
    kernel = spreading(grain)
    lags = np.arange(len(kernel)) - len(kernel) // 2
    return np.asarray(np.abs((kernel * np.exp(-2j * np.pi * frequency[..., None] * lags)).sum(-1)) ** 2)


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
    grain = _grain(planes)
    means, variances = _local_statistics(planes, grain)
    if means.size == 0:
        return NoiseModel(0.0, 0.0, 0.0)
    # Below the darkest percent of block means lies only light's absence, as far as the data can tell.
    offset = float(np.percentile(means, 1))
    gain, intercept = _lower_line(means, variances)
    return NoiseModel(gain, offset, float(np.sqrt(max(intercept + gain * offset, 0.0))), grain)


def _grain(planes: np.ndarray) -> tuple[float, float]:
    """Spread of the noise along y and x, from the autocorrelation of what differs between planes in quiet blocks.

    Sample that both planes hold cancels, and blocks where they still have more in common than noise can have are not
    asked. Sample that is left makes neighbours more alike, never less, so the least correlated bin speaks.
    """
    before, after = _blocks(planes[:-1]), _blocks(planes[1:])
    finite = np.isfinite(before).all(axis=(1, 2)) & np.isfinite(after).all(axis=(1, 2))
    before, after = before[finite], after[finite]
    means = (before + after).mean(axis=(1, 2))
    before = before - before.mean(axis=(1, 2), keepdims=True)
    after = after - after.mean(axis=(1, 2), keepdims=True)
    difference = after - before
    activity = before.var(axis=(1, 2)) + after.var(axis=(1, 2))  # favours neither what they share nor where they differ
    # Where most of a block is cut off at no light or full light, its noise is no longer all there.
    alive = np.flatnonzero((difference == 0).mean(axis=(1, 2)) < 0.5)
    least: tuple[float, float] | None = None
    for inside in np.array_split(alive[np.argsort(means[alive])], _GRAIN_BINS):
        if inside.size < _FEWEST_BLOCKS:
            continue
        quiet = inside[np.argsort(activity[inside])][: max(int(_QUIET * inside.size), 4)]
        shared = (before[quiet] * after[quiet]).sum() / np.sqrt((before[quiet] ** 2).sum() * (after[quiet] ** 2).sum())
        if shared < _SHARED:
            alike = _neighbours_alike(difference[quiet], axis=1), _neighbours_alike(difference[quiet], axis=2)
            least = min(least or alike, alike, key=sum)
    return (_grain_of(least[0]), _grain_of(least[1])) if least else (0.0, 0.0)


def _blocks(planes: np.ndarray) -> np.ndarray:
    """Cut planes ``(n, y, x)`` into ``(m, block, block)``; what does not fill a block is left out."""
    n, rows, columns = len(planes), planes.shape[1] // _GRAIN_BLOCK, planes.shape[2] // _GRAIN_BLOCK
    cut = planes[:, : rows * _GRAIN_BLOCK, : columns * _GRAIN_BLOCK]
    cells = cut.reshape(n, rows, _GRAIN_BLOCK, columns, _GRAIN_BLOCK).swapaxes(2, 3)
    return cells.reshape(-1, _GRAIN_BLOCK, _GRAIN_BLOCK)


def _neighbours_alike(blocks: np.ndarray, axis: int) -> float:
    """Correlation of the noise of pixels with their next neighbour along ``axis``.

    What is still alike a few pixels on is no noise, but sample.
    """
    power = (blocks**2).mean()
    lines = np.moveaxis(blocks, axis, -1)
    near, far = ((lines[..., lag:] * lines[..., :-lag]).mean() / power for lag in (1, _NO_NEIGHBOUR))
    sample = max(float(far), 0.0)
    return (float(near) - sample) / max(1.0 - sample, 1e-6)


def _grain_of(correlation: float) -> float:
    """Return the grain whose noise has this correlation between neighbours."""
    return 0.0 if correlation < _INDEPENDENT else float(np.interp(correlation, _correlations(_GRAINS, 1), _GRAINS))


def _correlations(grains: np.ndarray, lag: int) -> np.ndarray:
    """Correlation, for each grain, of noise ``lag`` pixels apart."""
    kernels = [spreading(grain) for grain in grains]
    return np.array([(k[lag:] * k[: len(k) - lag]).sum() if lag < len(k) else 0.0 for k in kernels])


def _second_difference(grain: float) -> np.ndarray:
    """Second-difference filter, ``(odd,)``, over pixels so far apart that their noise is independent.

    Scaled to leave the variance of noise of this grain as it is.
    """
    stride = 1
    while _correlations(np.array([grain]), stride)[0] > _INDEPENDENT:
        stride += 1
    stretched = np.zeros(2 * stride + 1)
    stretched[::stride] = _SECOND_DIFFERENCE
    return np.asarray(stretched / np.sqrt((np.convolve(stretched, spreading(grain)) ** 2).sum()))


def _local_statistics(planes: np.ndarray, grain: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
    """Mean and noise variance of every block of every plane, saturated and non-finite blocks left out."""
    _, height, width = planes.shape
    rows, columns = height // _BLOCK, width // _BLOCK
    if rows == 0 or columns == 0:
        return np.empty(0), np.empty(0)
    finite = planes[np.isfinite(planes)]
    ceiling = finite.max() if finite.size and np.ptp(finite) > 0 else np.inf  # where the camera may have saturated
    filters = [_second_difference(along) for along in grain]
    means, variances = [], []
    for plane in planes:
        trusted = np.isfinite(plane) & (plane < ceiling)
        residual = np.where(trusted, plane, 0.0)
        for axis, filtered in enumerate(filters):
            residual = convolve1d(residual, filtered, axis=axis, mode="reflect")
        cells = [
            image[: rows * _BLOCK, : columns * _BLOCK].reshape(rows, _BLOCK, columns, _BLOCK)
            for image in (plane, residual**2, trusted)
        ]
        keep = cells[2].all(axis=(1, 3))
        means.append(cells[0].mean(axis=(1, 3))[keep])
        variances.append(cells[1].mean(axis=(1, 3))[keep])
    return np.concatenate(means), np.concatenate(variances)


def _lower_line(means: np.ndarray, variances: np.ndarray) -> tuple[float, float]:
    """Slope (not negative) and intercept of the line of pure noise under block variances that structure has raised.

    The line is refitted to what the lower half of each bin says relative to the line before.
    """
    edges = np.quantile(means, np.linspace(0, 1, _BINS + 1)[1:-1])
    bins = np.searchsorted(edges, means, side="right")
    members = [inside for index in range(_BINS) if (inside := np.flatnonzero(bins == index)).size >= _FEWEST_BLOCKS]
    if not members:
        return 0.0, float(np.median(variances))
    level = np.array([means[inside].mean() for inside in members])
    weight = np.sqrt([inside.size for inside in members])
    slope, intercept = 0.0, float(np.median(variances))
    faintest = 1e-3 * max(float(variances.mean()), 1e-12)
    for _ in range(_REFITS):
        line = np.maximum(slope * means + intercept, faintest)
        pure = [_lower_half_mean(variances[inside] / line[inside]) for inside in members]
        expected = np.maximum(slope * level + intercept, faintest)
        slope, intercept = _weighted_line(level, np.array(pure) * expected, weight / expected)
    return slope, intercept


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
