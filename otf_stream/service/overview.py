"""What is going on in a data folder, read from the journals: the sessions, their planes and their stacks.

Nothing is pushed: whoever wants to know reads, as often as they like, and nobody waits for them.
"""

from __future__ import annotations

import sqlite3
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from otf_stream.store.journal import Journal, JournalError, journal_path
from otf_stream.store.session import find_sessions


@dataclass(frozen=True)
class SessionOverview:
    """One session at a glance.

    Parameters
    ----------
    store
        Its session store.
    expected, durable
        Planes announced, and planes that are on disk.
    closed
        Why no further plane will come; None while planes may.
    states
        How many of its stacks are in which state.
    stage
        What was begun last with one of its stacks.
    """

    store: Path
    expected: int
    durable: int
    closed: str | None
    states: dict[str, int]
    stage: str

    @property
    def done(self) -> bool:
        """Whether nothing more will happen to it."""
        return self.closed is not None and not set(self.states) - {"restored", "failed"}


def overview(data: Path) -> list[SessionOverview]:
    """Look at every session in ``data``, oldest first; what cannot be read is left out."""
    sessions = []
    for path in find_sessions(data):
        # Somebody may move a store while it is looked at, and a damaged one must not hide the others.
        with suppress(JournalError, OSError, sqlite3.Error):
            sessions.append(_session(path))
    return sessions


def _session(path: Path) -> SessionOverview:
    journal = Journal.open(journal_path(path))
    try:
        stage = journal.latest("stage")
        return SessionOverview(
            store=path,
            expected=journal.acquisition.planned,
            durable=journal.count(),
            closed=journal.closed,
            states=journal.states(),
            stage=str(stage.detail["stage"]) if stage else "",
        )
    finally:
        journal.close()
