"""What can be asked of the worker from a page: finish a stack now, let learning wait, cancel a stack.

Each has a key, which its button shows. What would lose something is asked back first, with the harmless answer under
the finger. The request itself goes through the monitor, as that of any script.
"""

from __future__ import annotations

from nicegui import run, ui

from otf_stream.acquisition import StackIndex
from otf_stream.monitor.dashboard.board import Shown
from otf_stream.monitor.dashboard.parts import KeyButton, box
from otf_stream.monitor.dashboard.words import stack_name
from otf_stream.monitor.monitor import Monitor
from otf_stream.monitor.problems import ProblemError
from otf_stream.store.controls import Control

_OVER = frozenset(("restored", "failed"))
_DONE: dict[Control, str] = {
    "cancel": "Cancelling: the worker leaves the stack at its next turn",
    "finish": "Finishing: the worker learns no more, and restores the stack at its next turn",
    "pause": "Learning waits from the worker's next turn on; the deadline stands",
    "resume": "Learning goes on at the worker's next turn",
}


class Controls:
    """The buttons of the stack that is shown.

    Parameters
    ----------
    monitor
        That is asked.
    """

    def __init__(self, monitor: Monitor) -> None:
        self._monitor = monitor
        self._shown: Shown | None = None
        with box("controls") as group:
            group.props["role"] = "group"
            group.props["aria-label"] = "Controls"
            self._finish = KeyButton("Finish now", "F", self.finish)
            self._pause = KeyButton("Pause learning", "P", self.pause)
            self._cancel = KeyButton("Cancel stack", "X", self.cancel, danger=True)
        with ui.dialog() as self.dialog, box("dialog") as window:
            window.props["role"] = "alertdialog"
            window.props["aria-label"] = "Are you sure?"
            self._question = ui.label().classes("h2")
            self._loss = ui.label().classes("lines")
            with box("controls"):
                keep = KeyButton("No, leave it", "", lambda: self.dialog.submit(False))
                keep.element.props["autofocus"] = True
                self._yes = KeyButton("", "", lambda: self.dialog.submit(True), danger=True)

    def show(self, shown: Shown) -> None:
        """Offer what can be asked of a stack."""
        self._shown = shown
        self._finish.show(able=self._can_finish(shown))
        self._cancel.show(able=self._is_open(shown))
        self._pause.show(able=not shown.session.done)
        self._pause.label.text = "Resume learning" if shown.session.paused else "Pause learning"

    async def finish(self) -> None:
        """Have the stack restored from the planes that are there; asked back while planes still come."""
        shown = self._shown
        if shown is None or not self._can_finish(shown):
            return
        stack = shown.stack
        if stack is not None and stack.state == "arriving":
            left = stack.expected - stack.planes
            loss = f"{left} planes are still to come. They are kept when they do, and the stack is restored anew then."
            if not await self._sure(f"Restore {self._name(shown)} from what is there?", loss, "Finish now"):
                return
        await self._ask("finish", shown, shown.index)

    async def pause(self) -> None:
        """Let learning wait, or go on."""
        if (shown := self._shown) is not None and not shown.session.done:
            await self._ask("resume" if shown.session.paused else "pause", shown)

    async def cancel(self) -> None:
        """Have no more work done on the stack, if somebody is sure."""
        shown = self._shown
        if shown is None or not self._is_open(shown):
            return
        loss = "No more work is done on it, and it gets no volume; what is landed of one stays. Its planes are kept."
        if await self._sure(f"Cancel {self._name(shown)}?", loss, "Cancel the stack"):
            await self._ask("cancel", shown, shown.index)

    @staticmethod
    def _is_open(shown: Shown) -> bool:
        return shown.stack is not None and shown.stack.state not in _OVER

    def _can_finish(self, shown: Shown) -> bool:
        return self._is_open(shown) and shown.stack is not None and not shown.stack.finishing

    @staticmethod
    def _name(shown: Shown) -> str:
        return f"{stack_name(shown.session.acquisition, shown.index)} of {shown.session.name}"

    async def _sure(self, question: str, loss: str, yes: str) -> bool:
        self._question.text, self._loss.text = question, loss
        self._yes.label.text = yes
        return bool(await self.dialog)

    async def _ask(self, control: Control, shown: Shown, stack: StackIndex | None = None) -> None:
        try:
            await run.io_bound(self._monitor.ask, control, shown.session.id, stack)
        except ProblemError as error:
            problem = error.body
            said = f"{problem['title']}: {problem['detail']}; {problem['remedy']}"
            ui.notify(said, type="negative", multi_line=True, timeout=10_000, close_button="close")
        else:
            ui.notify(_DONE[control], type="info", timeout=5000)
