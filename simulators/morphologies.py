"""Samples that share no code with any other here: a second opinion on what every other figure is measured on.

`simulators.phantom` and `simulators.tissues` were written by the eyes that tuned the restoration, and have one style:
soft edges, moderate backgrounds. These are drawn as toolboxes draw theirs, each for a trait that the others lack:
fine texture in dense nuclei, thin branches with spines in the dark, one folded membrane, clouds without any edge, and
points.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.fft import irfftn, rfftn
from scipy.ndimage import gaussian_filter

from simulators.phantom import Volume

Shape = tuple[int, int, int]


def nuclei(shape_zyx: Shape, *, seed: int) -> Volume:
    """Draw crowded ellipsoids whose chromatin is a random texture.

    Parameters
    ----------
    shape_zyx
        ``(z, y, x)`` in voxels of the isotropic grid.
    seed
        The same seed and shape give the same sample.

    Returns
    -------
    ndarray
        float32, sharp, in fractions of a camera's `photons`.
    """
    rng = np.random.default_rng(seed)
    volume = np.full(shape_zyx, 0.03, np.float32)
    texture = np.clip(0.7 + 0.25 * _random_field(rng, shape_zyx, 2.0), 0.1, 2.0)
    for _ in range(volume.size // 16_000):
        centre, axes, brightness = rng.uniform(0, shape_zyx), rng.uniform(6, 14, 3), rng.uniform(0.2, 0.8)
        box, offsets = _around(centre, 15, shape_zyx)
        inside = sum((o / a) ** 2 for o, a in zip(offsets, axes, strict=True)) < 1
        volume[box] = np.maximum(volume[box], brightness * texture[box] * inside)
    return volume


def neurites(shape_zyx: Shape, *, seed: int) -> Volume:
    """Draw thin winding branches with spines, and a few cell bodies, in the dark; as :func:`nuclei`."""
    rng = np.random.default_rng(seed)
    volume = np.full(shape_zyx, 0.01, np.float32)
    for _ in range(volume.size // 300_000):
        at, radius, brightness = rng.uniform(0, shape_zyx), rng.uniform(0.8, 2.2), rng.uniform(0.3, 1.0)
        direction = _unit(rng.standard_normal(3))
        for _ in range(500):
            direction = _unit(direction + 0.12 * rng.standard_normal(3))
            at = at + 0.7 * direction
            if ((at < -4) | (at > np.add(shape_zyx, 4))).any():
                break
            spine = 3.5 * rng.standard_normal(3) if rng.uniform() < 0.03 else 0.0
            _put_ball(volume, at + spine, radius, brightness)
    for _ in range(volume.size // 2_500_000):
        _put_ball(volume, rng.uniform(0, shape_zyx), rng.uniform(9, 14), 0.6)
    return volume


def membrane(shape_zyx: Shape, *, seed: int) -> Volume:
    """Draw one folded membrane, brighter here and dimmer there: where a random field is zero; as :func:`nuclei`."""
    rng = np.random.default_rng(seed)
    wall = np.exp(-0.5 * (_random_field(rng, shape_zyx, 6.0) / 0.12) ** 2)
    brightness = np.clip(0.6 + 0.4 * _random_field(rng, shape_zyx, 14.0), 0.05, 2.0)
    return np.asarray(0.04 + 0.7 * wall * brightness, np.float32)


def clouds(shape_zyx: Shape, *, seed: int) -> Volume:
    """Draw a fractal without edges, whose amplitude falls as frequency to the 2.2; as :func:`nuclei`."""
    white = np.random.default_rng(seed).standard_normal(shape_zyx, dtype=np.float32)
    ends = [np.fft.fftfreq(n) for n in shape_zyx[:2]]
    z, y, x = np.ix_(*ends, np.fft.rfftfreq(shape_zyx[2]))
    frequency = np.sqrt(z**2 + y**2 + x**2)
    frequency[0, 0, 0] = 1.0
    field = irfftn(rfftn(white, workers=-1) / frequency**2.2, shape_zyx, workers=-1)
    return np.asarray(np.clip(0.25 + 0.2 * field / field.std(), 0, None), np.float32)


def beads(shape_zyx: Shape, *, seed: int) -> Volume:
    """Draw fluorescent beads of a σ of one voxel, of many brightnesses, in the dark; as :func:`nuclei`."""
    rng = np.random.default_rng(seed)
    points = np.zeros(shape_zyx, np.float32)
    count = points.size // 20_000
    np.add.at(points, tuple(rng.integers(0, n, count) for n in shape_zyx), rng.uniform(10, 60, count))
    return np.asarray(gaussian_filter(points, 1.0) + 0.005, np.float32)


def _put_ball(volume: Volume, centre: NDArray[np.float64], radius: float, brightness: float) -> None:
    """Draw a ball into ``volume`` where it is brighter than what is there."""
    box, offsets = _around(centre, int(radius + 2), volume.shape)
    distance = np.sqrt(sum(o**2 for o in offsets))
    volume[box] = np.maximum(volume[box], brightness * np.clip(radius + 0.5 - distance, 0, 1))


def _around(
    centre: NDArray[np.float64], reach: int, shape: tuple[int, ...]
) -> tuple[tuple[slice, ...], list[NDArray[np.float64]]]:
    """Return a box about a centre, cut at the faces of the volume, and how far its voxels are along each axis."""
    first = np.clip(np.floor(centre - reach), 0, shape).astype(int)
    last = np.clip(np.ceil(centre + reach + 1), 0, shape).astype(int)
    box = tuple(slice(a, b) for a, b in zip(first, last, strict=True))
    return box, list(np.ix_(*[np.arange(a, b) - c for a, b, c in zip(first, last, centre, strict=True)]))


def _random_field(rng: np.random.Generator, shape_zyx: Shape, sigma: float) -> Volume:
    """Smoothed white noise with a standard deviation of 1."""
    field = gaussian_filter(rng.standard_normal(shape_zyx, dtype=np.float32), sigma)
    return np.asarray(field / field.std(), np.float32)


def _unit(direction: NDArray[np.float64]) -> NDArray[np.float64]:
    return direction / np.linalg.norm(direction)
