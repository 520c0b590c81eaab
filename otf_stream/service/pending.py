"""The stacks in a data folder that are to be restored, found in the stores and journals.

Whoever restores or previews stacks looks here, again and again. Stores stay open between two looks, and a finished
session costs two file stamps. A store that was deleted is closed at the look after the one that missed it, when whoever
was at it has noticed, too: until then, SQLite keeps what was deleted alive.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from otf_stream.acquisition import StackIndex
from otf_stream.service.casualties import set_aside
from otf_stream.service.whereabouts import Stage
from otf_stream.store.controls import Controls
from otf_stream.store.finding import SessionFinder
from otf_stream.store.journal import JournalError, last_changed
from otf_stream.store.session import SessionStore

Key = tuple[str, StackIndex]
"""The id of a session, and one of its stacks."""


@dataclass(frozen=True)
class PendingStack:
    """A stack that has planes, or never will, and is neither restored nor set aside.

    Parameters
    ----------
    store, stack
        The stack.
    previewed
        Whether it may have a preview; not one at whose previews the worker crashed, or that was cancelled.
    controls
        What was asked for in its session.
    """

    store: SessionStore
    stack: StackIndex
    previewed: bool = True
    controls: Controls = field(default_factory=Controls)

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
        self._finder = SessionFinder(data)
        # By session, not by path: a store may be deleted and another take its name.
        self._open: dict[str, SessionStore] = {}
        # Read once: a stack at which the worker crashes is set aside while there is no worker.
        self._set_aside: dict[str, dict[Stage, set[StackIndex]]] = {}
        self._controls: dict[str, Controls] = {}
        self._done: dict[str, tuple[int, ...]] = {}
        self._gone: list[SessionStore] = []

    def find(self) -> Iterator[PendingStack]:
        """Yield the stacks that are to be restored, of the oldest session first."""
        there = {path: str(attributes["session"]) for path, attributes in self._finder.find().items()}
        self._leave(set(there.values()))
        for path, session in there.items():
            # Somebody may move a store while it is looked at, and a damaged one must not stop the others.
            with suppress(JournalError, OSError, sqlite3.Error):
                yield from self._find_in(path, session)

    def close(self) -> None:
        """Close every session."""
        for store in (*self._gone, *self._open.values()):
            store.close()
        self._gone.clear()
        self._open.clear()

    def _leave(self, there: set[str]) -> None:
        """Let go of the sessions that are not there any more."""
        for store in self._gone:
            store.close()
        self._gone = [self._open.pop(session) for session in self._open.keys() - there]
        for session in self._set_aside.keys() - there:
            del self._set_aside[session], self._controls[session]
        for session in self._done.keys() - there:
            del self._done[session]

    def _find_in(self, path: Path, session: str) -> list[PendingStack]:
        changed = last_changed(path)
        if self._done.get(session) == changed:
            return []
        if session not in self._open:
            store = SessionStore.open(path)
            try:
                self._set_aside[session], self._controls[session] = set_aside(store.journal), Controls()
            except BaseException:
                store.close()
                raise
            self._open[session] = store
        store, aside = self._open[session], self._set_aside[session]
        journal = store.journal
        pending = journal.pending()
        if not pending and journal.closed is not None:
            # A sender that was silent may come back: the session is looked at again if its journal changes.
            self._open.pop(session).close()
            self._done[session] = changed
            return []
        controls = self._controls[session]
        controls.read(journal)
        return [
            PendingStack(store, s, s not in aside["preview"] | controls.cancelled, controls)
            for s in pending
            # Set aside, and more planes have come: it is tried again when they are all there.
            if s not in aside["turn"] or journal.state(s) != "arriving"
        ]
