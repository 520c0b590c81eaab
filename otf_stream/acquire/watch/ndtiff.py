"""The planes of an NDTiff dataset that Micro-Manager or pycro-manager writes.

An entry is appended to the index once its image is in a file. Writers in Python keep up to 8 kB of entries (some sixty
images) in memory, though; so the files' own pages are followed, too, and give what the index does not tell yet,
where the metadata of the image name its axes. These lie behind its pixels: where they are whole, so is the image.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from otf_stream.acquire.hooks.growing import Plane
from otf_stream.acquire.watch.ifd import MICRO_MANAGER, read_directory, read_header
from otf_stream.acquire.watch.pages import decoded, summary_told
from otf_stream.acquire.watch.plane import Told
from otf_stream.acquire.watch.tiff import received
from otf_stream.store.formats.source import UNKNOWN, micrometres

INDEX = "NDTiff.index"

_DTYPES = {0: "u1", 1: "<u2", 3: "<u2", 4: "<u2", 5: "<u2", 6: "<u2"}
_BY_SIZE: dict[int, np.dtype[Any]] = {1: np.dtype("u1"), 2: np.dtype("<u2")}
_AXES = {"time", "channel", "z", "position", "row", "column"}
_NUMBERS = struct.Struct("<8I")


@dataclass(frozen=True)
class _Image:
    """An image as the index or a page tells of it."""

    file: str
    offset: int
    axes: dict[str, Any]
    shape: tuple[int, int]
    dtype: np.dtype[Any] | None
    metadata: tuple[int, int] | dict[str, Any]
    """Offset and length, or what was read there."""

    @property
    def key(self) -> tuple[str, int]:
        return self.file, self.offset

    @property
    def bytes(self) -> int:
        return math.prod(self.shape) * (self.dtype.itemsize if self.dtype else 3)


class GrowingNDTiff:
    """One NDTiff dataset; see `plane.Growing`."""

    def __init__(self, folder: Path) -> None:
        self.path = folder.parent if folder.name == "Full resolution" else folder
        self.faults: list[str] = []
        self._folder = folder
        self._at = 0  # how far the index was read
        self._next: dict[str, int] = {}  # where the next page of each file will be
        self._images: dict[tuple[str, int], _Image] = {}  # that were told of, and not given yet
        self._known: set[tuple[str, int]] = set()
        self._told: Told | None = None
        self._numbers: dict[str, dict[Any, int]] = {"position": {}, "tile": {}, "time": {}, "z": {}}

    def told(self) -> Told:
        """Return what the metadata tell so far."""
        return self._told or Told(UNKNOWN)

    def look(self, *, last: bool = False) -> Iterator[Plane]:
        """Give the planes that have become whole since the last look."""
        for image in (*self._indexed(), *self._paged()):
            if image.key not in self._known:
                self._known.add(image.key)
                self._images[image.key] = image
        for image in list(self._images.values()):
            said = self._metadata(image, last)
            if said is not None:
                del self._images[image.key]
                plane = self._plane(image, said)
                if plane is not None:
                    yield plane
        if last:
            for image in self._images.values():
                self._fault(f"{self._folder / image.file} ends amid an image that the index tells of, or lacks it")
            if not self._known:
                self._fault(f"{self.path} tells of no image")

    def _indexed(self) -> Iterator[_Image]:
        """Read the entries of the index that are new and whole."""
        try:
            with (self._folder / INDEX).open("rb") as index:
                if index.seek(0, 2) < self._at:
                    self._at = 0  # written anew
                index.seek(self._at)
                data = index.read()
        except OSError:
            return
        at = 0
        while (entry := _entry(data, at)) is not None:
            end, image = entry
            at, self._at = end, self._at + end - at
            if image is None:
                self._fault(f"{self._folder / INDEX} is damaged at byte {self._at}; the images that follow are lost")
                return
            yield image

    def _paged(self) -> Iterator[_Image]:
        """Follow the pages of the files that name their axes."""
        for path in sorted(self._folder.glob("*.tif")):
            try:
                with path.open("rb") as file:
                    if self._told is None:
                        told = summary_told(file)
                        self._told = told if told != Told(UNKNOWN) else None
                    yield from self._pages_of(file, path.name)
            except OSError:
                continue

    def _pages_of(self, file: BinaryIO, name: str) -> Iterator[_Image]:
        header = read_header(file)
        if header is None:
            return
        offset = self._next.get(name, header.first)
        size = file.seek(0, 2)
        while 0 < offset < size:
            page = read_directory(file, header, offset)
            if page is None:
                break
            said = decoded(page.text(MICRO_MANAGER))
            if not said or len(page.segments) != 1:
                break
            start, count = page.segments[0]
            axes = said.get("Axes")
            # The pages of some writers tell of 16 bits where there are 8: their length is right.
            dtype: np.dtype[Any] | None = _BY_SIZE.get(count // math.prod(page.shape))
            if isinstance(axes, dict):
                yield _Image(name, start, axes, page.shape, dtype if page.grey else None, said)
            if page.next <= offset:
                break
            offset = self._next[name] = page.next

    def _metadata(self, image: _Image, last: bool) -> dict[str, Any] | None:
        """Return the metadata of an image that is whole; None if it is not.

        They lie behind the pixels: once their last byte is there, so are these. A network may bring them the other
        way round, so that pixels of nothing but zeros are only believed in the end.
        """
        try:
            with (self._folder / image.file).open("rb") as file:
                size = file.seek(0, 2)
                file.seek(image.offset)
                if image.offset + image.bytes > size:
                    return None
                if not any(memoryview(file.read(image.bytes))) and not last:
                    return None
                if isinstance(image.metadata, dict):
                    return image.metadata
                start, length = image.metadata
                file.seek(start)
                data = file.read(length)
                whole = len(data) == length and not data.endswith(b"\0")
                return decoded(data.rstrip(b"\0")) or ({} if whole else None)
        except OSError:
            return None

    def _plane(self, image: _Image, said: dict[str, Any]) -> Plane | None:
        axes, dtype = image.axes, image.dtype
        if dtype is None:
            self._fault(f"{self._folder / image.file} has colour images, or such of an unknown kind; stream grey ones")
            return None
        foreign = sorted(axis for axis in axes if axis not in _AXES)
        if any(axes[axis] != 0 for axis in foreign):
            self._fault(f"{self.path} has the axes {', '.join(foreign)}; of these only the first images are streamed")
            return None
        self._learn(said)
        tiled = axes.get("row") is not None or axes.get("column") is not None
        return Plane(
            t=self._number("time", axes.get("time", 0)),
            channel=axes.get("channel", 0),
            z=self._number("z", axes.get("z", 0)),
            read=lambda: self._read(image, dtype),
            shape=image.shape,
            dtype=dtype,
            position=self._number("position", axes["position"]) if "position" in axes else None,
            tile=self._number("tile", (axes.get("row", 0), axes.get("column", 0))) if tiled else None,
            height_um=_height(said),
            taken=received(said.get("ReceivedTime")),
        )

    def _number(self, axis: str, value: Any) -> int:
        """Number the values of an axis: whole numbers as they are, names and tiles as they appear."""
        if isinstance(value, int):
            return value
        known = self._numbers[axis]
        return known.setdefault(value, len(known))

    def _learn(self, said: dict[str, Any]) -> None:
        """Complete what is told by the metadata of an image."""
        told = self._told or Told(UNKNOWN)
        pixel = micrometres(said.get("PixelSizeUm", said.get("PixelSize_um")), "um")
        z, y, x = told.spacing
        if pixel and not (y and x):
            self._told = replace(told, spacing=(z, y or pixel, x or pixel))

    def _read(self, image: _Image, dtype: np.dtype[Any]) -> np.ndarray:
        path = self._folder / image.file
        return np.fromfile(path, dtype, math.prod(image.shape), offset=image.offset).reshape(image.shape)

    def _fault(self, fault: str) -> None:
        if fault not in self.faults:
            self.faults.append(fault)


def _entry(data: bytes, at: int) -> tuple[int, _Image | None] | None:
    """Parse one entry of an index: its end and the image, or no image if it is damaged; None if it is not whole."""
    texts: list[bytes] = []
    position = at
    for _ in range(2):
        if position + 4 > len(data):
            return None
        (length,) = struct.unpack_from("<I", data, position)
        if length == 0 and not texts:  # the end of the dataset, or room that is not filled yet
            return None
        texts.append(data[position + 4 : position + 4 + length])
        position += 4 + length
    if position + _NUMBERS.size > len(data) or any(b"\0" in text for text in texts):  # the room of an index is zeros
        return None
    offset, width, height, kind, _, start, size, _ = _NUMBERS.unpack_from(data, position)
    end = position + _NUMBERS.size
    if not size and not any(data[end : end + 4]):  # the entry may not be whole, either
        return None
    try:
        axes, name = json.loads(texts[0]), texts[1].decode()
    except ValueError:
        return end, None
    if not isinstance(axes, dict) or not width or not height or Path(name).name != name:
        return end, None
    dtype = np.dtype(_DTYPES[kind]) if kind in _DTYPES else None
    return end, _Image(name, offset, axes, (height, width), dtype, (start, size))


def _height(said: dict[str, Any]) -> float | None:
    for key in ("ZPosition_um_Intended", "ZPositionUm", "ZPosition_um"):
        if isinstance(said.get(key), int | float):
            return float(said[key])
    return None
