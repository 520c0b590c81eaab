"""The stacks in a data folder that are to be restored, found in the stores and journals.

Whoever restores or previews stacks looks here, again and again. Stores stay open between two looks, and a finished
session costs two file stamps.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from otf_stream.acquisition import StackIndex
from otf_stream.store.journal import JournalError, journal_path
from otf_stream.store.session import SessionStore, find_sessions, session_attributes

Key = tuple[str, StackIndex]
"""The id of a session, and one of its stacks."""


@dataclass(frozen=True)
class PendingStack:
    """A stack that has planes, or never will, and is neither restored nor set aside."""

    store: SessionStore
    stack: StackIndex

    @property
    def key(self) -> Key:
        """What tells it from all others."""
        return self.store.session, self.stack


class PendingStacks:
    """Finds the stacks that are to be restored.

    Parameters
    ----------
    data
        The folder of the session stores.
    """

    def __init__(self, data: Path) -> None:
        self._data = data
        # By session, not by path: a store may be deleted and another take its name.
        self._open: dict[str, SessionStore] = {}
        self._done: dict[str, tuple[int, ...]] = {}

    def find(self) -> Iterator[PendingStack]:
        """Yield the stacks that are to be restored, of the oldest session first."""
        for path in find_sessions(self._data):
            # Somebody may move a store while it is looked at, and a damaged one must not stop the others.
            with suppress(JournalError, OSError, sqlite3.Error):
                yield from self._find_in(path)

    def close(self) -> None:
        """Close every session."""
        for store in self._open.values():
            store.close()
        self._open.clear()

    def _find_in(self, path: Path) -> list[PendingStack]:
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
        return [PendingStack(store, s) for s in pending if journal.span(s) or journal.closed is not None]


def _changed(store: Path) -> tuple[int, ...]:
    """When the journal of a store was changed last, as far as its files tell."""
    journal = journal_path(store)
    files = (journal, journal.with_name(journal.name + "-wal"))
    return tuple(file.stat().st_mtime_ns if file.exists() else 0 for file in files)
