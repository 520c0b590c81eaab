"""Looks at a data folder, again and again: the one way to see what is going on in it.

Nothing is pushed: whoever wants to know reads the journals, as often as they like, and nobody waits for them. What was
seen is kept between two looks, so that each costs what has happened since, and not what ever happened.
"""

from __future__ import annotations

import sqlite3
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from otf_stream.acquire.status import ListenerStatus, read_status
from otf_stream.acquisition import StackIndex
from otf_stream.monitor.alarms import Alarms
from otf_stream.monitor.looking import SessionLook
from otf_stream.monitor.state import Listener, Session, Snapshot, Totals, Worker
from otf_stream.monitor.work import Awaited, WorkerStatus, read_work
from otf_stream.store.finding import SessionFinder
from otf_stream.store.journal import Event, JournalError, last_changed

_MOST_OPEN = 64  # journals of sessions that are done, the latest ones
News = list[tuple[Session, list[Event]]]
"""The events that a look found, by session."""
_UNREADABLE = (JournalError, OSError, sqlite3.Error)


class Lookout:
    """Looks at a data folder; a context manager, for one thread at a time.

    Parameters
    ----------
    data
        The folder of the session stores.
    """

    def __init__(self, data: Path) -> None:
        self._data = data
        self._finder = SessionFinder(data)
        self._looks: dict[Path, SessionLook] = {}
        self._done: dict[Path, tuple[tuple[int, ...], Session]] = {}
        self._alarms = Alarms()
        self.news: News = []
        """What the last look found."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close every journal."""
        for look in self._looks.values():
            look.close()
        self._looks.clear()

    def look(self, now: float | None = None) -> Snapshot:
        """Look at everything; what cannot be read is left out.

        Parameters
        ----------
        now
            UNIX seconds; the present if None.
        """
        now = time.time() if now is None else now
        listener, work = read_status(self._data), read_work(self._data)
        awaited: dict[str, dict[StackIndex, Awaited]] = {}
        for stack in work.awaited if work else ():
            awaited.setdefault(stack.session, {})[stack.t, stack.c] = stack
        self.news = []
        sessions = []
        found = self._finder.find()
        for gone in self._looks.keys() | self._done.keys():
            if gone not in found:
                self._forget(gone)
        for path, attributes in found.items():
            # Somebody may move a store while it is looked at, and a damaged one must not hide the others.
            try:
                sessions.append(self._session(path, attributes, now, listener, awaited))
            except _UNREADABLE:
                self._forget(path)
        self._close_old(sessions)
        snapshot = Snapshot(
            at=now,
            data=self._data,
            listener=_listener(listener, now),
            worker=_worker(work, now),
            totals=_totals(sessions),
            sessions=tuple(sessions),
        )
        return snapshot.model_copy(update={"alarms": self._alarms.look(snapshot)})

    def _session(
        self,
        path: Path,
        attributes: dict[str, Any],
        now: float,
        listener: ListenerStatus | None,
        awaited: dict[str, dict[StackIndex, Awaited]],
    ) -> Session:
        name = str(attributes["session"])
        if path in self._done:
            stamp, session = self._done[path]
            if stamp == last_changed(path) and session.id == name:
                return session
            del self._done[path]
        look = self._looks.get(path)
        if look and look.id != name:  # another store has taken its name
            self._forget(path)
            look = None
        if look is None:
            look = self._looks[path] = SessionLook(path, float(attributes["created"]))
        opened = listener.open.get(name) if listener and listener.current else None
        session = look.look(now, opened, awaited.get(name))
        if look.news:
            self.news.append((session, look.news))
        return session

    def _forget(self, path: Path) -> None:
        self._done.pop(path, None)
        if look := self._looks.pop(path, None):
            look.close()

    def _close_old(self, sessions: Sequence[Session]) -> None:
        """Close journals of sessions at which nothing more happens; they are looked at again if they change."""
        done = [session for session in sessions if session.done and session.store in self._looks]
        for session in done[: max(len(done) - _MOST_OPEN, 0)]:
            with suppress(OSError):
                # Closed first: that changes its files.
                self._looks.pop(session.store).close()
                self._done[session.store] = last_changed(session.store), session


def overview(data: Path) -> list[Session]:
    """Look once at every session in ``data``, oldest first; what cannot be read is left out."""
    with Lookout(data) as lookout:
        return list(lookout.look().sessions)


def _listener(status: ListenerStatus | None, now: float) -> Listener | None:
    if status is None:
        return None
    counters = status.counters
    return Listener(
        current=status.is_current(now),
        at=status.at,
        address=status.address,
        pid=status.pid,
        connections=status.connections,
        sessions=status.sessions,
        received=counters.get("received", 0),
        durable=counters.get("durable", 0),
        duplicates=counters.get("duplicates", 0),
        bytes=counters.get("bytes", 0),
        refused=counters.get("refused", {}),
        queue_bytes=status.queue_bytes,
        disk_free=status.disk_free,
        disk_reserve=status.disk_reserve,
        holding=status.holding,
    )


def _worker(status: WorkerStatus | None, now: float) -> Worker | None:
    if status is None:
        return None
    return Worker(
        current=status.is_current(now),
        starting=status.is_starting(now),
        at=status.at,
        pid=status.pid,
        device=status.device,
        turn=status.turn,
        stacks=status.stacks,
    )


def _totals(sessions: Sequence[Session]) -> Totals:
    states: Counter[str] = Counter()
    for session in sessions:
        states.update(session.states)
    return Totals(
        sessions=len(sessions),
        expected=sum(session.expected for session in sessions),
        durable=sum(session.durable for session in sessions),
        missing=sum(session.missing for session in sessions),
        damaged=sum(session.damaged for session in sessions),
        planes_per_s=sum(session.planes_per_s for session in sessions),
        bytes_per_s=sum(session.bytes_per_s for session in sessions),
        states=dict(states),
    )
