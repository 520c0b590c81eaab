"""Small parts of pages: elements that are given what they show, and tell the browser only what has changed.

Text always goes through labels, which escape it, and attributes are set by name, never put together from strings, so
that no name from outside becomes markup.
"""

from __future__ import annotations

from typing import Any

from nicegui import ui
from nicegui.element import Element
from nicegui.events import GenericEventArguments, Handler

from otf_stream.monitor.dashboard.answers import Answer
from otf_stream.monitor.dashboard.words import SIGN


def put(element: Element, name: str, value: Any) -> None:
    """Set an attribute if it differs; None takes it away."""
    if value is None:
        if name in element.props:
            del element.props[name]
    elif element.props.get(name) != value:
        element.props[name] = value


def look(element: Element, classes: str) -> None:
    """Set the classes if they differ."""
    if list(element.classes) != classes.split():
        element.classes(replace=classes)


def box(classes: str, tag: str = "div") -> Element:
    """Return an element with these classes, to put others into."""
    return ui.element(tag).classes(classes)


def heading(text: str, level: int = 2) -> ui.label:
    """Return a heading that readers of screens find."""
    label = ui.label(text).classes(f"h{level}")
    label.props["role"] = "heading"
    label.props["aria-level"] = level
    return label


class KeyButton:
    """A button that shows its shortcut.

    Parameters
    ----------
    text
        On it.
    key
        That does the same; none if empty.
    on_click
        What it does.
    danger
        Whether something is lost by it.
    """

    def __init__(self, text: str, key: str, on_click: Handler[GenericEventArguments], *, danger: bool = False) -> None:
        self._danger = danger
        self.element = box("button danger" if danger else "button", "button").on("click", on_click)
        self.element.props["type"] = "button"
        with self.element:
            self.label = ui.label(text)
            if key:
                self.element.props["aria-keyshortcuts"] = key
                with box("kbd", "kbd") as shown:
                    shown.props["aria-hidden"] = "true"
                    ui.label(key)

    def show(self, *, able: bool = True, pressed: bool | None = None) -> None:
        """Show whether it can be used, and, of one that stays pressed, whether it is."""
        put(self.element, "aria-disabled", None if able else "true")
        put(self.element, "aria-pressed", None if pressed is None else str(pressed).lower())
        classes = {"danger": self._danger, "off": not able, "pressed": bool(pressed)}
        look(self.element, " ".join(["button", *(name for name, holds in classes.items() if holds)]))


class Tile:
    """One of the three answers, large.

    Parameters
    ----------
    question
        That it answers.
    name
        That tests and style sheets know it by.
    """

    def __init__(self, question: str, name: str) -> None:
        self._box = box("tile wait", "section")
        self._box.props["aria-label"] = question
        self._box.props["data-tile"] = name
        with self._box:
            heading(question)
            with box("word"):
                self._sign = ui.label("…").classes("sign")
                self._sign.props["aria-hidden"] = "true"
                self._word = ui.label("")
            with box("figure"):
                self._figure = ui.label("–").classes("number")
                self._unit = ui.label("").classes("unit")
            self.more = box("more")
            self._lines = ui.label("").classes("lines")

    def show(self, answer: Answer) -> None:
        """Show an answer."""
        look(self._box, f"tile {answer.mood}")
        self._sign.text = SIGN[answer.mood]
        self._word.text = answer.word
        self._figure.text, self._unit.text = answer.figure, answer.unit
        self._lines.text = "\n".join(answer.lines)
