"""Slices of the raw and the restored image, small enough for a browser whatever the image is.

A slice is read at the level of the pyramid at which it fits the size that is asked for. The raw image has one level and
one file per plane: of it as few pages are read as the size needs, and pooled. Rows of axial slices run along z.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import zarr

from otf_stream.acquisition import Acquisition, StackIndex, isotropic_depth
from otf_stream.monitor.png import grey_png
from otf_stream.monitor.recent import Recent
from otf_stream.monitor.rows import Rows
from otf_stream.store.chunks import chunk_file
from otf_stream.store.pyramid import halve

Axis = Literal["xy", "xz", "yz"]
ImageName = Literal["raw", "restored"]
LARGEST = 2048
"""The longest side that may be asked for, in pixels."""
_ACROSS: dict[Axis, int] = {"xy": 0, "xz": 1, "yz": 2}
_MOST_BYTES = 128 << 20  # read for one slice of the raw image; each pixel of a column costs a page
_PAGE = 4096
_FAINTEST = 1e-6


@dataclass(frozen=True)
class Slice:
    """A slice of an image.

    Parameters
    ----------
    pixels
        ``(y, x)``, ``(z, x)`` or ``(z, y)``, in the image's dtype, little-endian.
    level
        How often it was halved.
    pixel_um
        Size of a pixel, down and across.
    at
        Index along the axis across the slice, on the image's finest grid.
    length
        How many there are.
    """

    pixels: np.ndarray
    level: int
    pixel_um: tuple[float, float]
    at: int
    length: int


def full_shape(acquisition: Acquisition, image: ImageName) -> tuple[int, int, int]:
    """Return the shape ``(z, y, x)`` of a stack of an image, at its finest level."""
    sizes = acquisition.sizes
    depth = sizes.z if image == "raw" else isotropic_depth(sizes.z, acquisition.voxel_size)
    return depth, sizes.y, sizes.x


def length_across(acquisition: Acquisition, image: ImageName, axis: Axis) -> int:
    """How many slices there are along the axis across them."""
    return full_shape(acquisition, image)[_ACROSS[axis]]


def read_slice(
    store: Path,
    acquisition: Acquisition,
    image: ImageName,
    stack: StackIndex,
    axis: Axis,
    at: int,
    size: int,
    recent: Recent[Rows] | None = None,
) -> Slice:
    """Read a slice.

    Parameters
    ----------
    store, acquisition
        The session.
    image
        Which of its images.
    stack
        ``(t, c)``.
    axis
        How it lies.
    at
        Which one, from 0 to `length_across`, which it is not.
    size
        The longest that a side of it may be, in pixels.
    recent
        Rows of axial slices of raw images that were read before, which are not read again; nothing is kept if None.

    Raises
    ------
    FileNotFoundError
        If there is no such image yet.
    """
    if image == "restored":
        return _restored(store, acquisition, stack, axis, at, size)
    return _raw(store, acquisition, stack, axis, at, size, Recent(0) if recent is None else recent)


def as_png(pixels: np.ndarray, low: float | None = None, high: float | None = None) -> tuple[bytes, float, float]:
    """Return a slice as an 8-bit grey PNG, and what is black and what white in it; found in the slice if not given."""
    finite = np.nan_to_num(pixels.astype(np.float32), posinf=0.0, neginf=0.0)
    found = np.percentile(finite, (0.1, 99.9)) if low is None or high is None else (0.0, 0.0)
    black, white = float(found[0]) if low is None else low, float(found[1]) if high is None else high
    grey = np.clip((finite - black) / max(white - black, _FAINTEST), 0, 1) * 255
    return grey_png(grey.round().astype(np.uint8)), black, white


def _raw(
    store: Path, acquisition: Acquisition, stack: StackIndex, axis: Axis, at: int, size: int, recent: Recent[Rows]
) -> Slice:
    sizes, voxel, dtype = acquisition.sizes, acquisition.voxel_size, acquisition.numpy_dtype

    def plane(file: Path) -> np.ndarray:
        return np.memmap(file, dtype, "r", shape=(sizes.y, sizes.x))

    if axis == "xy":
        level = _halvings(max(sizes.y, sizes.x), size)
        try:
            pixels = _pooled(np.asarray(plane(chunk_file(store, (*stack, at)))), level, (0, 1))
        except (OSError, ValueError):  # it has not come
            pixels = np.zeros((-(-sizes.y >> level), -(-sizes.x >> level)), dtype)
        return Slice(pixels, level, (voxel.y * 2**level, voxel.x * 2**level), at, sizes.z)
    every = 2 ** _halvings(sizes.z, size)
    planes = range(0, sizes.z, every)
    width, across, pixel = (sizes.x, sizes.y, voxel.x) if axis == "xz" else (sizes.y, sizes.x, voxel.y)
    # What is pooled anyhow need not all be read.
    bytes_read = len(planes) * width * (dtype.itemsize if axis == "xz" else _PAGE)
    skip = 2 ** min(_halvings(width, size), math.ceil(math.log2(max(bytes_read / _MOST_BYTES, 1))))
    pooling = _halvings(len(range(0, width, skip)), size)
    level = pooling + skip.bit_length() - 1

    def row(file: Path) -> np.ndarray:
        found = plane(file)
        return _pooled(found[at, ::skip] if axis == "xz" else found[::skip, at], pooling, (0,))

    key = (store, stack, axis, at, size, dtype, sizes)
    if (rows := recent.get(key)) is None:
        fresh = Rows((len(planes), -(-len(range(0, width, skip)) >> pooling)), dtype)
        rows = recent.keep(key, fresh, fresh.nbytes)
    pixels = rows.read([chunk_file(store, (*stack, z)) for z in planes], row)
    return Slice(pixels, level, (voxel.z * every, pixel * 2**level), at, across)


def _restored(store: Path, acquisition: Acquisition, stack: StackIndex, axis: Axis, at: int, size: int) -> Slice:
    if not (store / "restored" / "zarr.json").is_file():
        raise FileNotFoundError(store / "restored")
    group = zarr.open_group(store / "restored", mode="r")
    across, pixel = _ACROSS[axis], acquisition.voxel_size.lateral
    shape = full_shape(acquisition, "restored")
    sides = [length for dimension, length in enumerate(shape) if dimension != across]
    wanted, last = _halvings(max(sides), size), len(list(group.array_keys())) - 1
    level = min(wanted, last)
    array = cast("zarr.Array[Any]", group[str(level)])
    place: list[int | slice] = [slice(None)] * 3
    place[across] = min(at >> level, array.shape[2 + across] - 1)
    pixels = np.asarray(array[(*stack, *place)])
    pooled = _pooled(pixels, wanted - level, (0, 1))
    return Slice(pooled, wanted, (pixel * 2**wanted, pixel * 2**wanted), at, shape[across])


def _halvings(length: int, size: int) -> int:
    """How often a length is halved until it fits."""
    return max(math.ceil(math.log2(max(length / size, 1)) - 1e-9), 0)


def _pooled(pixels: np.ndarray, times: int, axes: tuple[int, ...]) -> np.ndarray:
    dtype = pixels.dtype.newbyteorder("<")
    pooled = pixels
    for _ in range(times):
        pooled = halve(pooled, axes)
    if dtype.kind != "f" and pooled.dtype.kind == "f":
        pooled = np.rint(pooled)
    return np.ascontiguousarray(pooled.astype(dtype, copy=False))
