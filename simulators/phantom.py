"""A sample whose truth is known: nuclei, membranes and filaments on the isotropic grid.

The phantom is what an ideal microscope, as sharp along z as it is across it, would see. Its statistics are the
same along all three axes, because that is the assumption by which a stack's lateral planes can teach how its
axial sections should look: cells lie at random, ellipsoids and filaments point in random directions, and the
texture comes from one isotropic random field. Everything is drawn into a domain larger than the array, so that
its faces cut through cells as the field of view of a microscope does.

Shapes are drawn sharp, each within its bounding box (`cells`), and the whole is blurred once by the lateral
point-spread function of a well-sampled microscope (`phantom`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from scipy.spatial import cKDTree

Volume = NDArray[np.float32]
Points = NDArray[np.float64]

LATERAL_SIGMA = 1.0
"""σ of the lateral point-spread function, in voxels: Nyquist sampling."""

_CELL_MARGIN = 36
_FILAMENT_MARGIN = 100
_CELL_SPACING = 42.0
_TEXTURE_PERIOD = 96


@dataclass(frozen=True)
class _Cell:
    centre: Points
    """``(z, y, x)``."""
    axes: Points
    """Rows: the directions of the nucleus's semi-axes, each divided by its length."""
    radius: float
    """Mean radius of the nucleus, in voxels."""
    texture_shift: NDArray[np.int64]


def phantom(shape_zyx: tuple[int, int, int], *, seed: int) -> Volume:
    """Draw a sample.

    Parameters
    ----------
    shape_zyx
        Shape of the isotropic grid, ``(z, y, x)`` in voxels of the lateral pixel size.
    seed
        The same seed and shape give the same sample.

    Returns
    -------
    ndarray
        float32, shape ``shape_zyx``: the expected photons in each voxel, as a fraction of a camera's `photons`.
        Background about 0.02, membranes 0.1, chromatin 0.1 to 0.2, filaments 0.2 to 0.4, nucleoli up to 1; where
        one crosses another they add up, to 1.4 at the most seen.

    Raises
    ------
    ValueError
        If an axis is shorter than one voxel.
    """
    return seen_isotropically(cells(shape_zyx, seed=seed))


def seen_isotropically(sample: Volume, sigma: float = LATERAL_SIGMA) -> Volume:
    """Return the truth of a sample: what a microscope as sharp along z as it is across it would see of it."""
    return np.asarray(gaussian_filter(sample, sigma, mode="nearest", truncate=3.5), np.float32)


def cells(shape_zyx: tuple[int, int, int], *, seed: int) -> Volume:
    """Draw the sample itself, as sharp as its voxels: what the optics have still to image.

    Parameters
    ----------
    shape_zyx, seed
        As for `phantom`.

    Raises
    ------
    ValueError
        If an axis is shorter than one voxel.
    """
    if len(shape_zyx) != 3 or min(shape_zyx) < 1:
        raise ValueError(f"a phantom has three axes of at least 1 voxel, but the shape is {shape_zyx}")
    rng = np.random.default_rng(seed)
    chromatin = _texture(rng, fine=1.6, coarse=5.0)
    bodies = _texture(rng, fine=3.0, coarse=9.0)
    relief = _texture(rng, fine=9.0, coarse=None)

    volume = np.zeros(shape_zyx, np.float32)
    for cell in _cells(shape_zyx, rng):
        _draw_cell(volume, cell, chromatin, bodies, relief)
    _draw_filaments(volume, rng)
    return volume + _background(shape_zyx, rng)


def _texture(rng: np.random.Generator, *, fine: float, coarse: float | None) -> Volume:
    """A periodic isotropic Gaussian random field of unit variance, band-passed between two σ in voxels."""
    n = _TEXTURE_PERIOD
    white = rng.standard_normal((n, n, n), dtype=np.float32)
    field = gaussian_filter(white, fine, mode="wrap")
    if coarse is not None:
        field -= gaussian_filter(field, coarse, mode="wrap")
    return np.asarray(field / field.std(), np.float32)


def _cells(shape: tuple[int, int, int], rng: np.random.Generator) -> Iterator[_Cell]:
    """Cells at random, none nearer to another than the spacing."""
    low, high = np.full(3, -_CELL_MARGIN), np.asarray(shape) + _CELL_MARGIN
    candidates = rng.uniform(low, high, (int(6 * np.prod(high - low) / _CELL_SPACING**3) + 1, 3))
    neighbours = cKDTree(candidates).query_ball_point(candidates, _CELL_SPACING)
    taken = np.zeros(len(candidates), bool)
    for i, near in enumerate(neighbours):
        taken[i] = not taken[near].any()
    for centre in candidates[taken]:
        radius = rng.uniform(10.5, 14.5)
        semi_axes = radius * rng.uniform(0.8, 1.25, 3)
        axes = np.linalg.qr(rng.standard_normal((3, 3)))[0] / semi_axes[:, None]
        yield _Cell(centre, axes, radius, rng.integers(0, _TEXTURE_PERIOD, 3))


def _draw_cell(volume: Volume, cell: _Cell, chromatin: Volume, bodies: Volume, relief: Volume) -> None:
    """Add a nucleus (envelope, chromatin, nucleoli) and the cell's border."""
    reach = 1.8 * 1.25 * cell.radius + 4
    low = np.maximum(np.floor(cell.centre - reach), 0).astype(int)
    high = np.minimum(np.ceil(cell.centre + reach) + 1, volume.shape).astype(int)
    if (low >= high).any():
        return
    box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    grid = [np.arange(a, b) for a, b in zip(low, high, strict=True)]
    offsets = [(g - c).astype(np.float32) for g, c in zip(grid, cell.centre, strict=True)]
    distance = np.zeros(tuple(high - low), np.float32)
    for row in cell.axes.astype(np.float32):
        along = [row[axis] * offsets[axis] for axis in range(3)]
        distance += (along[0][:, None, None] + along[1][:, None] + along[2]) ** 2
    np.sqrt(distance, out=distance)

    tile = np.ix_(*[(g + s) % _TEXTURE_PERIOD for g, s in zip(grid, cell.texture_shift, strict=True)])
    bumps = relief[tile]
    # Distances to the surfaces, in voxels: an ellipsoid with bumps.
    inside = (1 - distance) * np.float32(cell.radius) + bumps
    border = (np.float32(1.55) - distance) * np.float32(cell.radius) + 2 * bumps

    grain = chromatin[tile]
    nucleus = np.clip(0.12 + 0.045 * grain, 0.02, None)
    nucleoli = np.clip(1.5 * (bodies[tile] - 1.6), 0, 1) * np.clip(inside - 2, 0, 1)
    nucleus += 0.9 * nucleoli
    volume[box] += np.clip(inside + 0.5, 0, 1) * nucleus
    volume[box] += 0.08 * np.exp(-0.5 * (inside / 0.8) ** 2)
    volume[box] += 0.16 * np.exp(-0.5 * (border / 0.7) ** 2)


def _draw_filaments(volume: Volume, rng: np.random.Generator) -> None:
    """Add thin curved tubes: walks whose direction diffuses on the sphere, with branches off their paths."""
    shape = np.asarray(volume.shape)
    domain = shape + 2 * _FILAMENT_MARGIN
    step, steps = 0.5, 300
    trunks = max(1, round(float(np.prod(domain)) / 130_000))
    start = rng.uniform(-_FILAMENT_MARGIN, shape + _FILAMENT_MARGIN, (trunks, 3))
    paths = _walks(start, rng.standard_normal((trunks, 3)), steps, step, rng)
    fork = rng.integers(steps // 4, 3 * steps // 4, trunks)
    index = np.arange(trunks)
    heading = paths[index, fork + 1] - paths[index, fork]
    branches = _walks(
        paths[index, fork], heading + 0.4 * rng.standard_normal((trunks, 3)) * step, steps // 2, step, rng
    )
    for group, brightness in ((paths, 0.3), (branches, 0.24)):
        # A line of unit density blurred by σ peaks at 1 / (2πσ²).
        weight = brightness * step * 2 * np.pi * LATERAL_SIGMA**2
        weights = weight * rng.uniform(0.6, 1.2, len(group))
        _splat(volume, group.reshape(-1, 3), np.repeat(weights, group.shape[1]))


def _walks(start: Points, heading: Points, steps: int, step: float, rng: np.random.Generator) -> Points:
    """Walks of shape ``(walk, step, 3)`` with a smoothly turning direction."""
    direction = heading / np.linalg.norm(heading, axis=1, keepdims=True)
    turn = np.zeros_like(direction)
    paths = np.empty((len(start), steps, 3))
    position = start.copy()
    for i in range(steps):
        paths[:, i] = position
        turn = 0.95 * turn + 0.006 * rng.standard_normal(turn.shape)
        direction = direction + turn
        direction /= np.linalg.norm(direction, axis=1, keepdims=True)
        position = position + step * direction
    return paths


def _splat(volume: Volume, points: Points, weights: Points) -> None:
    """Add point sources, each shared among its eight neighbours (trilinear weights)."""
    base = np.floor(points).astype(np.int64)
    fraction = points - base
    total = np.zeros(volume.size)
    for corner in np.ndindex(2, 2, 2):
        at = base + corner
        share = weights * np.prod(np.where(corner, fraction, 1 - fraction), axis=1)
        kept = ((at >= 0) & (at < volume.shape)).all(axis=1)
        flat = np.ravel_multi_index(tuple(at[kept].T), volume.shape)
        total += np.bincount(flat, share[kept], minlength=volume.size)
    volume += total.reshape(volume.shape).astype(np.float32)


def _background(shape: tuple[int, ...], rng: np.random.Generator) -> Volume:
    """A smooth glow between 0.01 and 0.03: a few long waves in random directions."""
    glow = np.full(shape, 0.02, np.float32)
    z, y, x = (np.arange(n, dtype=np.float32) for n in shape)
    for _ in range(4):
        k = rng.standard_normal(3)
        k *= 2 * np.pi / (rng.uniform(120, 300) * np.linalg.norm(k))
        phase = rng.uniform(0, 2 * np.pi)
        # cos(a + b + c) from its separable parts costs far less than a cosine a voxel.
        wave_z, wave_y, wave_x = np.exp(1j * (k[0] * z + phase)), np.exp(1j * k[1] * y), np.exp(1j * k[2] * x)
        lateral = (wave_y[:, None] * wave_x).astype(np.complex64)
        for plane, turn in zip(glow, wave_z.astype(np.complex64), strict=True):
            plane += np.float32(0.0025) * (turn * lateral).real
    return glow
