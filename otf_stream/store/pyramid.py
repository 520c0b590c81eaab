"""The grids of a multiscale image, and the pooling that leads from one to the next.

Mean pooling by two moves the centre of the first voxel by half a voxel per level, so every level has a position of
its own beside its voxel size. Lengths round up, so that nothing at the edge is lost; a last voxel without a partner
stands for itself. An axis of length 1 stays as it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

Shape = tuple[int, int, int]


def level_shapes(shape: Shape, largest: int) -> list[Shape]:
    """List the shapes of a pyramid, the finest first, until no side is longer than ``largest``."""
    shapes = [shape]
    while max(shapes[-1]) > largest:
        z, y, x = shapes[-1]
        shapes.append((-(-z // 2), -(-y // 2), -(-x // 2)))
    return shapes


def level_places(shapes: list[Shape], voxel: float) -> Iterator[tuple[list[float], list[float]]]:
    """Give each level's voxel size and the centre of its first voxel, both ``(z, y, x)`` in µm.

    Parameters
    ----------
    shapes
        Of the levels, from `level_shapes`.
    voxel
        Side of the finest level's cubic voxels, in µm; its first voxel lies at 0.
    """
    pooled = np.ones(3)  # How many of the finest voxels one voxel stands for, along each axis.
    yield [voxel] * 3, [0.0] * 3
    for finer in shapes[:-1]:
        pooled = pooled * np.where(np.array(finer) > 1, 2, 1)
        yield (pooled * voxel).tolist(), ((pooled - 1) / 2 * voxel).tolist()


def halve(volume: np.ndarray, axes: Iterable[int] | None = None) -> np.ndarray:
    """Halve every axis longer than 1 by averaging neighbours; a last voxel without partner stands for itself.

    Parameters
    ----------
    volume
        ``(z, y, x)``, or of any other number of axes.
    axes
        Which axes to halve; all if None.

    Returns
    -------
    np.ndarray
        ``(⌈z/2⌉, ⌈y/2⌉, ⌈x/2⌉)``, float32.
    """
    pooled = volume
    for axis in range(volume.ndim) if axes is None else axes:
        # Neighbours are added where they lie, and what they make lies in order: turned arrays take five times as long.
        before, pairs = (slice(None),) * axis, pooled.shape[axis] // 2
        shape = list(pooled.shape)
        shape[axis] -= pairs
        means = np.empty(shape, np.float32)
        paired, single = means[(*before, slice(pairs))], means[(*before, slice(pairs, None))]
        one, other = pooled[(*before, slice(0, 2 * pairs, 2))], pooled[(*before, slice(1, 2 * pairs, 2))]
        np.add(one, other, out=paired, dtype=np.float32)
        paired *= np.float32(0.5)
        single[:] = pooled[(*before, slice(2 * pairs, None))]
        pooled = means
    return pooled.astype(np.float32, copy=False)
