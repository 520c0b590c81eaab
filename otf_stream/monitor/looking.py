"""One session, looked at again and again: its journal stays open, and only what is new in it is read.

SQLite tells in a moment whether anybody has written since the last look, so a session at which nothing happens costs
next to nothing. How fast planes come follows from two looks.
"""

from __future__ import annotations

from collections import deque
from pathlib import Path

from otf_stream.acquire.status import OpenStatus
from otf_stream.acquisition import StackIndex
from otf_stream.monitor.planes import Planes
from otf_stream.monitor.state import Gap, Note, Session, Stack
from otf_stream.monitor.stories import Stories, Story, note
from otf_stream.monitor.work import Awaited
from otf_stream.store.journal import Event, Journal, journal_path

MOST_PENDING, MOST_DONE = 100, 50
"""Stacks that are told of in full: those to be restored, in order of time, and the latest others."""
_RATE = 5.0  # seconds that a rate is the mean of
_PATIENCE = 0.5  # seconds that a locked journal is waited for; it is looked at again soon
_CURVE = ("training",)  # the kind of the points of learning curves
_CURVES = 2000  # events, the last ones, among which those of training are read where a session was not known


class SessionLook:
    """A session that is looked at.

    Parameters
    ----------
    path
        Its session store.
    created
        When it was created, in UNIX seconds.
    """

    def __init__(self, path: Path, created: float) -> None:
        self.path = path
        self._created = created
        self._journal = Journal.open(journal_path(path), patience=_PATIENCE)
        self.id = self._journal.session
        self._planes, self._stories = Planes(), Stories()
        self._version: int | None = None
        self._seen = 0
        self._rates: deque[tuple[float, int]] = deque()
        self._durable = self._expected = self._missing = 0
        self._latest: float | None = None
        self._closed: str | None = None
        self._gaps: tuple[Gap, ...] = ()
        self._states: dict[str, int] = {}
        self._shown: list[StackIndex] = []
        self._notes: tuple[Note, ...] = ()
        self._last: Session | None = None
        self.news: list[Event] = []
        """The events that the last look found."""

    def close(self) -> None:
        """Close the journal."""
        self._journal.close()

    def look(
        self, now: float, opened: OpenStatus | None = None, awaited: dict[StackIndex, Awaited] | None = None
    ) -> Session:
        """Look at what has become of the session.

        Parameters
        ----------
        now
            UNIX seconds.
        opened
            What its listener knows of it, if it is open there.
        awaited
            What the worker knows of its stacks.
        """
        self.news = []
        version = self._journal.version()
        if version != self._version or self._planes.is_due(now):
            self._read(now)
            self._version = version
        elif self._last and self._last.done and not self._last.planes_per_s and not opened and not awaited:
            return self._last
        self._rates.append((now, self._durable))
        while len(self._rates) > 2 and self._rates[0][0] < now - _RATE:
            self._rates.popleft()
        self._last = self._told(now, opened, awaited or {})
        return self._last

    def _read(self, now: float) -> None:
        """Read what is new, the events first: what they announce is then found as well."""
        self.news, self._seen = self._events()
        changed = [stack for event in self.news if (stack := self._stories.take(event)) is not None]
        if any(event.kind == "damaged" for event in self.news):
            self._planes.forget()
        self._closed = self._journal.closed
        self._planes.look(self._journal, now, closed=self._closed is not None, changed=changed)
        planes = self._planes
        self._durable, self._expected, self._missing = planes.durable, planes.expected, planes.missing
        self._notes = tuple(map(note, self._stories.events))
        self._latest, self._states, self._shown = planes.latest, self._count_states(), self._to_show()
        self._gaps = tuple(planes.gaps(self._journal)) if self._missing else ()

    def _events(self) -> tuple[list[Event], int]:
        if self._seen:
            events = self._journal.events(self._seen)
            return events, events[-1].id if events else self._seen
        # Of a session that was not known, all but the curves of long ago.
        last = self._journal.last_event()
        told = [*self._journal.events(without=_CURVE), *self._journal.events(last - _CURVES, kinds=_CURVE)]
        return sorted(told, key=lambda event: event.id), last

    def _told(self, now: float, opened: OpenStatus | None, awaited: dict[StackIndex, Awaited]) -> Session:
        stories, acquisition, states = self._stories, self._planes.acquisition, self._states
        done = self._closed is not None and not states.keys() - {"restored", "failed"}
        stacks = tuple(self._stack(stack, now, awaited.get(stack)) for stack in self._shown)
        left = [stack.seconds_left for stack in stacks if stack.seconds_left is not None]
        (before, had), (after, has) = self._rates[0], self._rates[-1]
        per_s = max(has - had, 0) / (after - before) if after > before else 0.0
        return Session(
            id=self.id,
            name=acquisition.name,
            store=self.path,
            created=self._created,
            expected=self._expected,
            received=opened.received if opened else stories.received,
            durable=self._durable,
            missing=self._missing,
            duplicates=opened.duplicates if opened else stories.duplicates,
            damaged=min(stories.damaged, max(self._missing, self._expected - self._durable)),  # some came again
            plane_bytes=acquisition.plane_bytes,
            planes_per_s=per_s,
            bytes_per_s=per_s * acquisition.plane_bytes,
            latest=self._latest,
            silent_s=opened.silent_s if opened else None,
            closed=self._closed,
            states=states,
            stage="waiting" if stories.stage == "restored" and not done else stories.stage,
            seconds_left=min(left, default=None),
            paused=stories.controls.paused,
            done=done,
            acquisition=acquisition,
            gaps=self._gaps,
            stacks=stacks,
            events=self._notes,
        )

    def _count_states(self) -> dict[str, int]:
        """Count the stacks in each state, as `Journal.states` does."""
        acquisition, counts = self._planes.acquisition, self._planes.states.copy()
        empty = 0 if acquisition.growing else acquisition.planned_stacks - counts.total()
        counts["failed" if self._closed is not None else "arriving"] += empty
        return {state: count for state, count in counts.items() if count}

    def _to_show(self) -> list[StackIndex]:
        planes = self._planes
        return sorted([*planes.latest_done(MOST_DONE), *sorted(planes.pending)[:MOST_PENDING]])

    def _stack(self, stack: StackIndex, now: float, awaited: Awaited | None) -> Stack:
        planes, story = self._planes, self._stories.of.get(stack, Story())
        known = planes.known[stack]
        presence, state = known.presence, known.state
        done = state in ("restored", "failed")
        deadline = awaited.deadline if awaited and not done else story.deadline
        t, c = stack
        return Stack(
            t=t,
            c=c,
            state=state,
            stage=story.stage,
            planes=presence.planes,
            expected=len(planes.extent(stack)),
            missing=known.missing,
            first=presence.first or None,
            latest=presence.latest or None,
            deadline=deadline,
            seconds_left=None if deadline is None or done else deadline - now,
            restoring_s=awaited.restoring_s if awaited and not done else None,
            decision=story.decision(),
            training=story.training(),
            gain_db=story.gain_db,
            method=story.method,
            warnings=story.warnings,
            restored_at=story.restored_at,
            in_hand_s=story.in_hand_s,
            reason=story.reason if state == "failed" else None,
            finishing=stack in self._stories.controls.finishing,
        )
