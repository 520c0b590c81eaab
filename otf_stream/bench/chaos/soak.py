"""Part 6: half of the ingest rate for half an hour, while stacks are restored: nothing may grow.

Large planes stream all the time, at half the rate that is measured at the start, in sessions of a few hundred planes
that are looked at and deleted, since no disk holds half an hour of them. Beside them small stacks come and are
restored. Memory, handles and threads of each process, and the time until a plane is acknowledged, are sampled; what
counts is the last fifth of the time against the second one, since in the first everything warms up.
"""

from __future__ import annotations

import random
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from uuid import UUID

import numpy as np
import psutil

from otf_stream.acquire.publisher import Publisher
from otf_stream.acquisition import Acquisition, Sizes, VoxelSize
from otf_stream.bench.ceilings import draw_planes, numbered
from otf_stream.bench.chaos.checks import is_over, plane_problems, restored_problems, stores_of
from otf_stream.bench.chaos.part import Part, Runs, failed, table
from otf_stream.bench.chaos.part import numbered as by_number
from otf_stream.bench.chaos.sample import Sample
from otf_stream.bench.chaos.served import Served, until
from otf_stream.bench.ingest import ingest
from otf_stream.bench.results import Result
from otf_stream.store.session import SessionStore, delete_session

SECONDS_A_RUN = 18.0  # so that a hundred runs take half an hour
SIDE = 2048
_DISTINCT = 4  # planes that are drawn
_PLANES = 200  # of a session
_TRIED = 64  # planes by which the ingest rate is measured
_LOOKED_AT = 8  # planes of a session that are compared, beside the count
_SAMPLE_S = 2.0
_LOOK_S = 0.002
_PAUSE_S = 15.0  # from the end of a stack to the next one
_STACK = (16, 96)
_PROCESSES = ("listener", "worker", "supervisor", "publisher")
_FIFTHS = 5
# What counts as flat: the last fifth against the second one.
_MOST_MEMORY, _MOST_MEMORY_BYTES = 1.05, 20e6
_MOST_HANDLES = 4
_MOST_LATENCY = 1.5


@dataclass
class _Samples:
    """What was sampled: for each moment, in s since the start, figures by name."""

    begun: float = field(default_factory=time.monotonic)
    rows: list[dict[str, float]] = field(default_factory=list)
    latencies: list[tuple[float, float]] = field(default_factory=list)

    @property
    def now(self) -> float:
        return time.monotonic() - self.begun


@contextmanager
def soak(runs: int, seed: int) -> Iterator[Runs]:
    """Give one run, which takes as long as so many would; parameters as for a `Part`."""
    seconds = runs * SECONDS_A_RUN
    yield by_number("soak", {f"{seconds / 60:g} minutes": lambda number: _soaked(seconds, seed)}, 1, seed)


def _soaked(seconds: float, seed: int) -> Result:
    served = Served(budget_s=60.0, tail_s=30.0, method="auto")
    problems: list[str] = []
    try:
        drawn = draw_planes(_DISTINCT, SIDE)
        with tempfile.TemporaryDirectory(dir=served.folder) as scratch:
            rate = ingest(Path(scratch), drawn, _TRIED)["ingest"] / drawn[0].nbytes / 2
        samples, stop = _Samples(), threading.Event()
        tasks: list[Callable[[], int]] = [
            partial(_stream, served, drawn, rate, samples, stop, problems),
            partial(_restore, served, seed, stop, problems),
            partial(_watch, served, samples, stop),
        ]
        with ThreadPoolExecutor(len(tasks), thread_name_prefix="soak") as pool:
            done = [pool.submit(task) for task in tasks]
            ended = time.monotonic() + seconds
            while time.monotonic() < ended and not any(task.done() for task in done):
                time.sleep(0.2)
            stop.set()
            planes, stacks, _ = (task.result() for task in done)
        problems += served.problems()
    except BaseException:
        served.suspect = True
        raise
    finally:
        problems += served.stop()
    fifths = _by_fifths(samples, seconds)
    return {
        "problems": [*problems, *grown(fifths)],
        "seconds": seconds,
        "planes": planes,
        "stacks": stacks,
        "planes_per_second": rate,
        "bytes_per_second": planes * drawn[0].nbytes / seconds,
        "fifths": fifths,
    }


def _stream(
    served: Served, drawn: Sequence[np.ndarray], rate: float, samples: _Samples, stop: threading.Event,
    problems: list[str],
) -> int:  # fmt: skip
    """Stream sessions of large planes one after another; return how many planes were sent."""
    sent = 0
    while not stop.is_set():
        acquisition = Acquisition(
            name=f"large {sent}",
            sizes=Sizes(t=_PLANES, z=1, y=SIDE, x=SIDE),
            dtype="uint16",
            voxel_size=VoxelSize(z=0.4, y=0.1, x=0.1),
        )
        with Publisher(served.address, acquisition, spill=served.folder) as publisher:
            begun, count = time.monotonic(), 0
            for t in range(_PLANES):
                if stop.is_set():
                    break
                due = begun + t / rate
                while time.monotonic() < due:
                    time.sleep(_LOOK_S)
                handed_over = time.monotonic()
                publisher.publish(numbered(drawn, t), t=t, z=0)
                count += 1
                while publisher.acknowledged < count and time.monotonic() < due + 1 / rate:
                    time.sleep(_LOOK_S)
                if publisher.acknowledged == count:
                    samples.latencies.append((samples.now, time.monotonic() - handed_over))
        sent += count
        for path in stores_of(publisher.session, served.data):
            problems += _large_problems(path, drawn, count)
            delete_session(path)
    return sent


def _large_problems(path: Path, drawn: Sequence[np.ndarray], count: int) -> list[str]:
    with closing(SessionStore.open(path)) as store:
        there = store.journal.count()
        found = [] if there == count else [f"{path.name} has {there} of {count} planes"]
        for t in np.linspace(0, count - 1, min(_LOOKED_AT, count)).astype(int).tolist():
            if not np.array_equal(store.read_plane((t, 0, 0)), numbered(drawn, t)):
                found.append(f"plane {t} of {path.name} is altered")
    return found


def _restore(served: Served, seed: int, stop: threading.Event, problems: list[str]) -> int:
    """Send small stacks one after another, wait for their volumes and look at them; return how many."""
    dice, done = random.Random(seed), 0  # noqa: S311 - no secret
    while not stop.is_set():
        sample = Sample(f"small {done}", UUID(int=dice.getrandbits(128)).hex, dice.getrandbits(32), *_STACK)
        with Publisher(served.address, sample.acquisition, session=sample.session, spill=served.folder) as publisher:
            for z, plane in enumerate(sample.stack()):
                publisher.publish(plane, z=z)
        until(partial(is_over, sample.session, served.data), "the stack is restored", seconds=180, pause=0.5)
        problems += plane_problems(served.data, sample, range(sample.planes))
        problems += restored_problems(served.data, sample, closed=("finished",))
        for path in stores_of(sample.session, served.data):
            delete_session(path)
        done += 1
        stop.wait(_PAUSE_S)
    return done


def _watch(served: Served, samples: _Samples, stop: threading.Event) -> int:
    """Sample the processes; return how often."""
    watched = {name: served.child(name) for name in ("listener", "worker")}
    watched |= {"supervisor": served.supervisor, "publisher": psutil.Process()}
    while not stop.wait(_SAMPLE_S):
        row = {"at": samples.now}
        for name, process in watched.items():
            with process.oneshot():
                row[f"{name} memory"] = process.memory_info().rss
                row[f"{name} handles"] = process.num_fds() if psutil.POSIX else process.num_handles()
                row[f"{name} threads"] = process.num_threads()
        samples.rows.append(row)
    return len(samples.rows)


def _by_fifths(samples: _Samples, seconds: float) -> list[dict[str, float]]:
    """Return medians of each fifth of the time; of the latency, the 95th percentile and the worst too."""
    fifths = []
    for number in range(_FIFTHS):
        start, end = number * seconds / _FIFTHS, (number + 1) * seconds / _FIFTHS
        rows = [row for row in samples.rows if start <= row["at"] < end]
        figures = {name: statistics.median(row[name] for row in rows) for name in (rows[0] if rows else ())}
        latencies = [latency for at, latency in samples.latencies if start <= at < end]
        if latencies:
            figures |= {
                "latency": statistics.median(latencies),
                "latency p95": float(np.percentile(latencies, 95)),
                "latency worst": max(latencies),
            }
        fifths.append(figures)
    return fifths


def grown(fifths: Sequence[dict[str, float]]) -> list[str]:
    """Say what has grown from the second fifth of the time to the last, beyond what counts as flat."""
    before, after = fifths[1], fifths[-1]
    found = []
    for name in before.keys() & after.keys():
        least, last = before[name], after[name]
        if name.endswith("memory"):
            bad = last > _MOST_MEMORY * least and last > least + _MOST_MEMORY_BYTES
        elif name.endswith(("handles", "threads")):
            bad = last > least + _MOST_HANDLES
        else:
            bad = name in ("latency", "latency p95") and last > _MOST_LATENCY * least
        if bad:
            found.append(f"{name} grew from {least:g} to {last:g}")
    return sorted(found)


def _section(results: Sequence[Result]) -> str:
    result = results[-1]
    fifths = result.get("fifths") or []
    parts: dict[str, tuple[float, str]] = {f"memory of the {name}, MB": (1e-6, f"{name} memory") for name in _PROCESSES}
    parts |= {f"handles of the {name}": (1, f"{name} handles") for name in _PROCESSES}
    parts |= {f"time until acknowledged, {said}, ms": (1e3, name) for said, name in _LATENCIES.items()}
    rows = [
        (said, *(f"{scale * fifth[name]:.0f}" if name in fifth else "–" for fifth in fifths))
        for said, (scale, name) in parts.items()
        if fifths
    ]
    return (
        f"{result.get('seconds', 0) / 60:.1f} minutes, {result.get('planes', 0)} planes of {SIDE} × {SIDE} at "
        f"{result.get('bytes_per_second', 0) / 1e6:.0f} MB/s, half of what the same machine took just before, and "
        f"{result.get('stacks', 0)} stacks of {_STACK[0]} planes restored meanwhile. Medians of each fifth of it. "
        f"Flat is when, from the second to the last, no process grew by more than {_MOST_MEMORY - 1:.0%} and "
        f"{_MOST_MEMORY_BYTES / 1e6:.0f} MB or {_MOST_HANDLES} handles or threads, and the time until a plane is "
        f"acknowledged by no more than {_MOST_LATENCY:g} times: {'it was not' if failed([result]) else 'it was'}.\n\n"
        + table(("", *(f"fifth {number}" for number in range(1, _FIFTHS + 1))), rows)
    )


_LATENCIES = {"median": "latency", "95 %": "latency p95", "worst": "latency worst"}

SOAK = Part("soak", "Half an hour", soak, 1, _section)
