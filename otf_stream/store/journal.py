"""The journal of a session: which planes are durable, what state each stack is in, and what happened when.

An SQLite file beside the session store (``NAME.ome.zarr`` ⇒ ``NAME.journal.sqlite``), because a foreign file
inside a Zarr hierarchy makes stock tools warn. A plane counts as received if and only if it has a row here,
and it gets its row only after its pixels are on disk; whatever else lies in the store after a crash is
ignored and overwritten. SQLite in WAL mode lets the listener (planes) and the worker (states) write and
others read at the same time, from several processes, and ``synchronous=FULL`` makes every commit survive a
power cut. WAL needs a local disk: SQLite cannot share it over a network file system.

The state of a stack is only stored from the moment somebody works on it. Before, it follows from the planes:
a stack is *arrived* once all its planes are durable or the arrivals are closed. So the listener has
no state to keep in step, whatever moment it dies at.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self, get_args

from otf_stream.acquisition import Acquisition, PlaneIndex, StackIndex
from otf_stream.store.disk import fsync_file

StackState = Literal["arriving", "arrived", "restoring", "restored", "failed"]

SCHEMA_VERSION = 2
BUSY_TIMEOUT_S = 30.0
_FULL_BYTES = 2**20  # free, below which a disk is full

_SCHEMA = f"""
CREATE TABLE session (
    id INTEGER PRIMARY KEY CHECK (id = 1), session TEXT NOT NULL, acquisition TEXT NOT NULL, closed TEXT
);
CREATE TABLE planes (
    t INTEGER, c INTEGER, z INTEGER, crc INTEGER NOT NULL, received REAL NOT NULL, taken REAL, PRIMARY KEY (t, c, z)
) WITHOUT ROWID;
CREATE TABLE stacks (t INTEGER, c INTEGER, state TEXT NOT NULL, PRIMARY KEY (t, c)) WITHOUT ROWID;
CREATE TABLE events (id INTEGER PRIMARY KEY, at REAL NOT NULL, kind TEXT NOT NULL, detail TEXT NOT NULL);
PRAGMA user_version = {SCHEMA_VERSION};
"""


class JournalError(RuntimeError):
    """The file is no journal, or one that this version cannot read."""


@dataclass(frozen=True)
class PlaneRecord:
    """A plane whose pixels are on disk.

    Parameters
    ----------
    plane
        ``(t, c, z)``.
    crc
        CRC-32 of its pixels.
    received
        When it came, in UNIX seconds.
    taken
        When it was exposed by the microscope's clock, in UNIX seconds, if that is known.
    """

    plane: PlaneIndex
    crc: int
    received: float
    taken: float | None = None


@dataclass(frozen=True)
class Event:
    """Something that happened at ``at`` (UNIX seconds): its kind, and details that JSON can hold.

    ``id`` rises from event to event of a journal.
    """

    at: float
    kind: str
    detail: dict[str, Any]
    id: int = 0


@dataclass(frozen=True)
class Presence:
    """Of one stack, which planes are durable: how many, when the first and the latest came, and between which z."""

    planes: int
    first: float = 0.0
    latest: float = 0.0
    lowest: int = 0
    highest: int = 0

    @property
    def holes(self) -> int:
        """How many planes are not durable between those that are."""
        return self.highest - self.lowest + 1 - self.planes if self.planes else 0


def journal_path(store: Path) -> Path:
    """Where the journal of the session store ``NAME.ome.zarr`` lies: ``NAME.journal.sqlite`` beside it."""
    return store.with_name(store.name.removesuffix(".ome.zarr") + ".journal.sqlite")


class Journal:
    """The open journal of one session; may be used from several threads, and opened by several processes.

    Get one from `create` or `open`.
    """

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self.path = path
        self._file = _identity(path)
        self._connection = connection
        self._lock = threading.RLock()
        session, self._told = connection.execute("SELECT session, acquisition FROM session").fetchone()
        self.session: str = session
        self._acquisition = self._read(self._told)

    def _read(self, told: str) -> Acquisition:
        try:
            return Acquisition.model_validate_json(told)
        except ValueError as error:
            raise JournalError(
                f"{self.path} tells of an acquisition that this otf_stream does not take; it may be of another "
                f"version: {error}"
            ) from error

    def is_in_place(self) -> bool:
        """Whether the file is still where it was opened, and has not been deleted, moved or replaced."""
        return _identity(self.path) == self._file

    @property
    def acquisition(self) -> Acquisition:
        """What was announced; of a growing acquisition, what is known so far."""
        if self._acquisition.growing:
            ((told,),) = self._rows("SELECT acquisition FROM session")
            if told != self._told:
                self._acquisition, self._told = self._read(told), told
        return self._acquisition

    @classmethod
    def create(cls, path: Path, acquisition: Acquisition, *, session: str) -> Self:
        """Start the journal of a session at ``path``.

        Raises
        ------
        FileExistsError
            If there is a file already.
        OSError
            If the disk is full.
        """
        if path.exists():
            raise FileExistsError(errno.EEXIST, "there is a journal already", str(path))
        # Built under another name, so that a journal at ``path`` is always whole.
        partial = path.with_name(path.name + ".partial")
        remove_journal(partial)
        remove_journal(path)
        connection = _connect(partial)
        try:
            with _full_disk_as_oserror(path):
                connection.execute("PRAGMA journal_mode = WAL")
                connection.executescript(_SCHEMA)
                connection.execute(
                    "INSERT INTO session (id, session, acquisition) VALUES (1, ?, ?)",
                    (session, acquisition.model_dump_json()),
                )
        finally:
            connection.close()
        partial.replace(path)
        return cls.open(path)

    @classmethod
    def open(cls, path: Path, *, patience: float = BUSY_TIMEOUT_S, deferred: bool = False) -> Self:
        """Open the journal at ``path``.

        Parameters
        ----------
        path
            The file.
        patience
            Seconds to wait, each time, for another process that is writing it.
        deferred
            Let what is written survive power cuts only from the next `flush` on.

        Raises
        ------
        FileNotFoundError
            If there is none.
        JournalError
            If the file is no journal, or was written by a newer version of otf_stream.
        """
        if not path.is_file():
            raise FileNotFoundError(errno.ENOENT, "there is no journal", str(path))
        connection = _connect(path, patience)
        try:
            with _full_disk_as_oserror(path):
                (version,) = connection.execute("PRAGMA user_version").fetchone()
                if version > SCHEMA_VERSION:
                    raise JournalError(
                        f"{path} has journal version {version}, but this otf_stream reads up to version "
                        f"{SCHEMA_VERSION}; update otf_stream"
                    )
                if version < 1:
                    raise JournalError(f"{path} is no journal of a session")
                if version == 1:  # did not know when planes were exposed
                    connection.executescript("ALTER TABLE planes ADD COLUMN taken REAL; PRAGMA user_version = 2;")
                connection.execute(f"PRAGMA synchronous = {'NORMAL' if deferred else 'FULL'}")
            return cls(path, connection)
        except (sqlite3.DatabaseError, TypeError) as error:  # no table, or none of the rows that there must be
            connection.close()
            raise JournalError(f"{path} cannot be read as the journal of a session: {error}") from error
        except BaseException:
            connection.close()
            raise

    def flush(self) -> None:
        """Wait until what was written is on disk."""
        # Of SQLite's files this is the one on which nobody holds locks: closing another one would release them.
        with suppress(FileNotFoundError):  # All of it is in the main file.
            fsync_file(self.path.with_name(self.path.name + "-wal"))

    def close(self) -> None:
        """Close the file; twice is fine."""
        with self._lock:
            self._connection.close()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock, _full_disk_as_oserror(self.path):
            # IMMEDIATE takes the write lock at once: waiting for it later could deadlock with the worker.
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    def _rows(self, query: str, values: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        with self._lock:
            return self._connection.execute(query, values).fetchall()

    # Planes

    def record_planes(self, planes: Sequence[PlaneRecord]) -> None:
        """Record that the pixels of ``planes`` are on disk, in one transaction.

        The first record of a plane stands; repeating it changes nothing. A stack that was restored, or given up,
        without a plane that comes now counts as arriving again.

        Raises
        ------
        ValueError
            If a plane lies outside the announced axes; nothing is recorded then.
        OSError
            If the disk is full; nothing is recorded then.
        """
        acquisition = self.acquisition
        for record in planes:
            if not acquisition.holds(record.plane):
                raise ValueError(acquisition.outside(record.plane))
        with self._transaction() as connection:
            new = {
                record.plane[:2]
                for record in planes
                if connection.execute(
                    "INSERT OR IGNORE INTO planes VALUES (?, ?, ?, ?, ?, ?)",
                    (*record.plane, record.crc, record.received, record.taken),
                ).rowcount
            }
            connection.executemany(
                "DELETE FROM stacks WHERE (t, c) = (?, ?) AND state IN ('restored', 'failed')", sorted(new)
            )

    def unfinished_planes(self) -> list[tuple[PlaneIndex, int]]:
        """Every durable plane of which no restored volume was made, with its CRC-32."""
        rows = self._rows(
            "SELECT t, c, z, crc FROM planes WHERE NOT EXISTS "
            "(SELECT 1 FROM stacks WHERE (t, c) = (planes.t, planes.c) AND state IN ('restored', 'failed'))"
        )
        return [((t, c, z), crc) for t, c, z, crc in rows]

    def forget_planes(self, planes: Sequence[PlaneIndex]) -> None:
        """Take ``planes`` out: they turned out not to be on disk. Stacks of them that were restored stay so."""
        with self._transaction() as connection:
            connection.executemany("DELETE FROM planes WHERE (t, c, z) = (?, ?, ?)", planes)

    def extend(self, acquisition: Acquisition) -> None:
        """Record that a growing acquisition has grown."""
        with self._transaction() as connection:
            connection.execute("UPDATE session SET acquisition = ?", (acquisition.model_dump_json(),))

    def holds(self, plane: PlaneIndex) -> bool:
        """Whether ``plane`` is durable."""
        return bool(self._rows("SELECT 1 FROM planes WHERE (t, c, z) = (?, ?, ?)", plane))

    def newest(self) -> PlaneIndex | None:
        """The plane that came last, if one has come."""
        rows = self._rows("SELECT t, c, z FROM planes ORDER BY received DESC, t DESC, c DESC, z DESC LIMIT 1")
        return (rows[0][0], rows[0][1], rows[0][2]) if rows else None

    def durable(self) -> dict[PlaneIndex, int]:
        """Every durable plane and its CRC-32, in the order ``(t, c, z)``."""
        return {(t, c, z): crc for t, c, z, crc in self._rows("SELECT t, c, z, crc FROM planes ORDER BY t, c, z")}

    def count(self) -> int:
        """How many planes are durable."""
        ((count,),) = self._rows("SELECT count(*) FROM planes")
        return int(count)

    def stacks(self) -> list[StackIndex]:
        """Every stack of the acquisition, in order of time; of a growing one, those that have two planes or more."""
        if not self.acquisition.growing:
            return self.acquisition.stacks()
        rows = self._rows("SELECT t, c FROM planes GROUP BY t, c HAVING count(*) > 1 ORDER BY t, c")
        return [(t, c) for t, c in rows]

    def begun(self) -> list[StackIndex]:
        """Every stack that has a plane, in order of time; of a growing acquisition, those that have two or more."""
        acquisition = self.acquisition
        if acquisition.growing:
            return self.stacks()
        places = self.places()
        return [(t, c) for t, c in places if len(acquisition.planes_of(c)) > 1 and acquisition.plans((t, c))]

    def places(self, after: StackIndex = (-1, -1)) -> list[StackIndex]:
        """Every ``(t, c)`` past ``after`` that has a plane, in order of time; also those of single planes."""
        # From one stack straight to the next: there may be millions of planes.
        rows = self._rows(
            """
            WITH RECURSIVE seen (t, c) AS (
                SELECT * FROM (SELECT t, c FROM planes WHERE (t, c) > (?, ?) ORDER BY t, c LIMIT 1)
                UNION ALL SELECT
                    coalesce((SELECT t FROM planes WHERE t = seen.t AND c > seen.c LIMIT 1),
                             (SELECT min(t) FROM planes WHERE t > seen.t)),
                    coalesce((SELECT min(c) FROM planes WHERE t = seen.t AND c > seen.c),
                             (SELECT c FROM planes WHERE t > seen.t ORDER BY t, c LIMIT 1))
                FROM seen WHERE seen.t IS NOT NULL
            ) SELECT t, c FROM seen WHERE t IS NOT NULL
            """,
            after,
        )
        return [(t, c) for t, c in rows]

    def pending(self) -> list[StackIndex]:
        """Every stack that has a plane and is neither restored nor given up, in order of time."""
        done = set(self._rows("SELECT t, c FROM stacks WHERE state IN ('restored', 'failed')"))
        return [stack for stack in self.begun() if stack not in done]

    def states(self) -> dict[str, int]:
        """How many stacks are in which state, as `state` tells it of each."""
        counts: Counter[str] = Counter()
        begun = self.begun()
        stored = {(t, c): state for t, c, state in self._rows("SELECT t, c, state FROM stacks")}
        for stack in begun:
            counts[stored.get(stack) or self.state(stack)] += 1
        empty = (len(begun) if self.acquisition.growing else self.acquisition.planned_stacks) - len(begun)
        counts["failed" if self.closed is not None else "arriving"] += empty
        return {state: count for state, count in counts.items() if count}

    def planes_of(self, stack: StackIndex) -> list[int]:
        """List the z indices of the durable planes of ``stack``, sorted."""
        return [z for (z,) in self._rows("SELECT z FROM planes WHERE (t, c) = (?, ?) ORDER BY z", stack)]

    def records_of(self, stack: StackIndex) -> list[PlaneRecord]:
        """List the records of the durable planes of ``stack``, by z."""
        rows = self._rows("SELECT z, crc, received, taken FROM planes WHERE (t, c) = (?, ?) ORDER BY z", stack)
        return [PlaneRecord((*stack, z), crc, received, taken) for z, crc, received, taken in rows]

    def taken(self, plane: PlaneIndex) -> float | None:
        """When ``plane`` was exposed by the microscope's clock, in UNIX seconds; None if that is not known."""
        rows = self._rows("SELECT taken FROM planes WHERE (t, c, z) = (?, ?, ?)", plane)
        return rows[0][0] if rows else None

    def span(self, stack: StackIndex) -> tuple[float, float] | None:
        """When the first and the last plane of ``stack`` came, in UNIX seconds; None before the first."""
        query = "SELECT min(received), max(received) FROM planes WHERE (t, c) = (?, ?)"
        ((first, last),) = self._rows(query, stack)
        return None if first is None else (first, last)

    def presence(self, stack: StackIndex) -> Presence:
        """Tell which planes of ``stack`` are durable, in a few figures."""
        query = "SELECT count(*), min(received), max(received), min(z), max(z) FROM planes WHERE (t, c) = (?, ?)"
        ((planes, *figures),) = self._rows(query, stack)
        return Presence(planes, *figures) if planes else Presence(0)

    def passed_by(self, stack: StackIndex, before: float) -> tuple[range, int]:
        """Tell how many planes of ``stack`` are not durable though those on both sides of them have long been.

        Parameters
        ----------
        stack
            Which.
        before
            Planes that came later, in UNIX seconds, pass nothing by: planes land side by side, and not in order.

        Returns
        -------
        tuple
            The z between the outermost planes that came before, and how many of them are not durable.
        """
        query = "SELECT min(z), max(z) FROM planes WHERE (t, c) = (?, ?) AND received <= ?"
        ((lowest, highest),) = self._rows(query, (*stack, before))
        if lowest is None:
            return range(0), 0
        within = range(lowest, highest + 1)
        query = "SELECT count(*) FROM planes WHERE (t, c) = (?, ?) AND z BETWEEN ? AND ?"
        ((there,),) = self._rows(query, (*stack, lowest, highest))
        return within, len(within) - there

    # States

    def stored_states(self) -> dict[StackIndex, StackState]:
        """The states that were set; all other stacks are *arriving* or *arrived*."""
        return {(t, c): state for t, c, state in self._rows("SELECT t, c, state FROM stacks")}

    @property
    def closed(self) -> str | None:
        """Why no further plane will come; None while planes may come."""
        ((reason,),) = self._rows("SELECT closed FROM session")
        return None if reason is None else str(reason)

    def close_arrivals(self, reason: str) -> None:
        """No further plane will come, for ``reason``: every stack still arriving counts as arrived.

        The first reason stands.
        """
        with self._transaction() as connection:
            connection.execute("UPDATE session SET closed = ? WHERE closed IS NULL", (reason,))

    def reopen_arrivals(self) -> None:
        """Planes may come again after all."""
        with self._transaction() as connection:
            connection.execute("UPDATE session SET closed = NULL")

    def state(self, stack: StackIndex) -> StackState:
        """Tell what becomes of ``stack``: the state last set, until then what its planes say.

        *arriving* turns into *arrived* by itself, with the last plane or when the arrivals are closed; if no plane has
        come by then, into *failed*.
        """
        # One query, one consistent look at all three tables.
        ((stored, closed, planes),) = self._rows(
            "SELECT (SELECT state FROM stacks WHERE (t, c) = (?1, ?2)), closed, "
            "(SELECT count(*) FROM planes WHERE (t, c) = (?1, ?2)) FROM session",
            stack,
        )
        state: StackState = stored or "arriving"
        if state == "arriving" and closed is not None and not planes:
            return "failed"
        if state == "arriving" and (closed is not None or self._complete(stack, planes)):
            return "arrived"
        return state

    def _complete(self, stack: StackIndex, planes: int) -> bool:
        acquisition = self.acquisition
        return not acquisition.growing and planes == len(acquisition.planes_of(stack[1]))

    def set_state(self, stack: StackIndex, state: StackState) -> None:
        """Set the state of ``stack``.

        Raises
        ------
        ValueError
            If there is no such state, or no such stack in the acquisition.
        """
        if state not in get_args(StackState):
            raise ValueError(f"{state!r} is no state of a stack; use one of {', '.join(get_args(StackState))}")
        if not self.acquisition.holds((*stack, 0)):
            raise ValueError(self.acquisition.outside((*stack, 0)))
        with self._transaction() as connection:
            connection.execute(
                "INSERT INTO stacks VALUES (?, ?, ?) ON CONFLICT (t, c) DO UPDATE SET state = excluded.state",
                (*stack, state),
            )

    def finish_stack(self, stack: StackIndex, planes: int) -> None:
        """Set ``stack`` restored, from so many planes; if more have come meanwhile, it is arriving again."""
        with self._transaction() as connection:
            ((there,),) = connection.execute("SELECT count(*) FROM planes WHERE (t, c) = (?, ?)", stack).fetchall()
            connection.execute("DELETE FROM stacks WHERE (t, c) = (?, ?)", stack)
            if there == planes:
                connection.execute("INSERT INTO stacks VALUES (?, ?, 'restored')", stack)

    # Events

    def note(self, kind: str, **detail: Any) -> None:
        """Note that something happened now: its ``kind`` and any ``detail`` that JSON can hold."""
        with self._transaction() as connection:
            connection.execute(
                "INSERT INTO events (at, kind, detail) VALUES (?, ?, ?)", (time.time(), kind, json.dumps(detail))
            )

    def note_in_passing(self, kind: str, **detail: Any) -> None:
        """Note what a power cut may take: for frequent notes, that must not wait for the disk."""
        with self._lock:
            (waiting,) = self._connection.execute("PRAGMA synchronous").fetchone()
            self._connection.execute("PRAGMA synchronous = NORMAL")
            try:
                self.note(kind, **detail)
            finally:
                self._connection.execute(f"PRAGMA synchronous = {waiting:d}")

    def latest(self, kind: str) -> Event | None:
        """The last event of a kind, if there was one."""
        rows = self._rows("SELECT at, kind, detail FROM events WHERE kind = ? ORDER BY id DESC LIMIT 1", (kind,))
        return next((Event(at, told, json.loads(detail)) for at, told, detail in rows), None)

    def events(self, after: int = 0, *, kinds: Sequence[str] = (), without: Sequence[str] = ()) -> list[Event]:
        """All that was noted, in order.

        Parameters
        ----------
        after
            Only what was noted after the event of this id.
        kinds
            Only events of these kinds; of all if there are none.
        without
            No events of these kinds.
        """
        rows = self._rows(
            "SELECT at, kind, detail, id FROM events WHERE id > ?1 "
            "AND (?2 = '[]' OR kind IN (SELECT value FROM json_each(?2))) "
            "AND kind NOT IN (SELECT value FROM json_each(?3)) ORDER BY id",
            (after, json.dumps(list(kinds)), json.dumps(list(without))),
        )
        return [Event(at, kind, json.loads(detail), id) for at, kind, detail, id in rows]

    def events_of(self, stack: StackIndex) -> list[Event]:
        """All that was noted of ``stack``, in order; a long time-lapse has very many events of others."""
        rows = self._rows(
            "SELECT at, kind, detail, id FROM events WHERE instr(detail, ?) ORDER BY id",
            (f'"stack": {json.dumps(list(stack))}',),
        )
        return [Event(at, kind, json.loads(detail), id) for at, kind, detail, id in rows]

    def last_event(self) -> int:
        """The id of the last event; 0 before the first."""
        ((last,),) = self._rows("SELECT max(id) FROM events")
        return last or 0

    def version(self) -> int:
        """A number that changes whenever somebody else has written; it costs next to nothing to ask."""
        ((version,),) = self._rows("PRAGMA data_version")
        return int(version)


def _identity(path: Path) -> tuple[int, int] | None:
    """What tells a file from any other, whatever its name; None if there is none."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def last_changed(store: Path) -> tuple[int, ...]:
    """When the journal of a store was changed last, as far as its files tell."""
    journal = journal_path(store)
    files = (journal, journal.with_name(journal.name + "-wal"))
    return tuple(file.stat().st_mtime_ns if file.exists() else 0 for file in files)


def remove_journal(path: Path) -> None:
    """Delete the journal at ``path``, if there is one, with SQLite's own files beside it.

    A log left behind by a crash would otherwise be taken for the log of the next journal of that name.
    """
    for suffix in ("", "-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


@contextmanager
def _full_disk_as_oserror(path: Path) -> Iterator[None]:
    """Raise what SQLite says of a full disk as the system does."""
    try:
        yield
    except sqlite3.OperationalError as error:
        code = getattr(error, "sqlite_errorcode", 0)
        # Of its log and its shared memory SQLite only says that they cannot be written.
        failed = code & 0xFF == sqlite3.SQLITE_IOERR and shutil.disk_usage(path.parent).free < _FULL_BYTES
        if code == sqlite3.SQLITE_FULL or failed:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from error
        raise


def _connect(path: Path, patience: float = BUSY_TIMEOUT_S) -> sqlite3.Connection:
    # Transactions are begun by hand; threads share the connection behind the journal's lock.
    return sqlite3.connect(path, timeout=patience, isolation_level=None, check_same_thread=False)
