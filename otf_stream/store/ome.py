"""The OME-Zarr 0.5 metadata of an image: axes, levels, channels, and the list of images in a store.

Pure functions that return what goes under the key ``ome`` of a group's attributes, written once so that
raw and restored images describe themselves alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

VERSION = "0.5"
AXES = ("t", "c", "z", "y", "x")

_AXES = [
    {"name": "t", "type": "time", "unit": "second"},
    {"name": "c", "type": "channel"},
    *({"name": axis, "type": "space", "unit": "micrometer"} for axis in "zyx"),
]
# One channel is grey; several take the colours that stay apart when they overlap.
_COLOURS = ("00FF00", "FF00FF", "00FFFF", "FFFF00", "FF0000", "0000FF")


def collection() -> dict[str, Any]:
    """Metadata of a store that holds several images, in the layout of bioformats2raw."""
    return {"version": VERSION, "bioformats2raw.layout": 3}


def series(names: Sequence[str]) -> dict[str, Any]:
    """Metadata of the group ``OME``: which images the store holds, in order."""
    return {"version": VERSION, "series": list(names)}


def image(
    name: str,
    levels: Sequence[tuple[Sequence[float], Sequence[float]]],
    interval_s: float | None = None,
    **more: dict[str, Any],
) -> dict[str, Any]:
    """Metadata of a multiscale image with the axes t, c, z, y, x.

    Parameters
    ----------
    name
        Of the image.
    levels
        For every level from the finest on, the voxel size and the position of the first voxel's centre,
        both ``(z, y, x)`` in µm. Level ``k`` is the array ``str(k)``.
    interval_s
        Between time points, if that is known.
    more
        Further keys beside ``multiscales``, such as ``omero``.
    """
    datasets = []
    for level, (voxel, origin) in enumerate(levels):
        transformations: list[dict[str, Any]] = [{"type": "scale", "scale": [interval_s or 1.0, 1.0, *voxel]}]
        if any(origin):
            transformations.append({"type": "translation", "translation": [0.0, 0.0, *origin]})
        datasets.append({"path": str(level), "coordinateTransformations": transformations})
    multiscale: dict[str, Any] = {"name": name, "axes": _AXES, "datasets": datasets}
    if len(datasets) > 1:
        multiscale["type"] = "mean"
    return {"version": VERSION, "multiscales": [multiscale], **more}


def omero(channels: Sequence[str], windows: Sequence[tuple[float, float, float, float]]) -> dict[str, Any]:
    """How viewers show the channels: their names, and for each a window ``(min, max, start, end)``."""
    colours = ["FFFFFF"] if len(channels) == 1 else [_COLOURS[i % len(_COLOURS)] for i in range(len(channels))]
    return {
        "channels": [
            {
                "label": label,
                "color": colour,
                "active": True,
                "window": dict(zip(("min", "max", "start", "end"), window, strict=True)),
            }
            for label, colour, window in zip(channels, colours, windows, strict=True)
        ],
        "rdefs": {"model": "greyscale" if len(channels) == 1 else "color"},
    }
