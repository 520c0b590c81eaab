"""What people ask of the worker while it works: cancel a stack, finish it now, let learning wait, let it go on.

A request is an event in the journal of its session, so it survives every process, is dated, and needs no connection
between who asks and who works. The worker reads what is new with each turn, which costs one look at the id of the last
event. What holds follows from the events alone: a stack that was cancelled stays so, learning waits from a *pause* to
the next *resume*, and *finish* is done with when the stack has been restored.
"""

from __future__ import annotations

from typing import Literal, get_args

from otf_stream.acquisition import StackIndex
from otf_stream.store.journal import Event, Journal

Control = Literal["cancel", "finish", "pause", "resume"]
"""What can be asked for; the first two of a stack, the others of a session."""

OF_STACKS: frozenset[Control] = frozenset(("cancel", "finish"))
CANCELLED = "cancelled"
"""Why a stack that was cancelled counts as failed, and the kind of the event that says so."""
_KIND = "control"
_KINDS = (_KIND, "restored")


def ask(journal: Journal, control: Control, stack: StackIndex | None = None) -> None:
    """Ask for something; the worker does it at its next turn.

    Parameters
    ----------
    journal
        Of the session.
    control
        What is asked for.
    stack
        Of which stack; None where it concerns the whole session.

    Raises
    ------
    ValueError
        If there is no such request, it lacks its stack, or has one that it does not concern.
    """
    if control not in get_args(Control):
        raise ValueError(f"{control!r} cannot be asked for; use one of {', '.join(get_args(Control))}")
    if (stack is not None) != (control in OF_STACKS):
        raise ValueError(f"{control} concerns {'a stack' if control in OF_STACKS else 'a session as a whole'}")
    journal.note(_KIND, control=control, stack=None if stack is None else list(stack))


class Controls:
    """What holds for a session, as far as its events tell; `take` them in order."""

    def __init__(self) -> None:
        self._seen = 0
        self.paused = False
        """Whether learning is to wait."""
        self.cancelled: set[StackIndex] = set()
        """Stacks on which no work is to be done."""
        self.finishing: set[StackIndex] = set()
        """Stacks that are to be restored with what there is now."""

    def read(self, journal: Journal) -> None:
        """Read what was asked for since the last time."""
        last = journal.last_event()
        if last != self._seen:
            for event in journal.events(self._seen, kinds=_KINDS):
                self.take(event)
            self._seen = last

    def take(self, event: Event) -> None:
        """Take an event into account."""
        told = event.detail.get("stack")
        stack = (int(told[0]), int(told[1])) if told else None
        match event.kind, event.detail.get("control"), stack:
            case "restored", _, (int(), int()) as done:
                self.finishing.discard(done)
            case "control", "cancel", (int(), int()) as unwanted:
                self.cancelled.add(unwanted)
            case "control", "finish", (int(), int()) as hurried:
                self.finishing.add(hurried)
            case "control", "pause" | "resume" as what, _:
                self.paused = what == "pause"
