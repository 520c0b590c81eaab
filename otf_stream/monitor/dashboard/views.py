"""Where a view lies and what its address is: how slices of both images are laid beside each other.

A view is a place in the sample, in µm, and both images are asked for it through the same route as anybody's script. The
address holds what has landed, so that a browser asks again when, and only when, something new is there.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, urlencode

import numpy as np

from otf_stream.acquisition import StackIndex
from otf_stream.monitor.slices import Axis, ImageName, full_shape, read_slice
from otf_stream.monitor.state import Session, Stack

AXES: tuple[Axis, ...] = ("xy", "xz", "yz")
SIZE = 512
"""The longest side of a slice, in pixels."""
_WINDOW_SIZE = 256
_PERCENTILES = (1.0, 99.8)
_MOST_FILES = 2000  # of one volume, that are looked at
_NICE = (1, 2, 5)


@dataclass(frozen=True)
class Window:
    """What is black and what is white, and the brightest that there is."""

    low: float
    high: float
    most: float


@dataclass(frozen=True)
class View:
    """One plane of view.

    Parameters
    ----------
    axis
        How it lies.
    places
        Index across it in the raw and in the restored image.
    extent
        Its size across and down, in µm.
    caption
        Where it lies, in words.
    """

    axis: Axis
    places: dict[ImageName, int]
    extent: tuple[float, float]
    caption: str


def view(session: Session, axis: Axis, at: int) -> View:
    """Return the view at an index of the isotropic grid."""
    acquisition = session.acquisition
    voxel, sizes = acquisition.voxel_size, acquisition.sizes
    depth, rows, columns = full_shape(acquisition, "restored")
    across, down = {
        "xy": (columns * voxel.x, rows * voxel.y),
        "xz": (columns * voxel.x, depth * voxel.lateral),
        "yz": (rows * voxel.y, depth * voxel.lateral),
    }[axis]
    if axis == "xy":
        at = min(at, depth - 1)
        plane = min(round(at * voxel.lateral / voxel.z), sizes.z - 1)
        caption = f"z = {at * voxel.lateral:.1f} µm: plane {plane + 1} of {sizes.z}"
        return View(axis, {"raw": plane, "restored": at}, (across, down), caption)
    letter, length, pixel = ("y", rows, voxel.y) if axis == "xz" else ("x", columns, voxel.x)
    at = min(at, length - 1)
    caption = f"{letter} = {at * pixel:.1f} µm: {'row' if axis == 'xz' else 'column'} {at} of {length}"
    return View(axis, {"raw": at, "restored": at}, (across, down), caption)


def length(session: Session, axis: Axis) -> int:
    """How many views there are along the axis across them."""
    return full_shape(session.acquisition, "restored")[AXES.index(axis)]


def newest(session: Session, stack: Stack | None) -> int:
    """Return where along z, on the isotropic grid, the newest plane lies while a stack arrives; then the middle."""
    depth = length(session, "xy")
    if stack is None or stack.state != "arriving":
        return depth // 2
    reached = max(stack.planes + stack.missing - 1, 0)
    voxel = session.acquisition.voxel_size
    return min(round((session.acquisition.planes_of(stack.c).start + reached) * voxel.z / voxel.lateral), depth - 1)


def address(session: Session, stack: StackIndex, shown: View, image: ImageName, window: Window, version: str) -> str:
    """Return the address of a slice."""
    asked = {
        "image": image,
        "t": stack[0],
        "c": stack[1],
        "axis": shown.axis,
        "at": shown.places[image],
        "size": SIZE,
        "low": f"{window.low:.6g}",
        "high": f"{window.high:.6g}",
        "v": version,
    }
    return f"/api/v1/sessions/{quote(session.id, safe='')}/slices?{urlencode(asked)}"


def raw_version(stack: Stack | None) -> str:
    """Return what changes whenever a plane of a stack lands."""
    return f"{stack.planes}" if stack else "0"


def restored_version(store: Path, stack: StackIndex) -> str | None:
    """Return what changes whenever a part of a volume lands; None if there is nothing of it."""
    folder = store / "restored" / "0" / "c" / str(stack[0]) / str(stack[1])
    newest_ns, files = 0, 0
    for entry in _files(folder):
        newest_ns, files = max(newest_ns, entry.stat().st_mtime_ns), files + 1
        if files >= _MOST_FILES:
            break
    return f"{files}-{newest_ns}" if files else None


def find_window(session: Session, stack: StackIndex, at: int) -> Window | None:
    """Find what is black and white in the raw plane at a place of the isotropic grid; None if it is not there."""
    acquisition = session.acquisition
    plane = view(session, "xy", at).places["raw"]
    try:
        pixels = read_slice(session.store, acquisition, "raw", stack, "xy", plane, _WINDOW_SIZE).pixels
    except (OSError, ValueError):
        return None
    if not pixels.any():
        return None
    low, high = np.percentile(pixels.astype(np.float32), _PERCENTILES)
    high = max(float(high), float(low) + 1e-3)
    return Window(float(low), high, float(low) + 2.5 * (high - float(low)))


def scale_bar(across_um: float) -> tuple[float, float]:
    """Return the length of a scale bar, in µm, and what fraction of the view it takes: about a fifth."""
    wanted = max(across_um / 4, 1e-9)
    power = 10.0 ** math.floor(math.log10(wanted))
    um = max(power * nice for nice in _NICE if power * nice <= wanted)
    return um, um / across_um


def _files(folder: Path) -> Iterator[os.DirEntry[str]]:
    """Yield every file below a folder that may be growing."""
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    yield from _files(Path(entry.path))
                else:
                    yield entry
    except OSError:
        return
