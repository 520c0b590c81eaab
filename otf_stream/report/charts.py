"""Charts of a report, as SVG that lies within the page and takes its colours from the page's style sheet.

So one page serves light and dark screens and paper, and text stays text. Matplotlib draws; the colours that it is given
stand for the style sheet's and are replaced by them.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from otf_stream.report.history import History, LossCurve
from otf_stream.report.pictures import Profile

_INK, _RAW, _RESTORED, _ALARM, _FAINT = "#010101", "#020202", "#030303", "#040404", "#050505"
_COLOURS = {
    _INK: "var(--ink)",
    _RAW: "var(--raw)",
    _RESTORED: "var(--restored)",
    _ALARM: "var(--alarm)",
    _FAINT: "var(--faint)",
}
_STYLE: Any = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 12,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.labelcolor": _INK,
    "axes.edgecolor": _INK,
    "axes.titlelocation": "left",
    "axes.titlecolor": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "text.color": _INK,
    "legend.frameon": False,
    "lines.linewidth": 2.2,
}
_MOST_SPANS = 400
_WIDTH = 11.0  # inches


def timeline(told: History, expected: int, deadline: float | None, restored: float | None) -> str:
    """Draw the planes' arrival above the stages of the work, in seconds after the first plane.

    Parameters
    ----------
    told
        What the journal tells.
    expected
        How many planes the stack was to have.
    deadline, restored
        When the volume had to be there, and when it was, if that is known.
    """
    stages = list(dict.fromkeys(span.stage for span in told.spans))
    with mpl.rc_context(_STYLE):
        figure = _figure(0.5 + 2.0 + 0.34 * len(stages) + 1.1, top=0.45)
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=(2.0, 0.34 * len(stages) + 0.4))
        count = range(1, len(told.arrived) + 1)
        if told.taken:
            above.step(told.taken, count, where="post", color=_FAINT, label="exposed", linestyle="--")
        above.step(told.arrived, count, where="post", color=_RAW, label="on disk")
        above.set_ylim(0, max(expected, len(told.arrived)) * 1.08)
        above.set_ylabel("planes")
        above.axhline(expected, color=_FAINT, linewidth=1, linestyle=":")
        for row, stage in enumerate(stages):
            bars = [(span.start, span.stop - span.start) for span in told.spans if span.stage == stage]
            below.broken_barh(bars[:_MOST_SPANS], (row - 0.36, 0.72), color=_RESTORED)
        below.set_yticks(range(len(stages)), [_escaped(stage) for stage in stages])
        below.set_ylim(len(stages) - 0.4, -0.6)
        below.set_xlabel("seconds after the first plane")
        for at, label, colour, style in (
            (told.arrived[-1], "last plane", _RAW, "-"),
            (restored, "restored", _RESTORED, "-"),
            (deadline, "deadline", _ALARM, "--"),
        ):
            if at is not None:
                above.axvline(at, color=colour, linewidth=1.6, linestyle=style, label=label)
                below.axvline(at, color=colour, linewidth=1.6, linestyle=style)
        below.set_xlim(left=min(0.0, *told.arrived))
        figure.legend(loc="upper left", ncols=5, borderaxespad=0)
        return _svg(figure, "timeline")


def loss_curves(curves: Sequence[LossCurve]) -> str:
    """Draw how the losses fell, each stage by itself, since the stages have different ones."""
    with mpl.rc_context(_STYLE):
        figure = _figure(3.0, top=0.4)
        panels: Any = figure.subplots(1, len(curves), squeeze=False)[0]
        for axes, curve in zip(panels, curves, strict=True):
            axes.plot(curve.steps, curve.losses, color=_RESTORED, marker="o", markersize=4)
            axes.set_title(_escaped(curve.stage))
            axes.set_xlabel("steps")
            axes.set_ylabel("loss")
            axes.set_ylim(bottom=0, top=max(curve.losses) * 1.08 or 1)
        return _svg(figure, "loss")


def profile(lines: Profile, low: float) -> str:
    """Draw intensities along z: planes as dots, the volume as a line; from ``low`` counts on."""
    with mpl.rc_context(_STYLE):
        figure = _figure(3.0, top=0.1)
        axes = figure.subplots()
        axes.plot(*lines.restored, color=_RESTORED, label="restored")
        axes.plot(*lines.raw, color=_RAW, marker="o", markersize=6, linestyle=":", linewidth=1.2, label="raw planes")
        axes.set_xlabel("z, µm")
        axes.set_ylabel("counts")
        axes.set_ylim(bottom=min(low, *lines.raw[1], *lines.restored[1]))
        axes.margins(x=0.01)
        axes.legend(loc="upper right")
        return _svg(figure, "profile")


def _figure(height: float, top: float) -> Figure:
    """Return a figure of fixed margins, in inches: finding out the best ones takes as long as drawing."""
    figure = Figure(figsize=(_WIDTH, height))
    figure.subplots_adjust(
        left=1.15 / _WIDTH, right=1 - 0.15 / _WIDTH, bottom=0.6 / height, top=1 - top / height, wspace=0.25, hspace=0.12
    )
    return figure


def _escaped(text: str) -> str:
    return text.replace("$", r"\$")  # which would begin a formula


def _svg(figure: Figure, name: str) -> str:
    """Return a figure as an element of a page, its colours the page's and its ids its own."""
    FigureCanvasSVG(figure)
    file = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": name}):
        metadata: Any = {"Date": None, "Creator": None, "Format": None, "Type": None}
        figure.savefig(file, format="svg", transparent=True, metadata=metadata)
    svg = file.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", svg)
    svg = re.sub(r'<svg [^>]*?viewBox="([^"]*)"[^>]*>', r'<svg viewBox="\1" aria-hidden="true" focusable="false">', svg)
    svg = re.sub(r"font: ([\d.]+px)[^;\"]*", r"font: \1 var(--font)", svg)
    for drawn, meant in _COLOURS.items():
        svg = svg.replace(drawn, meant)
    return svg
