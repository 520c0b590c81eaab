"""Samples that are unlike the cells of `simulators.phantom`: kept apart, to test what was tuned on those.

A figure is worth something only on structures that nobody looked at while tuning. Foam is a sheet-like tissue without
nuclei or texture; vesicles are hollow and filled spheres of many sizes, where an invented ring would show.
"""

from __future__ import annotations

import numpy as np
from scipy.spatial import cKDTree

from simulators.phantom import Volume

_BACKGROUND = 0.02
_FOAM_CELL = 26.0  # voxels
_VESICLE_RADII = (2.0, 11.0)
_VESICLES_PER_VOXEL = 1 / 9000


def foam(shape_zyx: tuple[int, int, int], *, seed: int) -> Volume:
    """Draw polyhedral cells that share thin walls, each cell filled with a brightness of its own.

    Parameters
    ----------
    shape_zyx
        ``(z, y, x)`` in voxels of the isotropic grid.
    seed
        The same seed and shape give the same sample.

    Returns
    -------
    ndarray
        float32, in the unit of `simulators.phantom.phantom`: walls up to 0.7, cells 0.02 to 0.25.
    """
    rng = np.random.default_rng(seed)
    margin = 2 * _FOAM_CELL
    low, high = np.full(3, -margin), np.asarray(shape_zyx) + margin
    centres = rng.uniform(low, high, (int(np.prod(high - low) / _FOAM_CELL**3), 3))
    filled = _BACKGROUND + 0.23 * rng.uniform(size=len(centres)) ** 3
    walls = rng.uniform(0.3, 0.7, len(centres))
    tree = cKDTree(centres)
    volume = np.empty(shape_zyx, np.float32)
    y, x = np.mgrid[: shape_zyx[1], : shape_zyx[2]]
    for z, plane in enumerate(volume):
        points = np.stack([np.full(y.shape, z), y, x], axis=-1).reshape(-1, 3)
        distance, cell = tree.query(points, k=2)
        # Distance to the plane half-way between two centres.
        apart = np.linalg.norm(centres[cell[:, 0]] - centres[cell[:, 1]], axis=1)
        to_wall = (distance[:, 1] ** 2 - distance[:, 0] ** 2) / (2 * apart)
        wall = np.exp(-0.5 * (to_wall / 0.7) ** 2) * np.minimum(walls[cell[:, 0]], walls[cell[:, 1]])
        plane[:] = (filled[cell[:, 0]] + wall).reshape(y.shape)
    return volume


def vesicles(shape_zyx: tuple[int, int, int], *, seed: int) -> Volume:
    """Draw spheres of many sizes, half of them hollow.

    Parameters
    ----------
    shape_zyx, seed
        As for `foam`.

    Returns
    -------
    ndarray
        float32, in the unit of `simulators.phantom.phantom`.
    """
    rng = np.random.default_rng(seed)
    smallest, largest = _VESICLE_RADII
    low, high = np.full(3, -largest), np.asarray(shape_zyx) + largest
    volume = np.full(shape_zyx, _BACKGROUND, np.float32)
    for _ in range(int(np.prod(high - low) * _VESICLES_PER_VOXEL)):
        centre = rng.uniform(low, high)
        radius = smallest * (largest / smallest) ** rng.uniform()
        brightness = rng.uniform(0.1, 0.6)
        hollow = rng.uniform() < 0.5
        first = np.maximum(np.floor(centre - radius - 2), 0).astype(int)
        last = np.minimum(np.ceil(centre + radius + 3), shape_zyx).astype(int)
        if (first >= last).any():
            continue
        axes = np.ix_(*[np.arange(a, b) - c for a, b, c in zip(first, last, centre, strict=True)])
        inside = radius - np.sqrt(sum(axis**2 for axis in axes))
        drawn = np.exp(-0.5 * (inside / 0.8) ** 2) if hollow else np.clip(inside + 0.5, 0, 1)
        box = tuple(slice(a, b) for a, b in zip(first, last, strict=True))
        volume[box] += np.asarray(brightness * drawn, np.float32)
    return volume
