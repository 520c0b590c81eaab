"""Stacks in OME-Zarr: the finest level of an image (0.4 or 0.5), or the raw planes of a session store.

A store that holds several images (bioformats2raw) is read as its first. Where chunks are several planes deep, the slab
that the last plane came from is kept, so that reading plane after plane decodes each chunk once.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import zarr
from pydantic import ValidationError

from otf_stream.acquisition import Acquisition, PlaneIndex, Sizes
from otf_stream.store.chunks import chunk_file
from otf_stream.store.formats.source import RecordingError, Source, Spacing, micrometres
from otf_stream.store.journal import Journal, journal_path
from otf_stream.store.session import session_attributes


def open_zarr(path: Path) -> Source:
    """Open an OME-Zarr image or a session store."""
    session = session_attributes(path)
    group, metadata = _image(path / "raw" if session is not None else path)
    multiscale = metadata["multiscales"][0]
    axes = [axis["name"] for axis in multiscale["axes"]]
    if not {"z", "y", "x"} <= set(axes) <= {"t", "c", "z", "y", "x"}:
        raise RecordingError(f"{path} has the axes {', '.join(axes)}; a stack has z, y, x, and t and c at most")
    array = group[multiscale["datasets"][0]["path"]]
    if not isinstance(array, zarr.Array):
        raise RecordingError(f"{path} is damaged: its finest level {multiscale['datasets'][0]['path']} is no array")
    sizes = Sizes(**dict(zip(axes, array.shape, strict=True)))
    if sizes.z < 2:
        raise RecordingError(f"{path} is no stack: it has one plane along z; a stack has two planes at least")
    try:
        acquisition = None if session is None else Acquisition.model_validate(session["acquisition"])
    except ValidationError as error:
        raise RecordingError(f"{path} was written by another version of otf_stream: {error}") from error
    return Source(
        sizes,
        array.dtype,
        _Planes(array, axes).read,
        lambda: None,
        spacing=_spacing(multiscale, axes),
        channels=tuple(str(c.get("label", "")) for c in metadata.get("omero", {}).get("channels", [])),
        missing=frozenset() if acquisition is None else _missing(path, acquisition),
        acquisition=acquisition,
    )


class _Planes:
    """The planes of one array, whatever the order and number of its axes."""

    def __init__(self, array: zarr.Array[Any], axes: list[str]) -> None:
        self._array = array
        self._axes = axes
        self._depth = array.chunks[axes.index("z")]
        self._slab: tuple[PlaneIndex, np.ndarray] | None = None

    def read(self, plane: PlaneIndex) -> np.ndarray:
        t, c, z = plane
        first = z - z % self._depth
        if self._slab is None or self._slab[0] != (t, c, first):
            place: dict[str, int | slice] = {"t": t, "c": c, "z": slice(first, first + self._depth)}
            slab: np.ndarray = np.asarray(self._array[tuple(place.get(axis, slice(None)) for axis in self._axes)])
            spatial = [axis for axis in self._axes if axis in "zyx"]
            self._slab = (t, c, first), slab.transpose([spatial.index(axis) for axis in "zyx"])
        return np.array(self._slab[1][z - first])


def _image(path: Path) -> tuple[zarr.Group, dict[str, Any]]:
    """Find the first image of a store, and its metadata."""
    try:
        group = zarr.open_group(path, mode="r")
        metadata = _metadata(group)
        if "bioformats2raw.layout" in metadata or "bioformats2raw.layout" in group.attrs:
            series = _metadata(zarr.open_group(path / "OME", mode="r")).get("series", ["0"])
            group = zarr.open_group(path / str(series[0]), mode="r")
            metadata = _metadata(group)
    except (OSError, ValueError, KeyError, IndexError, zarr.errors.BaseZarrError) as error:
        raise RecordingError(f"{path} cannot be read as OME-Zarr: {error}") from error
    axes = (metadata.get("multiscales") or [{}])[0].get("axes") or [None]
    if not all(isinstance(axis, dict) and "name" in axis for axis in axes):
        raise RecordingError(f"{path} is no OME-Zarr image (version 0.4 or 0.5); name the folder of one image")
    return group, metadata


def _metadata(group: zarr.Group) -> dict[str, Any]:
    attributes: Any = group.attrs.asdict()
    metadata: dict[str, Any] = attributes.get("ome", attributes)
    return metadata


def _spacing(multiscale: dict[str, Any], axes: list[str]) -> Spacing:
    units = {axis["name"]: axis.get("unit") for axis in multiscale["axes"]}
    scale = np.ones(len(axes))
    for holder in (multiscale["datasets"][0], multiscale):
        for transformation in holder.get("coordinateTransformations", []):
            scale = scale * transformation.get("scale", 1.0)
    z, y, x = (micrometres(scale[axes.index(axis)], units[axis]) for axis in "zyx")
    return z, y, x


def _missing(path: Path, acquisition: Acquisition) -> frozenset[PlaneIndex]:
    planes = [(t, c, z) for t, c in acquisition.stacks() for z in range(acquisition.sizes.z)]
    if not journal_path(path).is_file():  # The store was copied alone: each chunk that is there is whole.
        return frozenset(plane for plane in planes if not chunk_file(path, plane).is_file())
    journal = Journal.open(journal_path(path))
    try:
        return frozenset(planes) - journal.durable().keys()
    finally:
        journal.close()
