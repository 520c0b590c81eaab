"""A user's own measured point spread function, brought to the grid of a stack.

Beads are imaged with a background, in voxels of their own, and never quite in the middle. What the restoration needs is
their light alone, on the isotropic grid, with the brightest point in the middle and as much light as a point has.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates, uniform_filter

from otf_stream.acquisition import VoxelSize

_REACH = (48, 24)  # voxels along z and across, at the most
_LEAST = 3  # voxels along each axis


class PsfError(ValueError):
    """A measured point spread function that cannot be used; the message names why, the limit and the remedy."""


def on_grid(
    psf: NDArray[np.floating], voxel_size: VoxelSize, *, pixel_um: float, extent_um: tuple[float, float, float]
) -> NDArray[np.float32]:
    """Bring a measured point spread function to the isotropic grid of a stack.

    Parameters
    ----------
    psf
        ``(z, y, x)``, any real dtype. Its darkest tenth is taken for background.
    voxel_size
        Of the measurement.
    pixel_um
        Lateral pixel size of the stack.
    extent_um
        Of the stack, along z, y and x.

    Returns
    -------
    numpy.ndarray
        float32 ``(z, y, x)``, odd sides, sum 1, brightest voxel in the middle.

    Raises
    ------
    PsfError
        If it is no volume, holds voxels that are not finite or no light above its background, or is larger than the
        stack.
    """
    if psf.ndim != 3 or min(psf.shape) < _LEAST:
        raise PsfError(f"a point spread function has three axes of at least {_LEAST} voxels, but this has {psf.shape}")
    if not np.isfinite(psf).all():
        raise PsfError(
            f"{int((~np.isfinite(psf)).sum())} voxels of the point spread function are not finite; mend them"
        )
    sizes = np.array([voxel_size.z, voxel_size.y, voxel_size.x])
    for axis, extent, limit in zip("zyx", (np.array(psf.shape) - 1) * sizes, extent_um, strict=True):
        if extent > limit:
            raise PsfError(
                f"the point spread function is {extent:.3g} µm long along {axis}, but the stack only {limit:.3g} µm; "
                "crop it to the light around the bead"
            )
    light = np.clip(psf.astype(np.float64) - np.percentile(psf, 10), 0, None)
    total = light.sum()
    if not total > 0:
        raise PsfError(
            f"the point spread function cannot be normalised: above its background its voxels add up to {total:g}; "
            "give an image of a bead"
        )
    ratio = pixel_um / sizes
    # What is finer than the grid is averaged, so that no light falls between its voxels.
    light = uniform_filter(light, np.maximum(np.round(ratio), 1).astype(int), mode="constant")
    brightest = np.array(np.unravel_index(int(light.argmax()), light.shape))
    room = np.minimum(brightest, np.array(psf.shape) - 1 - brightest) / ratio
    reach = [max(1, min(int(n), most)) for n, most in zip(room, (_REACH[0], _REACH[1], _REACH[1]), strict=True)]
    reach[1:] = [min(reach[1:])] * 2
    steps = np.meshgrid(*[np.arange(-r, r + 1) for r in reach], indexing="ij")
    at = [b + r * step for b, r, step in zip(brightest, ratio, steps, strict=True)]
    sampled = np.clip(map_coordinates(light, at, order=1, mode="constant"), 0, None)
    return np.asarray(sampled / sampled.sum(), np.float32)


def focus_sigma(psf: NDArray[np.float32]) -> float:
    """Standard deviation, in pixels, of the Gaussian as wide along x as the focus of ``psf``, ``(z, y, x)``."""
    line = psf[psf.shape[0] // 2, psf.shape[1] // 2].astype(np.float64)
    return float(np.sqrt(1 / (2 * np.pi)) * line.sum() / line.max())
