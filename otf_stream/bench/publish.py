"""``otf-stream bench publish``: what streaming costs the microscope's PC.

Two things are measured: how long a script waits for the client to be imported, and how long `Publisher.publish` keeps
the camera's thread, in the worst case: nobody listens, so that planes pile up in memory and then go to files. After
each plane another one is merely copied, into memory that is mapped: the least that handing over can take, with whatever
else the machine does at the time. What memory that is not mapped would cost, and a file, is measured before.

It needs neither torch nor zarr, so that it can be run where it matters.
"""

from __future__ import annotations

import logging
import os
import platform
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from otf_stream import __version__
from otf_stream.acquire.publisher import Publisher
from otf_stream.acquisition import Acquisition, Sizes, VoxelSize

_INTERPRETERS = 5
_publishers_log = logging.getLogger("otf_stream.acquire.publisher")
_STATEMENTS = {
    "python alone": "pass",
    "numpy": "import numpy",
    "publisher and hook": "import otf_stream.acquire.publisher, otf_stream.acquire.hooks.pymmcore_plus",
    "command line": "import otf_stream.cli",
}
_FIRST = 10  # planes, for which no memory is in use yet
_FRAMES = 15  # that the camera hands over in turn: more than a processor's cache holds


@dataclass(frozen=True)
class Times:
    """How long something took, in ms.

    Parameters
    ----------
    count
        How often it was done.
    p50, p95, max
        Median, 95th percentile and longest; 0 if it was not done.
    """

    count: int
    p50: float
    p95: float
    max: float

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Times:
        """Summarise durations."""
        if not seconds:
            return cls(0, 0.0, 0.0, 0.0)
        p50, p95, longest = 1e3 * np.percentile(seconds, [50, 95, 100])
        return cls(len(seconds), float(p50), float(p95), float(longest))


@dataclass(frozen=True)
class Publishing:
    """What publishing at one rate cost the camera's thread.

    Parameters
    ----------
    planes_per_second
        The camera's rate.
    times
        By what was timed.
    """

    planes_per_second: float
    times: dict[str, Times]


@dataclass(frozen=True)
class ClientCosts:
    """The result.

    Parameters
    ----------
    machine, load
        Where, and the processes that wanted to run there in the minute before; None where the system does not tell.
    side
        Of the planes, in pixels of 16 bits.
    imports_s
        Wall time of an interpreter that imports something and ends, in s, by what it imports.
    publishing
        By rate.
    """

    machine: str
    load: float | None
    version: str
    side: int
    imports_s: dict[str, float]
    publishing: list[Publishing]

    def as_dict(self) -> dict[str, Any]:
        """Return it for JSON."""
        return asdict(self)

    def as_text(self) -> str:
        """Return it for a terminal."""
        lines = [f"{self.machine}, load {_load(self.load)}", "", f"{'import':<36}{'s':>8}"]
        lines += [f"{name:<36}{seconds:>8.3f}" for name, seconds in self.imports_s.items()]
        for rate in self.publishing:
            lines += [
                "",
                f"{f'{rate.planes_per_second:g} planes/s, ms':<36}{'p50':>8}{'p95':>8}{'max':>8}{'planes':>8}",
            ]
            lines += [
                f"{name:<36}{times.p50:>8.2f}{times.p95:>8.2f}{times.max:>8.2f}{times.count:>8}"
                for name, times in _done(rate)
            ]
        return "\n".join(lines)


def measure(
    *,
    planes: int,
    side: int,
    rates: Sequence[float],
    progress: Callable[[str], None] = lambda said: None,
) -> ClientCosts:
    """Measure both.

    Parameters
    ----------
    planes
        To publish at each rate.
    side
        Of a plane, in pixels.
    rates
        Planes a second.
    progress
        Is told what is being measured.
    """
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    progress("importing")
    imports = {name: _import_seconds(statement) for name, statement in _STATEMENTS.items()}
    published = []
    for rate in rates:
        progress(f"publishing {planes} planes at {rate:g} a second")
        published.append(publish_into_the_void(planes=planes, side=side, rate=rate))
    return ClientCosts(_machine(), load, __version__, side, imports, published)


def publish_into_the_void(*, planes: int, side: int, rate: float) -> Publishing:
    """Publish planes that nobody takes, at a camera's pace, and time each.

    Raises
    ------
    RuntimeError
        If a plane is neither in memory nor in a file at the end.
    """
    acquisition = Acquisition(
        name="bench",
        sizes=Sizes(z=planes, y=side, x=side),
        dtype="uint16",
        voxel_size=VoxelSize(z=1, y=0.2, x=0.2),
    )
    rng = np.random.default_rng(0)
    frames = [rng.integers(0, 65536, (side, side), np.uint16) for _ in range(_FRAMES)]
    mapped = [frame.copy() for frame in frames]
    published: list[tuple[str, float]] = []
    to_mapped = []
    with _folder() as folder, _Waiting() as waiting:
        # What is written and mapped here stays: what is given back might be found again, and found faster.
        fresh = [np.empty_like(frame) for frame in frames]
        to_fresh = [_timed(partial(np.copyto, *pair)) for pair in zip(fresh, frames, strict=True)]
        to_file = [_timed(partial((folder / f"{i}.copy").write_bytes, f.data)) for i, f in enumerate(frames)]
        publisher = Publisher(_nowhere(), acquisition, spill=folder)
        start = time.perf_counter()
        for z in range(planes):
            time.sleep(max(0.0, start + z / rate - time.perf_counter()))
            state = "going to files" if publisher.spilled else "kept in memory"
            waited = waiting.times
            took = _timed(partial(publisher.publish, frames[2 * z % _FRAMES], z=z))
            published.append(("waiting for the disk" if waiting.times > waited else state, took))
            to_mapped.append(_timed(partial(np.copyto, mapped[z % _FRAMES], frames[(2 * z + 1) % _FRAMES])))
        publisher.abort(0)
        kept = len(list(folder.rglob("*.plane")))
    if kept != planes:
        raise RuntimeError(f"of {planes} planes only {kept} were kept")
    states = ("kept in memory", "going to files", "waiting for the disk")
    return Publishing(
        planes_per_second=rate,
        times={
            f"publish, the first {_FIRST} planes": Times.of([took for _, took in published[:_FIRST]]),
            **{
                f"publish, planes {state}": Times.of([took for was, took in published if was == state])
                for state in states
            },
            "copy into mapped memory": Times.of(to_mapped),
            "copy into fresh memory": Times.of(to_fresh),
            "write to a file": Times.of(to_file),
        },
    )


class _Waiting(logging.Handler):
    """Counts how often the publisher says that the camera waits, and keeps what it says from the terminal."""

    def __init__(self) -> None:
        super().__init__()
        self.times = 0

    def emit(self, record: logging.LogRecord) -> None:
        self.times += "waiting for memory" in record.getMessage()

    def __enter__(self) -> _Waiting:
        _publishers_log.addHandler(self)
        _publishers_log.propagate = False
        return self

    def __exit__(self, *error: object) -> None:
        _publishers_log.propagate = True
        _publishers_log.removeHandler(self)


@contextmanager
def _folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="otf_stream-bench-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def _timed(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def _import_seconds(statement: str) -> float:
    times = []
    for _ in range(_INTERPRETERS):
        begun = time.perf_counter()
        subprocess.run([sys.executable, "-c", statement], check=True)  # noqa: S603
        times.append(time.perf_counter() - begun)
    return statistics.median(times)


def _nowhere() -> str:
    """Return an address on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"tcp://127.0.0.1:{probe.getsockname()[1]}"


def _machine() -> str:
    return f"{os.cpu_count()} cores {platform.machine()}, {platform.system()}, Python {platform.python_version()}"


def _load(load: float | None) -> str:
    return "unknown" if load is None else f"{load:.1f}"


def page(costs: ClientCosts, command: str) -> str:
    """Write the page of the documentation from the result."""
    megabytes = costs.side**2 * 2 / 1e6
    parts = [
        "# What streaming costs the microscope's PC",
        f"Written by `{command}` on {costs.machine}, with a load of {_load(costs.load)} when it began (processes that "
        "wanted to run).",
        "## To import it",
        f"Wall time of an interpreter that imports it and ends, median of {_INTERPRETERS}.",
        "\n".join(["| | s |", "|---|---|", *(f"| {name} | {took:.3f} |" for name, took in costs.imports_s.items())]),
        "## To publish a plane",
        f"How long a plane of {costs.side} × {costs.side} pixels of 16 bits ({megabytes:.1f} MB) keeps the camera's "
        "thread while nobody listens, in ms. Planes first stay in memory and then go to files. Where the camera brings "
        "more than the disk takes, it has to wait in the end, because nothing is lost; the time of a file tells where "
        "that is. The copies and the file are what any program would pay.",
    ]
    for rate in costs.publishing:
        parts += [
            f"At {rate.planes_per_second:g} planes a second, {rate.planes_per_second * megabytes:.0f} MB/s:",
            "\n".join(
                ["| | planes | p50 | p95 | max |", "|---|---|---|---|---|"]
                + [f"| {name} | {t.count} | {t.p50:.2f} | {t.p95:.2f} | {t.max:.2f} |" for name, t in _done(rate)]
            ),
        ]
    return "\n\n".join(parts) + "\n"


def _done(rate: Publishing) -> list[tuple[str, Times]]:
    return [(name, times) for name, times in rate.times.items() if times.count]
