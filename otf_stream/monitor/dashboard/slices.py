"""The three views of a stack, raw beside restored, with sliders for the place, a range for the contrast, and a scale.

Both images share one place, one contrast and one scale in µm, or they could not be compared. The images themselves come
through the route that scripts use; this module only decides which address to show.
"""

from __future__ import annotations

from nicegui import ui
from nicegui.element import Element

from otf_stream.monitor.dashboard.board import Shown
from otf_stream.monitor.dashboard.parts import box, heading, put
from otf_stream.monitor.dashboard.views import AXES, Window, address, length, scale_bar, view
from otf_stream.monitor.dashboard.words import stack_name
from otf_stream.monitor.slices import Axis, ImageName

_PAUSE = 0.15  # seconds that a slider must rest before slices are asked for
_STEPS = 1000  # of the contrast
_IMAGES: tuple[ImageName, ...] = ("raw", "restored")
_SLIDERS: dict[Axis, tuple[str, str]] = {"xy": ("z", "Depth"), "xz": ("y", "Row"), "yz": ("x", "Column")}


class Slices:
    """The views of the stack that is shown."""

    def __init__(self) -> None:
        self._shown: Shown | None = None
        self._of: tuple[str, tuple[int, int]] | None = None
        self._touched: set[Axis] = set()
        self._filling = self._pending = False
        self._sliders: dict[Axis, ui.slider] = {}
        self._captions: dict[Axis, ui.label] = {}
        self._frames: dict[tuple[Axis, ImageName], tuple[Element, Element, Element, ui.label, ui.label]] = {}
        with box("panel slices", "section") as section:
            section.props["aria-label"] = "Slices"
            heading("Slices")
            self._contrast()
            with box("columns"):
                ui.label("raw").classes("column-title")
                self._restored = ui.label("restored").classes("column-title")
            for axis in AXES:
                self._view(axis)

    def _contrast(self) -> None:
        with box("control"):
            ui.label("Contrast").classes("control-name")
            self._range = ui.range(min=0, max=_STEPS, value={"min": 0, "max": _STEPS}, on_change=self._moved)
            self._range.props["aria-label"] = "Contrast: what is black and what is white"
            self._range.props["data-control"] = "contrast"
            self._black_white = ui.label().classes("control-value")
            self._auto = ui.switch("automatic", value=True, on_change=self._moved)

    def _view(self, axis: Axis) -> None:
        letter, name = _SLIDERS[axis]
        with box("view"):
            with box("control"):
                ui.label(f"{axis.upper()}  {letter}").classes("control-name")
                slider = ui.slider(min=0, max=1, value=0, on_change=lambda: self._moved(axis))
                # Arrows and the page keys it knows by itself.
                slider.on("keydown.home", lambda: slider.set_value(0))
                slider.on("keydown.end", lambda: slider.set_value(slider.props["max"]))
                slider.props["aria-label"] = f"{name} of the {axis.upper()} view, {letter}"
                slider.props["data-control"] = axis
                self._captions[axis] = ui.label().classes("control-value wide")
                self._sliders[axis] = slider
            with box("columns"):
                for image in _IMAGES:
                    with box("frame") as frame:
                        picture = ui.element("img")
                        picture.props["data-view"] = f"{axis}-{image}"
                        bar = box("bar")
                        scale = ui.label().classes("bar-text")
                        absent = ui.label("not there yet").classes("absent")
                    self._frames[axis, image] = frame, picture, bar, scale, absent

    def show(self, shown: Shown) -> None:
        """Show what has landed of a stack."""
        self._shown = shown
        of = (shown.session.id, shown.index)
        if of != self._of:
            self._of = of
            self._touched.clear()
        self._filling = True
        for axis, slider in self._sliders.items():
            count = length(shown.session, axis)
            put(slider, "max", max(count - 1, 1))
            if axis not in self._touched:
                slider.value = shown.newest if axis == "xy" else count // 2
        self._filling = False
        self._fill()

    def follow(self) -> None:
        """Go back to the newest plane, or the middle, wherever somebody had moved to."""
        self._touched.clear()

    def _moved(self, axis: Axis | None = None) -> None:
        """Take note of what somebody moved, and ask for slices once it rests."""
        if self._filling:
            return
        if axis is not None:
            self._touched.add(axis)
        elif not self._pending and self._auto.value and self._range.value != self._as_steps():
            self._auto.value = False
        if not self._pending:
            self._pending = True
            ui.timer(_PAUSE, self._rested, once=True)

    def _rested(self) -> None:
        self._pending = False
        self._fill()

    def _window(self, shown: Shown) -> Window:
        """Return the contrast: as found, or as set."""
        if self._auto.value:
            self._filling = True
            self._range.value = self._as_steps()
            self._filling = False
            return shown.window
        most, value = shown.window.most, self._range.value or {"min": 0, "max": _STEPS}
        low, high = value["min"] / _STEPS * most, value["max"] / _STEPS * most
        return Window(low, max(high, low + most / _STEPS), most)

    def _as_steps(self) -> dict[str, float]:
        if self._shown is None:
            return {"min": 0, "max": _STEPS}
        window = self._shown.window
        low, high = (min(max(round(v / window.most * _STEPS), 0), _STEPS) for v in (window.low, window.high))
        return {"min": low, "max": high}

    def _fill(self) -> None:
        shown = self._shown
        if shown is None:
            return
        session, window = shown.session, self._window(shown)
        final = shown.stack is None or shown.stack.state == "restored"
        self._restored.text = "restored" if final or shown.restored is None else "restored: so far a preview"
        self._black_white.text = f"{window.low:.0f} – {window.high:.0f}"
        for axis, slider in self._sliders.items():
            at = view(session, axis, int(slider.value or 0))
            self._captions[axis].text = at.caption
            um, fraction = scale_bar(at.extent[0])
            for image in _IMAGES:
                version = shown.raw if image == "raw" else shown.restored
                frame, picture, bar, scale, absent = self._frames[axis, image]
                there = version is not None and (image == "restored" or version != "0")
                picture.visible = bar.visible = scale.visible = there
                absent.visible = not there
                put(frame, "style", f"aspect-ratio: {at.extent[0]:.4f} / {at.extent[1]:.4f}")
                put(bar, "style", f"width: {100 * fraction:.2f}%")
                scale.text = f"{um:g} µm"
                if version is not None and there:
                    put(picture, "src", address(session, shown.index, at, image, window, version))
                    name = stack_name(session.acquisition, shown.index)
                    put(picture, "alt", f"{image} {axis.upper()} slice of {name}, {at.caption}")
