"""The two tasks that a graphics card is measured by: the published method's own stack, and a large live one.

The first has the size of the stack on which that method was shown, which took it about five minutes on a desktop card.
The second arrives at a running service. Samples repeat a small one: what is measured is time. The rates of copying and
of a large matrix product, of the same device in the same run, tell what to expect of it.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from otf_stream.acquire.publisher import Publisher
from otf_stream.bench.restoring import matrix_rate
from otf_stream.bench.results import Result, machine
from otf_stream.bench.streaming import Stack, await_restored, described, drawn, paced, recorded, running_service
from otf_stream.learn.compute import Compute
from otf_stream.service.budget import Budget
from otf_stream.service.settings import Settings
from otf_stream.service.speed import warm_up
from otf_stream.service.stack import restore_stack
from otf_stream.store.finding import find_sessions
from otf_stream.store.restored import read_provenance

RECORDED, RECORDED_Z_STEP = (80, 400, 500), 5
"""The published method's own demonstration: planes, and the distance between them in pixels."""

LIVE, LIVE_Z_STEP = (100, 2048, 2048), 4

Shape = tuple[int, int, int]
_COPIED = 2**28  # bytes
_PATIENCE_S = 900.0


def run_gpu(
    compute: Compute,
    *,
    seconds: float,
    tail_s: float,
    planes_per_second: float,
    recorded_shape: Shape = RECORDED,
    live_shape: Shape = LIVE,
    progress: Callable[[str], None] = lambda said: None,
) -> list[Result]:
    """Restore a recorded stack, then a live one.

    Parameters
    ----------
    compute
        Any device: the tasks can be tried on a processor, if they are small.
    seconds
        Budget of the recorded stack, from its first step to its restored volume.
    tail_s, planes_per_second
        Budget of the live stack from its last plane, and pace of its planes.
    recorded_shape, live_shape
        Planes ``(z, y, x)``.
    progress
        Is told of each result.

    Returns
    -------
    list of dict
        One for each task.
    """
    warm_up(compute)  # as a service does when it starts
    planes, *sides = map(max, recorded_shape, live_shape)
    _, sample = drawn(min(planes, 32), min(max(sides), 256), seed=300)
    ceilings = {"matrix_rate": matrix_rate(compute), "copy_rate": copy_rate(compute), "machine": machine(compute)}
    offline = _recorded(_repeated(sample, recorded_shape), seconds, compute) | ceilings
    progress(str(offline))
    arriving = _live(_repeated(sample, live_shape), tail_s, planes_per_second, compute) | ceilings
    progress(str(arriving))
    return [offline, arriving]


def copy_rate(compute: Compute) -> float:
    """Measure how many bytes a second come to the device from pinned memory."""
    there = torch.empty(_COPIED, dtype=torch.uint8, pin_memory=compute.device.type == "cuda")
    taken = []
    for _ in range(5):
        begun = time.perf_counter()
        int(there.to(compute.device, copy=True)[-1])  # waits for the device
        taken.append(time.perf_counter() - begun)
    return _COPIED / min(taken)


def _repeated(sample: Stack, shape: Shape) -> Stack:
    times = [-(-wanted // there) for wanted, there in zip(shape, sample.shape, strict=True)]
    return np.ascontiguousarray(np.tile(sample, times)[tuple(slice(n) for n in shape)])


def _recorded(stack: Stack, seconds: float, compute: Compute) -> Result:
    with tempfile.TemporaryDirectory() as folder:
        acquisition = described("recorded", stack, z_step=RECORDED_Z_STEP)
        with recorded(Path(folder) / "a.ome.zarr", acquisition, stack) as store:
            # The budget counts from the first plane; what is asked for is the time from the first step.
            waited = time.time() - (store.journal.span((0, 0)) or (0.0, 0.0))[0]
            begun = time.perf_counter()
            told = restore_stack(store, (0, 0), Settings(budget=Budget(total=waited + seconds, tail=0.0)), compute)
            took = time.perf_counter() - begun
    return _result("recorded", stack, told, took, seconds)


def _live(stack: Stack, tail_s: float, planes_per_second: float, compute: Compute) -> Result:
    with running_service(budget_s=1.0, tail_s=tail_s, threads=None) as (service, data):
        with Publisher(service.address, described("live", stack, z_step=LIVE_Z_STEP)) as publisher:
            for z, plane in paced(list(enumerate(stack)), planes_per_second):
                publisher.publish(plane, z=z)
        await_restored(service, data, patience=_PATIENCE_S)
        (path,) = find_sessions(data)
        told = read_provenance(path)["t0c0"]
    return _result("live", stack, told, told["timing"]["since_last_plane_s"], tail_s)


def _result(task: str, stack: Stack, told: Result, seconds: float, allowed: float) -> Result:
    return {
        "task": task,
        "shape": list(stack.shape),
        "seconds": seconds,
        "allowed_s": allowed,
        "method": told["method"],
        "steps": (told["training"] or {}).get("steps", 0),
        "stages_s": told["timing"]["stages_s"],
        "warnings": told["warnings"],
    }


def section(results: Sequence[Result], command: str) -> str:
    """Write a section of the page on performance."""
    rows = [
        f"| {r['task']} | {' × '.join(map(str, r['shape']))} | {r['method']}, {r['steps']} steps | "
        f"{r['seconds']:.1f} s | {r['allowed_s']:g} s |"
        for r in results
    ]
    first = results[0]
    ceilings = (
        f"{first['matrix_rate'] / 1e12:.2f} Top/s in a matrix product, {first['copy_rate'] / 1e9:.1f} GB/s copied"
    )
    return f"""Written by `{command}` on {first["machine"]}: {ceilings} to the device.

The recorded stack counts from the first step to the restored volume, the live one from its last plane; kernels were
prepared before, as they are when a service starts.

| task | planes | method | took | allowed |
|---|---|---|---|---|
{chr(10).join(rows)}
"""
