"""How long a microscopist waits after the last plane, and what the haste costs.

A stack arrives at a running service at its microscope's pace, and is to be complete a few seconds after its last plane.
The same stack is then restored as a recording, with more time than arriving and waiting took together.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import torch

from otf_stream.acquire.publisher import Publisher
from otf_stream.bench.results import Result, machine
from otf_stream.bench.streaming import (
    Z_STEP,
    Stack,
    await_restored,
    described,
    drawn,
    linear_psnr,
    paced,
    recorded,
    running_service,
)
from otf_stream.learn.compute import Compute
from otf_stream.restore.evaluate import psnr
from otf_stream.service.ahead import DEEP
from otf_stream.service.budget import Budget
from otf_stream.service.settings import Settings
from otf_stream.service.stack import restore_stack
from otf_stream.store.restored import read_provenance, read_restored
from otf_stream.store.session import SessionStore

_PATIENCE_S = 300.0
_LEAST_BUDGET_S = 1.0  # the tail alone is what counts


def run_latency(
    compute: Compute,
    *,
    planes: int,
    side: int,
    planes_per_second: float,
    tail_s: float,
    offline_s: float,
    repeats: int,
    progress: Callable[[str], None] = lambda said: None,
) -> list[Result]:
    """Restore stacks live and as recordings.

    Parameters
    ----------
    compute
        Device and precision of the recordings' restoring; the worker chooses the same.
    planes, side, planes_per_second
        Size of a stack and pace of its planes.
    tail_s
        Seconds from the last plane to the deadline.
    offline_s
        Seconds for the recording.
    repeats
        So many stacks, of different samples.
    progress
        Is told of each result.

    Returns
    -------
    list of dict
        One for each stack.
    """
    found = []
    with running_service(budget_s=_LEAST_BUDGET_S, tail_s=tail_s, threads=torch.get_num_threads()) as (service, data):
        for repeat in range(repeats):
            truth, stack = drawn(planes, side, seed=300 + repeat)
            name = f"live{repeat}"
            with Publisher(service.address, described(name, stack)) as publisher:
                for z, plane in paced(list(enumerate(stack)), planes_per_second):
                    publisher.publish(plane, z=z)
            await_restored(service, data, patience=_PATIENCE_S)
            path = data / f"{name}.ome.zarr"
            live, volume = read_provenance(path)["t0c0"], read_restored(path, (0, 0))
            with tempfile.TemporaryDirectory() as folder:
                offline = _offline(stack, Path(folder) / "recorded.ome.zarr", offline_s, compute)
            found.append(
                {
                    "stack": repeat,
                    "shape": list(stack.shape),
                    "method": live["method"],
                    "steps": (live["training"] or {}).get("steps", 0),
                    "ahead": live["ahead"],
                    "preview_s": _preview(path),
                    "since_last_plane_s": live["timing"]["since_last_plane_s"],
                    "late": live["timing"]["late"],
                    "psnr": psnr(volume, truth),
                    "offline_psnr": psnr(offline, truth),
                    "linear_psnr": linear_psnr(stack, truth),
                    "machine": machine(compute),
                }
            )
            progress(_row(found[-1]))
    return found


def _preview(path: Path) -> float | None:
    """Seconds from the last plane to the preview; None where restoring was quicker."""
    with closing(SessionStore.open(path)) as store:
        noted: list[dict[str, Any]] = [event.detail for event in store.journal.events() if event.kind == "preview"]
    return noted[0]["since_last_plane_s"] if noted else None


def _offline(stack: Stack, path: Path, seconds: float, compute: Compute) -> np.ndarray:

    with recorded(path, described("recorded", stack), stack) as store:
        restore_stack(store, (0, 0), Settings(budget=Budget(total=seconds, tail=0.0)), compute)
    return read_restored(path, (0, 0))


def _row(r: Result) -> str:
    ahead = f", {r['ahead']:.0%} of it before the last plane" if r["ahead"] else ""
    preview = "none" if r["preview_s"] is None else f"{r['preview_s']:.1f} s"
    return (
        f"| {r['stack']} | {r['method']}, {r['steps']} steps{ahead} | {preview} | {r['since_last_plane_s']:.1f} s | "
        f"{r['psnr']:.2f} | {r['offline_psnr']:.2f} | {r['psnr'] - r['offline_psnr']:+.2f} | {r['linear_psnr']:.2f} |"
    )


def title(results: Sequence[Result]) -> str:
    """Return in which section of the page the results belong."""
    planes = results[0]["shape"][0]
    return "Deep stacks" if (planes - 1) * Z_STEP + 1 >= DEEP else "Latency"


def section(
    results: Sequence[Result], command: str, *, planes_per_second: float, tail_s: float, offline_s: float
) -> str:
    """Write a section of the page on performance."""
    planes, y, x = results[0]["shape"]
    waited = statistics.median(r["since_last_plane_s"] for r in results)
    lost = statistics.median(r["psnr"] - r["offline_psnr"] for r in results)
    return f"""Written by `{command}` on {results[0]["machine"]}.

Confocal stacks of {planes} × {y} × {x}, z step {Z_STEP} pixels, at {planes_per_second:g} planes/s, to be complete
{tail_s:g} s after the last plane; the same stacks as recordings, with {offline_s:g} s. PSNR in dB.

| stack | live | preview after | complete after | live | recorded | difference | linear |
|---|---|---|---|---|---|---|---|
{chr(10).join(_row(r) for r in results)}

Median: complete {waited:.1f} s after the last plane, {lost:+.2f} dB of the recording.
"""
