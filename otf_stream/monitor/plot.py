"""A picture of a throughput log: planes/s, MB/s, and what was left to each deadline, over time."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from otf_stream.monitor.summary import Log, margins, rates

_DPI = 100


def draw(log: Log, path: Path) -> None:
    """Draw a log.

    Parameters
    ----------
    log
        What is drawn.
    path
        Of the PNG.

    Raises
    ------
    OSError
        If it cannot be written.
    """
    at, planes, megabytes = rates(log.seconds)
    restored, left = margins(log.events)
    figure = Figure(figsize=(10, 7), layout="constrained")
    FigureCanvasAgg(figure)
    upper, middle, lower = figure.subplots(3, sharex=True)
    for axes, values, label in ((upper, planes, "planes/s"), (middle, megabytes, "MB/s")):
        axes.plot(_times(at), values, ".", markersize=3)
        axes.set_ylabel(label)
        axes.set_ylim(bottom=0)
    lower.plot(_times(restored), left, "o", markersize=4)
    lower.axhline(0, color="red", linewidth=1)
    lower.set_ylabel("s left to the deadline")
    lower.set_xlabel("UTC")
    figure.savefig(path, dpi=_DPI, format="png")


def _times(at: np.ndarray) -> list[datetime]:
    return [datetime.fromtimestamp(float(moment), UTC) for moment in at]
