"""Looks at what a former listener left behind: whether every plane that it acknowledged is on the disk as it came.

A killed process leaves nothing torn, but a power cut may, where planes were not synchronised before their
acknowledgement or a disk lied about it. The planes of sessions that are not finished are read once, in a thread of its
own: reading may take minutes, and microscopes must not wait for it. The listener is told what is damaged, and takes it
out of the journal: the plane counts as missing from then on, and is taken if it comes again.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue

from otf_stream.acquisition import PlaneIndex
from otf_stream.store.journal import JournalError
from otf_stream.store.session import SessionStore

log = logging.getLogger(__name__)

_LATER_S = 10.0


@dataclass(frozen=True)
class Inspected:
    """What was found in a session.

    Parameters
    ----------
    session
        Its id.
    planes
        How many were looked at.
    damaged
        Those that are not as they came.
    """

    session: str
    planes: int
    damaged: tuple[PlaneIndex, ...]


class Inspection:
    """Inspects stores, one after the other, in a thread of its own.

    Parameters
    ----------
    paths
        Of the session stores.
    """

    def __init__(self, paths: Iterable[Path]) -> None:
        self._paths = list(paths)
        self._found = SimpleQueue[Inspected]()
        self._later: list[tuple[float, Inspected]] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="inspection", daemon=True)
        self._thread.start()

    def found(self) -> list[Inspected]:
        """Return what was found since the last time."""
        now = time.monotonic()
        found = [inspected for due, inspected in self._later if due <= now]
        self._later = [(due, inspected) for due, inspected in self._later if due > now]
        while True:
            try:
                found.append(self._found.get_nowait())
            except Empty:
                return found

    def again(self, inspected: Inspected) -> None:
        """Tell once more, some time later, of what could not be dealt with now."""
        self._later.append((time.monotonic() + _LATER_S, inspected))

    def close(self) -> None:
        """Stop looking; once more is harmless."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        for path in self._paths:
            try:
                with closing(SessionStore.open(path)) as store:
                    planes = store.journal.unfinished_planes()
                    damaged: list[PlaneIndex] = []
                    for number, plane in enumerate(planes):
                        if self._stop.is_set():
                            return
                        damaged += store.damaged([plane])
                        if (number + 1) % 1000 == 0:
                            log.info("checked %d of %d planes of %s", number + 1, len(planes), path.name)
                    self._found.put(Inspected(store.session, len(planes), tuple(damaged)))
            except (JournalError, OSError, sqlite3.Error) as error:
                log.warning("cannot check the planes of %s: %s", path.name, error)
