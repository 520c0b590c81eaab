"""A service at a glance, for a terminal: what `serve` and `monitor` show."""

from __future__ import annotations

import time
from collections.abc import Iterator

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from otf_stream.cli.terminal import counted
from otf_stream.monitor.state import Alarm, SessionSummary, Status

MOST_SHOWN = 15
"""Sessions in the table: those at work, and the latest."""
_MOST_ALARMS = 6
_AROUND = 8  # lines of the table's frame, and below it
_COLOURS = {"critical": "bold red", "warning": "yellow", "info": "blue"}


def view(status: Status, lines: int = 1000) -> RenderableType:
    """Return what is to be seen, the newest first: what does not fit is what is over and done.

    Parameters
    ----------
    status
        Of a service.
    lines
        Of the terminal.
    """
    table = Table("session", "planes", "missing", "MB/s", "stacks", "doing", "time left")
    newest = sorted(reversed(status.sessions), key=lambda session: session.done)
    shown = newest[: max(min(MOST_SHOWN, lines - _AROUND - len(status.alarms[:_MOST_ALARMS])), 1)]
    for session in shown:
        table.add_row(*_row(session))
    below = [Text(_caption(status), style="dim")]
    if left_out := status.totals.sessions - len(shown):
        below.insert(0, Text(f"and {left_out} sessions more", style="dim"))
    alarms = [Text.from_markup(_alarm(alarm, status.at)) for alarm in status.alarms[:_MOST_ALARMS]]
    if more := len(status.alarms) - len(alarms):
        alarms.append(Text(f"and {more} alarms more"))
    return Group(table, *below, *alarms)


def gone(error: str, since: float) -> RenderableType:
    """Return what is to be seen below what was seen last, when there is nothing to see any more.

    Parameters
    ----------
    error
        Why.
    since
        UNIX seconds.
    """
    when = time.strftime("%H:%M:%S", time.localtime(since))
    return Text(f"{error} This is what it said before {when}; it is asked again and again.", style="bold red")


def _row(session: SessionSummary) -> Iterator[str]:
    yield escape(session.store.name)
    yield f"{session.durable}/{session.expected}"
    yield f"[yellow]{session.missing}[/]" if session.missing else "0"
    yield f"{session.bytes_per_s / 1e6:.1f}" if session.bytes_per_s else ""
    yield ", ".join(f"{count} {state}" for state, count in sorted(session.states.items()))
    yield "" if session.done else f"{session.stage}{' (learning waits)' if session.paused else ''}"
    yield "" if session.seconds_left is None else f"{session.seconds_left:.0f} s"


def _caption(status: Status) -> str:
    listener, worker = status.listener, status.worker
    if listener is None or not listener.current:
        return "the listener is not at work"
    said = [
        counted(listener.connections, "connection"),
        f"{listener.durable} planes on disk since the start",
        f"{listener.disk_free / 1e9:.1f} GB free",
    ]
    if worker is None or not worker.current:
        said.append("the worker is starting" if worker and worker.starting else "the worker is not at work")
    refused = ", ".join(f"{count} {escape(reason)}" for reason, count in sorted(listener.refused.items()))
    return ", ".join(said) + (f"; refused: {refused}" if refused else "")


def _alarm(alarm: Alarm, now: float) -> str:
    since = time.strftime("%H:%M:%S", time.localtime(alarm.since))
    day = time.strftime("%d %b ", time.localtime(alarm.since)) if now - alarm.since > 86_400 else ""
    severity = f"[{_COLOURS[alarm.severity]}]{alarm.severity}[/]"
    return f"{severity} since {day}{since}: {escape(alarm.text)}; {escape(alarm.remedy)}"
