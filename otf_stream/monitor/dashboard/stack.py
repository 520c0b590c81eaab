"""The part of the page that tells of one stack: the three answers, its planes, its links, and how it was worked on."""

from __future__ import annotations

from collections.abc import Callable

from nicegui import ui

from otf_stream.monitor.dashboard import charts
from otf_stream.monitor.dashboard.board import Board, Shown
from otf_stream.monitor.dashboard.controls import Controls
from otf_stream.monitor.dashboard.parts import KeyButton, Tile, box, heading, look, put
from otf_stream.monitor.dashboard.words import STATE, gap_list, moment, stack_name
from otf_stream.monitor.state import Note

_NOTES = 8
_COUNTS = ("expected", "received", "durable", "missing", "duplicated")


class Answers:
    """Name, state and controls of the stack that is shown, and the three answers.

    Parameters
    ----------
    board
        That makes what is shown.
    follow
        Called when the page is to follow the newest planes again.
    """

    def __init__(self, board: Board, follow: Callable[[], None]) -> None:
        with box("head"):
            with box("names"):
                self._name, self._state = heading("", 1), ui.label().classes("muted state")
            self._follow = KeyButton("Follow newest", "L", follow)
            self.controls = Controls(board.monitor)
        with box("tiles"):
            self._arriving = Tile("Is every plane arriving?", "arriving")
            self._in_time = Tile("Will it be there in time?", "in-time")
            self._any_good = Tile("Is it any good?", "any-good")

    def show(self, shown: Shown, *, follows: bool) -> None:
        """Show the answers."""
        name = stack_name(shown.session.acquisition, shown.index)
        self._name.text = shown.session.name + ("" if name == "the stack" else f" · {name}")
        self._state.text = " ".join(STATE[shown.stack.state]) if shown.stack else "… no plane of it is told of"
        self._follow.show(pressed=follows)
        self.controls.show(shown)
        self._arriving.show(shown.arriving)
        self._in_time.show(shown.in_time)
        self._any_good.show(shown.any_good)


class Planes:
    """How many planes there are, and where there are none."""

    def __init__(self) -> None:
        self._counts: dict[str, ui.label] = {}
        self._parts: list[tuple[str, int, int]] | None = None
        with box("panel planes", "section") as section:
            section.props["aria-label"] = "Planes"
            self._title = heading("Planes")
            with box("counts"):
                for name in _COUNTS:
                    with box("count"):
                        self._counts[name] = ui.label("–").classes("number")
                        self._counts[name].props["data-count"] = name
                        ui.label(name).classes("unit")
            self._strip = ui.echart(charts.planes([]), renderer="svg").classes("strip")
            self._gaps = ui.label().classes("gaps")

    def show(self, shown: Shown) -> None:
        """Show the planes of a session, and those of a stack along z."""
        session, stack = shown.session, shown.stack
        # The listener's figure is up to a second older than the journal's; what is on disk has come in any case.
        received = None if session.received is None else max(session.received, session.durable)
        counts = (session.expected, received, session.durable, session.missing, session.duplicates)
        for name, count in zip(_COUNTS, counts, strict=True):
            self._counts[name].text = "–" if count is None else f"{count:,}".replace(",", " ")
        look(self._counts["missing"], "number bad" if session.missing else "number")
        first = 0 if session.acquisition.growing else session.acquisition.planes_of(shown.index[1]).start
        parts = charts.segments(stack, session.gaps, first) if stack else []
        if parts != self._parts:
            self._parts = parts
            self._strip.props["options"] = charts.planes(parts)
        self._strip.visible = bool(parts)
        gaps = gap_list(session.gaps, session.acquisition)
        self._gaps.text = f"Missing: {gaps}" if gaps else "No gaps"


class Links:
    """Where the store and the report are, and what happened last."""

    def __init__(self) -> None:
        with box("panel links", "section") as section:
            section.props["aria-label"] = "Store, report and events"
            heading("Store and report")
            with box("path"):
                self._path = ui.label().classes("mono")
                copy = KeyButton("Copy path", "", lambda: ui.clipboard.write(self._path.text))
                copy.element.props["aria-label"] = "Copy the path of the store"
            with box("path"):
                self._report = ui.element("a").classes("button")
                self._report.props["target"] = "_blank"
                self._report.props["rel"] = "noopener"
                with self._report:
                    ui.label("Open the report")
                self._no_report = ui.label("No report yet").classes("muted")
                self._json = ui.element("a").classes("button")
                self._json.props["target"] = "_blank"
                self._json.props["rel"] = "noopener"
                with self._json:
                    ui.label("All that is known, as JSON")
            heading("What happened last")
            self._notes = [ui.label().classes("note") for _ in range(_NOTES)]
            self._none = ui.label("nothing yet").classes("muted")

    def show(self, shown: Shown) -> None:
        """Show the links of a stack, and what happened last in its session."""
        session, (t, c) = shown.session, shown.index
        self._path.text = str(session.store.resolve())
        put(self._report, "href", f"/api/v1/sessions/{session.id}/stacks/{t}/{c}/report")
        put(self._json, "href", f"/api/v1/sessions/{session.id}")
        self._report.visible, self._no_report.visible = shown.report, not shown.report
        told = list(reversed(session.events[-_NOTES:]))
        self._none.visible = not told
        for number, label in enumerate(self._notes):
            label.visible = number < len(told)
            if number < len(told):
                label.text = _said(told[number])


class Charts:
    """What flows, what waits, how learning goes."""

    def __init__(self, board: Board) -> None:
        self._board = board
        self._charts: dict[str, ui.echart] = {}
        titles = {"flow": "Rate", "learning": "Learning: loss, by steps", "queues": "Queues", "disk": "Disk"}
        for name, title in titles.items():
            with box(f"panel chart {name}", "section") as section:
                section.props["aria-label"] = title
                heading(title)
                empty = charts.learning(None) if name == "learning" else charts.flow([])
                self._charts[name] = ui.echart(empty, renderer="svg").classes("plot")

    def show(self, shown: Shown | None) -> None:
        """Show the charts as they are now."""
        for name, options in (
            ("flow", self._board.flow()),
            ("learning", self._board.learning(shown)),
            ("queues", self._board.queues()),
            ("disk", self._board.disk()),
        ):
            put(self._charts[name], "options", options)


def _said(note: Note) -> str:
    """Return an event in a line."""
    detail = note.detail
    stack = detail.get("stack")
    where = f" t{stack[0]} c{stack[1]}" if isinstance(stack, list) and len(stack) == 2 else ""
    what = next((detail[key] for key in ("decision", "stage", "control", "method", "reason") if detail.get(key)), "")
    why = f": {detail['reason']}" if note.kind == "decision" and detail.get("reason") else ""
    return f"{moment(note.at)}  {note.kind}{where}  {what}{why}"[:200]
