"""What every format of recorded stacks is reduced to: sizes, what the metadata say, and a way to read a plane.

A format module has one function that opens a path and returns a `Source`. It reads metadata only; pixels are read
plane by plane, when asked for.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
from pydantic import ValidationError

from otf_stream.acquisition import Acquisition, PixelType, PlaneIndex, Sizes, VoxelSize

Spacing = tuple[float | None, float | None, float | None]
"""Voxel size ``(z, y, x)`` in µm, None where the metadata do not say."""

UNKNOWN: Spacing = (None, None, None)

REMEDY = "give it with --voxel-size DZ DY DX, in µm"

_MICROMETRES = {
    **dict.fromkeys(("µm", "μm", "um", "\\u00b5m", "micron", "microns", "micrometer", "micrometre"), 1.0),
    **dict.fromkeys(("nm", "nanometer", "nanometre"), 1e-3),
    **dict.fromkeys(("å", "angstrom"), 1e-4),
    **dict.fromkeys(("mm", "millimeter", "millimetre"), 1e3),
    **dict.fromkeys(("cm", "centimeter", "centimetre"), 1e4),
    **dict.fromkeys(("m", "meter", "metre"), 1e6),
    **dict.fromkeys(("in", "inch"), 25400.0),
}


class RecordingError(ValueError):
    """A recorded stack that cannot be read; the message says what is wrong with it and what to do."""


@dataclass(frozen=True)
class Source:
    """An open recording as its format sees it.

    Parameters
    ----------
    sizes
        Lengths of the axes.
    dtype
        Pixel type in the file.
    read
        Reads one plane ``(y, x)`` that is not missing, in any byte order.
    close
        Closes the files.
    spacing
        What the metadata say of the voxel size.
    channels
        Names of the channels; empty where there are none.
    missing
        Planes that were never recorded.
    acquisition
        The whole description, where the format keeps it.
    """

    sizes: Sizes
    dtype: np.dtype[Any]
    read: Callable[[PlaneIndex], np.ndarray]
    close: Callable[[], None]
    spacing: Spacing = UNKNOWN
    channels: tuple[str, ...] = ()
    missing: frozenset[PlaneIndex] = frozenset()
    acquisition: Acquisition | None = None


def micrometres(value: object, unit: object) -> float | None:
    """Convert a length from a file's metadata to µm; None if it is no positive length of a known unit."""
    try:
        length = abs(float(value)) * _MICROMETRES[str(unit).strip().lower()]  # type: ignore[arg-type]
    except (TypeError, ValueError, KeyError):
        return None
    return length if 0 < length < float("inf") else None


def stated_voxel_size(path: Path, spacing: Spacing) -> VoxelSize:
    """Return the voxel size that the metadata state.

    Raises
    ------
    RecordingError
        If they do not state all of it, or it cannot be right.
    """
    z, y, x = spacing
    if z is None or y is None or x is None:
        said = ", ".join(f"{axis} {'unknown' if n is None else f'{n:g} µm'}" for axis, n in zip("zyx", spacing))  # noqa: B905
        raise RecordingError(f"{path} does not state its voxel size ({said}); {REMEDY}")
    try:
        return VoxelSize(z=z, y=y, x=x)
    except ValidationError as error:
        reason = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise RecordingError(f"the voxel size in {path} cannot be right ({reason}); {REMEDY}") from error


def pixel_type(path: Path, dtype: np.dtype[Any]) -> PixelType:
    """Return the pixel type in which pixels of ``dtype`` are kept; `RecordingError` if there is none."""
    if dtype.kind == "f":  # No camera needs more than float32 keeps.
        return "float32"
    known: dict[str, PixelType] = {pixel_type: pixel_type for pixel_type in get_args(PixelType)}
    if dtype.name not in known:
        raise RecordingError(f"{path} has pixels of {dtype.name}; convert them to one of {', '.join(known)}")
    return known[dtype.name]


def name_after(path: Path) -> str:
    """Return what to call an acquisition that is kept in ``path``."""
    stem = re.sub(r"\.(ome\.)?(tiff?|zarr)$", "", path.resolve().name, flags=re.IGNORECASE)
    return re.sub(r"^[^A-Za-z0-9]+", "", re.sub(r"[^A-Za-z0-9 _.+-]", "_", stem))[:100] or "stack"
