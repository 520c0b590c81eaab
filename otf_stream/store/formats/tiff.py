"""Stacks in TIFF files: one file (plain, ImageJ, OME-TIFF), or a folder with one file per plane.

tifffile knows the axes of a file; here they are put in the order (t, c, z, y, x). A folder is taken for a stack if its
files differ in one number only, the plane's: a number that is left out is a missing plane, not a shorter stack.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from otf_stream.acquisition import PlaneIndex, Sizes
from otf_stream.store.formats.source import UNKNOWN, RecordingError, Source, Spacing, micrometres

SUFFIXES = (".tif", ".tiff")


def open_tiff(path: Path) -> Source:
    """Open one TIFF file that holds a stack."""
    tiff = _open(path)
    try:
        series = tiff.series[0]
        announced = (tiff.imagej_metadata or {}).get("images", 1)
        if math.prod(series.shape[:-2]) < announced:
            raise RecordingError(f"{path} is incomplete: of the {announced} planes it announces some are cut off")
        lengths = _axes(path, series.axes, series.shape)
        sizes = _sizes(path, lengths)
        dataset = _Pages(path, tiff, _page_of(sizes, lengths), np.dtype(series.dtype))
        missing = frozenset(plane for plane in np.ndindex(*sizes.shape[:3]) if not dataset.has(plane))
        spacing, channels = _ome(tiff) if tiff.is_ome else (_imagej(tiff), ())
    except BaseException:
        tiff.close()
        raise
    return Source(sizes, dataset.dtype, dataset.read, tiff.close, spacing=spacing, channels=channels, missing=missing)


def open_folder(path: Path) -> Source:
    """Open a folder of TIFF files with one plane each."""
    files = _numbered(path)
    first: tuple[tuple[int, ...], np.dtype[Any]] | None = None
    spacing = UNKNOWN
    for file in files.values():
        with _open(file, is_ome=False) as tiff:
            series = tiff.series[0]
            shape, dtype = tuple(n for n in series.shape if n > 1), np.dtype(series.dtype)
            if first is None:
                first, spacing = (shape, dtype), _imagej(tiff)
        if len(shape) != 2:
            raise RecordingError(
                f"{file} is no single plane: its axes {series.axes} have lengths {series.shape}; in a folder keep "
                "one 2D grey image per file, or name the file itself if it is the stack"
            )
        if (shape, dtype) != first:
            raise RecordingError(
                f"{file} has {shape[0]} × {shape[1]} pixels of {dtype}, but the planes before have "
                f"{first[0][0]} × {first[0][1]} of {first[1]}; keep planes of one stack only in {path}"
            )
    if first is None:
        raise RecordingError(f"{path} holds no TIFF files; name a folder of plane TIFFs, an OME-Zarr or NDTiff store")
    (y, x), dtype = first
    sizes = _sizes(path, {"Z": max(files) + 1, "Y": y, "X": x})
    missing = frozenset((0, 0, z) for z in range(sizes.z) if z not in files)
    return Source(sizes, dtype, lambda plane: _read(files[plane[2]]), lambda: None, spacing=spacing, missing=missing)


class _Pages:
    """The planes of one open file."""

    def __init__(self, path: Path, tiff: tifffile.TiffFile, pages: np.ndarray, dtype: np.dtype[Any]) -> None:
        self._path = path
        self._series: Any = tiff.series[0]
        self._pages = pages
        self.dtype = dtype.newbyteorder(tiff.byteorder)
        # ImageJ writes stacks past 4 GB with a single page entry: the planes then follow one another in the file.
        self._offset = self._series.dataoffset

    def has(self, plane: PlaneIndex) -> bool:
        return self._offset is not None or self._series.pages[int(self._pages[plane])] is not None

    def read(self, plane: PlaneIndex) -> np.ndarray:
        page = int(self._pages[plane])
        shape = self._series.shape[-2:]
        try:
            if self._offset is None:
                return _page(self._series.pages[page]).reshape(shape)
            pixels = math.prod(shape)
            offset = self._offset + page * pixels * self.dtype.itemsize
            return np.fromfile(self._path, self.dtype, pixels, offset=offset).reshape(shape)
        except Exception as error:  # Each compression has errors of its own.
            raise RecordingError(f"plane {page} of {self._path} cannot be read: {error}{_remedy(error)}") from error


def _open(path: Path, *, is_ome: bool | None = None) -> tifffile.TiffFile:
    # An OME-TIFF plane may name its neighbours in its metadata; is_ome=False keeps it to itself.
    # Whatever is wrong with a file, tifffile raises errors of many kinds.
    try:
        tiff = tifffile.TiffFile(path, is_ome=is_ome)
    except Exception as error:
        raise RecordingError(f"{path} cannot be read as TIFF: {error}") from error
    try:
        images = len(tiff.series)
    except Exception as error:
        tiff.close()
        raise RecordingError(f"{path} cannot be read as TIFF: {error}") from error
    if not images:
        tiff.close()
        raise RecordingError(f"{path} holds no image")
    return tiff


def _page(page: Any) -> np.ndarray:
    handle = page.parent.filehandle
    if not handle.closed:
        return np.asarray(page.asarray())
    handle.open()  # An OME-TIFF may spread over many files: all but the first are opened for one plane at a time.
    try:
        return np.asarray(page.asarray())
    finally:
        handle.close()


def _read(file: Path) -> np.ndarray:
    try:
        return np.squeeze(tifffile.imread(file, is_ome=False))
    except Exception as error:
        raise RecordingError(f"{file} cannot be read: {error}{_remedy(error)}") from error


def _remedy(error: Exception) -> str:
    """Say what helps against an error of tifffile's, where something does."""
    return "; pip install imagecodecs, or save it without compression" if "imagecodecs" in str(error) else ""


def _axes(path: Path, axes: str, shape: tuple[int, ...]) -> dict[str, int]:
    """Lengths of the axes longer than one plane, in the file's order; the last two are Y and X."""
    if "S" in axes and shape[axes.index("S")] > 1:
        raise RecordingError(f"{path} is a colour image; a stack has grey planes: split its colours into channels")
    if not axes.replace("S", "").endswith("YX"):
        raise RecordingError(f"{path} has the axes {axes}; the last two of a stack are Y and X")
    long = [(axis, n) for axis, n in zip(axes, shape, strict=True) if axis in "YX" or (axis != "S" and n > 1)]
    unnamed = [axis for axis, _ in long if axis not in "TCZYX"]
    # Files that do not name their axes have one for their pages (tifffile: I or Q), and the pages are the planes.
    if unnamed in (["I"], ["Q"]) and "Z" not in dict(long):
        long = [("Z" if axis == unnamed[0] else axis, n) for axis, n in long]
    elif unnamed:
        raise RecordingError(
            f"{path} has the axes {axes} of lengths {shape}; a stack has time, channel and z at most: save one "
            "position or view per file, with its axes named"
        )
    return dict(long)


def _sizes(path: Path, lengths: dict[str, int]) -> Sizes:
    if lengths.get("Z", 1) < 2:
        names = {"T": "time points", "C": "channels"}
        others = " and ".join(f"{lengths[axis]} {name}" for axis, name in names.items() if axis in lengths)
        raise RecordingError(
            f"{path} is no stack: it has {others} but one plane along z; if those are its planes, save it with a "
            "z axis (Fiji: Image › Properties)"
            if others
            else f"{path} is no stack: it has one plane along z, and a stack has two at least"
        )
    return Sizes(t=lengths.get("T", 1), c=lengths.get("C", 1), z=lengths["Z"], y=lengths["Y"], x=lengths["X"])


def _page_of(sizes: Sizes, lengths: dict[str, int]) -> np.ndarray:
    """Which page of the file each plane ``(t, c, z)`` is."""
    order = [axis for axis in lengths if axis in "TCZ"]
    order = [axis for axis in "TCZ" if axis not in order] + order
    pages = np.arange(sizes.planes).reshape([lengths.get(axis, 1) for axis in order])
    return np.transpose(pages, [order.index(axis) for axis in "TCZ"])


def imagej_spacing(metadata: Mapping[str, Any], densities: Sequence[float]) -> Spacing:
    """Read the voxel size from the metadata of ImageJ and the pixels per unit along x and y."""
    unit = metadata.get("unit", "")
    y, x = (micrometres(1 / density, unit) if density else None for density in densities[::-1])
    return micrometres(metadata.get("spacing"), unit), y, x


def ome_spacing(pixels: Mapping[str, Any]) -> Spacing:
    """Read the voxel size from the element ``Pixels`` of an OME-XML."""
    z, y, x = (
        micrometres(pixels.get(f"PhysicalSize{axis}"), pixels.get(f"PhysicalSize{axis}Unit", "µm")) for axis in "ZYX"
    )
    return z, y, x


def ome_channels(pixels: Mapping[str, Any]) -> tuple[str, ...]:
    """Read the names of the channels from the element ``Pixels`` of an OME-XML; none if one has none."""
    channels = pixels.get("Channel", [])
    names = [str(c.get("Name", "")) for c in (channels if isinstance(channels, list) else [channels])]
    return tuple(names) if all(names) else ()


def _imagej(tiff: tifffile.TiffFile) -> Spacing:
    return imagej_spacing(tiff.imagej_metadata or {}, tiff.pages.first.resolution)


def _ome(tiff: tifffile.TiffFile) -> tuple[Spacing, tuple[str, ...]]:
    images = tifffile.xml2dict(tiff.ome_metadata or "").get("OME", {}).get("Image", {})
    pixels = (images[0] if isinstance(images, list) else images).get("Pixels", {})
    return ome_spacing(pixels), ome_channels(pixels)


def _numbered(folder: Path) -> dict[int, Path]:
    """The files of the folder's planes by index: in natural order, with gaps where a number is left out."""
    files = [f for f in folder.iterdir() if f.suffix.lower() in SUFFIXES and not f.name.startswith(".")]
    texts = {tuple(re.split(r"\d+", file.stem)) for file in files}
    numbers = {file: [int(n) for n in re.findall(r"\d+", file.stem)] for file in files}
    if len(texts) != 1 or len(files) < 2:  # Names of no common pattern tell an order, but no gaps.
        return dict(enumerate(sorted(files, key=_natural)))
    varying = [i for i, field in enumerate(zip(*numbers.values(), strict=True)) if len(set(field)) > 1]
    if len(varying) != 1:
        examples = " and ".join(file.name for file in sorted(files, key=_natural)[:: len(files) - 1])
        raise RecordingError(
            f"the files in {folder} differ in {len(varying)} numbers ({examples}), so the number of the plane is "
            "unclear; keep the planes of one stack (one time point, channel and position) per folder"
        )
    plane = {numbers[file][varying[0]]: file for file in files}
    first = min(plane)
    step = math.gcd(*(n - first for n in plane))
    return {(n - first) // step: plane[n] for n in sorted(plane)}


def _natural(file: Path) -> list[tuple[int, str]]:
    # (number, text) pairs compare whether a part is digits or not.
    return [(int(part), "") if part.isdigit() else (-1, part.lower()) for part in re.split(r"(\d+)", file.name)]
