"""The images of a session store as layers of napari: raw below, restored above, each channel by itself.

What a layer is called, how large its voxels are, its colour and its contrast are read from the OME-Zarr metadata, which
any other viewer reads too. Nothing is loaded: the arrays are Dask's, chunk by chunk, and are never cached, so that a
store which is still being written can be looked at again and again. This module needs neither napari nor Qt.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import dask.array as da
import numpy as np
import zarr

from otf_stream.store.session import session_attributes

LayerData = tuple[Any, dict[str, Any], str]
Reader = Callable[[Any], list[LayerData]]

OWN = "otf_stream"
"""Key of a layer's metadata under which it says which image of which store it shows."""
IMAGES = ("raw", "restored")
_UNITS = {"second": "second", "micrometer": "micrometer"}
_COLORMAPS = {
    "FFFFFF": "gray", "00FF00": "green", "FF00FF": "magenta", "00FFFF": "cyan", "FFFF00": "yellow", "FF0000": "red",
    "0000FF": "blue",
}  # fmt: skip


def get_reader(path: str | Sequence[str]) -> Reader | None:
    """Return what reads ``path``, or None where that is no session store: another plugin may know it."""
    paths = [path] if isinstance(path, str) else list(path)
    if not paths or any(session_attributes(Path(one)) is None for one in paths):
        return None
    return lambda _: [layer for one in paths for layer in read_layers(Path(one))]


def read_layers(path: Path) -> list[LayerData]:
    """Describe the images of the session store at ``path`` as layers: data, attributes, kind; the topmost last."""
    there = [image for image in IMAGES if (path / image / "zarr.json").is_file()]
    layers = [layer for image in there for layer in _layers_of(path, image)]
    if has_content(path):  # what lies above hides it, or would be added to it
        for _, attributes, _ in layers:
            attributes["visible"] = attributes["metadata"][OWN]["image"] == "restored"
    else:
        for _, attributes, _ in layers:
            attributes["visible"] = attributes["metadata"][OWN]["image"] == "raw"
    return layers


def read_data(path: Path, image: str, channel: int) -> list[da.Array]:
    """Return the levels of a channel of an image, the finest first, each ``(t, z, y, x)``, as they are now."""
    group = zarr.open_group(path / image, mode="r")
    return _levels(path, image, group, channel)


def read_contrast(path: Path, image: str, channel: int) -> tuple[float, float] | None:
    """Return what the store shows as black and as white in a channel; None while nobody knows."""
    metadata: Any = zarr.open_group(path / image, mode="r").attrs["ome"]
    channels = metadata.get("omero", {}).get("channels", [])
    return _window(channels[channel]) if channel < len(channels) else None


def has_content(path: Path) -> bool:
    """Whether anything of a restored image is there, be it a preview."""
    folder = path / "restored"
    return any((level / "c").is_dir() for level in folder.iterdir() if level.is_dir()) if folder.is_dir() else False


def _layers_of(path: Path, image: str) -> list[LayerData]:
    group = zarr.open_group(path / image, mode="r")
    metadata: Any = group.attrs["ome"]
    multiscale = metadata["multiscales"][0]
    kept = [index for index, axis in enumerate(multiscale["axes"]) if axis["type"] != "channel"]
    axes = [multiscale["axes"][index] for index in kept]
    # Level 0 lies at the origin, and napari finds the place of the others from their shapes.
    scale = multiscale["datasets"][0]["coordinateTransformations"][0]["scale"]
    channels = metadata.get("omero", {}).get("channels", [])
    layers: list[LayerData] = []
    for channel in range(cast("zarr.Array[Any]", group["0"]).shape[1]):
        told = channels[channel] if channel < len(channels) else {}
        levels = _levels(path, image, group, channel)
        attributes = {
            "name": _name(path, image, told, len(channels)),
            "scale": [scale[index] for index in kept],
            "units": [_UNITS.get(axis.get("unit", ""), "pixel") for axis in axes],
            "axis_labels": [axis["name"] for axis in axes],
            "colormap": _COLORMAPS.get(told.get("color", "FFFFFF"), f"#{told.get('color')}"),
            "contrast_limits": _window(told) or _estimated(levels[-1]),
            "blending": "translucent" if len(channels) < 2 else "additive",
            "cache": False,
            "multiscale": len(levels) > 1,
            "metadata": {OWN: {"store": str(path), "image": image, "channel": channel}},
        }
        layers.append((levels if len(levels) > 1 else levels[0], attributes, "image"))
    return layers


def _levels(path: Path, image: str, group: zarr.Group, channel: int) -> list[da.Array]:
    # Opened by its path, so that an array of a growing acquisition is as long as it is now.
    count = len(list(group.array_keys()))
    arrays: list[Any] = [da.from_zarr(str(path / image / str(level))) for level in range(count)]  # type: ignore[no-untyped-call]
    return [array[:, channel] for array in arrays]


def _name(path: Path, image: str, channel: dict[str, Any], channels: int) -> str:
    session = path.name.removesuffix(".ome.zarr")
    label = f" {channel.get('label', '')}" if channels > 1 else ""
    return f"{session} {image}{label}"


def _window(channel: dict[str, Any]) -> tuple[float, float] | None:
    """Return the ends of a window that somebody has set; it spans all values until then."""
    window = channel.get("window")
    if not window or (window["start"], window["end"]) == (window["min"], window["max"]):
        return None
    return float(window["start"]), float(window["end"])


def _estimated(level: da.Array) -> tuple[float, float]:
    """Return ends that suit the middle plane; of a plane that has not come, all values."""
    every = (0.0, float(np.iinfo(level.dtype).max) if level.dtype.kind in "ui" else 1.0)
    plane = np.nan_to_num(np.asarray(level[0, level.shape[1] // 2]).astype(np.float32))
    low, high = (float(value) for value in np.percentile(plane, (0.1, 99.9)))
    return (low, high) if high > low else every
