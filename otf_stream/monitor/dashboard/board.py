"""What a page shows, made once for all browsers that show it.

A browser only tells what it has chosen. What is to be seen of that is made from the monitor's latest snapshot when the
first of them asks, and kept until the next snapshot; charts likewise. So ten browsers cost little more than one.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, TypeVar, cast

from otf_stream.acquisition import StackIndex
from otf_stream.monitor.dashboard import charts
from otf_stream.monitor.dashboard.answers import Answer, any_good, arriving, in_time
from otf_stream.monitor.dashboard.choice import Choice, found, session_of, stack_of
from otf_stream.monitor.dashboard.views import Window, find_window, newest, raw_version, restored_version
from otf_stream.monitor.monitor import Monitor
from otf_stream.monitor.state import Session, Snapshot, Stack
from otf_stream.store.reports import report_path

T = TypeVar("T")
_NO_WINDOW = Window(0.0, 1.0, 1.0)
_MOST_WINDOWS = 100
_PICTURES_S = 2.0  # between slices of a stack that is coming in: they are most of what a browser has to do


@dataclass(frozen=True)
class Shown:
    """What is shown of one stack of one session.

    Parameters
    ----------
    session, index, stack
        Which, and what is told of it.
    arriving, in_time, any_good
        The three answers.
    newest
        Where along z the newest plane lies, on the isotropic grid.
    window
        What is black and white in it.
    raw, restored
        What changes when something lands; None if there is nothing restored.
    report
        Whether there is a report.
    """

    session: Session
    index: StackIndex
    stack: Stack | None
    arriving: Answer
    in_time: Answer
    any_good: Answer
    newest: int
    window: Window
    raw: str
    restored: str | None
    report: bool


class Board:
    """Makes what pages show.

    Parameters
    ----------
    monitor
        That looks.
    """

    def __init__(self, monitor: Monitor) -> None:
        self.monitor = monitor
        self._at: float | None = None
        self._made: dict[Hashable, Any] = {}
        self._windows: dict[tuple[str, StackIndex], tuple[tuple[int, bool], Window]] = {}
        self._pictured: dict[tuple[str, StackIndex], tuple[float, int, str]] = {}

    @property
    def snapshot(self) -> Snapshot:
        """What was seen last."""
        return self.monitor.latest

    def shown(self, choice: Choice) -> Shown | None:
        """Return what is shown where that is chosen; None if there is no session."""
        session = self._once(("session", choice.session), lambda: session_of(choice, self.snapshot))
        if session is None:
            return None
        index = stack_of(choice, session)
        return self._once(("shown", session.id, index), lambda: self._show(session, index))

    def flow(self) -> charts.Options:
        """Return the chart of what flows."""
        return self._once("flow", lambda: charts.flow(charts.thinned(self.monitor.history)))

    def queues(self) -> charts.Options:
        """Return the chart of what waits."""
        return self._once("queues", lambda: charts.queues(charts.thinned(self.monitor.history)))

    def disk(self) -> charts.Options:
        """Return the chart of the room on the disk."""
        listener = self.snapshot.listener
        reserve = listener.disk_reserve if listener else 0
        return self._once("disk", lambda: charts.disk(charts.thinned(self.monitor.history), reserve))

    def learning(self, shown: Shown | None) -> charts.Options:
        """Return the chart of how learning goes."""
        of = shown and (shown.session.id, shown.index)
        return self._once(("learning", of), lambda: charts.learning(shown.stack if shown else None))

    def _show(self, session: Session, index: StackIndex) -> Shown:
        snapshot, stack = self.snapshot, found(session, index)
        place, raw = self._picture(session, index, stack)
        return Shown(
            session=session,
            index=index,
            stack=stack,
            arriving=arriving(session, snapshot.listener),
            in_time=in_time(stack, snapshot.worker, paused=session.paused),
            any_good=any_good(stack),
            newest=place,
            window=self._window(session, index, stack),
            raw=raw,
            restored=restored_version(session.store, index),
            report=report_path(session.store, index).is_file(),
        )

    def _picture(self, session: Session, index: StackIndex, stack: Stack | None) -> tuple[int, str]:
        """Return where the newest plane lies and what has landed: while planes come, as it was a moment ago."""
        now, known = self.snapshot.at, self._pictured.get((session.id, index))
        if known and stack and stack.state == "arriving" and known[0] <= now < known[0] + _PICTURES_S:
            return known[1:]
        if len(self._pictured) > _MOST_WINDOWS:
            self._pictured.clear()
        self._pictured[session.id, index] = now, newest(session, stack), raw_version(stack)
        return self._pictured[session.id, index][1:]

    def _window(self, session: Session, index: StackIndex, stack: Stack | None) -> Window:
        """Return the contrast of a stack, found anew whenever twice as many planes are there: it must not flicker."""
        version = (stack.planes.bit_length(), stack.state == "arriving") if stack else (0, False)
        known = self._windows.get((session.id, index))
        if known and known[0] == version and known[1] is not _NO_WINDOW:
            return known[1]
        window = find_window(session, index, newest(session, stack)) or (known[1] if known else _NO_WINDOW)
        if len(self._windows) > _MOST_WINDOWS:
            self._windows.clear()
        self._windows[session.id, index] = version, window
        return window

    def _once(self, what: Hashable, make: Callable[[], T]) -> T:
        """Return what was made of the latest snapshot, made now if it was not."""
        if self._at != self.snapshot.at:
            self._at = self.snapshot.at
            self._made.clear()
        if what not in self._made:
            self._made[what] = make()
        return cast("T", self._made[what])
