"""A process that writes reports at the lowest priority, as it is told on its standard input; it ends when that does.

The worker must not lose time to reports, so they are written where they take what nobody else wants of the processor,
and by one process that stays, since reading its modules takes longer than a report. It is told of every stack that has
been restored, a line of JSON each, and knows by itself which of them get a report. Whatever goes wrong with one is an
event in the journal of its session.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
import traceback
from collections import deque
from contextlib import closing, suppress
from pathlib import Path
from typing import NamedTuple, TextIO

from otf_stream.acquisition import StackIndex
from otf_stream.store.journal import Journal, journal_path
from otf_stream.store.reports import report_path


class Restored(NamedTuple):
    """A stack that has been restored."""

    store: Path
    stack: StackIndex


class Desk:
    """The reports that are still to be written, and those that were.

    Parameters
    ----------
    each
        Write one of each stack; otherwise of the first and of the latest time point of each channel.
    """

    def __init__(self, *, each: bool) -> None:
        self._each = each
        self._waiting: deque[Restored] = deque()
        self._latest: dict[tuple[Path, int], StackIndex] = {}
        self._changed = threading.Condition()
        self._over = False

    def put(self, restored: Restored) -> None:
        """Ask for a report; where only the latest is wanted, nobody waits for one before it any more."""
        with self._changed:
            if not self._each:
                self._waiting = deque(w for w in self._waiting if not self._replaces(restored, w))
            self._waiting.append(restored)
            self._changed.notify()

    def close(self) -> None:
        """Nothing more will be asked for, and what waits is not wanted."""
        with self._changed:
            self._over = True
            self._changed.notify()

    def take(self) -> Restored | None:
        """Wait for the next report to write; None if there is none any more."""
        with self._changed:
            self._changed.wait_for(lambda: self._over or self._waiting)
            return None if self._over else self._waiting.popleft()

    def written(self, restored: Restored) -> None:
        """Remove the report that this one replaces, if this process wrote it."""
        t, c = restored.stack
        if self._each or t == 0:
            return
        place = restored.store, c
        before = self._latest.get(place)
        self._latest[place] = restored.stack
        if before and before != restored.stack:
            report_path(restored.store, before).unlink(missing_ok=True)

    @staticmethod
    def _replaces(new: Restored, old: Restored) -> bool:
        same_channel = (new.store, new.stack[1]) == (old.store, old.stack[1])
        return new == old or (same_channel and old.stack[0] != 0 and new.stack[0] != 0)


def write(restored: Restored) -> bool:
    """Write a report and note it in the journal; return whether it was written, whatever may have failed."""
    from otf_stream.report.page import write_report

    began = time.monotonic()
    try:
        page = write_report(*restored)
    except Exception:
        _note(restored, "report failed", trace=traceback.format_exc())
        return False
    _note(restored, "report", file=page.name, seconds=round(time.monotonic() - began, 3))
    return True


def _note(restored: Restored, kind: str, **detail: object) -> None:
    # Nothing depends on it, and the store may be gone.
    with suppress(Exception), closing(Journal.open(journal_path(restored.store))) as journal:
        journal.note_in_passing(kind, stack=list(restored.stack), **detail)


def _listen(lines: TextIO, desk: Desk) -> None:
    for line in lines:
        told = json.loads(line)
        desk.put(Restored(Path(told["store"]), (int(told["stack"][0]), int(told["stack"][1]))))
    desk.close()


def _step_back() -> None:
    """Leave the processor to everybody else."""
    if hasattr(os, "nice"):
        os.nice(19)
    else:
        import psutil

        psutil.Process().nice(psutil.IDLE_PRIORITY_CLASS)


def main() -> None:
    """Write reports until standard input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C goes to the whole group; the worker decides what it means
    _step_back()
    desk = Desk(each="each" in sys.argv[1:])
    threading.Thread(target=_listen, args=(sys.stdin, desk), name="desk", daemon=True).start()
    while (restored := desk.take()) is not None:
        if write(restored):
            desk.written(restored)


if __name__ == "__main__":
    main()
