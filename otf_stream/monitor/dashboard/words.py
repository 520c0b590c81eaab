"""Figures and states in words, as somebody who stands two metres away reads them: short, with their units.

Every state has a sign and a word, so that no colour has to be told from another.
"""

from __future__ import annotations

import time
from typing import Literal

from otf_stream.acquisition import Acquisition, StackIndex
from otf_stream.config import method_name
from otf_stream.monitor.state import Gap, Severity
from otf_stream.store.journal import StackState

Mood = Literal["good", "watch", "bad", "wait"]
"""How something stands; also the name of its style."""

SIGN: dict[Mood, str] = {"good": "✔", "watch": "▲", "bad": "✖", "wait": "…"}
STATE: dict[StackState, tuple[str, str]] = {
    "arriving": ("▸", "arriving"),
    "arrived": ("▪", "arrived"),
    "restoring": ("⟳", "restoring"),
    "restored": ("✔", "restored"),
    "failed": ("✖", "not restored"),
}
"""Sign and word of what a stack is at."""
SEVERITY: dict[Severity, tuple[str, str, Mood]] = {
    "critical": ("✖", "Act now", "bad"),
    "warning": ("▲", "Warning", "watch"),
    "info": ("●", "Note", "wait"),
}
_DECISIONS = {
    "learn": "learning began",
    "stop learning": "learning ended",
    "slab ahead": "a slab is restored before the last plane",
    "slabs anew": "slabs are restored once more",
    "XZ slices": "XZ slices go through the network",
    "no YZ slices": "YZ slices stay as they are",
    "YZ slices, every 1": "YZ slices go through the network too",
    "YZ slices, every 2": "every second YZ slice goes through the network too",
    "YZ slices, every 4": "every fourth YZ slice goes through the network too",
    "interpolate": "the stack is interpolated",
    "land": "the volume is written",
}
_MOST_GAPS = 6


def clock(seconds: float) -> str:
    """Return a time span as ``M:SS``, or ``H:MM:SS``; what is over has a minus sign."""
    whole = abs(int(seconds))
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    sign = "−" if seconds <= -1 else ""
    return f"{sign}{hours}:{minutes:02}:{rest:02}" if hours else f"{sign}{minutes}:{rest:02}"


def span(seconds: float) -> str:
    """Return a time span in words, to the accuracy that matters."""
    seconds = abs(seconds)
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def moment(at: float) -> str:
    """Return a moment as the clock of this machine shows it."""
    day = "" if time.time() - at < 12 * 3600 else "%d %b "
    return time.strftime(f"{day}%H:%M:%S", time.localtime(at))


def gigabytes(size: float) -> str:
    """Return a size of a disk."""
    return f"{size / 1e12:.2f} TB" if size >= 1e12 else f"{size / 1e9:.1f} GB"


def rate(planes_per_s: float, bytes_per_s: float) -> str:
    """Return how fast planes come."""
    digits = 1 if planes_per_s < 100 else 0
    return f"{bytes_per_s / 1e6:.{2 if bytes_per_s < 1e7 else 0}f} MB/s · {planes_per_s:.{digits}f} planes/s"


def stack_name(acquisition: Acquisition, stack: StackIndex) -> str:
    """Return what a stack is called, as short as its session allows."""
    t, c = stack
    sizes, names = acquisition.sizes, acquisition.channel_names
    parts = [f"time point {t}"] if sizes.t > 1 or acquisition.growing else []
    if sizes.c > 1:
        parts.append(f"channel {names[c] if c < len(names) else c}")
    return ", ".join(parts) or "the stack"


def decision_told(decision: str, reason: str) -> str:
    """Return what was decided, and why."""
    _, is_method, method = reason.partition("method ")
    why = f"by {method_name(method)}" if is_method else reason
    return _DECISIONS.get(decision, decision) + (f": {why}" if why else "")


def gap_list(gaps: tuple[Gap, ...], acquisition: Acquisition) -> str:
    """Return where planes are missing, the first places."""
    alone = acquisition.sizes.t == 1 and acquisition.sizes.c == 1 and not acquisition.growing
    told = []
    for gap in gaps[:_MOST_GAPS]:
        place = f"z {gap.first}" if gap.first == gap.last else f"z {gap.first}–{gap.last}"
        told.append(place if alone else f"t{gap.t} c{gap.c} {place}")
    return "; ".join(told) + (" …" if len(gaps) > _MOST_GAPS else "")
