"""How sharp the stack is along z and across, before and after it was restored, by `restore.evaluate.resolution`.

*Before* is the stack interpolated along z onto the grid of the volume, so that both are measured alike. Of a large
stack a column is measured, over its whole depth, where there is most to be seen: a coarser level would be less sharp
than what was restored.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import zarr

from otf_stream.acquisition import StackIndex
from otf_stream.optics.noise import NoiseModel
from otf_stream.restore.evaluate import Resolution, resolution
from otf_stream.store.session import SessionStore

_VOXELS = 3 * 2**19  # which take some tenths of a second
_NARROWEST = 64
_SHORTEST = 8
_HIDING = 0.25  # of the variance of planes


@dataclass(frozen=True)
class Sharpness:
    """Widths of what blurs a stack, in voxels, before and after it was restored; and where they were measured."""

    before: Resolution
    after: Resolution
    y: slice
    x: slice


def measure_sharpness(
    store: SessionStore, stack: StackIndex, planes: Sequence[int], noise: NoiseModel | None = None
) -> Sharpness | None:
    """Measure it, where the stack is large enough for that.

    Parameters
    ----------
    store
        The session, with a restored image.
    stack
        Which of its stacks, ``(t, c)``.
    planes
        Which are durable, ascending; at least one.
    noise
        Of the planes. Where it is much of what varies in them, how sharp they are cannot be told: it is sharper than
        any sample.
    """
    group = zarr.open_group(store.path / "restored", mode="r")
    finest = cast("zarr.Array[Any]", group["0"])
    _, _, depth, height, width = finest.shape
    anisotropy = store.acquisition.voxel_size.anisotropy
    first, last = math.ceil(planes[0] * anisotropy - 1e-6), min(math.floor(planes[-1] * anisotropy + 1e-6), depth - 1)
    if min(last - first + 1, height, width) < _SHORTEST:
        return None
    side = int(max(math.sqrt(_VOXELS / (last - first + 1)), _NARROWEST))
    y, x = _where_most_is_to_be_seen(group, stack, min(side, height), min(side, width))
    after = np.asarray(finest[(*stack, slice(first, last + 1), y, x)]).astype(np.float32)
    raw = np.stack([store.read_plane((*stack, z), y, x) for z in planes]).astype(np.float32)
    before = interpolated(np.nan_to_num(raw), [z * anisotropy for z in planes], range(first, last + 1))
    hidden = noise is not None and noise.variance(raw).mean() > _HIDING * raw.var()
    return Sharpness(Resolution(math.nan, math.nan) if hidden else resolution(before), resolution(after), y, x)


def interpolated(planes: np.ndarray, at: Sequence[float], voxels: range) -> np.ndarray:
    """Interpolate planes ``(z, y, x)`` that lie ``at`` ascending places linearly onto ``voxels``: ``(z', y, x)``."""
    if len(at) == 1:
        return np.repeat(planes, len(voxels), axis=0)
    places = np.clip(np.array(voxels, dtype=np.float32), at[0], at[-1])
    below = np.clip(np.searchsorted(at, places, side="right") - 1, 0, len(at) - 2)
    at_below, at_above = np.asarray(at, dtype=np.float32)[below], np.asarray(at, dtype=np.float32)[below + 1]
    share = ((places - at_below) / (at_above - at_below))[:, None, None]
    return np.asarray(planes[below] * (1 - share) + planes[below + 1] * share, dtype=np.float32)


def _where_most_is_to_be_seen(group: zarr.Group, stack: StackIndex, height: int, width: int) -> tuple[slice, slice]:
    """Of a grid of windows of this size, return the one whose brightness varies most, looked at on a coarse level."""
    levels = len(list(group.array_keys()))
    fine = cast("zarr.Array[Any]", group["0"]).shape[3:]
    coarse = np.asarray(cast("zarr.Array[Any]", group[str(levels - 1)])[stack]).astype(np.float32).std(axis=0)
    factor = 2 ** (levels - 1)
    windows = [
        (slice(y, y + height), slice(x, x + width)) for y in _starts(fine[0], height) for x in _starts(fine[1], width)
    ]

    def seen(window: tuple[slice, slice]) -> float:
        y, x = (slice(side.start // factor, max(side.stop // factor, side.start // factor + 1)) for side in window)
        part = coarse[y, x]
        return float(part.mean()) if part.size else 0.0

    return max(windows, key=seen)


def _starts(length: int, window: int) -> list[int]:
    """Where windows begin that cover a side, the last at its very end."""
    return sorted({*range(0, length - window + 1, window), length - window})
