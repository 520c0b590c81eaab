"""What has changed in a session since somebody looked at it last; what a viewer needs to follow it, without a viewer.

A look costs the time stamps of two files while nothing happens.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from otf_stream.acquisition import PlaneIndex
from otf_stream.store.journal import Journal, JournalError, journal_path, last_changed
from otf_stream.viewers.layers import has_content

_PATIENCE = 0.2  # seconds that a viewer may hang because somebody else writes the journal


@dataclass(frozen=True)
class Seen:
    """A session at one moment.

    Parameters
    ----------
    planes, expected
        How many planes are there, and how many are to come in all; None where nobody knows.
    newest
        The plane that came last.
    states
        How many stacks are in which state.
    shape
        Lengths along t, c and z.
    content
        Whether there is anything of a restored image.
    over
        Whether no more planes will come.
    """

    planes: int
    expected: int | None
    newest: PlaneIndex | None
    states: tuple[tuple[str, int], ...]
    shape: tuple[int, int, int]
    content: bool
    over: bool

    def as_text(self) -> str:
        """Return it for a human."""
        of = f" of {self.expected}" if self.expected else ""
        lines = [f"{self.planes}{of} planes{', no more will come' if self.over else ''}"]
        lines += [f"{count} {'stack' if count == 1 else 'stacks'} {state}" for state, count in self.states]
        if self.newest:
            t, c, z = self.newest
            lines.append(f"newest: time point {t}, channel {c}, plane {z}")
        return "\n".join(lines)


class Follower:
    """Looks at one session again and again.

    Parameters
    ----------
    path
        Of the session store.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._stamps: tuple[int, ...] = ()

    @property
    def has_journal(self) -> bool:
        """Whether there is a journal; a store that was moved without it cannot be followed."""
        return journal_path(self.path).is_file()

    def look(self) -> Seen | None:
        """Return what there is now; None if nothing has changed, or it cannot be read at this moment."""
        stamps = last_changed(self.path)
        if stamps == self._stamps or not self.has_journal:
            return None
        try:
            with closing(Journal.open(journal_path(self.path), patience=_PATIENCE)) as journal:
                acquisition, planes = journal.acquisition, journal.count()
                seen = Seen(
                    planes=planes,
                    expected=None if acquisition.growing else acquisition.planned,
                    newest=journal.newest(),
                    states=tuple(sorted(journal.states().items())),
                    shape=(acquisition.sizes.t, acquisition.sizes.c, acquisition.sizes.z),
                    content=has_content(self.path),
                    over=journal.closed is not None or (not acquisition.growing and planes == acquisition.planned),
                )
        except (OSError, JournalError, sqlite3.Error):
            return None
        self._stamps = stamps
        return seen
