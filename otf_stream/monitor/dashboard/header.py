"""The top of the page: whether the service itself is well, how light the page is, and which keys there are."""

from __future__ import annotations

from nicegui import ui

from otf_stream.monitor.dashboard.parts import KeyButton, box, heading, look
from otf_stream.monitor.dashboard.words import SIGN, Mood, gigabytes, moment, span
from otf_stream.monitor.state import Listener, Snapshot, Worker

_STALE = 5.0  # seconds after which what is shown counts as old
_THEMES: dict[str, bool | None] = {"auto": None, "light": False, "dark": True}
KEYS = (
    ("F", "finish now: learn no more, restore from the planes that are there"),
    ("P", "pause learning, or resume it"),
    ("X", "cancel the stack (asks first)"),
    ("J  K", "next, previous session"),
    ("N  B", "next, previous stack"),
    ("L", "follow the newest planes by itself"),
    ("A", "to the alarms"),
    ("D", "light, dark, or as the system has it"),
    ("?", "this list"),
    ("Tab, arrows", "from part to part; move a slider"),
)


class Header:
    """The top of the page.

    Parameters
    ----------
    theme
        How light to begin with: ``auto``, ``light`` or ``dark``.
    """

    def __init__(self, theme: str = "auto") -> None:
        self._theme = theme if theme in _THEMES else "auto"
        self._dark = ui.dark_mode(_THEMES[self._theme])
        with box("top", "header"):
            heading("otf_stream", 1)
            with box("chips"):
                self._listener, self._worker, self._disk = (ui.label().classes("chip wait") for _ in range(3))
            with box("chips"):
                self._light = KeyButton("", "D", self.turn)
                KeyButton("Keys", "?", self.keys)
        self._stale = ui.label().classes("stale")
        self._stale.props["role"] = "alert"
        with ui.dialog() as self.help, box("dialog") as window:
            window.props["role"] = "dialog"
            window.props["aria-label"] = "Keys"
            heading("Keys")
            with box("keys", "dl"):
                for key, what in KEYS:
                    with box("", "dt"), box("kbd", "kbd"):
                        ui.label(key)
                    with box("", "dd"):
                        ui.label(what)
            KeyButton("Close", "", self.help.close)
        self._name_theme()

    def show(self, snapshot: Snapshot, now: float) -> None:
        """Show how the service is."""
        for label, (mood, text) in (
            (self._listener, _listener(snapshot.listener)),
            (self._worker, _worker(snapshot.worker)),
            (self._disk, _disk(snapshot.listener)),
        ):
            look(label, f"chip {mood}")
            label.text = f"{SIGN[mood]} {text}"
        old = now - snapshot.at
        self._stale.visible = old > _STALE
        if old > _STALE:
            self._stale.text = (
                f"▲ What you see is {span(old)} old, from {moment(snapshot.at)}: the folder cannot be read"
            )

    def turn(self) -> None:
        """Turn to the next of: as the system has it, light, dark."""
        names = list(_THEMES)
        self._theme = names[(names.index(self._theme) + 1) % len(names)]
        self._dark.value = _THEMES[self._theme]
        self._name_theme()

    def keys(self) -> None:
        """Show or hide the list of keys."""
        self.help.value = not self.help.value

    def _name_theme(self) -> None:
        self._light.label.text = {"auto": "Light: auto", "light": "Light", "dark": "Dark"}[self._theme]


def _listener(listener: Listener | None) -> tuple[Mood, str]:
    if listener is None or not listener.current:
        return "bad", "Listener is down"
    if listener.holding:
        return "bad", "Listener holds planes back"
    return "good", f"Listener · {listener.connections} connected"


def _worker(worker: Worker | None) -> tuple[Mood, str]:
    if worker is not None and worker.starting:
        return "wait", "Worker is starting"
    if worker is None or not worker.current:
        return "bad", "Worker is down"
    stacks = f"{worker.stacks} stack{'s' if worker.stacks != 1 else ''} to do" if worker.stacks else "idle"
    return "good", f"Worker on {worker.device} · {stacks}"


def _disk(listener: Listener | None) -> tuple[Mood, str]:
    if listener is None or not listener.current:
        return "wait", "Disk not known"
    text = f"Disk {gigabytes(listener.disk_free)} free, {gigabytes(listener.disk_reserve)} in reserve"
    if listener.holding:
        return "bad", text
    return ("watch" if listener.disk_free < 1.25 * listener.disk_reserve else "good"), text
