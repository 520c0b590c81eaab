"""Image file directories of a TIFF file that is being written.

tifffile reads finished files. In a growing one any structure may be absent, full of zeros, or point past the end of
the file, and all of this means the same: not yet. So each function here returns None where what it looks for is not
whole, and reads no more than one directory.
"""

from __future__ import annotations

import itertools
import math
import struct
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np

WIDTH, LENGTH, BITS, COMPRESSION, DESCRIPTION = 256, 257, 258, 259, 270
STRIP_OFFSETS, SAMPLES, STRIP_COUNTS, X_RESOLUTION, Y_RESOLUTION = 273, 277, 279, 282, 283
TILE_OFFSETS, TILE_COUNTS, SAMPLE_FORMAT, MICRO_MANAGER = 324, 325, 339, 51123

_KEPT = {
    WIDTH, LENGTH, BITS, COMPRESSION, DESCRIPTION, STRIP_OFFSETS, SAMPLES, STRIP_COUNTS, X_RESOLUTION, Y_RESOLUTION,
    TILE_OFFSETS, TILE_COUNTS, SAMPLE_FORMAT, MICRO_MANAGER,
}  # fmt: skip
_FORMATS = {
    1: "B", 2: "s", 3: "H", 4: "I", 5: "II", 6: "b", 7: "s", 8: "h", 9: "i", 10: "ii", 11: "f", 12: "d", 13: "I",
    16: "Q", 17: "q", 18: "Q",
}  # fmt: skip
_MOST_TAGS = 200
_MOST_VALUES = 1 << 24  # of one tag: a torn directory may tell of any number
_KINDS = {1: "u", 2: "i", 3: "f"}


@dataclass(frozen=True)
class Header:
    """Byte order of a file, whether it is a BigTIFF, and where its first directory lies."""

    order: str
    big: bool
    first: int


@dataclass(frozen=True)
class Directory:
    """One page: where its pixels are, and what its tags tell."""

    offset: int
    next: int
    tags: dict[int, tuple[Any, ...]]
    order: str

    def one(self, tag: int, default: Any = None) -> Any:
        """Return the first value of a tag."""
        return self.tags.get(tag, (default,))[0]

    def text(self, tag: int) -> str:
        """Return the text of a tag; empty without one."""
        value = self.one(tag, b"")
        return value.rstrip(b"\0").decode("utf-8", "replace") if isinstance(value, bytes) else ""

    def density(self, tag: int) -> float:
        """Return pixels per unit of length."""
        numerator, denominator = self.tags.get(tag, (0, 1))[:2]
        return numerator / denominator if denominator else 0.0

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.one(LENGTH), self.one(WIDTH)

    @property
    def grey(self) -> bool:
        """Whether a pixel has one value."""
        return bool(self.one(SAMPLES, 1) == 1)

    @property
    def dtype(self) -> np.dtype[Any] | None:
        """Of the pixels, in the file's byte order; None if NumPy has none such."""
        try:
            kind = _KINDS[self.one(SAMPLE_FORMAT, 1)]
            return np.dtype(f"{self.order}{kind}{self.one(BITS, 1) // 8}")
        except (KeyError, TypeError):
            return None

    @property
    def segments(self) -> list[tuple[int, int]]:
        """Offset and length of each strip or tile."""
        offsets = self.tags.get(STRIP_OFFSETS) or self.tags.get(TILE_OFFSETS, ())
        counts = self.tags.get(STRIP_COUNTS) or self.tags.get(TILE_COUNTS, ())
        return list(zip(offsets, counts, strict=True)) if len(offsets) == len(counts) else []

    @property
    def end(self) -> int:
        """Where its pixels end in the file; 0 as long as this is not known."""
        segments = self.segments
        if not segments or any(offset <= 0 or count <= 0 for offset, count in segments):
            return 0
        return max(offset + count for offset, count in segments)

    @property
    def adds_up(self) -> bool:
        """Whether its strips have room for its pixels; True, too, where these are compressed."""
        if self.one(COMPRESSION, 1) != 1 or TILE_OFFSETS in self.tags or not self.grey:
            return True
        return bool(sum(count for _, count in self.segments) * 8 >= math.prod(self.shape) * self.one(BITS, 1))

    @property
    def raw(self) -> int | None:
        """Where its pixels begin if they lie in the file row by row as they are; None otherwise."""
        segments, dtype = self.segments, self.dtype
        if dtype is None or self.one(COMPRESSION, 1) != 1 or TILE_OFFSETS in self.tags or not self.end:
            return None
        follows = all(a + n == b for (a, n), (b, _) in itertools.pairwise(segments))
        whole = sum(count for _, count in segments) == math.prod(self.shape) * dtype.itemsize
        return segments[0][0] if follows and whole else None


def read_header(file: BinaryIO) -> Header | None:
    """Read the first bytes of a file; None if there is no TIFF header yet."""
    data = _read(file, 0, 16)
    order = {b"II": "<", b"MM": ">"}.get(data[:2])
    if order is None or len(data) < 8:
        return None
    (magic,) = struct.unpack(order + "H", data[2:4])
    if magic == 42:
        return Header(order, False, struct.unpack(order + "I", data[4:8])[0])
    if magic == 43 and len(data) == 16 and struct.unpack(order + "HH", data[4:8]) == (8, 0):
        return Header(order, True, struct.unpack(order + "Q", data[8:16])[0])
    return None


def read_directory(file: BinaryIO, header: Header, offset: int) -> Directory | None:
    """Read one directory, with all that its tags point to; None if any of it is not there yet."""
    count_size, entry_size, pointer = (8, 20, "Q") if header.big else (2, 12, "I")
    room = struct.calcsize(pointer)
    count = _unpack(file, header.order + ("Q" if header.big else "H"), offset)
    if count is None or not 0 < count[0] <= _MOST_TAGS:
        return None
    entries = _read(file, offset + count_size, count[0] * entry_size + room)
    if len(entries) < count[0] * entry_size + room:
        return None
    tags: dict[int, tuple[Any, ...]] = {}
    before = 0
    for start in range(0, count[0] * entry_size, entry_size):
        tag, kind = struct.unpack_from(header.order + "HH", entries, start)
        (n,) = struct.unpack_from(header.order + pointer, entries, start + 4)
        if tag <= before or kind not in _FORMATS:
            return None
        before = tag
        if tag in _KEPT:
            field = start + entry_size - room
            values = _values(file, header.order, kind, n, entries[field : field + room], pointer)
            if values is None:
                return None
            tags[tag] = values
    (following,) = struct.unpack_from(header.order + pointer, entries, count[0] * entry_size)
    directory = Directory(offset, following, tags, header.order)
    if not all(isinstance(n, int) and n > 0 for n in directory.shape) or not directory.end:
        return None
    return directory


def begins_directory(file: BinaryIO, header: Header, offset: int) -> bool:
    """Whether a directory begins here; a few bytes suffice, for it may not be whole."""
    for start in {offset, offset + offset % 2, offset + -offset % 16}:
        code = header.order + ("QHHQ" if header.big else "HHHI")
        found = _unpack(file, code, start)
        if (
            found
            and 0 < found[0] <= _MOST_TAGS
            and found[1] in (254, WIDTH)
            and found[2] in (3, 4, 16)
            and found[3] == 1
        ):
            return True
    return False


def _values(file: BinaryIO, order: str, kind: int, n: int, field: bytes, pointer: str) -> tuple[Any, ...] | None:
    """Read the values of a tag; None if they are not there yet."""
    if n > _MOST_VALUES:
        return None
    code = _FORMATS[kind]
    code = f"{n}s" if code == "s" else code * n if len(code) == 2 else f"{n}{code}"
    size = struct.calcsize(order + code)
    if n == 0:
        return (b"",) if kind in (2, 7) else None
    if size > len(field):
        field = _read(file, struct.unpack(order + pointer, field)[0], size)
        if len(field) < size:
            return None
    return struct.unpack_from(order + code, field)


def _unpack(file: BinaryIO, code: str, offset: int) -> tuple[Any, ...] | None:
    data = _read(file, offset, struct.calcsize(code))
    return struct.unpack(code, data) if len(data) == struct.calcsize(code) else None


def _read(file: BinaryIO, offset: int, size: int) -> bytes:
    try:
        file.seek(offset)
        return file.read(size)
    except (OSError, OverflowError, ValueError, MemoryError):  # offsets of a torn directory may be anything
        return b""
