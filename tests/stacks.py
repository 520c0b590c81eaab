"""Small stacks, and how tests put them into session stores."""

import zlib

import numpy as np
from scipy.ndimage import gaussian_filter


def small_stack(planes=10, side=72, dtype="uint16", seed=0):
    """Blobs with shot noise, ``(z, y, x)``."""
    rng = np.random.default_rng(seed)
    blobs = gaussian_filter(rng.normal(size=(planes, side, side)), (0.7, 2, 2))
    light = np.clip(blobs / blobs.max(), 0, None) * 150
    return np.clip(2 * rng.poisson(light) + rng.normal(100, 4, light.shape), 0, 60000).astype(dtype)


def write(store, planes):
    """Make ``(index, pixels)`` durable."""
    pixels = [(index, np.ascontiguousarray(plane)) for index, plane in planes]
    store.write_planes([(index, plane.data, zlib.crc32(plane.data)) for index, plane in pixels])
