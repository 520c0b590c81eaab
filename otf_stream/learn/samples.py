"""Samples to pre-train on, drawn by rule in three dimensions: leaves, clouds, filaments, membranes and cells.

A network that restores must know edges, lines, points and textures at every scale and contrast; it need not know one
organ from another. What microscopes look at is a sum of few such things over a background. They are drawn in space and
not in the plane, because what blurs an axial slice comes from all around it. Nothing is downloaded, so nobody's licence
travels with the weights, and a seed gives the same samples everywhere.

References
----------
Lee, Mumford, Huang: Occlusion models for natural images, IJCV 41 (2001), for dead leaves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray
from scipy.fft import irfftn, rfftn
from scipy.ndimage import gaussian_filter
from scipy.spatial import cKDTree

Volume = NDArray[np.float32]
Shape = tuple[int, int, int]


def draw_sample(shape: Shape, rng: np.random.Generator) -> Volume:
    """Draw one sample, as sharp as its voxels.

    Parameters
    ----------
    shape
        ``(z, y, x)`` in voxels.
    rng
        Source of randomness.

    Returns
    -------
    numpy.ndarray
        float32 of this shape, not negative; the brightest thousandth lies at 1.
    """
    kinds = [_leaves, _clouds, _filaments, _membranes, _cells]
    sample = np.zeros(shape, np.float32)
    for kind in rng.choice(len(kinds), size=rng.integers(1, 4), replace=False):
        sample += np.float32(rng.uniform(0.2, 1.0)) * kinds[kind](shape, rng)
    sample += np.float32(rng.uniform(0, 0.1))
    # Uneven staining.
    sample *= (1 + 0.3 * _field(shape, 3.5, rng)).clip(0.2)
    return np.asarray(sample / max(float(np.percentile(sample, 99.9)), 1e-6), np.float32)


def _field(shape: Shape, slope: float, rng: np.random.Generator) -> Volume:
    """Gaussian random field whose amplitude falls as ``f**-slope``; mean 0, variance 1; it wraps around."""
    axes = [np.fft.fftfreq(n) for n in shape[:-1]] + [np.fft.rfftfreq(shape[-1])]
    fz, fy, fx = np.meshgrid(*axes, indexing="ij", sparse=True)
    frequency = np.sqrt(fz**2 + fy**2 + fx**2)
    amplitude = np.maximum(frequency, 1 / max(shape)) ** -slope
    amplitude[0, 0, 0] = 0
    noise = rng.standard_normal(shape, dtype=np.float32)
    field = irfftn(rfftn(noise, workers=-1) * amplitude.astype(np.float32), shape, workers=-1)
    return np.asarray(field / field.std(), np.float32)


def _ellipsoids(
    shape: Shape, count: int, radius: Callable[[], float], rng: np.random.Generator
) -> Iterator[tuple[tuple[slice, ...], Volume]]:
    """Random ellipsoids: their box in the volume, and the distance from the centre there, 1 at the surface."""
    for _ in range(count):
        longest = radius()
        centre = rng.uniform(-0.5 * longest, np.asarray(shape) + 0.5 * longest)
        axes = longest * np.array([1.0, rng.uniform(0.6, 1.0), rng.uniform(0.6, 1.0)])
        turned = np.linalg.qr(rng.standard_normal((3, 3)))[0] / axes[:, None]
        first = np.maximum(np.floor(centre - longest), 0).astype(int) - 1
        last = np.minimum(np.ceil(centre + longest) + 2, shape).astype(int)
        first = np.maximum(first, 0)
        if (first >= last).any():
            continue
        box = tuple(slice(a, b) for a, b in zip(first, last, strict=True))
        apart = np.meshgrid(*[np.arange(a, b) - c for a, b, c in zip(first, last, centre, strict=True)], indexing="ij")
        along = np.tensordot(turned, np.stack(apart), axes=1)
        yield box, np.sqrt((along**2).sum(0)).astype(np.float32)


def _power_law(smallest: float, largest: float, exponent: float, rng: np.random.Generator) -> Callable[[], float]:
    """Radii between two, of density ``r**-(exponent + 1)``."""

    def radius() -> float:
        u = rng.uniform()
        return float((smallest**-exponent + u * (largest**-exponent - smallest**-exponent)) ** (-1 / exponent))

    return radius


def _leaves(shape: Shape, rng: np.random.Generator) -> Volume:
    """Opaque bodies of all sizes, the later in front; some of them textured."""
    volume = np.full(shape, rng.uniform(0, 0.4), np.float32)
    texture = (1 + 0.3 * rng.uniform() * _field(shape, rng.uniform(1.3, 2.2), rng)).clip(0)
    radius = _power_law(rng.uniform(1.5, 4), rng.uniform(15, 45), 2.0, rng)
    count = int(np.prod(shape) / 10 ** rng.uniform(2.6, 4.0))
    for box, distance in _ellipsoids(shape, count, radius, rng):
        volume[box] = np.where(distance < 1, np.float32(rng.uniform() ** 1.5) * texture[box], volume[box])
    return volume


def _clouds(shape: Shape, rng: np.random.Generator) -> Volume:
    """A fractal field, through a random contrast curve."""
    field = _field(shape, rng.uniform(1.4, 2.6), rng)
    return np.asarray(np.exp(rng.uniform(0.3, 1.2) * field) / 4 if rng.uniform() < 0.5 else field.clip(0) / 2)


def _filaments(shape: Shape, rng: np.random.Generator) -> Volume:
    """Fibres that wind at random, of different brightness, some beaded."""
    count = max(int(np.prod(shape) / 10 ** rng.uniform(3.4, 4.7)), 3)
    steps, stiffness = int(2 * max(shape)), rng.uniform(0.005, 0.05)
    heading = rng.standard_normal((count, 3))
    position = rng.uniform(0, shape, (count, 3))
    heading /= np.linalg.norm(heading, axis=1, keepdims=True)
    turn = np.zeros_like(heading)
    path = np.empty((steps, count, 3))
    for step in range(steps):
        path[step] = position
        turn = 0.9 * turn + stiffness * rng.standard_normal(turn.shape)
        heading += 0.3 * turn
        heading /= np.linalg.norm(heading, axis=1, keepdims=True)
        position = position + 0.5 * heading
    beads = rng.uniform(0, 0.9, count) * np.sin(np.arange(steps)[:, None] / rng.uniform(2, 12, count))
    light = (rng.uniform(0.2, 1.0, count) * (1 + beads)).ravel()
    points = path.reshape(-1, 3)
    base = np.floor(points).astype(int)
    volume = np.zeros(shape, np.float64)
    for corner in np.ndindex(2, 2, 2):  # each point is shared among its eight neighbours
        at = base + corner
        share = light * np.abs(1 - np.asarray(corner) - (points - base)).prod(1)
        inside = ((at >= 0) & (at < shape)).all(1)
        flat = np.ravel_multi_index(tuple(at[inside].T), shape)
        volume += np.bincount(flat, share[inside], minlength=volume.size).reshape(shape)
    width = rng.uniform(0.3, 1.5)
    return np.asarray(gaussian_filter(volume, width) * (2 + 6 * width**2), np.float32)


def _membranes(shape: Shape, rng: np.random.Generator) -> Volume:
    """Walls between cells that touch, of uneven brightness; the cells may be filled."""
    spacing = rng.uniform(12, 50)
    low, high = np.full(3, -spacing), np.asarray(shape) + spacing
    seeds = rng.uniform(low, high, (max(int(np.prod(high - low) / spacing**3), 8), 3))
    bend = rng.uniform(0, 3)
    points = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1).astype(np.float32)
    for axis in range(3):
        points[..., axis] += bend * _field(shape, 3.0, rng)
    distance, cell = cKDTree(seeds).query(points.reshape(-1, 3), k=2, workers=-1)
    apart = np.linalg.norm(seeds[cell[:, 0]] - seeds[cell[:, 1]], axis=1)
    to_wall = (distance[:, 1] ** 2 - distance[:, 0] ** 2) / (2 * apart)
    walls = np.exp(-0.5 * (to_wall / rng.uniform(0.6, 2.0)) ** 2).reshape(shape)
    filled = rng.uniform(0, 0.4) * rng.uniform(size=len(seeds))[cell[:, 0]].reshape(shape) ** 2
    return np.asarray(walls * (0.7 + 0.3 * _field(shape, 2.5, rng)).clip(0) + filled, np.float32)


def _cells(shape: Shape, rng: np.random.Generator) -> Volume:
    """Nuclei with textured chromatin and nucleoli, and small vesicles, some of them hollow."""
    volume = np.zeros(shape, np.float32)
    chromatin = (1 + 0.5 * _field(shape, rng.uniform(1.3, 2.2), rng)).clip(0)
    size = rng.uniform(5, 25)
    count = int(np.clip(rng.uniform(0.02, 0.15) * np.prod(shape) / size**3, 2, 400))
    for box, distance in _ellipsoids(shape, count, lambda: size * float(rng.uniform(0.7, 1.3)), rng):
        body = 1 / (1 + np.exp(np.clip((distance - 1) * size, -30, 30)))
        rim = rng.uniform(0, 0.5) * np.exp(-0.5 * ((distance - 0.95) * size / 1.5) ** 2)
        volume[box] = np.maximum(volume[box], rng.uniform(0.2, 0.8) * (body * chromatin[box] + rim))
    spots = int(np.prod(shape) / 10 ** rng.uniform(3.7, 5.5))
    hollow = rng.uniform() < 0.5
    for box, distance in _ellipsoids(shape, spots, _power_law(1.5, 8, 1.5, rng), rng):
        drawn = np.exp(-8 * (distance - 0.8) ** 2) if hollow else np.exp(-2 * distance**2)
        volume[box] += np.float32(rng.uniform(-0.3, 1.0)) * drawn * (volume[box] > 0.1 if rng.uniform() < 0.5 else 1)
    return volume.clip(0)
