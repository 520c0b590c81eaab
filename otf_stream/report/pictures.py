"""Slices of a stack as pictures for a page: raw beside restored, at the same place, size and contrast.

Raw planes are shown as they are, each a row as thick as the z step, since interpolating them would hide what restoring
has to bridge. The slices cross where there is most to be seen.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast, get_args

import numpy as np
import zarr

from otf_stream.acquisition import Acquisition, StackIndex
from otf_stream.monitor.slices import Axis, ImageName, Slice, as_png, full_shape, read_slice

SIZE = 512
_MARGIN = 0.05  # of a side, at which nothing is looked for
_BARS_UM = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000)
_BAR = 0.3  # of the width, at most
_PERCENTILES = (0.5, 99.8)


@dataclass(frozen=True)
class Picture:
    """A picture that needs no file: its data URI, how large it is, and the length of its scale bar, in µm."""

    image: ImageName
    uri: str
    width_um: float
    height_um: float
    bar_um: float

    @property
    def bar_percent(self) -> float:
        """Length of the scale bar in percent of the picture's width."""
        return 100 * self.bar_um / self.width_um


@dataclass(frozen=True)
class View:
    """Slices at one place: which way they lie, where, what is black and what white, and the pictures, raw first."""

    axis: Axis
    across: str
    at_um: float
    black: float
    white: float
    pictures: tuple[Picture, ...]


@dataclass(frozen=True)
class Profile:
    """Intensities along z where the slices cross: places in µm and counts, of the planes and of the volume."""

    raw: tuple[tuple[float, ...], tuple[float, ...]]
    restored: tuple[tuple[float, ...], tuple[float, ...]]


def draw_views(
    store: Path, acquisition: Acquisition, stack: StackIndex, planes: Sequence[int], *, restored: bool
) -> list[View]:
    """Draw an XY, an XZ and a YZ slice of a stack.

    Parameters
    ----------
    store, acquisition
        The session.
    stack
        Which of its stacks.
    planes
        Which are durable; at least one.
    restored
        Whether there is a restored volume to draw beside the planes.
    """
    crossing = find_crossing(store, acquisition, stack, restored=restored)
    anisotropy = acquisition.voxel_size.anisotropy
    plane = min(planes, key=lambda z: abs(z * anisotropy - crossing[0]))  # where there is a plane, both can be shown
    depth = full_shape(acquisition, "restored")[0]
    crossing = (min(round(plane * anisotropy), depth - 1), *crossing[1:])
    images: tuple[ImageName, ...] = ("raw", "restored") if restored else ("raw",)
    views = []
    for axis in get_args(Axis):
        number = {"xy": 0, "xz": 1, "yz": 2}[axis]
        at = {image: plane if (image, axis) == ("raw", "xy") else crossing[number] for image in images}
        slices = {image: read_slice(store, acquisition, image, stack, axis, at[image], SIZE) for image in images}
        # One black and one white for both: a slice that only looks better stretched is not better.
        ends = [np.percentile(np.nan_to_num(s.pixels.astype(np.float32)), _PERCENTILES) for s in slices.values()]
        black, white = float(min(low for low, _ in ends)), float(max(high for _, high in ends))
        at_um = crossing[number] * acquisition.voxel_size.lateral
        pictures = tuple(_picture(image, shown, black, white) for image, shown in slices.items())
        views.append(View(axis, "zyx"[number], at_um, black, white, pictures))
    return views


def find_crossing(store: Path, acquisition: Acquisition, stack: StackIndex, *, restored: bool) -> tuple[int, int, int]:
    """Find the place ``(z, y, x)`` where there is most to be seen, in voxels of the isotropic grid."""
    depth, height, width = full_shape(acquisition, "restored")
    if not restored:
        return depth // 2, height // 2, width // 2
    group = zarr.open_group(store / "restored", mode="r")
    level = len(list(group.array_keys())) - 1
    coarse = np.asarray(cast("zarr.Array[Any]", group[str(level)])[stack]).astype(np.float32)
    place = [_busiest(coarse.std(axis=tuple(a for a in range(3) if a != axis))) for axis in range(3)]
    z, y, x = (min(p << level, n - 1) for p, n in zip(place, (depth, height, width), strict=True))
    return z, y, x


def draw_profile(store: Path, acquisition: Acquisition, stack: StackIndex, planes: Sequence[int]) -> Profile:
    """Read what lies along z through the brightest voxel of the XZ slice; there is a restored volume."""
    crossing = find_crossing(store, acquisition, stack, restored=True)
    y, voxel = crossing[1], acquisition.voxel_size
    after = read_slice(store, acquisition, "restored", stack, "xz", y, SIZE)
    before = read_slice(store, acquisition, "raw", stack, "xz", y, max(SIZE, acquisition.sizes.z))
    column = int(np.argmax(after.pixels.max(axis=0)))
    at_raw = min(int((column + 0.5) * after.pixel_um[1] / before.pixel_um[1]), before.pixels.shape[1] - 1)
    there = [z for z in planes if z < len(before.pixels)]
    half = (after.pixel_um[0] - voxel.lateral) / 2  # pooling moves the first voxel's centre
    return Profile(
        raw=(tuple(z * voxel.z for z in there), tuple(float(before.pixels[z, at_raw]) for z in there)),
        restored=(
            tuple(half + j * after.pixel_um[0] for j in range(len(after.pixels))),
            tuple(float(value) for value in after.pixels[:, column]),
        ),
    )


def _busiest(contrast: np.ndarray) -> int:
    """Return where something varies most along an axis, away from its ends."""
    margin = int(len(contrast) * _MARGIN)
    return margin + int(np.argmax(contrast[margin : len(contrast) - margin]))


def _picture(image: ImageName, shown: Slice, black: float, white: float) -> Picture:
    png, _, _ = as_png(shown.pixels, black, white)
    rows, columns = shown.pixels.shape
    width = columns * shown.pixel_um[1]
    bar = max((length for length in _BARS_UM if length <= _BAR * width), default=_BARS_UM[0])
    uri = "data:image/png;base64," + base64.b64encode(png).decode("ascii")
    return Picture(image, uri, width, rows * shown.pixel_um[0], bar)
