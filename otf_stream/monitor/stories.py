"""What the events of a session tell of its stacks: the stage each is at, what was decided, how learning goes.

Events are taken once, in order, and what they tell is kept: a few hundred bytes a stack. Training curves are kept of
the latest stacks only, and thinned where they become long.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass, field
from typing import Any

from otf_stream.acquisition import StackIndex
from otf_stream.monitor.state import Curve, Decision, Note
from otf_stream.store.controls import CANCELLED, Controls
from otf_stream.store.journal import Event

MOST_EVENTS = 50
_MOST_POINTS = 400  # of a curve
_CURVES = 20  # stacks
_LONGEST = 2000  # characters of a text
_SILENT_KINDS = frozenset(("training",))  # too many of them to be listed


@dataclass
class Story:
    """What became of one stack so far."""

    stage: str = ""
    decided: Event | None = None
    deadline: float | None = None
    curves: dict[str, list[tuple[float, int, float]]] = field(default_factory=dict)
    gain_db: float | None = None
    richardson_lucy_gain_db: float = 0.0
    method: str | None = None
    warnings: tuple[str, ...] = ()
    restored_at: float | None = None
    in_hand_s: float | None = None
    reason: str | None = None
    set_aside: float | None = None

    def decision(self) -> Decision | None:
        """Return what was decided last."""
        if self.decided is None:
            return None
        detail = self.decided.detail
        figures = {k: float(v) for k, v in detail.items() if isinstance(v, int | float)}
        what, why = str(detail.get("decision", "")), str(detail.get("reason", ""))
        return Decision(at=self.decided.at, decision=what, reason=why, figures=figures)

    def training(self) -> tuple[Curve, ...]:
        """Return the curves."""
        return tuple(
            Curve(stage=stage, at=tuple(at), steps=tuple(steps), loss=tuple(loss))
            for stage, points in self.curves.items()
            for at, steps, loss in [zip(*points, strict=True)]
        )


class Stories:
    """What the events of one session tell."""

    def __init__(self) -> None:
        self.of: dict[StackIndex, Story] = {}
        self.controls = Controls()
        self.stage = ""
        """What was begun last with any of its stacks."""
        self.received: int | None = None
        self.duplicates: int | None = None
        """Plane messages, as its listener told when the session ended last."""
        self.damaged = 0
        self.damaged_at: float | None = None
        self.events: deque[Event] = deque(maxlen=MOST_EVENTS)
        """The last events, those of training left out."""
        self._curves: OrderedDict[StackIndex, None] = OrderedDict()

    def take(self, event: Event) -> StackIndex | None:
        """Take an event into account; return the stack that it concerns, if it concerns one."""
        self.controls.take(event)
        if event.kind not in _SILENT_KINDS:
            self.events.append(event)
        self._of_session(event)
        told = event.detail.get("stack")
        if not told:
            return None
        stack = (int(told[0]), int(told[1]))
        self._of_stack(stack, self.of.setdefault(stack, Story()), event)
        return stack

    def _of_session(self, event: Event) -> None:
        detail = event.detail
        match event.kind:
            case "ended":
                self.received, self.duplicates = detail.get("received"), detail.get("duplicates")
            case "damaged":
                self.damaged += int(detail.get("count", 0))
                self.damaged_at = event.at
            case "stage":
                self.stage = str(detail.get("stage", ""))

    def _of_stack(self, stack: StackIndex, story: Story, event: Event) -> None:
        detail = event.detail
        match event.kind:
            case "stage":
                anew = story.restored_at is not None or story.reason is not None
                if anew and detail.get("stage") != "restored":  # that is noted last
                    story.method, story.warnings, story.curves = None, (), {}
                    story.restored_at = story.in_hand_s = story.gain_db = story.reason = story.set_aside = None
                story.stage = str(detail.get("stage", ""))
            case "decision":
                story.decided = event
                if "until_deadline_s" in detail:
                    story.deadline = event.at + float(detail["until_deadline_s"])
            case "training":
                self._learnt(stack, story, event)
            case "restored":
                story.method, story.warnings = detail.get("method"), tuple(map(str, detail.get("warnings", ())))
                story.restored_at, story.in_hand_s = event.at, detail.get("in_hand_s")
                story.deadline, story.reason = detail.get("deadline", story.deadline), None
                if story.method == "richardson-lucy" and story.gain_db is not None:
                    story.gain_db = story.richardson_lucy_gain_db
            case "failure":
                story.reason = str(detail.get("trace", "")).strip().rpartition("\n")[2][:_LONGEST] or "failure"
            case "empty":
                story.reason = str(detail.get("reason", "empty"))
            case "set aside" if detail.get("stage") == "turn":
                story.reason = f"the worker crashed {detail.get('crashes')} times at it; see {detail.get('report')}"
                story.set_aside = event.at
            case kind if kind == CANCELLED:
                story.reason = CANCELLED

    def _learnt(self, stack: StackIndex, story: Story, event: Event) -> None:
        detail = event.detail
        if "gain_db" in detail:
            story.gain_db = float(detail["gain_db"])
            story.richardson_lucy_gain_db = float(detail.get("richardson_lucy_gain_db", 0.0))
        if "loss" not in detail:
            return
        points = story.curves.setdefault(str(detail.get("stage")), [])
        points.append((event.at, int(detail.get("steps", 0)), float(detail["loss"])))
        if len(points) > _MOST_POINTS:
            del points[1:-1:2]
        self._curves[stack] = None
        self._curves.move_to_end(stack)
        while len(self._curves) > _CURVES:
            forgotten, _ = self._curves.popitem(last=False)
            self.of[forgotten].curves = {}


def note(event: Event) -> Note:
    """Return an event for people to see."""
    return Note(id=event.id, at=event.at, kind=event.kind, detail={k: _cut(v) for k, v in event.detail.items()})


def _cut(value: Any) -> Any:
    if isinstance(value, str) and len(value) > _LONGEST:
        return "… " + value[-_LONGEST:]
    return value
