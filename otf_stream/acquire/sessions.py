"""The sessions that a listener has open, and how one is created, resumed, found and released.

Nothing here needs to survive the listener: which session lies in which store is read from the data folder, which planes
are durable from the journals. A session is only served to a sender that greeted this listener, because the
greeting is what tells a sender which of its planes were lost with the listener before.

A session whose sender falls silent is closed, so that its stacks are restored from what is there. If the
sender comes back, the session is open again and its stacks are restored anew: a restoration can be repeated, a plane
cannot be taken again.
"""

from __future__ import annotations

import itertools
import logging
import re
import sqlite3
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from otf_stream.acquire.ledger import Ledger
from otf_stream.acquire.open_session import SILENCE, OpenSession
from otf_stream.acquire.protocol import ErrorCode, Hello, ProtocolError
from otf_stream.acquisition import Acquisition, PlaneIndex
from otf_stream.store.finding import find_sessions
from otf_stream.store.journal import Journal, JournalError, journal_path
from otf_stream.store.session import SUFFIX, SessionStore

log = logging.getLogger(__name__)

# What Windows takes for a device, whatever follows the first dot; data folders are moved from machine to machine.
_DEVICE = re.compile(r"(con|prn|aux|nul|com\d|lpt\d) *(\.|$)", re.IGNORECASE)


class Sessions:
    """The sessions of one data folder.

    Parameters
    ----------
    data_folder
        Where the session stores lie.
    max_sessions
        The most sessions to have open.
    max_plane_bytes
        The largest plane to take.
    max_planes
        The most planes of a session.
    deferred
        Whether stores defer the waiting for the disk.
    """

    def __init__(
        self, data_folder: Path, *, max_sessions: int, max_plane_bytes: int, max_planes: int, deferred: bool = False
    ) -> None:
        self._folder = data_folder.resolve()
        self._max_sessions = max_sessions
        self._max_plane_bytes = max_plane_bytes
        self._max_planes = max_planes
        self._deferred = deferred
        self._open: dict[str, OpenSession] = {}
        self._paths: dict[str, Path] = {}
        self.unfinished: list[Path] = []
        """Stores of sessions from before the start that have planes of which no restored volume was made."""
        for path in find_sessions(self._folder):
            self._adopt(path)

    @property
    def active(self) -> list[OpenSession]:
        """The open sessions."""
        return list(self._open.values())

    def check(self, acquisition: Acquisition) -> None:
        """Check that an acquisition is none that this listener never takes.

        Raises
        ------
        ProtocolError
            ``too-large``.
        """
        if acquisition.plane_bytes > self._max_plane_bytes:
            raise ProtocolError(
                ErrorCode.TOO_LARGE,
                f"planes of {acquisition.plane_bytes} bytes are larger than the {self._max_plane_bytes} that this "
                "listener takes; crop or bin the camera",
            )
        if acquisition.sizes.planes > self._max_planes:
            raise ProtocolError(
                ErrorCode.TOO_LARGE,
                f"{acquisition.sizes.planes} planes are more than the {self._max_planes} of one session; "
                "split the acquisition into several",
            )

    def peek(self, session: str) -> OpenSession | None:
        """Return the session if it is open."""
        return self._open.get(session)

    def greet(self, hello: Hello) -> OpenSession:
        """Create or resume the session of a greeting whose acquisition was checked.

        Raises
        ------
        ProtocolError
            ``too-many-sessions`` or ``session-mismatch``; ``too-large`` if it has grown beyond what is taken.
        """
        found = self._open.get(hello.session) or self._reopen(hello.session)
        if found is None:
            found = self._create(hello)
            found.note("opened")
        else:
            together = found.acquisition.joined(hello.acquisition)
            if together is None:
                raise ProtocolError(
                    ErrorCode.SESSION_MISMATCH,
                    f"session {hello.session} was opened for another acquisition, {found.acquisition!r}; "
                    "use a new session for a new acquisition",
                )
            if together != found.acquisition:
                self.check(together)
                found.store.extend(together)
            if found.closed == SILENCE:
                found.reopen()
            if not found.greeted:
                found.note("resumed", durable=found.ledger.count)
        found.greeted, found.held, found.heard = True, False, time.monotonic()
        return found

    def find(self, session: str) -> OpenSession:
        """Return a session that was greeted, or is closed for good.

        Raises
        ------
        ProtocolError
            ``unknown-session``.
        """
        found = self._open.get(session) or self._reopen(session)
        if found is None or (found.takes_planes and not found.greeted):
            raise ProtocolError(
                ErrorCode.UNKNOWN_SESSION,
                f"session {session} has not greeted since the listener started; send hello first",
            )
        found.heard = time.monotonic()
        return found

    def lose(self, session: str, planes: Sequence[PlaneIndex]) -> None:
        """Take planes that turned out to be damaged out of a session."""
        open_before = session in self._open
        if (found := self._open.get(session) or self._reopen(session)) is not None:
            found.lose(planes)
            if not open_before and found.closed is not None:
                self.release(found)

    def silent(self, seconds: float) -> Iterable[OpenSession]:
        """Return the open sessions whose senders were not heard for so long."""
        limit = time.monotonic() - seconds
        return [session for session in self.active if session.heard < limit]

    def release(self, session: OpenSession) -> None:
        """Close the files of a session; it is found again when asked for."""
        self._open.pop(session.store.session, None)
        session.store.close()

    def close(self) -> None:
        """Close the files of every session."""
        for session in self.active:
            self.release(session)

    def _adopt(self, path: Path) -> None:
        """Take over a session from before the start; open it if its sender may still bring planes."""
        try:
            journal = Journal.open(journal_path(path))
            self._paths[journal.session], closed = path, journal.closed
            if closed is None or journal.pending():
                self.unfinished.append(path)
            journal.close()
            if closed is None:
                # Counts as heard now: if its sender never comes back, silence closes it.
                self._reopen(journal.session)
        except (JournalError, ProtocolError, OSError, sqlite3.Error) as error:
            log.warning("left alone: the session store %s, whose journal cannot be read: %s", path.name, error)

    def _reopen(self, session: str) -> OpenSession | None:
        path = self._paths.get(session)
        if path is None:
            return None
        try:
            store = SessionStore.open(path, deferred=self._deferred)
        except FileNotFoundError:  # Deleted or moved away while the listener ran.
            del self._paths[session]
            return None
        except (JournalError, OSError, sqlite3.Error) as error:
            raise ProtocolError(ErrorCode.INTERNAL, f"the store {path.name} cannot be opened: {error}") from error
        if store.session != session:  # Deleted or moved away too, and another session's store has its name.
            store.close()
            del self._paths[session]
            return None
        ledger = Ledger(store.acquisition)
        for plane, crc in store.journal.durable().items():
            ledger.record(plane, crc)
        self._open[session] = OpenSession(store, ledger, store.journal.closed, max_planes=self._max_planes)
        return self._open[session]

    def _create(self, hello: Hello) -> OpenSession:
        if len(self._open) >= self._max_sessions:
            raise ProtocolError(
                ErrorCode.TOO_MANY_SESSIONS,
                f"{len(self._open)} sessions are open, the limit is {self._max_sessions}; end one, or wait until "
                "silence closes one",
            )
        name = hello.acquisition.name
        name = f"_{name}" if _DEVICE.match(name) else name
        for number in itertools.count(1):
            path = self._folder / f"{name}{f'_{number}' if number > 1 else ''}{SUFFIX}"
            if path.resolve() != path:  # A link to somewhere else is a name that is taken.
                continue
            try:
                store = SessionStore.create(path, hello.acquisition, session=hello.session, deferred=self._deferred)
                break
            except (FileExistsError, JournalError):
                continue
        for gone in [other for other in self.active if other.store.path == path]:
            self.release(gone)  # its store was deleted or moved away: it must not write into this one
        self._paths[hello.session] = path
        self._open[hello.session] = OpenSession(store, Ledger(hello.acquisition), None, max_planes=self._max_planes)
        return self._open[hello.session]
