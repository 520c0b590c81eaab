"""Stacks that crash the worker: each crash is noted in the journal of its session, and the second sets the stack aside.

A Python error in a stack never leaves the worker; what is dealt with here ends the process: a fault in native code, or
the kernel that runs out of memory. The supervisor, which survives, writes down what the worker was at. The journal is
where crashes are counted, so that the count outlives the service. A stack that is set aside counts as failed, its
planes are kept, and a report beside the store tells a human what happened. It is tried again if more planes of it come,
but only once they are all there, or every single one would cost two crashes.

Whoever kills the worker by hand says nothing about the stack that it was at. Where the kernel tells that it was not
short of memory, a stack therefore has to be killed more often before it is set aside.
"""

from __future__ import annotations

import re
import shutil
import sqlite3
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from otf_stream.acquisition import StackIndex
from otf_stream.service.casualty_report import events_of, how_it_ended, in_words, report, report_path
from otf_stream.service.whereabouts import Stage, Whereabout, Whereabouts
from otf_stream.store.journal import Event, Journal, JournalError, journal_path

_CRASHES = 2  # of which the stack is the likely cause
_ENDS = 5  # with those of which it is not
_PATIENCE = 2.0  # seconds that a locked journal is waited for; meanwhile nothing is restarted
_RETRY = 10.0
_AT_ONCE = float("-inf")
_MOST_UNNOTED = 100
_LONGEST_TRACE = 20_000  # characters
_KERNEL = Path("/proc")


@dataclass
class Casualty:
    """A stack at which the worker died.

    Parameters
    ----------
    where
        The stack, and what was being done to it.
    code
        Exit code of the process; a signal's number, negative, if one ended it.
    outside
        Whether it was killed by somebody, and not by what it did.
    trace
        The Python stacks of its threads at that moment, where there are any.
    at
        When, in UNIX seconds.
    noted
        Whether the journal tells of it.
    """

    where: Whereabout
    code: int
    outside: bool
    trace: str
    at: float
    noted: bool = False


class Casualties:
    """Keeps the account of the stacks at which workers died.

    Parameters
    ----------
    data
        The folder of the session stores.
    """

    def __init__(self, data: Path) -> None:
        self._data = data
        self.whereabouts = Whereabouts()
        """Where the worker says what it is at."""
        self.faults = data / ".worker.faults"
        """Where the worker's Python stacks are written when it crashes."""
        self._unnoted: deque[Casualty] = deque(maxlen=_MOST_UNNOTED)
        self._again = _AT_ONCE
        self._memory_kills: int | None = None

    def begin(self) -> None:
        """Get ready for a worker that is about to start."""
        self.whereabouts.clear()
        with suppress(OSError):
            self.faults.unlink(missing_ok=True)
        self._memory_kills = _memory_kills()

    def count(self, code: int) -> list[str]:
        """Take a worker's death into account; return what is to be told of it, if no stack is involved.

        Parameters
        ----------
        code
            Its exit code.
        """
        if code == 0:  # it was told to end
            return []
        trace = _read(self.faults)
        at = suspects(self.whereabouts.read(), trace)
        outside = code == -9 and self._memory_kills is not None and _memory_kills() == self._memory_kills
        self._unnoted.extend(Casualty(where, code, outside, trace, time.time()) for where in at)
        self._again = _AT_ONCE
        if at or not trace:
            return []
        kept = self._data / "worker-crash.txt"
        try:
            kept.write_text(trace, encoding="utf-8")
        except OSError:
            return []
        return [f"the worker was at no stack when it crashed; {kept} has its Python stacks"]

    def note(self) -> list[str]:
        """Note in the journals what has been counted, and set aside what must be; return what is to be told of it.

        A journal that cannot be written now is tried again later.
        """
        told: list[str] = []
        while self._unnoted and time.monotonic() >= self._again:
            casualty = self._unnoted[0]
            try:
                told += _note(self._data, casualty)
            except Exception as error:  # whatever it is, the service must go on
                if not _is_lost(error):
                    if self._again == _AT_ONCE:
                        told.append(f"the end of the worker at {_name(casualty.where)} cannot be noted yet: {error}")
                    self._again = time.monotonic() + _RETRY
                    break
            self._unnoted.popleft()
        return told

    def close(self) -> None:
        """Remove what only a running service needs."""
        with suppress(OSError):
            self.faults.unlink(missing_ok=True)


def suspects(at: Sequence[Whereabout], trace: str) -> list[Whereabout]:
    """Of all that a worker was at, select what it probably died of.

    Parameters
    ----------
    at
        All that it was at.
    trace
        What `faulthandler` wrote, which marks the thread that crashed; empty where the process was killed.

    Returns
    -------
    list of Whereabout
        That which the crashed thread was at, or, where that is not known, all.
    """
    crashed = re.search(r"^Current thread 0x([0-9a-fA-F]+)", trace, re.MULTILINE)
    return [where for where in at if crashed and where.thread == int(crashed[1], 16)] or list(at)


def crashes_at(events: Sequence[Event], stack: StackIndex, stage: Stage) -> list[Event]:
    """Find the crashes of the worker at a stack since it was last restored or set aside."""
    found: list[Event] = []
    for event in events_of(events, stack):
        if event.kind == "crash" and event.detail["stage"] == stage:
            found.append(event)
        elif event.kind == "restored" or (event.kind == "set aside" and event.detail["stage"] == stage):
            found.clear()
    return found


def is_poisoned(crashes: Sequence[Event]) -> bool:
    """Whether a stack with these crashes must be set aside, lest it keep the worker from all others."""
    return sum(not crash.detail["outside"] for crash in crashes) >= _CRASHES or len(crashes) >= _ENDS


def set_aside(journal: Journal) -> dict[Stage, set[StackIndex]]:
    """Find the stacks that were ever set aside, and those that are to have no previews any more."""
    found: dict[Stage, set[StackIndex]] = {"turn": set(), "preview": set()}
    for event in journal.events(kinds=("set aside",)):
        t, c = event.detail["stack"]
        found[event.detail["stage"]].add((t, c))
    return found


def _note(data: Path, casualty: Casualty) -> list[str]:
    """Note a casualty in the journal of its session, and set the stack aside if that is due."""
    where = casualty.where
    store = data / where.store
    journal = Journal.open(journal_path(store), patience=_PATIENCE)
    try:
        if not casualty.noted:
            journal.note(
                "crash",
                stack=list(where.stack),
                stage=where.stage,
                exit_code=casualty.code,
                how=how_it_ended(casualty.code),
                outside=casualty.outside,
                died=casualty.at,
                free_memory_gb=_free_memory(),
                free_disk_gb=round(shutil.disk_usage(data).free / 1e9, 2),
                trace=casualty.trace,
            )
            casualty.noted = True
        crashes = crashes_at(journal.events_of(where.stack), where.stack, where.stage)
        what = "restored" if where.stage == "turn" else "previewed"
        told = [f"{_name(where)} was being {what} when the worker ended: {in_words(crashes[-1])}"] if crashes else []
        return told + (_set_aside(store, journal, where, crashes) if is_poisoned(crashes) else [])
    finally:
        journal.close()


def _set_aside(store: Path, journal: Journal, where: Whereabout, crashes: Sequence[Event]) -> list[str]:
    acquisition, path = journal.acquisition, report_path(store, where.stack, where.stage)
    text = report(
        store,
        where.stack,
        where.stage,
        crashes=crashes,
        events=journal.events_of(where.stack),
        planes=journal.planes_of(where.stack),
        planned=None if acquisition.growing else len(acquisition.planes_of(where.stack[1])),
    )
    written = f"see {path}"
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:  # the queue does not wait for a report
        written = f"the report {path} cannot be written: {error.strerror}"
    if where.stage == "turn":
        journal.set_state(where.stack, "failed")
    journal.note("set aside", stack=list(where.stack), stage=where.stage, crashes=len(crashes), report=path.name)
    what = "is set aside, its planes are kept" if where.stage == "turn" else "gets no more previews"
    return [f"{_name(where)} {what}: the worker crashed {len(crashes)} times at it; {written}"]


def _is_lost(error: Exception) -> bool:
    """Whether a journal is gone or damaged; the worker does not find the stack either. It may also just be locked."""
    damaged = isinstance(error, JournalError) and not isinstance(error.__cause__, sqlite3.OperationalError)
    return damaged or isinstance(error, FileNotFoundError)


def _name(where: Whereabout) -> str:
    return f"{where.store} t{where.stack[0]} c{where.stack[1]}"


def _read(faults: Path) -> str:
    try:
        with faults.open(encoding="utf-8", errors="replace") as file:
            return file.read(_LONGEST_TRACE)
    except OSError:
        return ""


def _kernel_figure(file: str, name: str) -> int | None:
    """Read a figure that the kernel tells; None where there is no such kernel."""
    try:
        text = (_KERNEL / file).read_text(encoding="ascii")
    except (OSError, ValueError):
        return None
    found = re.search(rf"^{name}:?\s+(\d+)", text, re.MULTILINE)
    return int(found[1]) if found else None


def _memory_kills() -> int | None:
    """How many processes the kernel has killed so far because memory ran out."""
    return _kernel_figure("vmstat", "oom_kill")


def _free_memory() -> float | None:
    kilobytes = _kernel_figure("meminfo", "MemAvailable")
    return None if kilobytes is None else round(kilobytes * 1024 / 1e9, 2)
