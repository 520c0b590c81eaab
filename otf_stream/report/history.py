"""What the journal tells of one stack: when its planes came, what was done meanwhile, and how learning went.

Pure functions of events and records. All times are seconds after the stack's first plane, since that is the moment from
which everybody at a microscope counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from otf_stream.store.journal import Event, PlaneRecord

_WHAT_IS_LISTED = {
    "decision", "preview", "preview failed", "restored", "failure", "crash", "set aside", "damaged", "report failed",
}  # fmt: skip
_IN_WORDS = {"preview": "preview written", "restored": "restored"}
_TOLD_ELSEWHERE = {"stack", "decision", "reason", "trace", "warnings", "deadline"}


@dataclass(frozen=True)
class Span:
    """A stage of the work, from ``start`` to ``stop``."""

    stage: str
    start: float
    stop: float


@dataclass(frozen=True)
class Happening:
    """Something that was decided or happened, the reason, and the figures behind it."""

    at: float
    what: str
    why: str
    figures: str


@dataclass(frozen=True)
class LossCurve:
    """How the loss of one stage fell: steps and losses."""

    stage: str
    steps: tuple[int, ...]
    losses: tuple[float, ...]


@dataclass(frozen=True)
class History:
    """What the journal tells of a stack.

    Parameters
    ----------
    began
        When the first plane came, in UNIX seconds.
    arrived
        When each plane came, ascending.
    taken
        When each was exposed, by a clock set so that the first was exposed as it came; empty where that is not known.
    spans
        The stages of the work.
    happenings
        What was decided and what happened.
    curves
        Of learning.
    gains
        ``(at, dB)``: what the network gained over interpolation whenever held-out planes were looked at.
    """

    began: float
    arrived: tuple[float, ...]
    taken: tuple[float, ...]
    spans: tuple[Span, ...]
    happenings: tuple[Happening, ...]
    curves: tuple[LossCurve, ...]
    gains: tuple[tuple[float, float], ...]


def history(records: Sequence[PlaneRecord], events: Sequence[Event], now: float) -> History:
    """Put together what the journal tells of a stack.

    Parameters
    ----------
    records
        Of its planes; at least one.
    events
        Those that concern it, in order.
    now
        In UNIX seconds: the end of a stage that has not ended.
    """
    began = min(record.received for record in records)
    taken = sorted(record.taken for record in records if record.taken is not None)
    return History(
        began=began,
        arrived=tuple(sorted(record.received - began for record in records)),
        taken=tuple(at - taken[0] for at in taken) if len(taken) == len(records) else (),
        spans=tuple(_spans(events, began, now)),
        happenings=tuple(_happening(event, began) for event in events if event.kind in _WHAT_IS_LISTED),
        curves=tuple(_curves(events)),
        gains=tuple(
            (event.at - began, float(event.detail["gain_db"]))
            for event in events
            if event.kind == "training" and "gain_db" in event.detail
        ),
    )


def _spans(events: Sequence[Event], began: float, now: float) -> list[Span]:
    """Each stage lasts until the next begins; none goes on once the stack is restored or given up."""
    marks = [(event.at - began, str(event.detail.get("stage", ""))) for event in events if event.kind == "stage"]
    marks += [(event.at - began, "") for event in events if event.kind in ("restored", "failure", "set aside")]
    marks.sort()
    return [
        Span(stage, start, stop)
        for (start, stage), (stop, _) in pairwise([*marks, (max(now - began, 0.0), "")])
        if stage not in ("", "restored") and stop > start
    ]


def _happening(event: Event, began: float) -> Happening:
    detail = event.detail
    what = str(detail["decision"]) if "decision" in detail else _IN_WORDS.get(event.kind, event.kind)
    last_line = str(detail.get("trace", "")).strip().rpartition("\n")[2]
    figures = ", ".join(f"{name} {_short(value)}" for name, value in detail.items() if name not in _TOLD_ELSEWHERE)
    return Happening(event.at - began, what, str(detail.get("reason", last_line)), figures)


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _curves(events: Sequence[Event]) -> list[LossCurve]:
    points: dict[str, list[tuple[int, float]]] = {}
    for event in events:
        if event.kind == "training" and "loss" in event.detail:
            stage, step = str(event.detail.get("stage", "")), int(event.detail.get("steps", 0))
            known = points.setdefault(stage, [])
            if known and step < known[-1][0]:
                known.clear()  # it was begun anew
            known.append((step, float(event.detail["loss"])))
    return [
        LossCurve(stage, tuple(step for step, _ in known), tuple(loss for _, loss in known))
        for stage, known in points.items()
    ]
