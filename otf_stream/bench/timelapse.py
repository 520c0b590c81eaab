"""The promise of five minutes, on a time-lapse: a running service, and planes at a microscope's pace.

The same time points come twice: as one acquisition, in which each starts from the networks of the one before, and as
acquisitions of their own, in which each starts from the pre-trained ones. Between time points the sample moves, and the
camera's noise is new. All of them arrive back to back and share one device, which is the hardest that a
time-lapse can be.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from otf_stream.acquire.publisher import Publisher
from otf_stream.bench.results import Result, machine
from otf_stream.bench.streaming import (
    Z_STEP,
    Stack,
    Volume,
    await_restored,
    described,
    drawn,
    linear_psnr,
    paced,
    running_service,
)
from otf_stream.learn.compute import choose_compute
from otf_stream.restore.evaluate import psnr
from otf_stream.store.finding import find_sessions
from otf_stream.store.restored import read_provenance, read_restored
from otf_stream.store.session import SessionStore

_MOVED = (2, 5, 3)  # voxels from one time point to the next, along z, y and x
_BUDGET_S, _TAIL_S = 300.0, 60.0
_PATIENCE_S = 600.0


def run_timelapse(
    *,
    time_points: int,
    planes: int,
    side: int,
    planes_per_second: float,
    threads: int | None,
    progress: Callable[[str], None] = lambda said: None,
) -> list[Result]:
    """Stream a time-lapse through a service, as one acquisition and as several.

    Parameters
    ----------
    time_points, planes, side
        Size of the time-lapse.
    planes_per_second
        At which planes come, without a pause between time points.
    threads
        Of the worker.
    progress
        Is told what goes on.

    Returns
    -------
    list of dict
        One for each time point of each acquisition.
    """
    taken = [
        drawn(planes, side, seed=300, moved=(t * _MOVED[0], t * _MOVED[1], t * _MOVED[2])) for t in range(time_points)
    ]
    found = []
    for whole in (True, False):
        progress(f"{'one acquisition' if whole else 'acquisitions of their own'}: {time_points} × {planes} planes")
        with running_service(budget_s=_BUDGET_S, tail_s=_TAIL_S, threads=threads) as (service, data):
            _stream([stack for _, stack in taken], service.address, planes_per_second, whole=whole)
            await_restored(service, data, patience=_PATIENCE_S, progress=progress)
            found += _results(data, taken, whole=whole)
    return found


def _stream(stacks: Sequence[Stack], address: str, planes_per_second: float, *, whole: bool) -> None:
    """Publish every plane when it is due."""
    count = len(stacks)
    names = ["all"] if whole else [f"t{t}" for t in range(count)]
    acquisitions = [described(name, stacks[0], time_points=count if whole else 1) for name in names]
    publishers = [Publisher(address, acquisition) for acquisition in acquisitions]
    planes = [(t, z) for t, stack in enumerate(stacks) for z in range(len(stack))]
    for t, z in paced(planes, planes_per_second):
        if whole:
            publishers[0].publish(stacks[t][z], t=t, z=z)
        else:
            publishers[t].publish(stacks[t][z], z=z)
    for publisher in publishers:
        publisher.close()


def _results(data: Path, taken: Sequence[tuple[Volume, Stack]], *, whole: bool) -> list[Result]:
    found = []
    for path in sorted(find_sessions(data)):
        with closing(SessionStore.open(path)) as store:
            stacks = store.acquisition.stacks()
        for t, c in stacks:
            time_point = t if whole else int(path.name[1 : path.name.index(".")])
            truth, planes = taken[time_point]
            said: dict[str, Any] = read_provenance(path)[f"t{t}c{c}"]
            training, timing = said["training"] or {}, said["timing"]
            found.append(
                {
                    "whole": whole,
                    "time_point": time_point,
                    "method": said["method"],
                    "steps": training.get("steps", 0),
                    "started_from": training.get("started_from"),
                    "since_first_plane_s": timing["since_first_plane_s"],
                    "in_hand_s": timing["deadline"] - timing["restored"],
                    "learn_s": timing["stages_s"]["learn"],
                    "psnr": psnr(read_restored(path, (t, c)), truth),
                    "linear": linear_psnr(planes, truth),
                    "shape": list(planes.shape),
                    "machine": machine(choose_compute()),
                }
            )
    return found


def page(results: Sequence[Result], command: str) -> str:
    """Write the page of the documentation from the results."""
    planes, y, x = results[0]["shape"]
    rows = [
        f"| {'one acquisition' if r['whole'] else 'its own'} | {r['time_point']} "
        f"| {r['started_from'] or 'pre-trained'} | "
        f"{r['method']}, {r['steps']} steps in {r['learn_s']:.0f} s | {r['since_first_plane_s']:.0f} s | "
        f"{r['in_hand_s']:.0f} s | {r['psnr']:.2f} ({r['psnr'] - r['linear']:+.2f}) |"
        for r in results
    ]
    return f"""# A time-lapse

Written by `{command}` on {results[0]["machine"]}.

Time points of {planes} planes of {y} × {x}, confocal, z step {Z_STEP} pixels, arriving back to back at a running
service with a budget of {_BUDGET_S:g} s a stack. As one acquisition, each time point starts from the networks of the
one before; as acquisitions of their own, from the pre-trained ones.

| acquisition | time point | starts from | learnt | after first plane | before deadline | PSNR, dB (over linear) |
|---|---|---|---|---|---|---|
{chr(10).join(rows)}
"""
