"""The monitor: one thread looks, all others read what it saw last, and requests go to the journals.

However many browsers, scripts and Prometheus servers ask, the data folder is looked at once a second. What people ask
of the worker is checked against the journal, which decides, and not against what was seen.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from otf_stream.acquisition import StackIndex
from otf_stream.monitor.access import Access
from otf_stream.monitor.log import ThroughputLog
from otf_stream.monitor.lookout import Lookout, News
from otf_stream.monitor.problems import ProblemError
from otf_stream.monitor.processes import resident_bytes
from otf_stream.monitor.state import Session, Snapshot
from otf_stream.store.controls import Control, ask
from otf_stream.store.journal import Event, Journal, JournalError, journal_path

log = logging.getLogger(__name__)

INTERVAL = 1.0
"""Seconds between two looks."""
HISTORY = 900
"""Samples that are kept: a quarter of an hour."""
_MOST_UNTOLD = 1000  # looks


class Sample(BaseModel):
    """What flowed at one moment."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    at: float
    planes_per_s: float
    bytes_per_s: float
    queue_bytes: int
    stacks_waiting: int
    disk_free: int


class Asked(BaseModel):
    """What was asked of the worker; it does so at its next turn."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    control: Control
    session: str
    t: int | None = None
    c: int | None = None


class Monitor:
    """Looks at a data folder, writes the throughput log, and asks things of the worker.

    Parameters
    ----------
    data
        The folder of the session stores.
    access
        Who may ask; only counted here.
    throughput
        Whether to write the log.
    """

    def __init__(self, data: Path, access: Access | None = None, *, throughput: bool = True) -> None:
        self.data = data
        self.access = access or Access()
        self._lookout = Lookout(data)
        self._log = ThroughputLog(data) if throughput else None
        self._untold: deque[tuple[Session, list[Event]]] = deque(maxlen=_MOST_UNTOLD)
        self._history: deque[Sample] = deque(maxlen=HISTORY)
        self._failed = False
        self.resident: Mapping[str, int] = {}
        """Bytes of memory of the service's processes."""
        self.took = 0.0
        """Seconds that the last look took."""
        self.latest: Snapshot = self.look()
        """What was seen last."""

    def look(self) -> Snapshot:
        """Look now; for one thread."""
        begun = time.perf_counter()
        snapshot = self._lookout.look()
        self.resident = resident_bytes(snapshot)
        listener, worker, totals = snapshot.listener, snapshot.worker, snapshot.totals
        sample = Sample(
            at=snapshot.at,
            planes_per_s=totals.planes_per_s,
            bytes_per_s=totals.bytes_per_s,
            queue_bytes=listener.queue_bytes if listener and listener.current else 0,
            stacks_waiting=worker.stacks if worker and worker.current else 0,
            disk_free=listener.disk_free if listener else 0,
        )
        self._history.append(sample)
        self.latest = snapshot
        self._tell(snapshot, self._lookout.news)
        self.took = time.perf_counter() - begun
        return snapshot

    def run(self, stop: threading.Event) -> None:
        """Look every second until ``stop`` is set: the body of a thread."""
        while not stop.wait(INTERVAL):
            try:
                self.look()
            except Exception:  # the next look may find what this one stumbled over gone
                log.exception("cannot look at %s", self.data)

    def close(self) -> None:
        """Close every journal."""
        self._lookout.close()

    @property
    def history(self) -> list[Sample]:
        """What flowed within the last quarter of an hour, the oldest first."""
        return list(self._history)

    def session(self, name: str) -> Session:
        """Return a session by its id.

        Raises
        ------
        ProblemError
            If there is none.
        """
        if (found := self.latest.session(name)) is None:
            raise ProblemError(
                404,
                "there is no such session",
                f"there is no session {name!r:.100} in {self.data.name}",
                value=name,
                limit="the ids of the sessions in the data folder",
                remedy="GET /api/v1/sessions lists them",
            )
        return found

    def ask(self, control: Control, name: str, stack: StackIndex | None = None) -> Asked:
        """Ask something of the worker.

        Parameters
        ----------
        control
            What is asked for.
        name
            Id of the session.
        stack
            Which of its stacks, where it concerns one.

        Raises
        ------
        ProblemError
            If there is no such session or stack, or it is done already; or if the journal cannot be written.
        """
        session = self.session(name)
        try:
            journal = Journal.open(journal_path(session.store))
        except (OSError, JournalError) as error:
            raise _unwritable(name, error) from error
        try:
            if stack is not None:
                _check(journal, session, stack)
            ask(journal, control, stack)
        except (OSError, sqlite3.Error) as error:
            raise _unwritable(name, error) from error
        finally:
            journal.close()
        return Asked(control=control, session=name, t=stack and stack[0], c=stack and stack[1])

    def ask_all(self, control: Control) -> list[Asked]:
        """Ask something of the worker for every session that is not done."""
        return [self.ask(control, session.id) for session in self.latest.sessions if not session.done]

    def _tell(self, snapshot: Snapshot, news: News) -> None:
        """Write the log; what a full disk does not take is told later."""
        if self._log is None:
            return
        self._untold += news
        try:
            self._log.write(snapshot, list(self._untold), self.resident)
        except OSError as error:
            if not self._failed:
                log.warning("cannot write the throughput log: %s", error)
            self._failed = True
        else:
            self._untold.clear()
            self._failed = False


def _check(journal: Journal, session: Session, stack: StackIndex) -> None:
    """Check that something can be asked of a stack."""
    t, c = stack
    if not journal.acquisition.holds((t, c, 0)):
        sizes = journal.acquisition.sizes
        raise ProblemError(
            404,
            "there is no such stack",
            f"{session.name} has no stack t={t}, c={c}",
            value=f"t={t}, c={c}",
            limit=f"t from 0 to {sizes.t - 1}, c from 0 to {sizes.c - 1}",
            remedy=f"GET /api/v1/sessions/{session.id} lists its stacks",
        )
    if not journal.presence(stack).planes:
        raise ProblemError(
            409,
            "the stack has not begun",
            f"no plane of stack t={t}, c={c} has come",
            value="arriving",
            limit="stacks of which a plane is on disk",
            remedy="wait for its first plane",
        )
    state = journal.state(stack)
    if state in ("restored", "failed"):
        raise ProblemError(
            409,
            "the stack is done",
            f"stack t={t}, c={c} is {state}",
            value=state,
            limit="stacks that are arriving, arrived or restoring",
            remedy="restore it anew with `otf-stream restore`, into another store",
        )


def _unwritable(name: str, error: Exception) -> ProblemError:
    return ProblemError(
        503,
        "the journal cannot be written",
        f"the journal of session {name} cannot be written: {error}",
        value=name,
        limit="a journal that this process may write, on a disk that has room",
        remedy="make room on the disk, or let the user who runs the monitor write the data folder; then ask again",
    )
