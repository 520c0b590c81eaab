"""What a throughput log tells of a night: rates and their percentiles, planes that were lost, deadlines that were met.

Pure functions over the records. Whatever is no record, as half a line after a crash, is left out and counted; an event
that was written twice counts once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict

from otf_stream.monitor.log import EventRecord, SecondRecord, read_record

_PERCENTILES = (5, 50, 95, 99)
_LONGEST_SECOND = 5.0  # of a record that tells of a rate; before a longer one, nothing came


@dataclass(frozen=True)
class Log:
    """The records of a log, in order of time, each event once; and how many lines were none."""

    seconds: tuple[SecondRecord, ...]
    events: tuple[EventRecord, ...]
    unreadable: int = 0


class Spread(BaseModel):
    """How some figures are spread: their mean, their least and greatest, and percentiles."""

    model_config = ConfigDict(frozen=True)

    count: int
    mean: float
    least: float
    greatest: float
    percentiles: dict[str, float]


class Summary(BaseModel):
    """What a log tells; rates are over the seconds in which planes came.

    ``missing`` planes are those that sessions had ended without; ``margins_s`` is what was left to deadlines.
    """

    model_config = ConfigDict(frozen=True)

    first: float
    last: float
    planes: int
    bytes: int
    planes_per_s: Spread | None
    mb_per_s: Spread | None
    queue_mb: Spread | None
    missing: int
    damaged: int
    refused: dict[str, int]
    sessions_ended: dict[str, int]
    restored: dict[str, int]
    failed: int
    late: int
    margins_s: Spread | None
    resident_mb: dict[str, float]
    unreadable_lines: int

    def as_text(self) -> str:
        """Return it for people."""
        hours = (self.last - self.first) / 3600
        rows = [
            ("time", f"{hours:.2f} h"),
            ("planes", f"{self.planes} durable, {self.bytes / 1e9:.3g} GB"),
            ("lost", f"{self.missing} missing, {self.damaged} damaged"),
            ("planes/s", _said(self.planes_per_s, "")),
            ("MB/s", _said(self.mb_per_s, "")),
            ("queue", _said(self.queue_mb, " MB")),
            ("sessions", _listed(self.sessions_ended) or "none ended"),
            ("restored", _listed(self.restored) or "none"),
            ("failed", str(self.failed)),
            ("margins", _said(self.margins_s, " s") + f", {self.late} late"),
            ("refused", _listed(self.refused) or "none"),
            ("memory", ", ".join(f"{name} {mb:.0f} MB" for name, mb in self.resident_mb.items()) + " at most"),
        ]
        if self.unreadable_lines:
            rows.append(("unreadable", f"{self.unreadable_lines} lines"))
        return "\n".join(f"{name:11}{said}" for name, said in rows)


def read_log(files: Iterable[Path]) -> Log:
    """Read the files of a log, in any order.

    Raises
    ------
    OSError
        If one cannot be read.
    """
    seconds: list[SecondRecord] = []
    events: dict[tuple[str, int], EventRecord] = {}
    unreadable = 0
    for path in files:
        with path.open("rb") as file:
            for line in file:
                match read_record(line) if line.strip() else None:
                    case SecondRecord() as second:
                        seconds.append(second)
                    case EventRecord() as event:
                        events[event.session, event.id] = event
                    case None:
                        unreadable += bool(line.strip())
    return Log(
        tuple(sorted(seconds, key=lambda record: record.at)),
        tuple(sorted(events.values(), key=lambda record: (record.at, record.id))),
        unreadable,
    )


def rates(seconds: Sequence[SecondRecord]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return when, planes/s and MB/s, of the records that tell how long they took."""
    timed = [s for s in seconds if s.seconds is not None and 0 < s.seconds < _LONGEST_SECOND]
    at = np.array([s.at for s in timed], float)
    took = np.array([s.seconds for s in timed], float)
    planes = np.array([s.planes for s in timed], float) / took
    return at, planes, np.array([s.bytes / 1e6 for s in timed], float) / took


def margins(events: Sequence[EventRecord]) -> tuple[np.ndarray, np.ndarray]:
    """Return when stacks were restored, and the seconds that were left to their deadlines."""
    restored = [e for e in events if e.event == "restored" and isinstance(e.detail.get("in_hand_s"), int | float)]
    return np.array([e.at for e in restored], float), np.array([e.detail["in_hand_s"] for e in restored], float)


def summarise(log: Log) -> Summary:
    """Summarise a log that has a record."""
    _, planes, megabytes = rates(log.seconds)
    _, left = margins(log.events)
    times = [record.at for record in (*log.seconds, *log.events)]
    ended = {event.session: event for event in log.events if event.event == "ended"}  # the last of each session
    resident: dict[str, float] = {}
    for second in log.seconds:
        for name, size in second.resident_bytes.items():
            resident[name] = max(resident.get(name, 0.0), size / 1e6)
    queues = [s.queue_bytes / 1e6 for s in log.seconds if s.queue_bytes is not None]
    return Summary(
        first=min(times),
        last=max(times),
        planes=sum(second.planes for second in log.seconds),
        bytes=sum(second.bytes for second in log.seconds),
        planes_per_s=_spread(planes),
        mb_per_s=_spread(megabytes),
        queue_mb=_spread(np.array(queues, float)),
        missing=sum(int(event.detail.get("missing_count", 0)) for event in ended.values()),
        damaged=sum(int(e.detail.get("count", 0)) for e in log.events if e.event == "damaged"),
        refused=dict(Counter(str(e.detail.get("code")) for e in log.events if e.event == "refused")),
        sessions_ended=dict(Counter(str(event.detail.get("reason")) for event in ended.values())),
        restored=dict(Counter(str(e.detail.get("method")) for e in log.events if e.event == "restored")),
        failed=_failed(log.events),
        late=int((left < 0).sum()),
        margins_s=_spread(left),
        resident_mb=resident,
        unreadable_lines=log.unreadable,
    )


def _failed(events: Sequence[EventRecord]) -> int:
    """How many stacks were given up. That learning failed is noted, too, of stacks that were interpolated then."""
    last: dict[tuple[str, str], str] = {}
    for event in sorted(events, key=lambda one: (one.at, one.id)):
        given_up = event.event == "failure" or (event.event == "set aside" and event.detail.get("stage") != "preview")
        if given_up or event.event == "restored":
            last[event.session, str(event.detail.get("stack"))] = event.event
    return sum(kind != "restored" for kind in last.values())


def _spread(values: np.ndarray) -> Spread | None:
    if not values.size:
        return None
    return Spread(
        count=values.size,
        mean=float(values.mean()),
        least=float(values.min()),
        greatest=float(values.max()),
        percentiles={f"p{p}": float(np.percentile(values, p)) for p in _PERCENTILES},
    )


def _said(spread: Spread | None, unit: str) -> str:
    if spread is None:
        return "nothing known"
    percentiles = ", ".join(f"{name} {value:.3g}" for name, value in spread.percentiles.items())
    return f"mean {spread.mean:.3g}{unit} ({percentiles}; {spread.least:.3g} to {spread.greatest:.3g})"


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(counts.items()))
