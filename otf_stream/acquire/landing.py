"""Lands planes behind the listener's back: the disk is written while the network is read.

A plane goes through two steps. Several threads check and *stage* planes, each writing one and waiting until the disk
has it; so the disk always has something to do. One thread *commits* whatever is staged at the moment in one
group: the folders and the journal. While it waits for the disk the next group gathers, so that groups are as
large as the disk is slow, and a lone plane waits for nobody. Where planes need not survive a power cut at once, nobody
waits: that thread lets the disk catch up at intervals.

Nothing is copied: the memory that ZeroMQ received a plane into is what is written, and is free as soon as it is.
"""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass

from otf_stream.acquire.open_session import check_pixels
from otf_stream.acquire.protocol import Plane
from otf_stream.acquisition import PlaneIndex
from otf_stream.config import Sync
from otf_stream.store.session import SessionStore

log = logging.getLogger(__name__)

_MOST = 10_000  # planes under way, however small: each takes more than its pixels
_WRITERS = 8  # planes that are written at once: each mostly waits, for the disk or for its turn on a busy processor


@dataclass(eq=False)
class Landed:
    """A plane that is dealt with.

    Parameters
    ----------
    store
        Of its session.
    message
        Its header.
    peer
        Who sent it.
    error
        Why it is not durable, if it is not.
    """

    store: SessionStore
    message: Plane
    peer: bytes
    error: Exception | None = None


class Landing:
    """Makes planes durable in threads of its own; all methods are for the listener's thread.

    Parameters
    ----------
    memory
        Bytes of pixels from which on it is `full`.
    sync
        ``group``: planes that are staged at the same moment are committed together. ``plane``: each by itself.
        ``interval``: as ``group``, in stores that defer the waiting for the disk.
    interval
        Seconds between two waits for the disk, with the latter.

    Attributes
    ----------
    ear
        A socket that can be read from when planes have landed; `landed` empties it.
    """

    def __init__(self, memory: int, *, sync: Sync = "group", interval: float = 1.0) -> None:
        self._memory = memory
        self._sync, self._interval = sync, interval
        self._unsettled: dict[SessionStore, None] = {}  # in the order in which they come
        self._bytes = 0
        self._under_way: set[tuple[str, PlaneIndex]] = set()
        self._staged: list[Landed] = []
        self._landed: list[Landed] = []
        self._closing = False
        self._changed = threading.Condition()
        # ZeroMQ's sockets belong to one thread; a pair of plain ones wakes it from another, under Windows too.
        self._bell, self.ear = socket.socketpair()
        self._bell.setblocking(False)
        self.ear.setblocking(False)
        self._writers = ThreadPoolExecutor(_WRITERS, thread_name_prefix="landing")
        self._committer = threading.Thread(target=self._commit_all, name="committing", daemon=True)
        self._committer.start()

    @property
    def held_bytes(self) -> int:
        """How many bytes of pixels are in memory."""
        return self._bytes

    @property
    def full(self) -> bool:
        """Whether no further plane should be put in now."""
        return self._bytes >= self._memory or len(self._under_way) >= _MOST

    def holds(self, session: str, plane: PlaneIndex) -> bool:
        """Whether the plane is under way: put in, and not told by `landed`."""
        return (session, plane) in self._under_way

    def put(self, store: SessionStore, message: Plane, pixels: memoryview, peer: bytes) -> None:
        """Take a plane that fits the acquisition and is neither durable nor under way."""
        self._under_way.add((store.session, message.index))
        with self._changed:
            self._bytes += pixels.nbytes
        self._writers.submit(self._stage, Landed(store, message, peer), pixels)

    def landed(self) -> list[Landed]:
        """Return the planes that were dealt with since the last time."""
        with suppress(OSError):  # It says nothing more, or is closed.
            while self.ear.recv(4096):
                pass
        with self._changed:
            landed, self._landed = self._landed, []
        self._under_way.difference_update((each.store.session, each.message.index) for each in landed)
        return landed

    def settle(self) -> None:
        """Wait until every plane that was put in is dealt with."""
        with self._changed:
            self._changed.wait_for(lambda: len(self._landed) == len(self._under_way))

    def close(self) -> None:
        """Deal with what is left and end the threads; once more is harmless."""
        self.settle()
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._writers.shutdown()
        self._committer.join()
        self._bell.close()
        self.ear.close()

    def _stage(self, plane: Landed, pixels: memoryview) -> None:
        size = pixels.nbytes
        try:
            check_pixels(plane.message, pixels)
            plane.store.stage(plane.message.index, pixels)
        except Exception as error:
            plane.error = error
        del pixels
        with self._changed:
            self._bytes -= size
            if plane.error is None:
                self._staged.append(plane)
            self._changed.notify_all()
        if plane.error is not None:
            self._tell([plane])

    def _commit_all(self) -> None:
        settled = time.monotonic()
        while True:
            pause = max(settled + self._interval - time.monotonic(), 0) if self._unsettled else None
            with self._changed:
                self._changed.wait_for(lambda: self._staged or self._closing, pause)
                staged, self._staged = self._staged, []
            if staged:
                for store in dict.fromkeys(plane.store for plane in staged):
                    planes = [plane for plane in staged if plane.store is store]
                    for group in [[plane] for plane in planes] if self._sync == "plane" else [planes]:
                        _commit(store, group)
                        self._tell(group)
                    if self._sync == "interval":
                        self._unsettled[store] = None
            elif self._closing:
                return
            if self._unsettled and time.monotonic() - settled >= self._interval:
                for store in self._unsettled:
                    _flush(store)
                self._unsettled.clear()
                settled = time.monotonic()

    def _tell(self, planes: Iterable[Landed]) -> None:
        with self._changed:
            self._landed += planes
            self._changed.notify_all()
        with suppress(OSError):  # The bell rings already.
            self._bell.send(b"!")


def _commit(store: SessionStore, planes: list[Landed]) -> None:
    try:
        store.commit([(plane.message.index, plane.message.crc, plane.message.taken) for plane in planes])
    except Exception as error:
        for plane in planes:
            plane.error = error


def _flush(store: SessionStore) -> None:
    try:
        store.flush()
    except Exception as error:  # the store keeps account of what has not been waited for
        log.error("cannot synchronise %s: %s", store.path.name, error)
