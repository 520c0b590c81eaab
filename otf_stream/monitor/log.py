"""The throughput log: what happened last night, second by second, in files that any program reads.

JSON lines in ``DATA/logs/throughput.jsonl``: a record a second while planes flow, and one per event of any journal. The
planes of all records add up to those in the journals, also across restarts of the monitor, which keeps beside the log
how far it has got. Files are rotated by size; the oldest is deleted. docs/monitoring.md has the schema.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, TypeAdapter

from otf_stream.monitor.lookout import News
from otf_stream.monitor.state import Snapshot
from otf_stream.monitor.stories import note

FOLDER, FILE = "logs", "throughput.jsonl"
SCHEMA = 1
"""Of the records; raised when what a reader relies on changes."""
MOST_BYTES, MOST_FILES = 20_000_000, 10
_POSITIONS = "positions.json"
_BEFORE = 60.0  # seconds before the first record ever, from which on events are told


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    v: int = SCHEMA
    at: float


class SecondRecord(_Record):
    """What came since the service was looked at before, ``seconds`` ago (None where nobody knows).

    ``planes`` became durable, by session in ``sessions``; fewer than none where some turned out to be damaged.
    """

    kind: Literal["second"] = "second"
    seconds: float | None
    planes: int
    bytes: int
    sessions: dict[str, int]
    durable: int
    missing: int
    queue_bytes: int | None
    stacks_waiting: int | None
    disk_free_bytes: int | None
    resident_bytes: dict[str, int]


class EventRecord(_Record):
    """An event of the journal of a session; ``id`` tells it from the session's other events."""

    kind: Literal["event"] = "event"
    id: int
    session: str
    name: str
    event: str
    detail: dict[str, Any]


Record = SecondRecord | EventRecord
_RECORDS: TypeAdapter[Record] = TypeAdapter(Record)


def read_record(line: str | bytes) -> Record | None:
    """Return the record in a line; None if it is none, as the last line after a crash."""
    try:
        return _RECORDS.validate_json(line)
    except ValueError:
        return None


def files_of(data: Path) -> list[Path]:
    """Find the files of the log of a data folder, in no order."""
    return list((data / FOLDER).glob(f"{FILE}*"))


class ThroughputLog:
    """Writes the log of a data folder.

    Parameters
    ----------
    data
        The folder of the session stores.
    most_bytes
        Of a file, before another is begun.
    most_files
        That are kept.
    """

    def __init__(self, data: Path, *, most_bytes: int = MOST_BYTES, most_files: int = MOST_FILES) -> None:
        self.path = data / FOLDER / FILE
        """Of the file that is being written; ``.1`` is the one before, and so on."""
        self._most_bytes, self._most_files = most_bytes, most_files
        self._at: float | None = None
        self._first = True
        self._known: dict[str, list[int]] = {}  # of each session, the last event and the planes that were told of
        self._fresh = True
        with suppress(OSError, ValueError):
            self._known = json.loads((self.path.parent / _POSITIONS).read_bytes())
            self._fresh = False

    def write(self, snapshot: Snapshot, news: News, resident: Mapping[str, int]) -> None:
        """Write what a look found.

        Parameters
        ----------
        snapshot
            What was seen.
        news
            The events that are new in it, or were not known to the monitor that saw it.
        resident
            Bytes of memory of the processes.

        Raises
        ------
        OSError
            If it cannot be written; what was not told is told by the next look.
        """
        since = snapshot.at - _BEFORE if self._fresh else float("-inf")
        known = {session: list(told) for session, told in self._known.items()}
        records: list[Record] = []
        for session, events in news:
            last = known.setdefault(session.id, [0, 0])
            for event in events:
                if event.id > last[0] and event.at >= since:
                    told = note(event)
                    records.append(
                        EventRecord(
                            at=event.at,
                            id=event.id,
                            session=session.id,
                            name=session.name,
                            event=event.kind,
                            detail=told.detail,
                        )
                    )
                last[0] = max(last[0], event.id)
        came = {}
        for session in snapshot.sessions:
            last = known.setdefault(session.id, [0, 0])
            if self._fresh and (session.latest or session.created) < since:
                last[1] = session.durable  # from before there was a log
            if planes := session.durable - last[1]:
                came[session.id] = planes
                last[1] = session.durable
        if came:
            records.append(self._second(snapshot, came, resident))
        self._at = snapshot.at
        if records:
            self._append(records)
        if records or known != self._known or self._fresh:
            self._save(known)
        self._known, self._fresh = known, False

    def _second(self, snapshot: Snapshot, came: dict[str, int], resident: Mapping[str, int]) -> SecondRecord:
        listener, worker = snapshot.listener, snapshot.worker
        sizes = {session.id: session.plane_bytes for session in snapshot.sessions}
        return SecondRecord(
            at=snapshot.at,
            seconds=None if self._at is None else round(snapshot.at - self._at, 3),
            planes=sum(came.values()),
            bytes=sum(planes * sizes[session] for session, planes in came.items()),
            sessions=came,
            durable=snapshot.totals.durable,
            missing=snapshot.totals.missing,
            queue_bytes=listener.queue_bytes if listener and listener.current else None,
            stacks_waiting=worker.stacks if worker and worker.current else None,
            disk_free_bytes=listener.disk_free if listener and listener.current else None,
            resident_bytes=dict(resident),
        )

    def _append(self, records: list[Record]) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self.path.exists() and self.path.stat().st_size >= self._most_bytes:
            self._rotate()
        lines = "".join(record.model_dump_json() + "\n" for record in records)
        with self.path.open("ab") as file:
            if self._first and file.tell() and not _ends_with_line(self.path):
                file.write(b"\n")  # a crash left half a record
            file.write(lines.encode())
        self._first = False

    def _rotate(self) -> None:
        files = [self.path, *(self.path.with_name(f"{FILE}.{n}") for n in range(1, self._most_files))]
        files[-1].unlink(missing_ok=True)
        for older, newer in zip(reversed(files), reversed(files[:-1]), strict=False):
            if newer.exists():
                newer.replace(older)

    def _save(self, known: dict[str, list[int]]) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        partial = self.path.with_name(_POSITIONS + ".partial")
        partial.write_text(json.dumps(known), encoding="utf-8")
        partial.replace(self.path.with_name(_POSITIONS))


def _ends_with_line(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-1, 2)
        return file.read(1) == b"\n"
