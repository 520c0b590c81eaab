"""The worker: a process of its own that tails the session stores and restores their stacks by turns.

It owns the computing device. It is told nothing: it finds its work in the stores and journals, so it may die and
be restarted at any moment, and a stack that was being restored is simply restored again. Of the stacks that have
something to do, the one whose deadline is nearest has the next turn; one that waits for its planes leaves the device
to the others.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import sqlite3
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.process import BaseProcess
from pathlib import Path
from threading import Event
from types import FrameType

import torch

from otf_stream.acquisition import StackIndex
from otf_stream.config import ServiceConfig
from otf_stream.heap import release_memory
from otf_stream.learn.compute import Compute, choose_compute
from otf_stream.monitor.work import MOST, Awaited, WorkerStatus, keep_telling
from otf_stream.restore.turns import Turn
from otf_stream.service.costs import Costs
from otf_stream.service.curve import Progress
from otf_stream.service.demand import Demand, time_to_spare
from otf_stream.service.memory import Memory
from otf_stream.service.pending import Key, PendingStack, PendingStacks
from otf_stream.service.preview import Previewer
from otf_stream.service.reporting import Reporter
from otf_stream.service.settings import Settings
from otf_stream.service.source import StackSource
from otf_stream.service.speed import at_best_size, warm_up
from otf_stream.service.stack import Restoration, expected_demand
from otf_stream.service.whereabouts import Whereabouts
from otf_stream.store.controls import CANCELLED
from otf_stream.store.disk import passes
from otf_stream.store.session import SessionStore

_POLL = 0.2
_SIZES = [2**exponent for exponent in range(20, 24)]  # pixels
_LOOK_AGAIN = 1.0  # seconds between two looks for stacks
_AT_ONCE = 6  # stacks are learnt from; each keeps some hundred megabytes of planes and networks
_LAST_MOMENT = 5.0  # seconds before that, a stack that would be one more is begun all the same, to be interpolated


class CancelledError(Exception):
    """Somebody asked for no more work on a stack."""


class Worker:
    """Restores the stacks of every session in a data folder, those that must be done first, first.

    Parameters
    ----------
    data
        The folder of the session stores.
    settings
        How stacks are restored.
    compute
        Device and precision.
    claim
        Returns whether nobody else is writing the volume of a stack, and from then on will.
    whereabouts
        Where it says what it is at.
    restored
        Is told of each stack that has been restored, and neither waits nor raises.
    """

    def __init__(
        self,
        data: Path,
        settings: Settings,
        compute: Compute,
        *,
        claim: Callable[[Key], bool] = lambda key: True,
        whereabouts: Whereabouts | None = None,
        restored: Callable[[Path, StackIndex], None] = lambda store, stack: None,
    ) -> None:
        self._restored = restored
        self._whereabouts = whereabouts or Whereabouts()
        self._settings = settings
        self._compute = compute
        self._claim = claim
        self._pending = PendingStacks(data)
        self._memory = Memory()
        self._costs = Costs(on_processor=compute.device.type == "cpu")
        self._begun: dict[Key, Restoration] = {}
        self._waiting: dict[Key, PendingStack] = {}
        self._demands: dict[Key, Demand] = {}
        self._looked = float("-inf")
        self._began_turn = time.time()
        self._told: dict[Key, Demand] = {}  # what is told while it looks for others

    def run(self, stop: Event) -> None:
        """Work until ``stop`` is set."""
        busy = False
        while not stop.is_set():
            ended = self.work()
            if busy and ended is None:  # others may need it; what the next stack would take of it lies in pieces
                gc.collect()
                release_memory()
            busy = ended is not None
            if ended is not Turn.READY:
                time.sleep(_POLL)  # not a wait for what a signal's handler sets: it would wait for its own lock

    def work(self) -> Turn | None:
        """Give a stack that has something to do a turn, the most urgent one.

        Returns
        -------
        Turn or None
            How the turn ended, or that all wait; None where there is no stack.
        """
        self._look()
        for key in sorted(self._waiting, key=self._urgency):
            if key not in self._begun and len(self._begun) >= _AT_ONCE and not self._is_last_moment(key):
                continue
            waiting = self._waiting[key]
            self._began_turn = time.time()
            with self._whereabouts.at("turn", waiting.store.path.name, waiting.stack):
                turn = self._turn(key)
            if turn is Turn.READY:
                return Turn.READY
        return Turn.WAITING if self._waiting else None

    def status(self, now: float, process: int) -> WorkerStatus:
        """Tell what it knows to be done, for people to see; any thread may ask."""
        demands, begun = dict(self._told), set(self._begun)
        urgent = sorted(demands.items(), key=lambda item: item[1].deadline)[:MOST]
        awaited = tuple(
            Awaited(session, *stack, demand.deadline, demand.restoring, (session, stack) in begun)
            for (session, stack), demand in urgent
        )
        return WorkerStatus(now, process, str(self._compute), self._began_turn, len(demands), awaited)

    def close(self) -> None:
        """Close every session."""
        self._begun.clear()
        self._pending.close()

    def _is_last_moment(self, key: Key) -> bool:
        """Whether a stack that has not been begun must be, since it has just the time to be interpolated."""
        return time_to_spare(time.time(), self._demands[key], self._others(key)) < _LAST_MOMENT

    def _others(self, key: Key) -> list[Demand]:
        return [demand for other, demand in self._demands.items() if other != key]

    def _urgency(self, key: Key) -> tuple[float, StackIndex, str]:
        return self._demands[key].deadline, key[1], key[0]

    def _begin(self, key: Key) -> Restoration:
        waiting = self._waiting[key]
        return Restoration(
            waiting.store,
            waiting.stack,
            self._settings,
            self._compute,
            progress=_stages(waiting.store, waiting.stack),
            others=lambda: self._others(key),
            patient=True,
            memory=self._memory,
            costs=self._costs,
            claim=lambda: self._claim(key),
        )

    def _turn(self, key: Key) -> Turn:
        """Give a stack a turn; if even interpolating it fails, set it aside with its reason."""
        try:
            try:
                waiting = self._waiting[key]
                asked = waiting.controls
                asked.read(waiting.store.journal)
                if waiting.stack in asked.cancelled:
                    raise CancelledError
                if key not in self._begun:
                    self._begun[key] = self._begin(key)
                restoration = self._begun[key]
                restoration.heed(paused=asked.paused, finishing=waiting.stack in asked.finishing)
                if turn := restoration.turn():
                    self._demands[key] = restoration.demand()
                    return turn
                self._restored(waiting.store.path, waiting.stack)
            except CancelledError:
                self._fail(key, CANCELLED, reason=CANCELLED)
            except Exception as error:  # a stack must never take the others down with it
                if passes(error):
                    raise
                self._fail(key, "failure", trace=traceback.format_exc())
        except (OSError, sqlite3.Error):
            # It may pass, or not even the journal could be written; nothing is lost by trying again.
            self._begun.pop(key, None)
            return Turn.WAITING
        del self._waiting[key], self._demands[key]
        self._begun.pop(key, None)
        return Turn.READY

    def _fail(self, key: Key, kind: str, **why: str) -> None:
        waiting = self._waiting[key]
        waiting.store.journal.note(kind, stack=list(waiting.stack), **why)
        waiting.store.journal.set_state(waiting.stack, "failed")

    def _look(self) -> None:
        """Look for stacks that wait, now and then."""
        if self._waiting and time.monotonic() - self._looked < _LOOK_AGAIN:
            return
        self._waiting, self._demands = {}, {}
        for pending in self._pending.find():
            with suppress(OSError, sqlite3.Error):  # somebody may move a store while it is looked at
                self._demands[pending.key] = self._demand(pending)
                self._waiting[pending.key] = pending
        for key in self._begun.keys() - self._waiting.keys():
            del self._begun[key]  # its store is gone
        self._looked, self._told = time.monotonic(), self._demands

    def _demand(self, pending: PendingStack) -> Demand:
        if begun := self._begun.get(pending.key):
            return begun.demand()
        source = StackSource(pending.store, pending.stack, silence=self._settings.silence)
        return expected_demand(source, self._settings, self._costs)


def run_worker(config: ServiceConfig, whereabouts: Whereabouts) -> None:
    """Run a worker until SIGTERM, which says where it is at: the body of its process."""
    data, settings, threads, stop = config.data, Settings.of(config), config.threads, Event()

    def finish(number: int, frame: FrameType | None) -> None:
        stop.set()
        raise SystemExit(0)

    if parent := multiprocessing.parent_process():
        threading.Thread(target=_exit_after, args=(parent,), name="parent", daemon=True).start()
    signal.signal(signal.SIGTERM, finish)
    # A Ctrl-C goes to the whole group; the supervisor decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # While it trains, one core stays free for the listener and the camera's software. Threads that wait for each other
    # collapse when one of their cores is taken: two on two cores train three times slower beside one busy process than
    # one alone. What is computed side by side waits for nobody and may take all cores.
    torch.set_num_threads(threads or max((os.cpu_count() or 2) - 1, 1))
    compute = choose_compute(config.device, threads)  # first, so that all threads share their memory
    previewer = Previewer(PendingStacks(data), silence=settings.silence, whereabouts=whereabouts)
    threading.Thread(target=previewer.run, args=(stop,), name="previews", daemon=True).start()
    if settings.learns:
        warm_up(compute)
    if compute.device.type != "cpu":  # what is best for its cores is known
        compute = at_best_size(compute, _SIZES)
    reporter = Reporter(config.reports)
    worker = Worker(data, settings, compute, claim=previewer.claim, whereabouts=whereabouts, restored=reporter.restored)
    threading.Thread(target=keep_telling, args=(data, worker.status, stop), name="status", daemon=True).start()
    try:
        worker.run(stop)
    finally:
        worker.close()
        reporter.close()


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
