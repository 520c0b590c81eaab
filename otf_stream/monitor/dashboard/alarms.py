"""Alarms above everything else: what is wrong, since when, and what to do, the gravest first.

The region is live, so that readers of screens speak what is new. A few are shown; the rest is one press away.
"""

from __future__ import annotations

from collections.abc import Callable

from nicegui import ui

from otf_stream.monitor.dashboard.parts import box, look
from otf_stream.monitor.dashboard.words import SEVERITY, moment
from otf_stream.monitor.state import Alarm

_FEW, _MANY = 3, 20


class Alarms:
    """The alarms that are on.

    Parameters
    ----------
    chosen
        Called with an alarm whose session somebody wants to see.
    """

    def __init__(self, chosen: Callable[[Alarm], None]) -> None:
        self._chosen = chosen
        self._alarms: tuple[Alarm, ...] = ()
        self._most = _FEW
        self._rows = []
        with box("alarms", "section") as self.region:
            self.region.props["aria-label"] = "Alarms"
            self.region.props["aria-live"] = "polite"
            self.region.props["tabindex"] = -1
            for number in range(_MANY):
                with box("alarm") as row:
                    sign = ui.label().classes("sign")
                    with box("texts"):
                        text, remedy = ui.label().classes("text"), ui.label().classes("remedy")
                    show = box("button small", "button").on("click", lambda _, n=number: self._show(n))
                    with show:
                        ui.label("show")
                self._rows.append((row, sign, text, remedy, show))
            self._more = box("button small", "button").on("click", self._toggle)
            with self._more:
                self._more_text = ui.label()

    def show(self, alarms: tuple[Alarm, ...]) -> None:
        """Show what is on now."""
        self._alarms = alarms
        self.region.visible = bool(alarms)
        for (row, sign, text, remedy, show), alarm in zip(self._rows, alarms[: self._most], strict=False):
            symbol, word, mood = SEVERITY[alarm.severity]
            look(row, f"alarm {mood}")
            row.visible = True
            sign.text = f"{symbol} {word}"
            text.text = alarm.text
            remedy.text = f"{alarm.remedy} · since {moment(alarm.since)}"
            show.visible = alarm.session is not None
        for row, *_ in self._rows[min(len(alarms), self._most) :]:
            row.visible = False
        self._more.visible = len(alarms) > _FEW
        rest = len(alarms) - _FEW
        self._more_text.text = f"{rest} more" if self._most == _FEW else "fewer"

    def _toggle(self) -> None:
        self._most = _MANY if self._most == _FEW else _FEW
        self.show(self._alarms)

    def _show(self, number: int) -> None:
        if number < len(self._alarms):
            self._chosen(self._alarms[number])
