"""The session store: the raw planes of one acquisition, as an OME-Zarr 0.5 image that grows.

The array ``raw/0`` has its full announced shape and one uncompressed chunk per plane, so that a chunk file is
exactly the plane's bytes. Planes are therefore written as files, without going through zarr: at the speed of the
disk, and with `fsync` before anybody calls them durable. A group of planes is written under temporary names,
synchronised, renamed to the chunks' names, and entered into the journal in one transaction. After a crash at
any moment each plane is whole or absent, and only planes in the journal count.

Whoever opens a store may defer the waiting for the disk: planes then survive the death of any process at once, and a
power cut from the next `flush` on. What such a cut tears, `damaged` finds by the checksums.

The store is valid OME-Zarr before its first plane; chunks that have not come read as zeros. It also carries the
acquisition and the session's id in its attributes, so that it describes itself without its journal.
"""

from __future__ import annotations

import errno
import json
import logging
import shutil
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import zarr
from isal.isal_zlib import crc32
from zarr.codecs import BytesCodec

from otf_stream.acquisition import Acquisition, PlaneIndex
from otf_stream.store import ome
from otf_stream.store.chunks import Revealing, chunk_file, drop_chunks, stage_chunk
from otf_stream.store.contrast import everything, show_first_plane
from otf_stream.store.disk import fsync_folder, fsync_tree
from otf_stream.store.journal import Journal, PlaneRecord, journal_path, remove_journal
from otf_stream.store.metadata import amend

if TYPE_CHECKING:
    from typing_extensions import Buffer

log = logging.getLogger(__name__)

SUFFIX = ".ome.zarr"
ATTRIBUTES = "otf_stream"
"""The key under which this project keeps its own attributes in a Zarr group."""


class PlaneNotDurableError(KeyError):
    """The plane has not come, or not all of it was on disk when the writer stopped."""

    def __str__(self) -> str:
        return str(self.args[0])  # KeyError would show the quoted repr of the message.


class StoreGoneError(OSError):
    """The store was deleted or moved away while it was open: what would be written now would be in no store."""


class SessionStore:
    """The store and the journal of one acquisition: one process writes planes, any number read.

    Get one from `create` or `open`.
    """

    def __init__(self, path: Path, journal: Journal, *, deferred: bool = False) -> None:
        self.path = path
        self._deferred = deferred
        self._unsettled: list[Path] = []
        self.journal = journal
        self.session = journal.session
        self._writing = threading.Lock()
        self._committing = threading.Lock()
        # Waiting for the disk in parallel: four files synchronised at once go through twice as fast as in turn.
        self._disk = ThreadPoolExecutor(4, thread_name_prefix="store")
        self._revealing = Revealing(self._disk)
        self._shown: set[int] = set()  # channels of which viewers know a contrast
        self._unseen: list[PlaneIndex] = []  # planes of others

    @property
    def acquisition(self) -> Acquisition:
        """What was announced; of a growing acquisition, what is known so far."""
        return self.journal.acquisition

    @classmethod
    def create(
        cls, path: Path, acquisition: Acquisition, *, session: str, overwrite: bool = False, deferred: bool = False
    ) -> Self:
        """Create the store of a new acquisition, valid and empty, and its journal beside it.

        Parameters
        ----------
        path
            Ends in ``.ome.zarr``. Its folder is created where it is missing.
        acquisition
            What was announced.
        session
            Id of the session, by which the microscope's PC knows it.
        overwrite
            Delete the Zarr store and the journal that are there already.
        deferred
            Let planes wait for the disk only at `flush`.

        Raises
        ------
        ValueError
            If ``path`` does not end in ``.ome.zarr``.
        FileExistsError
            If something is there already that must not be overwritten.
        """
        if not path.name.endswith(SUFFIX) or path.name == SUFFIX:
            raise ValueError(f"{path} is no name for a session store; let it end in {SUFFIX}")
        path.parent.mkdir(parents=True, exist_ok=True)
        journal = journal_path(path)
        _make_way(path, journal, overwrite)
        # Built under another name, so that a folder called ``path`` is always a whole store with a journal.
        partial = path.with_name(path.name + ".partial")
        shutil.rmtree(partial, ignore_errors=True)
        _create_hierarchy(partial, acquisition, session)
        fsync_tree(partial)
        Journal.create(journal, acquisition, session=session).close()
        partial.replace(path)
        fsync_folder(path.parent)
        return cls.open(path, deferred=deferred)

    @classmethod
    def open(cls, path: Path, *, deferred: bool = False) -> Self:
        """Open the store at ``path``, to read it or to go on writing it.

        Raises
        ------
        FileNotFoundError
            If there is no store, or its journal is missing.
        JournalError
            If the journal cannot be read by this version.
        """
        if not (path / "zarr.json").is_file():
            raise FileNotFoundError(errno.ENOENT, "there is no session store", str(path))
        try:
            return cls(path, Journal.open(journal_path(path), deferred=deferred), deferred=deferred)
        except FileNotFoundError as error:
            raise FileNotFoundError(
                errno.ENOENT,
                f"the session store {path.name} has no journal beside it; move it together with its journal, "
                "or read it as a recorded stack",
                str(journal_path(path)),
            ) from error

    def close(self) -> None:
        """Finish what is being written and close the journal; twice is fine."""
        if self._unsettled:
            self.flush()
        self._disk.shutdown()
        self.journal.close()

    def write_planes(
        self, planes: Sequence[tuple[PlaneIndex, Buffer, int]], taken: Mapping[PlaneIndex, float] | None = None
    ) -> None:
        """Make a group of planes durable; all of them are when this returns.

        Grouping is what makes it fast: the group shares its waits for the disk and its transaction.

        Parameters
        ----------
        planes
            ``(plane, pixels, crc)`` for each: its index, exactly ``plane_bytes`` contiguous bytes (y, x) of the
            announced dtype, and their CRC-32. Planes that are durable already are skipped, and of a plane
            that occurs twice the first counts. Planes beyond the axes extend a growing acquisition.
        taken
            When planes were exposed by the microscope's clock, in UNIX seconds, where that is known.

        Raises
        ------
        ValueError
            If a plane lies outside the announced axes or has the wrong number of bytes; nothing is written.
        OSError
            If the disk is full or fails. No plane of the group is durable then, and no chunk is torn.
        """
        group: dict[PlaneIndex, tuple[memoryview, int]] = {}
        for plane, pixels, crc in planes:
            view = memoryview(pixels)
            self._check(plane, view)
            group.setdefault(plane, (view, crc))
        with self._writing:
            group = {plane: content for plane, content in group.items() if not self.journal.holds(plane)}
            writes = [self._disk.submit(self.stage, plane, view) for plane, (view, _) in group.items()]
            wait(writes)
            try:
                for write in writes:
                    write.result()
            except BaseException:
                self.drop(group)
                raise
            self.commit([(plane, crc, (taken or {}).get(plane)) for plane, (_, crc) in group.items()])

    def stage(self, plane: PlaneIndex, pixels: Buffer) -> None:
        """Write a plane to the disk without making it one of the store's; `commit` does that.

        Any number of threads may stage planes at the same time, but each plane only one, and none that is durable.

        Parameters
        ----------
        plane
            Its index.
        pixels
            Exactly ``plane_bytes`` contiguous bytes (y, x) of the announced dtype.

        Raises
        ------
        ValueError
            If the plane lies outside the announced axes or has the wrong number of bytes.
        OSError
            If the disk is full or fails. Nothing is left behind then.
        """
        view = memoryview(pixels)
        self._check(plane, view)
        stage_chunk(chunk_file(self.path, plane), view, wait=not self._deferred)

    def commit(self, staged: Sequence[tuple[PlaneIndex, int, float | None]]) -> None:
        """Make staged planes durable, in one transaction; all of them are when this returns.

        Parameters
        ----------
        staged
            ``(plane, crc, taken)`` for each: its index, the CRC-32 of its pixels, and when it was exposed by the
            microscope's clock, in UNIX seconds, where that is known. Planes beyond the axes extend a growing
            acquisition.

        Raises
        ------
        StoreGoneError
            If the store is not where it was when it was opened. None of the planes is durable or staged then.
        OSError
            If the disk is full or fails. None of the planes is durable or staged then.
        """
        if not staged:
            return
        with self._committing:
            try:
                if not self._is_in_place():
                    raise StoreGoneError(errno.ENOENT, "it was deleted or moved away", str(self.path))
                together = reduce(Acquisition.extended, [plane for plane, _, _ in staged], self.acquisition)
                if together != self.acquisition:
                    self.extend(together)
                chunks = [chunk_file(self.path, plane) for plane, _, _ in staged]
                self._revealing.reveal(chunks, wait=not self._deferred)
                now = time.time()
                self.journal.record_planes([PlaneRecord(plane, crc, now, taken) for plane, crc, taken in staged])
            except BaseException:
                self.drop(plane for plane, _, _ in staged)
                raise
            if self._deferred:
                self._unsettled += chunks
            self._unseen += [plane for plane, _, _ in staged if plane[1] not in self._shown]
            if not self._deferred:
                self._show_first()

    def flush(self) -> None:
        """Wait until the disk has every plane that was committed; at once where nothing was deferred.

        Raises
        ------
        OSError
            If the disk fails; they are waited for again at the next time.
        """
        with self._committing:
            if self._unsettled:
                self._revealing.settle(self._unsettled)
                self.journal.flush()
                self._unsettled = []
                self._show_first()

    def _show_first(self) -> None:
        """Let viewers show channels of which the first plane has come at a contrast that suits it."""
        unseen, self._unseen = self._unseen, []
        for plane in unseen:
            if plane[1] not in self._shown:
                self._shown.add(plane[1])
                with suppress(OSError, ValueError, KeyError):  # planes are durable whatever a viewer will show
                    show_first_plane(self.path, self.acquisition, plane[1], self.read_plane(plane))

    def damaged(self, planes: Iterable[tuple[PlaneIndex, int]]) -> Iterator[PlaneIndex]:
        """Yield those of durable ``planes``, given with their CRC-32, that are not on disk as they were written."""
        for plane, crc in planes:
            try:
                pixels = chunk_file(self.path, plane).read_bytes()
            except FileNotFoundError:
                if self._is_in_place():  # else somebody has moved all of it
                    yield plane
            except OSError as error:
                if error.errno == errno.EIO:
                    yield plane
                else:  # too many files are open, or another program holds it: that says nothing of the plane
                    log.warning("cannot check plane %s of %s: %s", plane, self.path.name, error)
            else:
                if len(pixels) != self.acquisition.plane_bytes or crc32(pixels) != crc:
                    yield plane

    def _is_in_place(self) -> bool:
        return (self.path / "zarr.json").is_file() and self.journal.is_in_place()

    def drop(self, planes: Iterable[PlaneIndex]) -> None:
        """Forget planes that were staged and are not to be committed."""
        drop_chunks(chunk_file(self.path, plane) for plane in planes)

    def extend(self, acquisition: Acquisition) -> None:
        """Make room for what a growing acquisition has grown to; readers see the longer axes from then on.

        Parameters
        ----------
        acquisition
            As `Acquisition.extended` or `Acquisition.joined` gives it.
        """
        # The array first: at no moment does the journal announce what the array has no place for.
        amend(self.path / "raw" / "0", lambda array: array.update(shape=list(acquisition.sizes.shape)))
        description = acquisition.model_dump(mode="json")
        amend(self.path, lambda group: group["attributes"][ATTRIBUTES].update(acquisition=description))
        self.journal.extend(acquisition)

    def read_plane(self, plane: PlaneIndex, y: slice = slice(None), x: slice = slice(None)) -> np.ndarray:
        """Read one durable plane, or a window of it.

        Returns
        -------
        np.ndarray
            ``(y, x)``, the announced dtype, little-endian.

        Raises
        ------
        PlaneNotDurableError
            If the plane is not durable; a `KeyError`.
        ValueError
            If the plane lies outside the announced axes.
        """
        if not self.journal.holds(plane):
            if not self.acquisition.holds(plane):
                raise ValueError(self.acquisition.outside(plane))
            t, c, z = plane
            raise PlaneNotDurableError(f"plane t={t}, c={c}, z={z} is not durable in {self.path.name}")
        sizes = self.acquisition.sizes
        file, dtype, shape = chunk_file(self.path, plane), self.acquisition.numpy_dtype, (sizes.y, sizes.x)
        if (y, x) == (slice(None), slice(None)):
            return np.fromfile(file, dtype).reshape(shape)
        return np.memmap(file, dtype, mode="r", shape=shape)[y, x].copy()

    def _check(self, plane: PlaneIndex, view: memoryview) -> None:
        if not self.acquisition.admits(plane):
            raise ValueError(self.acquisition.outside(plane))
        if view.nbytes != self.acquisition.plane_bytes:
            raise ValueError(
                f"plane {plane} has {view.nbytes} bytes, but {self.acquisition.sizes.y} × {self.acquisition.sizes.x} "
                f"pixels of {self.acquisition.dtype} have {self.acquisition.plane_bytes}; send whole planes"
            )
        if not view.c_contiguous:
            raise ValueError(f"the pixels of plane {plane} are not contiguous; send numpy.ascontiguousarray of them")


def delete_session(path: Path) -> None:
    """Delete a session, its store and its journal, as a user does who wants its space back.

    Raises
    ------
    OSError
        If either cannot be deleted.
    """
    shutil.rmtree(path)
    remove_journal(journal_path(path))


def session_attributes(path: Path) -> dict[str, Any] | None:
    """Read what a session store says of itself: ``acquisition``, ``session``, ``created``; None elsewhere."""
    try:
        metadata = json.loads((path / "zarr.json").read_bytes())
        attributes: dict[str, Any] = metadata["attributes"][ATTRIBUTES]
        known = attributes.keys() >= {"acquisition", "session", "created"}
        return attributes if known and isinstance(attributes["created"], int | float) else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _make_way(path: Path, journal: Path, overwrite: bool) -> None:
    if path.exists():
        if not overwrite:
            raise FileExistsError(
                errno.EEXIST,
                "there is a store already; choose another name, or give --overwrite to replace it",
                str(path),
            )
        if not any((path / name).is_file() for name in ("zarr.json", ".zgroup", ".zarray")):
            raise FileExistsError(errno.EEXIST, "this is no Zarr store, so it is not overwritten", str(path))
        shutil.rmtree(path)
    elif journal.exists() and not overwrite:
        # A crash between the two leaves an empty journal, harmless to lose; planes mean that a store was moved.
        orphan = Journal.open(journal)
        durable = len(orphan.durable())
        orphan.close()
        if durable:
            message = f"this journal of {durable} planes has lost its store {path.name}; move it or choose another name"
            raise FileExistsError(errno.EEXIST, message, str(journal))
    remove_journal(journal)


def _create_hierarchy(path: Path, acquisition: Acquisition, session: str) -> None:
    own = {"acquisition": acquisition.model_dump(mode="json"), "session": session, "created": time.time()}
    root = zarr.create_group(path, attributes={"ome": ome.collection(), ATTRIBUTES: own})
    voxel = acquisition.voxel_size
    levels = [((voxel.z, voxel.y, voxel.x), (0.0, 0.0, 0.0))]
    channels = ome.omero(acquisition.channel_names, [everything(acquisition.numpy_dtype)] * acquisition.sizes.c)
    image = ome.image("raw", levels, acquisition.interval_s, omero=channels)
    raw = root.create_group("raw", attributes={"ome": image})
    raw.create_array(
        "0",
        shape=acquisition.sizes.shape,
        chunks=(1, 1, 1, acquisition.sizes.y, acquisition.sizes.x),
        dtype=acquisition.numpy_dtype,
        compressors=None,
        filters=None,
        serializer=BytesCodec(endian="little"),
        fill_value=0,
        dimension_names=ome.AXES,
    )
    root.create_group("OME", attributes={"ome": ome.series(["raw"])})
