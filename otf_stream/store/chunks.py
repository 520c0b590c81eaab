"""Chunk files of planes: whole and synchronised before they get their names, so that a crash leaves no torn plane.

In steps, because they want to be done differently: many chunks are *staged* at once, each by a thread of its own, which
keeps the disk busy; and as many as are ready are *revealed* together, which costs hardly more than one. Whoever would
rather be fast than safe from power cuts stages and reveals without waiting for the disk, and *settles* later.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from concurrent.futures import Executor
from pathlib import Path

from otf_stream.acquisition import PlaneIndex
from otf_stream.store.disk import fsync_file, fsync_folder

_FOLDERS = 6  # of a chunk, up to the array's


def chunk_file(path: Path, plane: PlaneIndex) -> Path:
    """Return where the store at ``path`` keeps the pixels of ``plane``: little-endian, in C order.

    The file need not exist, and its plane only counts if the journal has it.
    """
    t, c, z = plane
    return path / f"raw/0/c/{t}/{c}/{z}/0/0"


def stage_chunk(chunk: Path, content: memoryview, *, wait: bool = True) -> None:
    """Write ``content`` under the temporary name of ``chunk``, and ``wait`` until the disk has it.

    Raises
    ------
    OSError
        If the disk is full or fails; no file is left then.
    """
    chunk.parent.mkdir(parents=True, exist_ok=True)
    partial = _partial(chunk)
    try:
        write_file(partial, content, wait=wait)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def drop_chunks(chunks: Iterable[Path]) -> None:
    """Delete what was staged of ``chunks``."""
    for chunk in chunks:
        _partial(chunk).unlink(missing_ok=True)


def write_file(path: Path, content: memoryview, *, wait: bool = True) -> None:
    """Write a file, and ``wait`` until the disk has its content; its name, only `fsync_folder` makes durable."""
    with path.open("wb", buffering=0) as file:
        rest = content.cast("B")
        # One write may take less than all: Linux stops at 2 GiB, and a full disk at what still fits.
        while rest:
            rest = rest[file.write(rest) :]
        if wait:
            os.fsync(file.fileno())


class Revealing:
    """Gives staged chunks of one array their names, durably.

    Parameters
    ----------
    threads
        Which wait for the disk, folder by folder.
    """

    def __init__(self, threads: Executor) -> None:
        self._threads = threads
        # Folders whose own name is on disk. Not those that merely exist: an attempt that failed may have made them.
        self._named: set[Path] = set()

    def reveal(self, chunks: Sequence[Path], *, wait: bool = True) -> None:
        """Give staged chunks their names, and ``wait`` until the disk has these.

        Raises
        ------
        OSError
            If the disk fails. Some chunks may have their names then, and no chunk is torn.
        """
        for chunk in chunks:
            _partial(chunk).replace(chunk)
        if wait:
            self._name(chunks)

    def settle(self, chunks: Sequence[Path]) -> None:
        """Wait until the disk has chunks, and their names, that were staged and revealed without waiting for it.

        Raises
        ------
        OSError
            If the disk fails.
        """
        list(self._threads.map(fsync_file, chunks))
        self._name(chunks)

    def _name(self, chunks: Iterable[Path]) -> None:
        folders: set[Path] = set()
        stacks: set[Path] = set()
        for chunk in chunks:
            _, _, stack, *above = chunk.parents[:_FOLDERS]
            folders.update(chunk.parents[:3])
            if stack not in self._named:
                stacks.add(stack)
                folders.update(above)
        list(self._threads.map(fsync_folder, folders))
        self._named |= stacks


def _partial(chunk: Path) -> Path:
    return chunk.with_name(chunk.name + ".partial")
