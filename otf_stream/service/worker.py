"""The worker: a process of its own that tails the session stores and restores one stack after the other.

It owns the computing device. It is told nothing: it finds its work in the stores and journals, so it may die and
be restarted at any moment, and a stack that was being restored is simply restored again.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sqlite3
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import suppress
from multiprocessing.process import BaseProcess
from pathlib import Path
from threading import Event
from types import FrameType

import torch

from otf_stream.acquisition import StackIndex
from otf_stream.config import DeviceName
from otf_stream.learn.compute import Compute, choose_compute
from otf_stream.service.learning import Progress
from otf_stream.service.memory import Memory
from otf_stream.service.stack import EmptyStackError, Settings, restore_stack
from otf_stream.store.disk import is_full
from otf_stream.store.journal import JournalError, journal_path
from otf_stream.store.session import SessionStore, find_sessions, session_attributes

_POLL = 0.2
_ROOM_POLL = 5.0
_COUNT_AGAIN = 1.0  # seconds between two counts of the waiting stacks


class Worker:
    """Restores the stacks of every session in a data folder, those that began first, first.

    Parameters
    ----------
    data
        The folder of the session stores.
    settings
        How stacks are restored.
    compute
        Device and precision.
    """

    def __init__(self, data: Path, settings: Settings, compute: Compute) -> None:
        self._data = data
        self._settings = settings
        self._compute = compute
        # By session, not by path: a store may be deleted and another take its name.
        self._open: dict[str, SessionStore] = {}
        self._done: dict[str, tuple[int, ...]] = {}
        self._memory = Memory()
        self._counted = (float("-inf"), 1)

    def run(self, stop: Event) -> None:
        """Work until ``stop`` is set; a stack in progress is finished first."""
        while not stop.is_set():
            if not self.work_once():
                stop.wait(_POLL)

    def work_once(self) -> bool:
        """Restore the stack that has waited longest; return whether there was one."""
        waiting = sorted(self._waiting(), key=lambda item: item[0])
        if not waiting:
            return False
        _, store, stack = waiting[0]
        self._restore(store, stack)
        return True

    def close(self) -> None:
        """Close every session."""
        for store in self._open.values():
            store.close()
        self._open.clear()

    def _restore(self, store: SessionStore, stack: StackIndex) -> None:
        """Restore a stack; if even interpolating it fails, set it aside with its reason."""
        told = _stages(store, stack)
        try:
            restore_stack(
                store,
                stack,
                self._settings,
                self._compute,
                waiting=self._count,
                progress=told,
                patient=True,
                memory=self._memory,
            )
        except EmptyStackError as error:
            store.journal.note("empty", stack=list(stack), reason=str(error))
            store.journal.set_state(stack, "failed")
        except Exception as error:  # a stack must never take the others down with it
            if isinstance(error, OSError) and is_full(error):
                time.sleep(_ROOM_POLL)  # not even the journal could be written; nothing is lost by trying again
                return
            store.journal.note("failure", stack=list(stack), trace=traceback.format_exc())
            store.journal.set_state(stack, "failed")

    def _waiting(self) -> Iterator[tuple[float, SessionStore, StackIndex]]:
        """Yield stacks that have planes, or never will, and are not done, each with the time of its first plane."""
        for path in find_sessions(self._data):
            # Somebody may move a store while it is looked at, and a damaged one must not stop the others.
            with suppress(JournalError, OSError, sqlite3.Error):
                yield from self._waiting_in(path)

    def _waiting_in(self, path: Path) -> list[tuple[float, SessionStore, StackIndex]]:
        session = str((session_attributes(path) or {}).get("session"))
        changed = _changed(path)
        if self._done.get(session) == changed:
            return []
        if session not in self._open:
            self._open[session] = SessionStore.open(path)
        store = self._open[session]
        journal = store.journal
        pending = [s for s in journal.stacks() if journal.state(s) not in ("restored", "failed")]
        if not pending and journal.closed is not None:
            # A sender that was silent may come back: the session is looked at again if its journal changes.
            self._open.pop(session).close()
            self._done[session] = changed
        spans = {stack: journal.span(stack) for stack in pending}
        return [
            (span[0] if span else 0.0, store, stack)
            for stack, span in spans.items()
            if span or journal.closed is not None
        ]

    def _count(self) -> int:
        """Count the stacks that share the device; asked at every training step, hence remembered for a second."""
        at, count = self._counted
        if time.monotonic() - at > _COUNT_AGAIN:
            count = max(sum(1 for _ in self._waiting()), 1)
            self._memory = Memory()
        self._counted = (time.monotonic(), count)
        return count


def run_worker(data: Path, settings: Settings, device: DeviceName, threads: int | None) -> None:
    """Run a worker until SIGTERM: the body of its process."""
    stop = Event()

    def finish(number: int, frame: FrameType | None) -> None:
        stop.set()
        raise SystemExit(0)

    if parent := multiprocessing.parent_process():
        threading.Thread(target=_exit_after, args=(parent,), name="parent", daemon=True).start()
    signal.signal(signal.SIGTERM, finish)
    # A Ctrl-C goes to the whole group; the supervisor decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # One core stays free for the listener and the camera's software. Threads that wait for each other collapse when
    # one of their cores is taken: two on two cores train three times slower beside one busy process than one alone.
    torch.set_num_threads(threads or max((os.cpu_count() or 2) - 1, 1))
    worker = Worker(data, settings, choose_compute(device))
    try:
        worker.run(stop)
    finally:
        worker.close()


def _changed(store: Path) -> tuple[int, ...]:
    """When the journal of a store was changed last, as far as its files tell."""
    journal = journal_path(store)
    files = (journal, journal.with_name(journal.name + "-wal"))
    return tuple(file.stat().st_mtime_ns if file.exists() else 0 for file in files)


def _exit_after(parent: BaseProcess) -> None:
    """End with the parent process: a worker left alone would restore the same stacks as the next service's."""
    parent.join()
    os._exit(1)


def _stages(store: SessionStore, stack: StackIndex) -> Progress:
    """Note in the journal when a stage begins."""
    current = ""

    def progress(stage: str, done: float) -> None:
        nonlocal current
        if stage != current:
            current = stage
            store.journal.note("stage", stack=list(stack), stage=stage)

    return progress
