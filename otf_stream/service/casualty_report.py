"""What a human is told of a stack that crashed the worker: one line on each crash, and a report on a stack set aside.

The report is a text file beside the store, since whoever looks for a volume that is not there looks there first. It is
made of the journal alone, and says nothing that cannot be looked up later.
"""

from __future__ import annotations

import json
import platform
import shlex
import signal
from collections.abc import Collection, Sequence
from contextlib import suppress
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from otf_stream import __version__
from otf_stream.acquisition import StackIndex
from otf_stream.service.whereabouts import Stage
from otf_stream.store.journal import Event


def how_it_ended(code: int) -> str:
    """Tell in words how a process with this exit code ended."""
    if code >= 0:
        return f"exit code {code}" if code < 256 else f"exit code {code:#x}"  # Windows numbers its errors so
    with suppress(ValueError):
        return f"signal {-code} ({signal.Signals(-code).name}: {signal.strsignal(-code)})"
    return f"signal {-code}"


def events_of(events: Sequence[Event], stack: StackIndex) -> list[Event]:
    """Select the events that concern a stack."""
    return [event for event in events if event.detail.get("stack") == list(stack)]


def in_words(crash: Event) -> str:
    """Tell how the worker ended, and what was free afterwards."""
    detail = crash.detail
    if detail["outside"]:
        why = ", by somebody: the kernel was not short of memory"
    elif detail["exit_code"] == -9:
        why = ", as the kernel does that runs out of memory"
    else:
        why = ""
    free = [f"{detail['free_disk_gb']} GB of disk"]
    if detail["free_memory_gb"] is not None:
        free.insert(0, f"{detail['free_memory_gb']} GB of memory")
    return f"{detail['how']}{why}; {' and '.join(free)} were free afterwards"


def report_path(store: Path, stack: StackIndex, stage: Stage) -> Path:
    """Where the report on a stack lies: ``NAME.t0-c0.set-aside.txt`` beside ``NAME.ome.zarr``."""
    t, c = stack
    what = "set-aside" if stage == "turn" else "no-preview"
    return store.with_name(f"{store.name.removesuffix('.ome.zarr')}.t{t}-c{c}.{what}.txt")


def report(
    store: Path,
    stack: StackIndex,
    stage: Stage,
    *,
    crashes: Sequence[Event],
    events: Sequence[Event],
    planes: Collection[int],
    planned: int | None,
) -> str:
    """Write for a human why a stack was set aside, what is kept of it, and what can be done.

    Parameters
    ----------
    store
        The session store.
    stack, stage
        The stack, ``(t, c)``, and what was being done to it.
    crashes
        Those that set it aside.
    events
        All that was noted in the journal of its session.
    planes
        Index of every plane that is there.
    planned
        How many there were to be; None where nobody knows.
    """
    name = store.name.removesuffix(".ome.zarr")
    paths = [str(path) for path in (store.resolve(), store.resolve().with_name(name + "-by-hand.ome.zarr"))]
    by_hand = shlex.join(["otf-stream", "restore", *paths])
    there = [event.kind for event in events_of(events, stack)]
    if stage == "preview":
        what, then = (
            "writing a preview of",
            "It writes no preview of this stack any more, and restores it all the same.",
        )
        advice = ["  Nothing needs to be done: the restored volume does not depend on a preview."]
    else:
        what, then = "restoring", "It has set this stack aside and goes on with the others."
        advice = [
            "  To restore it by hand, with all stacks of its acquisition, in a process of its own:",
            f"    {by_hand}",
            "  If that crashes too: --device cpu does without the graphics card, --method interpolate without the",
            "  networks. If memory was short, end other programs first.",
            "  The service tries it again by itself only if more planes of it come.",
        ]
    if "restored" in there:
        volume = "an earlier restored volume of fewer planes, of which parts may have been replaced"
    elif "preview" in there:
        volume = "a preview, interpolated, of which parts may have been restored already"
    else:
        volume = "no volume and no preview: its part of restored/ may be empty"
    count = f"{len(planes)}" if planned is None else f"{len(planes)} of {planned}"
    lines = [
        f"{store.name}, time point {stack[0]}, channel {stack[1]}",
        "",
        f"The service's worker process crashed {len(crashes)} times while it was {what} this stack.",
        then,
        "",
        "Crashes",
        *(f"  {_when(crash.detail['died'])}  {in_words(crash)}" for crash in crashes),
        "",
        "Kept",
        f"  {count} planes, every one that was acknowledged, in raw/",
        f"  {volume}",
        "",
        "What to do",
        *advice,
        "",
        "Versions",
        f"  {_versions()}",
        "",
        "What happened to the stack",
        *(f"  {_when(event.at)}  {event.kind}  {_details(event)}" for event in events_of(events, stack)),
    ]
    for crash in crashes:
        stacks = crash.detail["trace"] or "(none: a process that is killed cannot write them)"
        lines += ["", f"Python stacks of the crash at {_when(crash.detail['died'])}", stacks]
    return "\n".join(lines) + "\n"


def _details(event: Event) -> str:
    return json.dumps({key: value for key, value in event.detail.items() if key not in ("stack", "trace")})


def _when(at: float) -> str:
    return datetime.fromtimestamp(at).astimezone().isoformat(" ", "seconds")


def _versions() -> str:
    told = [f"otf_stream {__version__}", f"Python {platform.python_version()}"]
    for package in ("torch", "numpy", "zarr"):
        with suppress(PackageNotFoundError):
            told.append(f"{package} {version(package)}")
    return ", ".join([*told, platform.platform()])
