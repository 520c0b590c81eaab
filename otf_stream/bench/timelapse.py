"""The promise of five minutes, on a time-lapse: a running service, and planes at a microscope's pace.

The same time points come twice: as one acquisition, in which each starts from the networks of the one before, and as
acquisitions of their own, in which each starts from the pre-trained ones. Between time points the sample moves, and the
camera's noise is new. All of them arrive back to back and share one device, which is the hardest that a
time-lapse can be.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from otf_stream.acquire.publisher import Publisher
from otf_stream.acquisition import Acquisition, Modality, Sizes, VoxelSize
from otf_stream.bench.results import Result, machine
from otf_stream.config import ServiceConfig
from otf_stream.learn.compute import choose_compute
from otf_stream.restore.evaluate import psnr
from otf_stream.restore.methods import Grid, interpolated
from otf_stream.service.overview import overview
from otf_stream.service.supervisor import Service
from otf_stream.store.restored import read_provenance, read_restored
from otf_stream.store.session import SessionStore, find_sessions
from simulators.instruments import INSTRUMENTS, instrument_psf
from simulators.microscope import through_optics
from simulators.phantom import cells, seen_isotropically

_MODALITY: Modality = "confocal"
_Z_STEP = INSTRUMENTS[_MODALITY].z_step  # pixels
_MOVED = (2, 5, 3)  # voxels from one time point to the next, along z, y and x
_BUDGET_S, _TAIL_S = 300.0, 60.0
_PATIENCE_S = 600.0

Volume = NDArray[np.float32]
Stack = NDArray[np.uint16]


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
    drawn = [_draw(t, planes, side) for t in range(time_points)]
    found = []
    for whole in (True, False):
        progress(f"{'one acquisition' if whole else 'acquisitions of their own'}: {time_points} × {planes} planes")
        with tempfile.TemporaryDirectory() as folder:
            config = ServiceConfig(
                data=Path(folder),
                listen="tcp://127.0.0.1:*",
                budget_s=_BUDGET_S,
                tail_s=_TAIL_S,
                threads=threads,
                disk_reserve_gb=0,
            )
            with Service(config) as service:
                stacks = [stack for _, stack in drawn]
                _stream(stacks, service.address, planes_per_second, whole=whole)
                _await_restored(service, Path(folder), progress)
            found += _results(Path(folder), drawn, whole=whole)
    return found


def _draw(time_point: int, planes: int, side: int) -> tuple[Volume, Stack]:
    """Return the truth and the planes of a time point."""
    sample = cells(((planes - 1) * _Z_STEP + 1, side, side), seed=300)
    sample = np.roll(sample, [time_point * step for step in _MOVED], axis=(0, 1, 2))
    seen = through_optics(sample, instrument_psf(_MODALITY))[::_Z_STEP]
    return seen_isotropically(sample), INSTRUMENTS[_MODALITY].camera.expose(seen, seed=300 + time_point)


def _acquisition(name: str, stack: Stack, time_points: int) -> Acquisition:
    planes, y, x = stack.shape
    pixel = INSTRUMENTS[_MODALITY].pixel_um
    return Acquisition(
        name=name,
        sizes=Sizes(t=time_points, z=planes, y=y, x=x),
        dtype="uint16",
        voxel_size=VoxelSize(z=pixel * _Z_STEP, y=pixel, x=pixel),
        modality=_MODALITY,
    )


def _stream(stacks: Sequence[Stack], address: str, planes_per_second: float, *, whole: bool) -> None:
    """Publish every plane when it is due."""
    count = len(stacks)
    names = ["all"] if whole else [f"t{t}" for t in range(count)]
    publishers = [Publisher(address, _acquisition(name, stacks[0], count if whole else 1)) for name in names]
    begun = time.monotonic()
    for t, stack in enumerate(stacks):
        for z, plane in enumerate(stack):
            due = begun + (t * len(stack) + z) / planes_per_second
            time.sleep(max(due - time.monotonic(), 0))
            if whole:
                publishers[0].publish(plane, t=t, z=z)
            else:
                publishers[t].publish(plane, z=z)
    for publisher in publishers:
        publisher.close()


def _await_restored(service: Service, data: Path, progress: Callable[[str], None]) -> None:
    patience, told = time.monotonic() + _PATIENCE_S, ""
    while not all(session.done for session in overview(data)):
        for message in service.watch():
            progress(message)
        said = ", ".join(f"{session.store.name}: {session.states}" for session in overview(data))
        if said != told:
            told = said
            progress(said)
        if time.monotonic() > patience:
            raise RuntimeError(f"not all stacks are restored {_PATIENCE_S:g} s after the last plane: {told}")
        time.sleep(0.5)


def _results(data: Path, drawn: Sequence[tuple[Volume, Stack]], *, whole: bool) -> list[Result]:
    found = []
    for path in sorted(find_sessions(data)):
        with closing(SessionStore.open(path)) as store:
            stacks = store.acquisition.stacks()
        for t, c in stacks:
            time_point = t if whole else int(path.name[1 : path.name.index(".")])
            truth, planes = drawn[time_point]
            said: dict[str, Any] = read_provenance(path)[f"t{t}c{c}"]
            grid = Grid(range(len(planes)), _Z_STEP, len(truth))
            linear = interpolated(grid, torch.from_numpy(planes.astype(np.float32))).numpy()
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
                    "linear": psnr(linear, truth),
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

Time points of {planes} planes of {y} × {x}, confocal, z step {_Z_STEP} pixels, arriving back to back at a running
service with a budget of {_BUDGET_S:g} s a stack. As one acquisition, each time point starts from the networks of the
one before; as acquisitions of their own, from the pre-trained ones.

| acquisition | time point | starts from | learnt | after first plane | before deadline | PSNR, dB (over linear) |
|---|---|---|---|---|---|---|
{chr(10).join(rows)}
"""
