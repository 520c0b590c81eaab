"""The planes of one TIFF file that another program writes, page by page or into a file that has its full size already.

The chain of pages is followed as far as it goes. Writers that know the number of planes append the pixels and write
all but the first page at the end: these planes are found by counting. Others create the whole file and fill it, so
that a page may be there long before its pixels: a plane counts as whole when it is not blank, reads the same at two
looks, and its last pixel is not zero. If that is zero, or not written yet, the plane waits until the writer has gone
on, to a plane further back in the file than any before. Which plane a page is may be told only when the file is
closed; no page is given before.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import tifffile
from isal.isal_zlib import crc32

from otf_stream.acquire.hooks.growing import Plane
from otf_stream.acquire.watch.ifd import (
    MICRO_MANAGER,
    Directory,
    Header,
    begins_directory,
    read_directory,
    read_header,
)
from otf_stream.acquire.watch.pages import Pages, decoded, describe_pages
from otf_stream.acquire.watch.plane import Told
from otf_stream.store.formats.source import UNKNOWN, micrometres

_PROBE = 4096  # bytes at each of three places that tell whether a plane is blank
_AT_ONCE = 256 << 20  # bytes of pixels read in one look


class GrowingTiff:
    """One TIFF file; see `plane.Growing`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.faults: list[str] = []
        self._begin()

    def _begin(self) -> None:
        self._pages = Pages()
        self._chain: list[int] = []  # where the directories of the pages lie
        self._given: set[int] = set()
        self._read_before: dict[int, int] = {}  # checksums of planes at the last look
        self._furthest = 0  # end of the last plane in the file that is not blank
        self._dark: dict[int, int] = {}  # planes that end in zeros, and which plane was the furthest by then
        self._blank: set[int] = set()
        self._told = Told(UNKNOWN)
        self._beginning: tuple[int, int, int] | None = None  # of the first page given: where, how long, checksum

    @property
    def pages(self) -> int:
        """How many pages have been found."""
        return len(self._given | self._read_before.keys() | self._blank)

    def told(self) -> Told:
        """Return what the metadata tell so far."""
        return self._told

    def look(self, *, last: bool = False) -> Iterator[Plane]:
        """Give the planes that have become whole since the last look."""
        try:
            with self.path.open("rb") as file:
                size = file.seek(0, 2)
                header = read_header(file)
                if self._beginning and _checksum(file, *self._beginning[:2]) != self._beginning[2]:
                    self._begin()  # written anew
                if header is not None:
                    yield from self._look(file, header, size, last)
                elif last:
                    self._fault("is no TIFF file, or was never written to its first page")
        except OSError as error:
            if last:
                self._fault(f"cannot be read: {error.strerror or error}")

    def _look(self, file: BinaryIO, header: Header, size: int, last: bool) -> Iterator[Plane]:
        first = self._follow(file, header, size, last)
        if first is None:
            if last:
                self._fault("was never written to its first page, or is damaged there")
            return
        if not self._given:  # the description may be written late
            pages = describe_pages(file, first, self.path, begun=len(self._chain) == 1 and not last)
            if pages is None:
                if last:
                    self._fault(
                        "has room for a description, but none was written: which planes its pages are is not known; "
                        "close the file, or give a longer --quiet if it still goes on"
                    )
                return
            self._pages, self._told = pages, pages.told
        at_once = 0
        self._blank.clear()
        for page, directory in self._directories(file, header, first, size):
            if at_once > _AT_ONCE and not last:
                return
            pixels = self._whole(file, page, directory, size, last)
            if pixels is not None:
                at_once += pixels
                if page in self._given:
                    plane = self._plane(page, directory)
                    if plane is not None:
                        yield plane
        for page in self._read_before:
            self._dark.setdefault(page, self._furthest)
        if last and self._blank:
            self._fault(
                f"has {len(self._blank)} planes of nothing but zeros: taken for never written, and not streamed"
            )

    def _follow(self, file: BinaryIO, header: Header, size: int, last: bool) -> Directory | None:
        """Follow the chain of directories as far as it goes; return the first."""
        first = read_directory(file, header, header.first) if 0 < header.first < size else None
        if first is None:
            return None
        if not self._chain:
            self._chain.append(header.first)
        known = set(self._chain)
        end = first if len(self._chain) == 1 else read_directory(file, header, self._chain[-1])
        while end is not None and end.next > 0:
            if end.next in known:
                self._fault(f"is damaged: page {len(self._chain)} points back to one before it")
                break
            end = read_directory(file, header, end.next) if end.next < size else None
            if end is None:
                # Micro-Manager tells where the next page will be before there is one, and after the last, too.
                break
            self._chain.append(end.offset)
            known.add(end.offset)
        return first

    def _directories(
        self, file: BinaryIO, header: Header, first: Directory, size: int
    ) -> Iterator[tuple[int, Directory]]:
        """Give the pages that were not given yet: those of the chain, or those that follow from the first."""
        if len(self._chain) == 1 and not first.next:
            yield from self._counted(file, header, first, size)
            return
        for page, offset in enumerate(self._chain):
            if page not in self._given:
                directory = read_directory(file, header, offset)
                if directory is not None:
                    yield page, directory

    def _counted(self, file: BinaryIO, header: Header, first: Directory, size: int) -> Iterator[tuple[int, Directory]]:
        if 0 not in self._given:
            yield 0, first
        raw, dtype = first.raw, first.dtype
        if raw is None or dtype is None or not self._pages.counted:
            return
        length = math.prod(first.shape) * dtype.itemsize
        announced = math.prod(self._pages.told.sizes)
        alone = size == raw + announced * length  # it tells of all planes, and no other page follows
        for page in range(1, min(announced, (size - raw) // length)):
            start = raw + page * length
            if page in self._given:
                continue
            if not alone:
                if begins_directory(file, header, start):  # pages of their own, after all
                    return
                file.seek(start)
                if not any(file.read(64)):  # room for a directory, perhaps
                    return
            yield page, replace(first, tags={**first.tags, 273: (start,), 279: (length,)})

    def _whole(self, file: BinaryIO, page: int, directory: Directory, size: int, last: bool) -> int | None:
        """Look whether a page is whole, and note it as given if so; return how many bytes it took."""
        if directory.end > size or not directory.adds_up or not _said(directory):
            if last:
                self._fault(f"ends amid page {page}: the rest was never written")
            return None
        if not self._lit(file, directory, last):
            self._blank.add(page)
            return 0
        self._furthest = max(self._furthest, directory.end)
        checksum = taken = 0
        for offset, count in directory.segments:
            file.seek(offset)
            data = file.read(count)
            checksum, taken = crc32(data, checksum), taken + len(data)
        checksum = crc32(repr(directory.segments).encode(), checksum)
        pixel = directory.dtype.itemsize if directory.dtype else 1
        file.seek(directory.end - pixel)
        # A writer that has gone on since the last look has left this plane behind.
        ended = any(file.read(pixel)) or self._furthest > self._dark.get(page, self._furthest)
        same = self._read_before.get(page) == checksum
        self._read_before[page] = checksum
        if last or (ended and same):
            self._given.add(page)
            del self._read_before[page]
            self._dark.pop(page, None)
            if self._beginning is None:
                start, count = directory.segments[0]
                self._beginning = start, min(count, _PROBE), _checksum(file, start, min(count, _PROBE))
        return taken

    def _lit(self, file: BinaryIO, directory: Directory, last: bool) -> bool:
        """Whether there is anything but zeros."""
        for offset, count in directory.segments:
            probes = (
                [(0, count)]
                if last or count <= 3 * _PROBE
                else [(0, _PROBE), (count // 2, _PROBE), (count - _PROBE, _PROBE)]
            )
            for start, length in probes:
                file.seek(offset + start)
                if any(memoryview(file.read(length))):
                    return True
        return False

    def _plane(self, page: int, directory: Directory) -> Plane | None:
        dtype = directory.dtype
        if dtype is None or not directory.grey:
            self._fault("has pixels that are no grey values of 8, 16 or 32 bits; split colours into channels")
            return None
        t, c, z = self._pages.plane(page)
        said = decoded(directory.text(MICRO_MANAGER))
        number = {
            axis: said.get(f"{name}Index")
            for axis, name in zip("tczp", ("Frame", "Channel", "Slice", "Position"), strict=True)
        }
        if all(isinstance(number[axis], int) for axis in "tcz"):
            t, c, z = (int(number[axis] or 0) for axis in "tcz")
            self._learn(said)
        return Plane(
            t, c, z, lambda: self._read(page, directory), directory.shape, dtype,
            position=number["p"] if self._told.positions != 1 and isinstance(number["p"], int) else None,
            height_um=_number(said.get("ZPositionUm")), taken=received(said.get("ReceivedTime")),
        )  # fmt: skip

    def _learn(self, said: dict[str, Any]) -> None:
        """Complete what is told by the metadata of a page."""
        z, y, x = self._told.spacing
        pixel = micrometres(said.get("PixelSizeUm"), "um")
        self._told = replace(self._told, spacing=(z, y or pixel, x or pixel))

    def _read(self, page: int, directory: Directory) -> np.ndarray:
        raw, dtype = directory.raw, directory.dtype
        if raw is not None and dtype is not None:
            return np.fromfile(self.path, dtype, math.prod(directory.shape), offset=raw).reshape(directory.shape)
        with tifffile.TiffFile(self.path, is_ome=False) as tiff:
            tiff.filehandle.seek(directory.offset)
            return np.asarray(tifffile.TiffPage(tiff, page).asarray())

    def _fault(self, what: str) -> None:
        fault = f"{self.path} {what}"
        if fault not in self.faults:
            self.faults.append(fault)


def _checksum(file: BinaryIO, start: int, length: int) -> int:
    file.seek(start)
    return crc32(file.read(length))


def _said(directory: Directory) -> bool:
    """Whether the metadata of Micro-Manager, if any, are all there: they lie behind the pixels."""
    try:
        return MICRO_MANAGER not in directory.tags or isinstance(json.loads(directory.text(MICRO_MANAGER)), dict)
    except ValueError:
        return False


def received(said: object) -> float | None:
    """Return UNIX seconds of the time at which Micro-Manager received an image, ``2026-11-25 04:05:06.789 +0100``."""
    try:
        return datetime.strptime(str(said), "%Y-%m-%d %H:%M:%S.%f %z").timestamp()
    except ValueError:
        return None


def _number(said: object) -> float | None:
    return float(said) if isinstance(said, int | float) else None
