"""The page: put together from its parts, and shown anew as often as its browser can easily draw it.

There is nothing to reload: every browser keeps what it has chosen, and is sent what has changed. What is chosen is in
the address too, so that a screen on the wall can be given the address of what it is to show.
"""

from __future__ import annotations

import json
import time
from pathlib import Path

from nicegui import ui
from nicegui.events import KeyEventArguments

from otf_stream.acquisition import StackIndex
from otf_stream.monitor.dashboard import pace
from otf_stream.monitor.dashboard.alarms import Alarms
from otf_stream.monitor.dashboard.board import Board, Shown
from otf_stream.monitor.dashboard.choice import Choice, matching, neighbour
from otf_stream.monitor.dashboard.header import Header
from otf_stream.monitor.dashboard.lists import Sessions, Stacks, stacks_in_order
from otf_stream.monitor.dashboard.parts import box, heading
from otf_stream.monitor.dashboard.slices import Slices
from otf_stream.monitor.dashboard.stack import Answers, Charts, Links, Planes
from otf_stream.monitor.state import Alarm

_CHARTS = 2  # times that the page is shown, from one drawing of the charts to the next
STYLE = Path(__file__).with_name("style.css")


class Page:
    """One browser's page.

    Parameters
    ----------
    board
        That makes what is shown.
    choice
        What is shown to begin with.
    theme
        How light it is to begin with.
    """

    def __init__(self, board: Board, choice: Choice, theme: str) -> None:
        self._board, self._choice = board, choice
        self._shown: Shown | None = None
        self._seen: float | None = None
        self._looks = 0
        ui.add_css(STYLE.read_text(encoding="utf-8"))
        self._header = Header(theme)
        self._alarms = Alarms(self._choose_alarm)
        with box("body"):
            with box("side"):
                self._sessions = Sessions(self._choose_session)
                self._stacks = Stacks(self._choose_stack)
            with box("main", "main") as main:
                self._empty = box("panel empty", "section")
                with self._empty:
                    self._how_to_begin = _how_to_begin()
                with box("stack") as self._stack:
                    self._answers = Answers(board, self.follow)
                    self._planes = Planes()
                    with box("lower"):
                        with box("left"):
                            self._slices = Slices()
                            self._links = Links()
                        with box("right"):
                            self._charts = Charts(board)
        ui.skip_link("Skip to the answers", target=main)
        ui.keyboard(self._key, repeating=False, ignore=["input", "select", "textarea"])
        self.update()
        self._timer = ui.timer(pace.LEAST, self._keep_up)

    async def _keep_up(self) -> None:
        """Show what was seen last, and find out when to do so again."""
        if self.update():
            self._timer.interval = pace.pause(await pace.drawing())

    def update(self) -> bool:
        """Show what was seen last; return whether that is news."""
        snapshot = self._board.snapshot
        self._header.show(snapshot, time.time())
        if snapshot.at == self._seen:
            return False
        self._seen = snapshot.at
        self._show()
        if self._looks % _CHARTS == 0:
            self._charts.show(self._shown)
        self._looks += 1
        return True

    def follow(self) -> None:
        """Follow the newest planes."""
        self._slices.follow()
        self._choose(Choice())

    def _show(self) -> None:
        snapshot, shown = self._board.snapshot, self._board.shown(self._choice)
        self._shown = shown
        self._alarms.show(snapshot.alarms)
        self._sessions.show(snapshot, shown.session.id if shown else "")
        self._empty.visible = shown is None
        self._stack.visible = self._stacks.section.visible = shown is not None
        if shown is None:
            if snapshot.listener:
                self._how_to_begin.text = _hook(snapshot.listener.address)
            return
        self._answers.show(shown, follows=self._choice.follows)
        self._planes.show(shown)
        self._slices.show(shown)
        self._stacks.show(shown.session, shown.index)
        self._links.show(shown)

    def _choose(self, choice: Choice) -> None:
        self._choice = choice
        self._show()
        self._charts.show(self._shown)
        asked = "" if choice.session is None else f"?session={choice.session}"
        if choice.session and choice.stack:
            asked += f"&t={choice.stack[0]}&c={choice.stack[1]}"
        ui.run_javascript(f"history.replaceState(null, '', {json.dumps('/' + asked)})")

    def _choose_session(self, session: str) -> None:
        self._choose(Choice(session))

    def _choose_stack(self, stack: StackIndex) -> None:
        if self._shown is not None:
            self._choose(Choice(self._shown.session.id, stack))

    def _choose_alarm(self, alarm: Alarm) -> None:
        stack = None if alarm.t is None or alarm.c is None else (alarm.t, alarm.c)
        self._choose(Choice(alarm.session, stack))

    def _step_session(self, step: int) -> None:
        ids = [one.id for one in matching(self._board.snapshot.sessions, "")]
        if self._shown and (wanted := neighbour(ids, self._shown.session.id, step)):
            self._choose_session(wanted)

    def _step_stack(self, step: int) -> None:
        if self._shown:
            stacks = [(one.t, one.c) for one in stacks_in_order(self._shown.session)]
            if wanted := neighbour(stacks, self._shown.index, step):
                self._choose_stack(wanted)

    async def _key(self, event: KeyEventArguments) -> None:
        """Do what a key stands for; with a dialog open, keys are for it."""
        held = event.modifiers
        if not event.action.keydown or held.ctrl or held.alt or held.meta or self._answers.controls.dialog.value:
            return
        key = event.key.name.lower()
        if self._header.help.value and key != "?":
            return
        match key:
            case "f":
                await self._answers.controls.finish()
            case "p":
                await self._answers.controls.pause()
            case "x":
                await self._answers.controls.cancel()
            case "j" | "k":
                self._step_session(1 if key == "j" else -1)
            case "n" | "b":
                self._step_stack(1 if key == "n" else -1)
            case "l":
                self.follow()
            case "a":
                ui.run_javascript(f"getHtmlElement({self._alarms.region.id}).focus()")
            case "d":
                self._header.turn()
            case "?":
                self._header.keys()


def _how_to_begin() -> ui.label:
    """Say how a first acquisition comes here."""
    heading("No acquisition yet", 1)
    ui.label("The service listens. Stream something to it, and it appears here by itself:").classes("lead")
    heading("At the microscope, with pymmcore-plus")
    hook = ui.label(_hook("tcp://127.0.0.1:8421")).classes("code")
    heading("A recorded stack, as a microscope would send it")
    ui.label("otf-stream replay stack.tif --voxel-size 5 2 2 --planes-per-second 1").classes("code")
    heading("A virtual microscope")
    ui.label("otf-stream simulate --modality light-sheet --time-points 3").classes("code")
    ui.label("docs/microscope.md has scripts for pycromanager and for any other software.").classes("muted")
    return hook


def _hook(address: str) -> str:
    return (
        "from otf_stream.acquire.hooks.pymmcore_plus import streaming\n\n"
        f'with streaming(core, "{address}", name="embryo"):\n'
        "    core.mda.run(sequence)"
    )
