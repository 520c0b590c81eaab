"""``otf-stream bench publish``: what streaming costs the microscope's PC.

Two things are measured: how long a script waits for the client to be imported, and how long `Publisher.publish` keeps
the camera's thread, in the worst case: nobody listens, so that planes pile up in memory and then go to files. After each
plane another one is merely copied, into memory that is mapped and into memory that is not: the first is the least that
handing over can take, and both share whatever else the machine does.

It needs neither torch nor zarr, so that it can be run where it matters.
"""

from __future__ import annotations

import os
import platform
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from mmap import mmap
from pathlib import Path
from typing import Any

import numpy as np

from otf_stream import __version__
from otf_stream.acquire.publisher import Publisher
from otf_stream.acquisition import Acquisition, Sizes, VoxelSize

_INTERPRETERS = 5
_STATEMENTS = {
    "python alone": "pass",
    "numpy": "import numpy",
    "publisher and hook": "import otf_stream.acquire.publisher, otf_stream.acquire.hooks.pymmcore_plus",
    "command line": "import otf_stream.cli",
}
_FIRST = 10  # planes that find no memory in use yet
_FRAMES = 9  # that the camera hands over in turn: more than a processor's cache holds


@dataclass(frozen=True)
class Times:
    """How long something took, in ms.

    Parameters
    ----------
    count
        How often it was done.
    p50, p95, max
        Median, 95th percentile and longest; NaN if it was not done.
    """

    count: int
    p50: float
    p95: float
    max: float

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Times:
        """Summarise durations."""
        if not seconds:
            return cls(0, float("nan"), float("nan"), float("nan"))
        p50, p95, longest = 1e3 * np.percentile(seconds, [50, 95, 100])
        return cls(len(seconds), float(p50), float(p95), float(longest))


@dataclass(frozen=True)
class Publishing:
    """What publishing at one rate cost the camera's thread.

    Parameters
    ----------
    planes_per_second
        The camera's rate.
    spilled
        How many planes went to files meanwhile.
    times
        By what was timed.
    """

    planes_per_second: float
    spilled: int
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
            lines += ["", f"{f'{rate.planes_per_second:g} planes/s, ms':<36}{'p50':>8}{'p95':>8}{'max':>8}{'planes':>8}"]
            lines += [
                f"{name:<36}{times.p50:>8.2f}{times.p95:>8.2f}{times.max:>8.2f}{times.count:>8}"
                for name, times in rate.times.items()
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
    mapped = [np.zeros_like(frames[0]) + 1 for _ in range(_FRAMES)]
    published, to_mapped, to_fresh, on_disk = [], [], [], []
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        publisher = Publisher(_nowhere(), acquisition, spill=Path(folder))
        start = time.perf_counter()
        for z in range(planes):
            time.sleep(max(0.0, start + z / rate - time.perf_counter()))
            on_disk.append(publisher.spilled)
            first, second, third = (frames[(3 * z + i) % _FRAMES] for i in range(3))
            published.append(_timed(lambda: publisher.publish(first, z=z)))  # noqa: B023
            to_mapped.append(_timed(lambda: np.copyto(mapped[z % _FRAMES], second)))  # noqa: B023
            to_fresh.append(_timed(lambda: mmap(-1, third.nbytes).write(third)))  # noqa: B023
        spilled = publisher.spilled
        publisher.abort(0)
        kept = len(list(Path(folder).rglob("*.plane")))
    if kept != planes:
        raise RuntimeError(f"of {planes} planes only {kept} were kept")
    return Publishing(
        planes_per_second=rate,
        spilled=spilled,
        times={
            "publish": Times.of(published),
            f"publish, the first {_FIRST}": Times.of(published[:_FIRST]),
            "publish, while planes go to files": Times.of(
                [took for took, there in zip(published, on_disk, strict=True) if there]
            ),
            "copy into mapped memory": Times.of(to_mapped),
            "copy into fresh memory": Times.of(to_fresh),
        },
    )


def _timed(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    kept = work()
    took = time.perf_counter() - begun
    del kept
    return took


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
