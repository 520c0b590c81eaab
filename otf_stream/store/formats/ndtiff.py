"""Stacks in NDTiff, the format that Micro-Manager and pycro-manager save.

NDTiff indexes images by named axes, in whatever order they came. Channels may be names or numbers, z may start below
zero; an image that is not in the index was never recorded.
"""

from __future__ import annotations

import contextlib
import io
from pathlib import Path
from typing import Any

import numpy as np

from otf_stream.acquisition import PlaneIndex, Sizes
from otf_stream.store.formats.source import RecordingError, Source, Spacing, micrometres

_AXES = ("time", "channel", "z")


def is_ndtiff(path: Path) -> bool:
    """Whether the folder is an NDTiff dataset."""
    return (path / "NDTiff.index").is_file() or (path / "Full resolution" / "NDTiff.index").is_file()


def open_ndtiff(path: Path) -> Source:
    """Open an NDTiff dataset of one position."""
    from ndstorage import Dataset  # It takes longer to import than all the rest of a light client.

    try:
        with contextlib.redirect_stdout(io.StringIO()):  # It reports its progress on standard output.
            dataset = Dataset(str(path))
    except Exception as error:  # The library raises bare exceptions.
        raise RecordingError(f"{path} cannot be read as NDTiff: {error}") from error
    try:
        recorded = dataset.get_image_coordinates_list()
        _check(path, recorded)
        images = {_plane_key(coordinates): coordinates for coordinates in recorded}
        places = [_places([key[axis] for key in images]) for axis in range(3)]
        index = {_place(key, places): coordinates for key, coordinates in images.items()}
        sizes = Sizes(
            t=len(places[0]), c=len(places[1]), z=len(places[2]), y=dataset.image_height, x=dataset.image_width
        )
        if sizes.z < 2:
            raise RecordingError(f"{path} is no stack: it has one plane along z; a stack has two planes at least")
        spacing = _spacing(dataset, index)
    except BaseException:
        dataset.close()
        raise

    def read(plane: PlaneIndex) -> np.ndarray:
        try:
            return np.asarray(dataset.read_image(**index[plane]))
        except Exception as error:
            raise RecordingError(f"plane {plane} of {path} cannot be read: {error}") from error

    channels = tuple(str(name) for name in places[1])
    return Source(
        sizes,
        np.dtype(dataset.dtype),
        read,
        dataset.close,
        spacing=spacing,
        channels=channels if all(isinstance(name, str) for name in places[1]) else (),
        missing=frozenset(np.ndindex(*sizes.shape[:3])) - index.keys(),
    )


def _plane_key(coordinates: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(coordinates.get(axis, 0) for axis in _AXES)


def _check(path: Path, images: list[dict[str, Any]]) -> None:
    if not images:
        raise RecordingError(f"{path} holds no image")
    for axis in sorted({axis for image in images for axis in image} - set(_AXES)):
        values = {image.get(axis) for image in images}
        if len(values) > 1:
            raise RecordingError(
                f"{path} has {len(values)} places along the axis {axis}; a stack has time, channel and z at most: "
                "save one position per dataset"
            )


def _places(values: list[Any]) -> dict[Any, int]:
    """Number the values of one axis: names as they appear, integers in order and with gaps where one is left out."""
    if all(isinstance(value, int) for value in values):
        values = list(range(min(values), max(values) + 1))
    return {value: place for place, value in enumerate(dict.fromkeys(values))}


def _place(key: tuple[Any, ...], places: list[dict[Any, int]]) -> PlaneIndex:
    t, c, z = (places[axis][value] for axis, value in enumerate(key))
    return t, c, z


def _spacing(dataset: Any, index: dict[PlaneIndex, dict[str, Any]]) -> Spacing:
    """Read the pixel size of the first image, and the z step between the first two planes of one stack."""
    summary = dataset.summary_metadata or {}
    first = min(index)
    metadata = dataset.read_metadata(**index[first]) or {}
    pixel = micrometres(metadata.get("PixelSizeUm", metadata.get("PixelSize_um", summary.get("PixelSize_um"))), "um")
    step = micrometres(summary.get("z-step_um"), "um")
    above = (first[0], first[1], first[2] + 1)
    if above in index:
        height = metadata.get("ZPosition_um_Intended")
        next_height = (dataset.read_metadata(**index[above]) or {}).get("ZPosition_um_Intended")
        if height is not None and next_height is not None:
            step = micrometres(next_height - height, "um")
    return step, pixel, pixel
