"""Which session and which stack a page shows: what was chosen, or what somebody at the microscope would look at.

A page that nobody touches follows the session in which a plane came last, and of it the stack that must be done first,
so that a screen on the wall is right without a hand on it. Pure functions of a snapshot.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import inf
from typing import TypeVar

from otf_stream.acquisition import StackIndex
from otf_stream.monitor.state import Session, Snapshot, Stack

T = TypeVar("T")
_OVER = frozenset(("restored", "failed"))


@dataclass(frozen=True)
class Choice:
    """What one browser has chosen; whatever is None is followed.

    Parameters
    ----------
    session
        Id of a session.
    stack
        One of its stacks.
    """

    session: str | None = None
    stack: StackIndex | None = None

    @property
    def follows(self) -> bool:
        """Whether nothing was chosen."""
        return self.session is None and self.stack is None

    def at(self, stack: StackIndex, session: Session) -> Choice:
        """Return the choice of a stack of a session."""
        return replace(self, session=session.id, stack=stack)


def session_of(choice: Choice, snapshot: Snapshot) -> Session | None:
    """Return the session that is shown; None if there is none."""
    chosen = snapshot.session(choice.session) if choice.session is not None else None
    return chosen or max(snapshot.sessions, key=lambda one: one.latest or one.created, default=None)


def stack_of(choice: Choice, session: Session) -> StackIndex:
    """Return the stack of a session that is shown."""
    if choice.stack is not None and choice.session == session.id:
        return choice.stack
    pending = [stack for stack in session.stacks if stack.state not in _OVER]
    if pending:
        first = min(pending, key=lambda one: (one.deadline or inf, one.t, one.c))
        return first.t, first.c
    if session.stacks:
        last = max(session.stacks, key=lambda one: (one.restored_at or 0.0, one.t, one.c))
        return last.t, last.c
    return 0, 0


def found(session: Session, stack: StackIndex) -> Stack | None:
    """Return what is told of a stack; None if it has no plane, or is long over."""
    return next((one for one in session.stacks if (one.t, one.c) == stack), None)


def matching(sessions: Sequence[Session], words: str) -> list[Session]:
    """List the sessions whose name or id holds what was typed, the latest first."""
    wanted = words.strip().casefold()
    return [one for one in reversed(sessions) if not wanted or wanted in one.name.casefold() or wanted in one.id]


def neighbour(items: Sequence[T], current: T, step: int) -> T | None:
    """Return the item so many steps on from the current one, not past the ends; the first if it is not there."""
    if not items:
        return None
    if current not in items:
        return items[0]
    return items[min(max(items.index(current) + step, 0), len(items) - 1)]
