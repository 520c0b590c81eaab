"""Volumes to restore, and the region that is all of one."""

import numpy as np
import torch
from scipy.ndimage import gaussian_filter

from otf_stream.restore.regions import Region
from otf_stream.restore.turns import at_once


def sample(depth, side, seed=0):
    """Blobs of light on a background of 100 counts, ``(depth, side, side)``."""
    blobs = gaussian_filter(np.random.default_rng(seed).normal(size=(depth, side, side)).astype(np.float32), 2.0)
    return torch.from_numpy(np.clip(blobs / blobs.max(), 0, None) * 500 + 100)


def everywhere(raw):
    """The region that is all of ``raw``."""
    height, width = raw.shape[1:]
    return Region(slice(0, height), slice(0, width))


def whole(method, raw):
    """Restore in one part."""
    return at_once(method.restore(raw, everywhere(raw)))
