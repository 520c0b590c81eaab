"""Files that are read amid being written: cut at any byte, looked at, written on, and looked at again.

What real writers write is recorded as a tape of bytes and where they went, and played up to any byte. Whatever was
looked at on the way, no plane that is not exactly as it was written comes out, and in the end each comes out once.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from ndstorage import NDTiffDataset

from otf_stream.acquire.watch.names import PlaneName, parse_name
from otf_stream.acquire.watch.ndtiff import INDEX, GrowingNDTiff
from otf_stream.acquire.watch.plane import Growing, Plane
from otf_stream.acquire.watch.planes import GrowingPlanes
from otf_stream.acquire.watch.tiff import GrowingTiff

Index = tuple[int, int | str, int]
Planes = dict[Index, np.ndarray]

Y, X = 9, 20  # more bytes than one byte can count
INDICES: list[tuple[int, int, int]] = [(t, c, z) for t in range(2) for c in range(2) for z in range(3)]


@cache
def planes() -> np.ndarray:
    """Return ``(t, c, z, y, x)`` as cameras see dark corners: some planes begin or end in zeros."""
    data = np.random.default_rng(0).integers(1, 60000, (2, 2, 3, Y, X)).astype(np.uint16)
    data[:, 0, 1, -2:] = 0
    data[:, 1, 2, :2] = 0
    data[1, 1, 1, 2:] = 0
    return data


@dataclass(frozen=True)
class Tape:
    """What a writer did to a file, byte by byte.

    Parameters
    ----------
    writes
        Where each piece went, and the piece.
    start
        What the file was before.
    cut_off
        Whether, in the end, the writer cuts off what it did not fill.
    word
        How many bytes are stored at once.
    """

    writes: list[tuple[int, bytes]]
    start: bytes = b""
    cut_off: bool = False
    word: int = 1

    @property
    def bytes(self) -> int:
        return sum(len(piece) for _, piece in self.writes)

    def play(self, until: int) -> bytes:
        """Return the file after so many written bytes."""
        until -= until % self.word
        content = bytearray(self.start)
        for at, piece in self.writes:
            piece = piece[:until]
            if not piece:
                break
            content.extend(bytes(max(0, at - len(content))))
            content[at : at + len(piece)] = piece
            until -= len(piece)
        return bytes(content)

    @property
    def finished(self) -> bytes:
        end = max(at + len(piece) for at, piece in self.writes) if self.cut_off else None
        return self.play(self.bytes)[:end]


class Recorder(io.BytesIO):
    """A file that remembers how it was written."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[tuple[int, bytes]] = []

    def write(self, piece: Any) -> int:
        self.writes.append((self.tell(), bytes(piece)))
        return super().write(piece)


def recorded(write: Callable[[Recorder], object]) -> Tape:
    file = Recorder()
    write(file)
    return Tape(file.writes)


def page_by_page(**options: Any) -> Tape:
    """All planes as those of one stack: nothing in the file tells more."""

    def write(file: Recorder) -> None:
        kept = {key: options.pop(key) for key in ("bigtiff", "byteorder", "ome") if key in options}
        with tifffile.TiffWriter(file, **kept) as writer:
            for index in INDICES:
                writer.write(planes()[index], contiguous=False, photometric="minisblack", **options)

    return recorded(write)


def at_once(order: str = "TCZ", **options: Any) -> Tape:
    data = planes().transpose(*("TCZ".index(axis) for axis in order), 3, 4)
    options = {"photometric": "minisblack", "metadata": {"axes": f"{order}YX"}, **options}
    return recorded(lambda file: tifffile.imwrite(file, data, **options))


def described_first() -> Tape:
    xml = tifffile.OmeXml()
    xml.addimage("uint16", (2, 3, 2, Y, X), (12, 1, 1, Y, X, 1), axes="TZCYX")

    def write(file: Recorder) -> None:
        with tifffile.TiffWriter(file, ome=False) as writer:
            for number, (t, z, c) in enumerate(np.ndindex(2, 3, 2)):
                writer.write(
                    planes()[t, c, z], contiguous=False, photometric="minisblack", metadata=None,
                    description=xml.tostring().encode() if number == 0 else None,
                )  # fmt: skip

    return recorded(write)


def filled_in(*, shuffled: bool) -> Tape:
    """A file that is made at full size and filled plane by plane, as through a memory map."""
    empty = Recorder()
    tifffile.imwrite(
        empty, np.zeros((2, 2, 3, Y, X), np.uint16), ome=True, metadata={"axes": "TCZYX"}, photometric="minisblack"
    )
    with tifffile.TiffFile(io.BytesIO(empty.getvalue())) as tiff:
        start = tiff.pages[0].dataoffsets[0]
    order = [INDICES[k] for k in (np.random.default_rng(1).permutation(12) if shuffled else range(12))]
    size = planes()[0, 0, 0].nbytes
    fills = [(start + INDICES.index(index) * size, planes()[index].tobytes()) for index in order]
    return Tape(fills, start=empty.getvalue(), word=planes().itemsize)


@cache
def by_micro_manager(said: Callable[[tuple[int, int, int]], dict[str, Any]]) -> tuple[Tape, bytes]:
    """Return a file with a page and metadata for each plane, made at full size; and the index of the dataset."""
    with TemporaryDirectory() as folder:
        dataset = NDTiffDataset(
            dataset_path=folder, summary_metadata={"PixelSize_um": 0.2}, name="cells", writable=True
        )
        for t, c, z in INDICES:
            dataset.put_image({"time": t, "channel": c, "z": z}, planes()[t, c, z], said((t, c, z)))
        dataset.current_writer.reader.close()
        dataset.finish()
        dataset.close()
        (path,) = Path(folder).glob("*/*.tif")
        content, index = path.read_bytes(), (path.parent / INDEX).read_bytes()
    with tifffile.TiffFile(io.BytesIO(content)) as tiff:
        at = tiff.pages[-1].offset + 2 + 12 * len(tiff.pages[-1].tags)
    # The last page tells where the next one would be, until the file is closed.
    going_on = content[:at] + struct.pack("<I", len(content) + len(content) % 2) + content[at + 4 :]
    return Tape([(0, going_on), (at, bytes(4))], start=bytes(len(content) + 5000), cut_off=True), index


def counted(index: tuple[int, int, int]) -> dict[str, Any]:
    return dict(zip(("FrameIndex", "ChannelIndex", "SliceIndex"), index, strict=True)) | {"PositionIndex": 0}


def named(index: tuple[int, int, int]) -> dict[str, Any]:
    return {"Axes": dict(zip(("time", "channel", "z"), index, strict=True)), "PixelSizeUm": 0.2}


def silent(index: tuple[int, int, int]) -> dict[str, Any]:
    return {"PixelSizeUm": 0.2}


def wordless(index: tuple[int, int, int]) -> dict[str, Any]:
    return {}


STACK: Planes = {(0, 0, n): planes()[index] for n, index in enumerate(INDICES)}
ALL: Planes = {index: planes()[index] for index in INDICES}
FILES: dict[str, tuple[Callable[[], Tape], Planes]] = {
    "page by page": (page_by_page, STACK),
    "page by page, compressed": (lambda: page_by_page(compression="zlib"), STACK),
    "page by page, in tiles": (lambda: page_by_page(tile=(16, 16)), STACK),
    "page by page, in strips": (lambda: page_by_page(rowsperstrip=7), STACK),
    "page by page, big and big-endian": (lambda: page_by_page(bigtiff=True, byteorder=">"), STACK),
    "page by page, OME": (lambda: page_by_page(ome=True), STACK),
    "described first": (described_first, ALL),
    "shaped": (lambda: at_once(), ALL),
    "one page for all": (lambda: at_once(truncate=True), ALL),
    "ImageJ": (lambda: at_once("TZC", imagej=True, byteorder=">"), ALL),
    "OME": (lambda: at_once(ome=True), ALL),
    "OME, compressed": (lambda: at_once("ZTC", ome=True, compression="zlib"), ALL),
    "filled in order": (lambda: filled_in(shuffled=False), ALL),
    "filled in any order": (lambda: filled_in(shuffled=True), ALL),
    "Micro-Manager": (lambda: by_micro_manager(counted)[0], ALL),
}


@cache
def tape_of(writer: str) -> Tape:
    return FILES[writer][0]()


@cache
def plane_tapes(**options: Any) -> list[Tape]:
    return [recorded(partial(tifffile.imwrite, data=planes()[index], **options)) for index in INDICES]


class Watch:
    """What a reader gave, compared with what was written."""

    def __init__(self, reader: Growing, expected: Planes) -> None:
        self.reader = reader
        self.expected = expected
        self.given: dict[Index, Plane] = {}

    def look(self, *, last: bool = False) -> None:
        for plane in self.reader.look(last=last):
            index = (plane.t, plane.channel, plane.z)
            assert index not in self.given, f"{index} was given twice"
            self.given[index] = plane
            self.check(index, plane)
        self.reader.told()

    def check(self, index: Index, plane: Plane) -> None:
        assert index in self.expected, f"{index} was never written"
        pixels = plane.read()
        assert pixels.dtype.newbyteorder("=") == plane.dtype.newbyteorder("=") == np.uint16
        assert pixels.shape == plane.shape
        np.testing.assert_array_equal(pixels, self.expected[index], err_msg=str(index))

    def end(self) -> None:
        """Nothing more comes: everything is there, and still reads as it did."""
        self.look(last=True)
        assert sorted(self.given) == sorted(self.expected)
        for index, plane in self.given.items():
            self.check(index, plane)


def stops(tape: Tape) -> st.SearchStrategy[list[tuple[int, int]]]:
    """Bytes after which a writer pauses, and how many looks long; often about where it begins another piece."""
    begun = np.cumsum([0, *(len(piece) for _, piece in tape.writes)]).tolist()
    near = st.builds(lambda byte, more: byte + more, st.sampled_from(begun), st.integers(-2, 2))
    byte = st.one_of(st.integers(0, tape.bytes), near).filter(lambda byte: 0 <= byte <= tape.bytes)
    return st.lists(st.tuples(byte, st.integers(1, 3)), min_size=1, max_size=4).map(sorted)


@pytest.mark.parametrize("writer", FILES)
@settings(deadline=None, max_examples=15)
@given(data=st.data())
def test_a_file_of_pages(writer: str, data: st.DataObject) -> None:
    tape, expected = tape_of(writer), FILES[writer][1]
    with TemporaryDirectory() as folder:
        path = Path(folder) / "cells.tif"
        watch = Watch(GrowingTiff(path), expected)
        for byte, looks in data.draw(stops(tape)):
            path.write_bytes(tape.play(byte))
            for _ in range(looks):
                watch.look()
            if not tape.start:  # Where pixels that are not written are zeros, none can be told from dark ones.
                watch.look(last=data.draw(st.booleans()))
        path.write_bytes(tape.finished)
        watch.end()


@pytest.mark.parametrize("said", [named, silent, wordless])
@settings(deadline=None, max_examples=20)
@given(data=st.data())
def test_a_dataset_of_ndtiff(said: Callable[[tuple[int, int, int]], dict[str, Any]], data: st.DataObject) -> None:
    tape, index = by_micro_manager(said)
    entries = Tape([(0, index)])
    with TemporaryDirectory() as folder:
        path = Path(folder) / "cells_NDTiffStack.tif"
        watch = Watch(GrowingNDTiff(Path(folder)), ALL)
        # Both are buffered, and either may be ahead.
        told = data.draw(stops(entries))
        for (byte, looks), (entry, _) in zip(data.draw(stops(tape)), [*told, *told[-1:] * 3], strict=False):
            path.write_bytes(tape.play(byte))
            path.with_name(INDEX).write_bytes(entries.play(entry))
            for _ in range(looks):
                watch.look()
            watch.look(last=data.draw(st.booleans()))
        path.write_bytes(tape.finished)
        path.with_name(INDEX).write_bytes(index)
        watch.end()


@settings(deadline=None, max_examples=20)
@given(data=st.data())
def test_an_index_that_is_made_longer_than_it_becomes(data: st.DataObject) -> None:
    tape, index = by_micro_manager(silent)
    entries = Tape([(0, index)], start=bytes(len(index) + 100), cut_off=True)
    with TemporaryDirectory() as folder:
        Path(folder, "cells_NDTiffStack.tif").write_bytes(tape.finished)
        watch = Watch(GrowingNDTiff(Path(folder)), ALL)
        for byte, looks in data.draw(stops(entries)):
            Path(folder, INDEX).write_bytes(entries.play(byte))
            for _ in range(looks):
                watch.look()
        Path(folder, INDEX).write_bytes(entries.finished)
        watch.end()


def test_a_dark_image_of_ndtiff_is_given_in_the_end(tmp_path: Path) -> None:
    tape, index = by_micro_manager(silent)
    dark = planes()[0, 0, 0].tobytes()
    (tmp_path / "cells_NDTiffStack.tif").write_bytes(tape.finished.replace(dark, bytes(len(dark))))
    (tmp_path / INDEX).write_bytes(index)
    watch = Watch(GrowingNDTiff(tmp_path), ALL | {(0, 0, 0): np.zeros((Y, X), np.uint16)})
    watch.look()
    assert len(watch.given) == len(ALL) - 1
    watch.end()
    assert not watch.reader.faults


@pytest.mark.parametrize("options", [{}, {"compression": "zlib"}, {"ome": True}, {"imagej": True}], ids=str)
@settings(deadline=None, max_examples=15)
@given(data=st.data())
def test_a_folder_of_planes(options: dict[str, Any], data: st.DataObject) -> None:
    names = [f"cells_t{t}_c{c}_z{z:03}.tif" for t, c, z in INDICES]
    tapes = plane_tapes(**options)
    with TemporaryDirectory() as folder:

        def files() -> list[tuple[Path, PlaneName]]:
            found = [(path, parse_name(path.name)) for path in Path(folder).iterdir()]
            return [(path, name) for path, name in found if name is not None]

        watch = Watch(GrowingPlanes(Path(folder), files), ALL)
        slow = data.draw(st.sets(st.sampled_from(range(len(names))), max_size=3))
        for number, (name, tape) in enumerate(zip(names, tapes, strict=True)):
            for byte, looks in data.draw(stops(tape)) if number in slow else ():
                Path(folder, name).write_bytes(tape.play(byte))
                for _ in range(looks):
                    watch.look()
                watch.look(last=data.draw(st.booleans()))
            Path(folder, name).write_bytes(tape.finished)
        watch.end()
