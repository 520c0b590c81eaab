"""The grain of the noise: how far the noise of one pixel spreads over its neighbours.

Detectors with a slow amplifier, and every recording that was resampled, spread the noise over neighbouring pixels.
A denoiser that takes such noise for independent takes its grain for structure, and a network then sharpens it. The
grain is read from the quietest blocks of the differences between planes, which hold no sample.
"""

from __future__ import annotations

import numpy as np

_INDEPENDENT = 0.1  # correlation below which pixels count as independent
_NOTICED = 0.2  # correlation of neighbours from which on they have a grain; fine sample alone may reach 0.15
_BLOCK = 24  # pixels; a smaller one would take the lowest frequencies of coarse grain for sample
_BINS = 5
_NO_NEIGHBOUR = 4  # pixels
_NOT_GAUSSIAN = 0.1
_QUIET = 0.2  # share of the blocks of a bin that hold the least structure
_SHARED = 0.15  # correlation between planes above which blocks hold structure
_GRAINS = np.linspace(0.3, 3.0, 136)  # pixels
_FEWEST_BLOCKS = 16
_SECOND_DIFFERENCE = np.array([1.0, -2.0, 1.0])


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


def estimate_grain(planes: np.ndarray) -> tuple[float, float]:
    """Estimate the grain from the autocorrelation of what differs between planes in quiet blocks.

    Sample that both planes hold cancels, and blocks where they still have more in common than noise can have are not
    asked. Sample that is left makes neighbours more alike, never less, so the least correlated bin speaks.

    Parameters
    ----------
    planes
        ``(n, y, x)``, float32, in counts. Planes that follow each other are compared, best neighbours.

    Returns
    -------
    tuple of float
        Standard deviations along y and x, in pixels; 0 where pixels are independent, or nothing says otherwise.
    """
    before, after = _blocks(planes[:-1]), _blocks(planes[1:])
    finite = np.isfinite(before).all(axis=(1, 2)) & np.isfinite(after).all(axis=(1, 2))
    before, after = before[finite], after[finite]
    means = (before + after).mean(axis=(1, 2))
    before, after = _without_trend(before), _without_trend(after)
    difference = after - before
    activity = before.var(axis=(1, 2)) + after.var(axis=(1, 2))  # favours neither what they share nor where they differ
    # Where most of a block is cut off at no light or full light, its noise is no longer all there.
    alive = np.flatnonzero((difference == 0).mean(axis=(1, 2)) < 0.5)
    least: tuple[float, float] | None = None
    for inside in np.array_split(alive[np.argsort(means[alive])], _BINS):
        if inside.size < _FEWEST_BLOCKS:
            continue
        quiet = inside[np.argsort(activity[inside])][: max(int(_QUIET * inside.size), 4)]
        shared = (before[quiet] * after[quiet]).sum() / np.sqrt((before[quiet] ** 2).sum() * (after[quiet] ** 2).sum())
        if shared < _SHARED:
            y, x = (_neighbours_alike(difference[quiet], axis) for axis in (1, 2))
            if y is not None and x is not None:
                least = min(least or (y, x), (y, x), key=sum)
    return (_grain_of(least[0]), _grain_of(least[1])) if least else (0.0, 0.0)


def _blocks(planes: np.ndarray) -> np.ndarray:
    """Cut planes ``(n, y, x)`` into ``(m, block, block)``; what does not fill a block is left out."""
    n, rows, columns = len(planes), planes.shape[1] // _BLOCK, planes.shape[2] // _BLOCK
    cut = planes[:, : rows * _BLOCK, : columns * _BLOCK]
    cells = cut.reshape(n, rows, _BLOCK, columns, _BLOCK).swapaxes(2, 3)
    return cells.reshape(-1, _BLOCK, _BLOCK)


def _without_trend(blocks: np.ndarray) -> np.ndarray:
    """Subtract from each block the parabola that fits it best: sample that is smooth over the block."""
    y, x = np.mgrid[:_BLOCK, :_BLOCK].reshape(2, -1) / _BLOCK - 0.5
    parabolas, _ = np.linalg.qr(np.stack([np.ones_like(x), x, y, x * y, x**2, y**2], axis=1))
    flat = blocks.reshape(len(blocks), _BLOCK**2)
    return np.asarray(flat - (flat @ parabolas) @ parabolas.T).reshape(blocks.shape)


def _neighbours_alike(blocks: np.ndarray, axis: int) -> float | None:
    """Correlation of the noise of pixels with their next neighbour along ``axis``; None where it is sample.

    What is still alike a few pixels on is no noise, but sample. What is left must fall like a Gaussian.
    """
    power = (blocks**2).mean()
    lines = np.moveaxis(blocks, axis, -1)
    one, two, far = (float((lines[..., k:] * lines[..., :-k]).mean() / power) for k in (1, 2, _NO_NEIGHBOUR))
    sample = min(max(far, 0.0), 0.99)
    one, two = (one - sample) / (1 - sample), (two - sample) / (1 - sample)
    return one if two < max(one, 0.0) ** 4 + _NOT_GAUSSIAN else None


def _grain_of(correlation: float) -> float:
    """Return the grain whose noise has this correlation between neighbours."""
    return 0.0 if correlation < _NOTICED else float(np.interp(correlation, _correlations(_GRAINS, 1), _GRAINS))


def _correlations(grains: np.ndarray, lag: int) -> np.ndarray:
    """Correlation, for each grain, of noise ``lag`` pixels apart."""
    kernels = [spreading(grain) for grain in grains]
    return np.array([(k[lag:] * k[: len(k) - lag]).sum() if lag < len(k) else 0.0 for k in kernels])


def second_difference(grain: float) -> np.ndarray:
    """Return a second-difference filter, ``(odd,)``, over pixels so far apart that their noise is independent.

    Scaled to leave the variance of noise of this grain as it is.
    """
    stride = 1
    while _correlations(np.array([grain]), stride)[0] > _INDEPENDENT:
        stride += 1
    stretched = np.zeros(2 * stride + 1)
    stretched[::stride] = _SECOND_DIFFERENCE
    return np.asarray(stretched / np.sqrt((np.convolve(stretched, spreading(grain)) ** 2).sum()))
