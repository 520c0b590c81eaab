"""Many acquisitions in a row, from one process to one service: whether one is lost, or leaves something behind.

Acquisition software runs for weeks. A socket, a thread or a file that every acquisition leaves behind is found after a
thousand of them, at night. Handles and memory are therefore counted after each one, in the process of the microscope
and in both of the service, once nothing is in progress. Software that leaves something behind by itself would hide what
the stream leaves, so that it also runs alone. Each series has a process of its own, which begins with nothing.
"""

from __future__ import annotations

import gc
import multiprocessing
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import mm_test_adapters
import numpy as np
import psutil
from pycromanager import Acquisition, Core, multi_d_acquisition_events, start_headless, stop_headless

from otf_stream.acquire.hooks import pycromanager, pymmcore_plus
from otf_stream.acquire.hooks.stream import Stream
from otf_stream.bench.results import Result
from otf_stream.config import ServiceConfig
from otf_stream.monitor.lookout import overview
from otf_stream.service.supervisor import Service
from otf_stream.store.session import SessionStore
from simulators.core import acquire_stack, unload, virtual_microscope
from simulators.scenes import Stack

_PROCESSES = ("microscope", "listener", "worker")
_PATIENCE_S = 120.0
_PAUSE_S = 0.3  # until threads that were told to end have done so
_WARM = 10  # acquisitions after which everything that is made once is there


Acquire = Callable[[str, str], tuple[Stream, list[np.ndarray]]]
"""Runs an acquisition, given the address of a listener and a name; returns its stream, and the planes it took."""


def run_all(
    *, count: int, planes: int, side: int, progress: Callable[[str], None] = lambda said: None
) -> dict[str, list[Result]]:
    """Run acquisitions one after the other with each software, and count what they leave.

    Parameters
    ----------
    count
        How many.
    planes, side
        Of each stack.
    progress
        Is told of each series, which itself prints every tenth acquisition.

    Returns
    -------
    dict
        By the series, for each acquisition: planes that landed and are as they were taken, and the handles, threads and
        memory of the microscope's process, the listener and the worker after it; of the software alone, of its process.
    """
    found: dict[str, list[Result]] = {}
    for name, run in SERIES.items():
        progress(name)
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as fresh:
            found[name] = fresh.submit(run, count, planes, side).result()
    return found


def _pymmcore_plus(count: int, planes: int, side: int) -> list[Result]:
    stack = np.random.default_rng(0).integers(0, 4000, (planes, side, side)).astype(np.uint16)
    core = virtual_microscope(Stack(stack, z_step_um=0.8, pixel_um=0.2))

    def acquire(address: str, name: str) -> tuple[Stream, list[np.ndarray]]:
        with pymmcore_plus.streaming(core, address, name=name) as stream:
            acquire_stack(core, planes=planes, z_step_um=0.8)
        return stream, list(stack)

    try:
        return _streamed(acquire, count)
    finally:
        unload(core)


def _pycromanager(count: int, planes: int, side: int) -> list[Result]:
    with _pycromanager_core(side), tempfile.TemporaryDirectory() as folder:
        events = multi_d_acquisition_events(z_start=0, z_end=planes - 1, z_step=1)

        def acquire(address: str, name: str) -> tuple[Stream, list[np.ndarray]]:
            taken: list[np.ndarray] = []
            with pycromanager.streaming(address, name=name, events=events) as stream:

                def process(image: np.ndarray, metadata: dict[str, Any]) -> Any:
                    taken.append(image.copy())
                    return stream.process(image, metadata)

                _save(folder, name, events, process)
            return stream, taken

        return _streamed(acquire, count)


def _pycromanager_alone(count: int, planes: int, side: int) -> list[Result]:
    with _pycromanager_core(side), tempfile.TemporaryDirectory() as folder:
        events = multi_d_acquisition_events(z_start=0, z_end=planes - 1, z_step=1)
        found: list[Result] = []
        for number in range(count):
            _save(folder, f"n{number}", events, lambda image, metadata: (image, metadata))
            time.sleep(_PAUSE_S)
            gc.collect()
            found.append({"microscope": _left(psutil.Process())})
            _tell(found)
        return found


SERIES: dict[str, Callable[[int, int, int], list[Result]]] = {
    "pymmcore-plus": _pymmcore_plus,
    "pycromanager": _pycromanager,
    "pycromanager alone": _pycromanager_alone,
}


@contextmanager
def _pycromanager_core(side: int) -> Iterator[None]:
    """Run pycromanager's Python engine; it can be started once in a process."""
    folder = mm_test_adapters.device_adapter_path()
    start_headless(mm_app_path=folder, config_file=str(Path(folder, "MMConfig_demo.cfg")), python_backend=True)
    core = Core()
    core.set_circular_buffer_memory_footprint(64)  # MB; the usual gigabyte would hide what is left
    core.set_roi(0, 0, side, side)
    core.set_exposure(1)
    core.set_property("Camera", "PixelType", "16bit")
    core.set_property("Camera", "Mode", "Noise")  # so that no two planes are the same
    try:
        yield
    finally:
        stop_headless()


def _save(folder: str, name: str, events: Any, process: Callable[..., Any]) -> None:
    """Run an acquisition that pycromanager saves, as a script would that cares for what it opens."""
    with Acquisition(directory=folder, name=name, image_process_fn=process) as acq:
        acq.acquire(events)
    acq.get_dataset().close()


def _streamed(acquire: Acquire, count: int) -> list[Result]:
    """Run acquisitions one after the other to one service."""
    found: list[Result] = []
    with tempfile.TemporaryDirectory() as folder:
        config = ServiceConfig(
            data=Path(folder),
            listen="tcp://127.0.0.1:*",
            monitor="",
            method="interpolate",
            threads=1,
            disk_reserve_gb=0,
        )
        with Service(config) as service:
            processes = {"microscope": psutil.Process(), **_children()}
            for number in range(count):
                name = f"n{number}"
                stream, taken = acquire(service.address, name)
                _settle(service, Path(folder), number + 1)
                found.append(
                    {
                        "acknowledged": stream.acknowledged,
                        "failures": stream.failures,
                        "intact": _intact(Path(folder) / f"{name}.ome.zarr", taken),
                        **{name: _left(process) for name, process in processes.items()},
                    }
                )
                del stream, taken
                _tell(found)
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
    time.sleep(_PAUSE_S)
    gc.collect()


def _intact(path: Path, stack: Sequence[np.ndarray]) -> bool:
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


def _tell(found: Sequence[Result]) -> None:
    if len(found) % 10 == 0:
        left = {name: found[-1][name] for name in _PROCESSES if name in found[-1]}
        told = (
            f"{name} {n['handles']} handles, {n['threads']} threads, {n['rss'] / 1e6:.0f} MB"
            for name, n in left.items()
        )
        print(f"{len(found)}: {', '.join(told)}", flush=True)


def page(found: Mapping[str, Sequence[Result]], planes: int, command: str, machine: str) -> str:
    """Write the page of the documentation from the results, by the series."""
    sections = "\n".join(_section(name, results, planes) for name, results in found.items())
    count = max(map(len, found.values()))
    return f"""# Many acquisitions in a row

Written by `{command}` on {machine}.

{count} acquisitions of {planes} planes, one after the other in one process, to one service. Counted after the
{min(_WARM, count)}th and after the last one. Each series ran in a process of its own. Threads that the listener gains
are of zarr-python's pool, which fills up to four more than there are cores.

{sections}"""


def _section(name: str, results: Sequence[Result], planes: int) -> str:
    warm, last = results[min(_WARM, len(results)) - 1], results[-1]
    rows = [
        f"| {process} | "
        + " | ".join(f"{warm[process][what]} → {last[process][what]}" for what in ("handles", "threads", "sockets"))
        + f" | {warm[process]['rss'] / 1e6:.0f} → {last[process]['rss'] / 1e6:.0f} MB "
        f"({last[process]['rss'] / warm[process]['rss'] - 1:+.1%}), at most "
        f"{max(r[process]['rss'] for r in results[min(_WARM, len(results)) - 1 :]) / warm[process]['rss'] - 1:+.1%} |"
        for process in _PROCESSES
        if process in last
    ]
    if "acknowledged" in last:
        lost = sum(planes - result["acknowledged"] for result in results)
        altered = sum(not result["intact"] for result in results)
        said = f"Planes lost: {lost}. Acquisitions with an altered plane: {altered}."
    else:
        said = (
            "The same script without the two lines of the stream, and without a service: what is left here is its own."
        )
    return f"""## {name}

{said}

| process | handles | threads | sockets | resident memory |
|---|---|---|---|---|
{chr(10).join(rows)}
"""
