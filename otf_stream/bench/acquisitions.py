"""Many acquisitions in a row, from one process to one service: whether one is lost, or leaves something behind.

Acquisition software runs for weeks. A socket, a thread or a file that every acquisition leaves behind is found after a
thousand of them, at night. Handles and memory are therefore counted after each one, here and in both processes of
the service, once nothing is in progress.
"""

from __future__ import annotations

import gc
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
import psutil

from otf_stream.acquire.hooks.pymmcore_plus import streaming
from otf_stream.bench.results import Result
from otf_stream.config import ServiceConfig
from otf_stream.service.overview import overview
from otf_stream.service.supervisor import Service
from otf_stream.store.session import SessionStore
from simulators.core import acquire_stack, virtual_microscope
from simulators.scenes import Stack

_PATIENCE_S = 120.0
_WARM = 10  # acquisitions after which everything that is made once is there


def run_acquisitions(
    *, count: int, planes: int, side: int, progress: Callable[[str], None] = lambda said: None
) -> list[Result]:
    """Run acquisitions of a virtual microscope one after the other, and count what they leave.

    Parameters
    ----------
    count
        How many.
    planes, side
        Of each stack.
    progress
        Is told every tenth.

    Returns
    -------
    list of dict
        For each acquisition: planes that landed and are as they were taken, and the handles, threads and memory of the
        microscope's process, the listener and the worker after it.
    """
    stack = np.random.default_rng(0).integers(0, 4000, (planes, side, side)).astype(np.uint16)
    core = virtual_microscope(Stack(stack, z_step_um=0.8, pixel_um=0.2))
    found: list[Result] = []
    try:
        with tempfile.TemporaryDirectory() as folder:
            config = ServiceConfig(
                data=Path(folder), listen="tcp://127.0.0.1:*", method="interpolate", threads=1, disk_reserve_gb=0
            )
            with Service(config) as service:
                processes = {"microscope": psutil.Process(), **_children()}
                for number in range(count):
                    with streaming(core, service.address, name=f"n{number}") as stream:
                        acquire_stack(core, planes=planes, z_step_um=0.8)
                    _settle(service, Path(folder), number + 1)
                    found.append(
                        {
                            "acknowledged": stream.acknowledged,
                            "failures": stream.failures,
                            "intact": _intact(Path(folder) / f"n{number}.ome.zarr", stack),
                            **{name: _left(process) for name, process in processes.items()},
                        }
                    )
                    if number % 10 == 9:
                        progress(f"{number + 1}: {_said(found[-1])}")
    finally:
        core.unloadAllDevices()
    return found


def _children() -> dict[str, psutil.Process]:
    """Find the service's processes: the one that listens, and the other."""
    deadline = time.monotonic() + _PATIENCE_S
    while time.monotonic() < deadline:
        spawned = [c for c in psutil.Process().children() if any("spawn_main" in word for word in c.cmdline())]
        listening = [c for c in spawned if any(s.status == psutil.CONN_LISTEN for s in c.net_connections("tcp"))]
        others = [c for c in spawned if c not in listening]
        if len(listening) == len(others) == 1:
            return {"listener": listening[0], "worker": others[0]}
        time.sleep(0.1)
    raise RuntimeError("the processes of the service cannot be told apart; is another service running in this process?")


def _settle(service: Service, data: Path, sessions: int) -> None:
    """Wait until every session is done, and the listener has let go of the last one."""
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        done = [session for session in overview(data) if session.done]
        if len(done) == sessions:
            break
        if died := service.watch():
            raise RuntimeError(died[0])
        if time.monotonic() > deadline:
            raise RuntimeError(f"{len(done)} of {sessions} sessions are done after {_PATIENCE_S:g} s")
        time.sleep(0.05)
    time.sleep(0.3)
    gc.collect()


def _intact(path: Path, stack: np.ndarray) -> bool:
    with closing(SessionStore.open(path)) as store:
        return all(np.array_equal(store.read_plane((0, 0, z)), plane) for z, plane in enumerate(stack))


def _left(process: psutil.Process) -> dict[str, int]:
    handles = process.num_handles() if hasattr(process, "num_handles") else process.num_fds()
    return {
        "handles": handles,
        "threads": process.num_threads(),
        "sockets": len(process.net_connections("all")),
        "rss": process.memory_info().rss,
    }


def _said(result: Result) -> str:
    told = {name: result[name] for name in ("microscope", "listener", "worker")}
    return ", ".join(
        f"{name} {left['handles']} handles, {left['threads']} threads, {left['rss'] / 1e6:.0f} MB"
        for name, left in told.items()
    )


def page(results: Sequence[Result], planes: int, command: str, machine: str) -> str:
    """Write the page of the documentation from the results."""
    lost = sum(planes - result["acknowledged"] for result in results)
    altered = sum(not result["intact"] for result in results)
    warm, last = results[min(_WARM, len(results)) - 1], results[-1]
    rows = [
        f"| {name} | "
        + " | ".join(f"{warm[name][what]} → {last[name][what]}" for what in ("handles", "threads", "sockets"))
        + f" | {warm[name]['rss'] / 1e6:.0f} → {last[name]['rss'] / 1e6:.0f} MB "
        f"({last[name]['rss'] / warm[name]['rss'] - 1:+.1%}), at most "
        f"{max(r[name]['rss'] for r in results[_WARM - 1 :]) / warm[name]['rss'] - 1:+.1%} |"
        for name in ("microscope", "listener", "worker")
    ]
    return f"""# Many acquisitions in a row

Written by `{command}` on {machine}.

{len(results)} acquisitions of {planes} planes, one after the other, by pymmcore-plus in one process, to one service.
Planes lost: {lost}. Acquisitions with an altered plane: {altered}. From the {min(_WARM, len(results))}th to the last:

| process | handles | threads | sockets | resident memory |
|---|---|---|---|---|
{chr(10).join(rows)}
"""
