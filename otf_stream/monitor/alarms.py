"""Alarms: what somebody should do something about, in words, with what to do, and since when.

Which alarms there are follows from a snapshot alone; only since when they last is remembered. What is over is told for
a while, or nobody who looks at a screen in the morning would learn of the night; what is long over is for the log.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from otf_stream.monitor.state import Alarm, AlarmKind, Session, Severity, Snapshot, Stack

MOST = 100
_MOST_OF_SESSION = 10
RECENT = 12 * 3600.0
"""Seconds for which a session that is over has alarms."""
_SCARCE = 1.25  # times the reserve, from which on the disk counts as low
_SILENT = 30.0  # seconds
_STUCK = 300.0  # seconds that a turn may take; most take one
_REFUSED = 60.0  # seconds for which refusals are told
_RANK: dict[Severity, int] = {"critical": 0, "warning": 1, "info": 2}
Key = tuple[AlarmKind, str | None, int | None, int | None]


class Alarms:
    """Finds the alarms in one snapshot after the other."""

    def __init__(self) -> None:
        self._since: dict[Key, float] = {}
        self._refused: deque[tuple[float, int]] = deque()

    def look(self, snapshot: Snapshot) -> tuple[Alarm, ...]:
        """Return the alarms of a snapshot, the gravest first, at most `MOST`."""
        found = list(alarms(snapshot))
        found += self._refusals(snapshot)
        since = {key(alarm): self._since.get(key(alarm), alarm.since) for alarm in found}
        self._since = since
        dated = [alarm.model_copy(update={"since": since[key(alarm)]}) for alarm in found]
        return tuple(sorted(dated, key=lambda alarm: (_RANK[alarm.severity], alarm.since))[:MOST])

    def _refusals(self, snapshot: Snapshot) -> list[Alarm]:
        """Tell of refusals that are new; of those from before the first look, nobody knows when they were."""
        if snapshot.listener is None:
            return []
        refused, now = snapshot.listener.refused, snapshot.at
        total = sum(refused.values())
        if self._refused and total < self._refused[-1][1]:  # the listener has restarted
            self._refused.clear()
        self._refused.append((now, total))
        while len(self._refused) > 1 and self._refused[1][0] <= now - _REFUSED:
            self._refused.popleft()
        new = total - self._refused[0][1]
        if not new:
            return []
        said = ", ".join(f"{count} {reason}" for reason, count in sorted(refused.items()))
        return [
            Alarm(
                kind="refused",
                severity="warning",
                text=f"{new} messages or connections were refused within the last minute (since the start: {said})",
                remedy="what each reason means is in docs/protocol.md; the events of the session name the planes",
                since=now,
            )
        ]


def key(alarm: Alarm) -> Key:
    """Return what tells an alarm from all others, at any time."""
    return alarm.kind, alarm.session, alarm.t, alarm.c


def alarms(snapshot: Snapshot) -> Iterator[Alarm]:
    """Yield the alarms that a snapshot gives reason for, each as if it had begun now unless it tells since when."""
    yield from _processes(snapshot)
    yield from _disk(snapshot)
    for session in snapshot.sessions:
        ended = max(session.latest or session.created, *(s.restored_at or 0.0 for s in session.stacks), 0.0)
        if not session.done or snapshot.at - ended < RECENT:
            yield from _session(session, snapshot.at)
            yield from _stacks(session, snapshot.at)


def _processes(snapshot: Snapshot) -> Iterator[Alarm]:
    listener, worker, now = snapshot.listener, snapshot.worker, snapshot.at
    restarted = "the service restarts it; if it does not come back, look at what `otf-stream serve` prints"
    if listener is None or not listener.current:
        yield Alarm(
            kind="listener-down",
            severity="critical",
            text="the listener is not at work: planes wait at their microscopes",
            remedy=restarted,
            since=listener.at if listener else now,
        )
    if worker is None or not (worker.current or worker.starting):
        yield Alarm(
            kind="worker-down",
            severity="critical",
            text="the worker is not at work: planes are kept, and no stack is restored",
            remedy=restarted,
            since=worker.at if worker else now,
        )
    elif worker.stacks and now - worker.turn > _STUCK:
        yield Alarm(
            kind="worker-stuck",
            severity="warning",
            text=f"the worker has been at one stack for {now - worker.turn:.0f} s without a pause",
            remedy="on a slow disk, wait; otherwise end its process, the service starts another and nothing is lost",
            since=worker.turn,
        )


def _disk(snapshot: Snapshot) -> Iterator[Alarm]:
    listener = snapshot.listener
    if listener is None or not listener.current:
        return
    room = f"{listener.disk_free / 1e9:.1f} GB are free on the disk, {listener.disk_reserve / 1e9:.1f} GB stay so"
    if listener.holding:
        yield Alarm(
            kind="planes-held",
            severity="critical",
            text=f"planes are held back at their microscopes: {room}",
            remedy="move finished sessions, each store with its journal, to another disk; the planes are taken then",
            since=snapshot.at,
        )
    elif listener.disk_free < _SCARCE * listener.disk_reserve:
        yield Alarm(
            kind="disk-low",
            severity="warning",
            text=f"the disk is nearly full: {room}",
            remedy="move finished sessions, each store with its journal, to another disk",
            since=snapshot.at,
        )


def _session(session: Session, now: float) -> Iterator[Alarm]:
    def alarm(kind: AlarmKind, severity: Severity, text: str, remedy: str, since: float) -> Alarm:
        return Alarm(kind=kind, severity=severity, text=text, remedy=remedy, since=since, session=session.id)

    if session.damaged:
        yield alarm(
            "planes-damaged",
            "critical",
            f"{session.damaged} planes of {session.name} were found damaged on the disk, and count as missing",
            "the sender sends them again if it still has them; have the disk checked",
            session.latest or now,
        )
    if session.missing:
        gaps = ", ".join(f"t{gap.t} c{gap.c} z{_range(gap.first, gap.last)}" for gap in session.gaps[:3])
        yield alarm(
            "planes-missing",
            "warning",
            f"{session.missing} of {session.expected} planes of {session.name} are missing ({gaps}"
            + (", …)" if len(session.gaps) > 3 else ")"),
            ("lost frames are bridged from their neighbours" if session.durable else "there is nothing to restore")
            + "; what a sender has kept, `otf-stream deliver` sends",
            session.latest or session.created,
        )
    if session.closed is None and session.silent_s is not None and session.silent_s > _SILENT:
        yield alarm(
            "session-silent",
            "warning",
            f"nothing was heard from {session.name} for {session.silent_s:.0f} s",
            "see whether the acquisition still runs; its stacks are restored once it counts as silent",
            now - session.silent_s,
        )
    elif session.closed == "silence":
        yield alarm(
            "session-silent",
            "warning",
            f"{session.name} was closed, since its sender fell silent",
            "if its microscope comes back, the session goes on, and its stacks are restored anew",
            session.latest or session.created,
        )


def _stacks(session: Session, now: float) -> Iterator[Alarm]:
    told = 0
    for stack in reversed(session.stacks):
        if (alarm := _stack(session, stack, now)) is not None and told < _MOST_OF_SESSION:
            told += 1
            yield alarm


def _stack(session: Session, stack: Stack, now: float) -> Alarm | None:
    def alarm(kind: AlarmKind, severity: Severity, text: str, remedy: str, since: float) -> Alarm:
        told = f"{session.name} t{stack.t} c{stack.c} {text}"
        return Alarm(
            kind=kind,
            severity=severity,
            text=told,
            remedy=remedy,
            since=since,
            session=session.id,
            t=stack.t,
            c=stack.c,
        )

    since = stack.latest or now
    if stack.state == "failed" and stack.reason and stack.reason.startswith("the worker crashed"):
        return alarm("stack-set-aside", "critical", f"is set aside: {stack.reason}", "docs/durability.md", since)
    if stack.state == "failed" and stack.reason != "cancelled":
        remedy = "its planes are kept; restore it by hand with `otf-stream restore`"
        return alarm("stack-failed", "critical", f"could not be restored: {stack.reason}", remedy, since)
    remedy = "give stacks more time (budget_s, tail_s), or the machine less to do; docs/timelapse.md"
    if stack.in_hand_s is not None and stack.in_hand_s < 0:
        return alarm("stack-late", "warning", f"was restored {-stack.in_hand_s:.0f} s late", remedy, since)
    if stack.seconds_left is not None and stack.seconds_left < 0:
        return alarm("stack-late", "critical", f"is {-stack.seconds_left:.0f} s late", remedy, now + stack.seconds_left)
    return None


def _range(first: int, last: int) -> str:
    return str(first) if first == last else f"{first}–{last}"
