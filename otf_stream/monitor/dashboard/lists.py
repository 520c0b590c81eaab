"""Lists of sessions and of stacks, with as many rows as fit a screen, however many there are.

The rows are made once and filled again and again, so a service with five hundred sessions costs a page no more than one
with ten. All sessions can be found by name; the others are a page further.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from nicegui import ui

from otf_stream.acquisition import StackIndex
from otf_stream.monitor.dashboard.choice import matching
from otf_stream.monitor.dashboard.parts import box, heading, look, put
from otf_stream.monitor.dashboard.words import STATE, clock, stack_name
from otf_stream.monitor.state import Session, Snapshot, Stack
from otf_stream.store.journal import StackState
from otf_stream.store.session import SUFFIX

_ORDER: tuple[StackState, ...] = ("restoring", "arriving", "arrived", "failed", "restored")


@dataclass(frozen=True)
class Row:
    """A row: a sign, a name, and what is told beside and below it."""

    sign: str
    name: str
    beside: str
    below: str


class Rows:
    """A list of rows that can be chosen, page by page.

    Parameters
    ----------
    title
        Of the list.
    most
        Rows on a page.
    chosen
        Called with the key of a row.
    """

    def __init__(self, title: str, most: int, chosen: Callable[[str], None]) -> None:
        self._most, self._chosen = most, chosen
        self._keys: Sequence[str] = ()
        self._row: Callable[[int], Row] | None = None
        self._current, self._page = "", 0
        self._empty = ui.label("none").classes("muted")
        self._buttons = []
        with box("rows") as rows:
            rows.props["role"] = "list"
            rows.props["aria-label"] = title
            for number in range(most):
                with box("row-item", "div") as item:
                    item.props["role"] = "listitem"
                    with box("line", "button").on("click", partial(self._click, number)) as button:
                        button.props["type"] = "button"
                        sign = ui.label().classes("sign")
                        with box("texts"):
                            name, below = ui.label().classes("name"), ui.label().classes("below")
                        beside = ui.label().classes("beside")
                self._buttons.append((item, button, sign, name, beside, below))
        with box("pager") as self._pager:
            self._back = box("button small", "button").on("click", lambda: self._turn(-1))
            self._back.props["aria-label"] = f"{title}: page before"
            with self._back:
                ui.label("◂")
            self._where = ui.label()
            self._on = box("button small", "button").on("click", lambda: self._turn(1))
            self._on.props["aria-label"] = f"{title}: next page"
            with self._on:
                ui.label("▸")

    def show(self, keys: Sequence[str], current: str, row: Callable[[int], Row]) -> None:
        """Show a list.

        Parameters
        ----------
        keys
            What its rows stand for.
        current
            Which of them is chosen; when that has changed, its page is turned to.
        row
            Makes a row, given its place in the list; only those that are seen are made.
        """
        self._keys, self._row = keys, row
        if current != self._current:
            self._current = current
            self._page = keys.index(current) // self._most if current in keys else 0
        self._fill()

    def _fill(self) -> None:
        pages = max(-(-len(self._keys) // self._most), 1)
        self._page = min(self._page, pages - 1)
        first = self._page * self._most
        for number, (item, button, sign, name, beside, below) in enumerate(self._buttons):
            item.visible = first + number < len(self._keys)
            if item.visible and self._row:
                row, chosen = self._row(first + number), self._keys[first + number] == self._current
                sign.text, name.text, beside.text, below.text = row.sign, row.name, row.beside, row.below
                put(button, "aria-current", "true" if chosen else "false")
                look(button, "line current" if chosen else "line")
        self._pager.visible = pages > 1
        self._empty.visible = not self._keys
        self._where.text = f"page {self._page + 1} of {pages}"

    def _turn(self, step: int) -> None:
        self._page = max(self._page + step, 0)
        self._fill()

    def _click(self, number: int) -> None:
        at = self._page * self._most + number
        if at < len(self._keys):
            self._chosen(self._keys[at])


class Sessions:
    """The list of sessions, the latest first, with a field to find one."""

    def __init__(self, chosen: Callable[[str], None]) -> None:
        self._words = ""
        with box("panel sessions", "nav") as nav:
            nav.props["aria-label"] = "Sessions"
            self._title = heading("Sessions")
            self._find = ui.input(placeholder="find by name", on_change=self._typed).classes("find")
            self._find.props("dense outlined clearable debounce=200 aria-label='Find sessions by name'")
            self._list = Rows("Sessions", 8, chosen)
        self._last: tuple[Snapshot, str] | None = None

    def show(self, snapshot: Snapshot, current: str) -> None:
        """Show the sessions of a snapshot."""
        self._last = snapshot, current
        found = matching(snapshot.sessions, self._words)
        count = f"{len(found)} of {len(snapshot.sessions)}" if self._words.strip() else f"{len(found)}"
        self._title.text = f"Sessions ({count})"
        self._list.show([one.id for one in found], current, lambda at: session_row(found[at]))

    def _typed(self) -> None:
        self._words = str(self._find.value or "")
        if self._last:
            self.show(*self._last)


class Stacks:
    """The list of stacks of the session that is shown, those to be done first."""

    def __init__(self, chosen: Callable[[StackIndex], None]) -> None:
        with box("panel stacks", "section") as self.section:
            self.section.props["aria-label"] = "Stacks"
            self._title = heading("Stacks")
            self._counts = ui.label().classes("muted")
            self._list = Rows("Stacks", 6, lambda key: chosen(_index(key)))

    def show(self, session: Session, current: StackIndex) -> None:
        """Show the stacks of a session."""
        total = sum(session.states.values())
        self._title.text = f"Stacks ({total})"
        counts = ((state, session.states.get(state, 0)) for state in _ORDER)
        self._counts.text = " · ".join(f"{STATE[s][0]} {n} {STATE[s][1]}" for s, n in counts if n)
        stacks = stacks_in_order(session)
        keys = [_key((one.t, one.c)) for one in stacks]
        self._list.show(keys, _key(current), lambda at: stack_row(session, stacks[at]))


def stacks_in_order(session: Session) -> list[Stack]:
    """List the stacks that are told of: those to be done as they fall due, then the others, the latest first."""
    pending = [one for one in session.stacks if one.state not in ("restored", "failed")]
    done = [one for one in reversed(session.stacks) if one.state in ("restored", "failed")]
    return pending + done


def session_row(session: Session) -> Row:
    """Return the row of a session."""
    if session.missing:
        sign, told = "✖", f"{session.missing} missing"
    elif session.done:
        failed = session.states.get("failed", 0)
        sign, told = ("✖", f"{failed} not restored") if failed else ("✔", "done")
    else:
        sign, told = ("▸", "arriving") if session.closed is None else ("⟳", session.stage or "waiting")
    left = "" if session.seconds_left is None or session.done else clock(session.seconds_left)
    paused = " · paused" if session.paused and not session.done else ""
    name = session.store.name.removesuffix(SUFFIX)  # of its store, since several sessions may have one name
    return Row(sign, name, left, f"{session.durable}/{session.expected} planes · {told}{paused}")


def stack_row(session: Session, stack: Stack) -> Row:
    """Return the row of a stack."""
    sign, word = STATE[stack.state]
    missing = f" · {stack.missing} missing" if stack.missing else ""
    learnt = stack.gain_db is not None and stack.method != "interpolate"
    gain = f" · {stack.gain_db:+.1f} dB" if learnt else ""
    if stack.seconds_left is not None:
        beside = clock(stack.seconds_left)
    else:
        beside = "" if stack.in_hand_s is None else f"{stack.in_hand_s:+.0f} s"
    name = stack_name(session.acquisition, (stack.t, stack.c))
    below = f"{word} · {stack.planes}/{stack.expected} planes{missing}{gain}"
    return Row(sign, name, beside, below)


def _key(stack: StackIndex) -> str:
    return f"{stack[0]}/{stack[1]}"


def _index(key: str) -> StackIndex:
    t, _, c = key.partition("/")
    return int(t), int(c)
