"""What there is to see of a service at one moment: the models that everything else here is made of.

The HTTP interface, the dashboard, the metrics, the terminal and the log all show one `Snapshot`, so that they cannot
differ. Everything is frozen: a snapshot is made by one thread and read by any number of others. Times are UNIX seconds,
sizes are bytes, and lists are bounded, however long a time-lapse is.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from otf_stream.acquisition import Acquisition
from otf_stream.store.journal import StackState

Severity = Literal["info", "warning", "critical"]
AlarmKind = Literal[
    "listener-down",
    "worker-down",
    "worker-stuck",
    "disk-low",
    "planes-held",
    "planes-missing",
    "planes-damaged",
    "refused",
    "session-silent",
    "stack-late",
    "stack-failed",
    "stack-set-aside",
]


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Gap(_Model):
    """Planes of one stack that are missing, from z ``first`` to z ``last``, both included."""

    t: int
    c: int
    first: int
    last: int


class Listener(_Model):
    """The listener, as it tells of itself; ``current`` is false where it is not at work."""

    current: bool
    at: float
    address: str
    pid: int
    connections: int
    sessions: int
    received: int
    durable: int
    duplicates: int
    bytes: int
    refused: dict[str, int]
    queue_bytes: int
    disk_free: int
    disk_reserve: int
    holding: bool


class Worker(_Model):
    """The worker; ``current`` says that it is at work, ``starting`` that it will be soon; where it is dead, neither.

    ``turn`` is when it last turned to a stack.
    """

    current: bool
    starting: bool = False
    at: float
    pid: int
    device: str
    turn: float
    stacks: int


class Decision(_Model):
    """What the budget controller decided, why, and the figures behind it; those in seconds end in ``_s``."""

    at: float
    decision: str
    reason: str
    figures: dict[str, float]


class Curve(_Model):
    """Loss against steps in one stage of learning, ``denoise`` or ``finetune``."""

    stage: str
    at: tuple[float, ...] = ()
    steps: tuple[int, ...] = ()
    loss: tuple[float, ...] = ()


class Stack(_Model):
    """One stack on its way to a volume.

    ``seconds_left`` runs to the deadline, and ends when the stack is restored; ``in_hand_s`` is what was left then,
    negative if the volume is late. ``gain_db`` is over linear interpolation, on planes that were held out.
    """

    t: int
    c: int
    state: StackState
    stage: str = ""
    planes: int
    expected: int
    missing: int
    first: float | None = None
    latest: float | None = None
    deadline: float | None = None
    seconds_left: float | None = None
    restoring_s: float | None = None
    decision: Decision | None = None
    training: tuple[Curve, ...] = ()
    gain_db: float | None = None
    method: str | None = None
    warnings: tuple[str, ...] = ()
    restored_at: float | None = None
    in_hand_s: float | None = None
    reason: str | None = None
    finishing: bool = False


class Note(_Model):
    """An event of a session's journal; long texts are cut."""

    id: int
    at: float
    kind: str
    detail: dict[str, Any]


class SessionSummary(_Model):
    """One session at a glance.

    ``expected`` planes are those announced (so far, if it grows), ``received`` the messages that came, duplicates and
    all (None where its listener does not tell), ``durable`` those on disk, and ``missing`` those that will not come any
    more, or were passed by. ``seconds_left`` runs to the nearest deadline of its stacks. ``done`` is set when nothing
    more will happen.
    """

    id: str
    name: str
    store: Path
    created: float
    expected: int
    received: int | None = None
    durable: int
    missing: int
    duplicates: int | None = None
    damaged: int = 0
    plane_bytes: int
    planes_per_s: float = 0.0
    bytes_per_s: float = 0.0
    latest: float | None = None
    silent_s: float | None = None
    closed: str | None = None
    states: dict[str, int]
    stage: str = ""
    seconds_left: float | None = None
    paused: bool = False
    done: bool


class Session(SessionSummary):
    """One session in full; ``stacks`` are those to be restored and the latest others, ``gaps`` the first hundred."""

    acquisition: Acquisition
    gaps: tuple[Gap, ...] = ()
    stacks: tuple[Stack, ...] = ()
    events: tuple[Note, ...] = ()

    def summary(self) -> SessionSummary:
        """Return what fits in a list of sessions."""
        return SessionSummary.model_construct(**{name: getattr(self, name) for name in SessionSummary.model_fields})


class Alarm(_Model):
    """Something that somebody should do something about: what, how urgent, what to do, and since when."""

    kind: AlarmKind
    severity: Severity
    text: str
    remedy: str
    since: float
    session: str | None = None
    t: int | None = None
    c: int | None = None


class Totals(_Model):
    """All sessions together."""

    sessions: int
    expected: int
    durable: int
    missing: int
    damaged: int
    planes_per_s: float
    bytes_per_s: float
    states: dict[str, int]


class Status(_Model):
    """A service at a glance; the latest sessions come last."""

    at: float
    data: Path
    listener: Listener | None
    worker: Worker | None
    totals: Totals
    sessions: tuple[SessionSummary, ...]
    alarms: tuple[Alarm, ...]


class Snapshot(_Model):
    """All that is to be seen of a data folder; the oldest session first."""

    at: float
    data: Path
    listener: Listener | None
    worker: Worker | None
    totals: Totals
    sessions: tuple[Session, ...]
    alarms: tuple[Alarm, ...] = ()

    def session(self, name: str) -> Session | None:
        """Return a session by its id."""
        return next((session for session in self.sessions if session.id == name), None)

    def status(self, most: int) -> Status:
        """Return it with at most so many sessions, those at work before the latest others, and without their stacks."""
        first = sorted(reversed(self.sessions), key=lambda session: session.done)[:most]
        names = {session.id for session in first}
        sessions = tuple(session.summary() for session in self.sessions if session.id in names)
        return Status(
            at=self.at,
            data=self.data,
            listener=self.listener,
            worker=self.worker,
            totals=self.totals,
            sessions=sessions,
            alarms=self.alarms,
        )
