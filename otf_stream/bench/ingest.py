"""``otf-stream bench ingest``: how fast planes become durable, beside the fastest that the machine could do it.

A publisher in one process, a listener in another, and planes that are published as fast as they are acknowledged. The
disk is asked for its best right before and right after, and everything is repeated, because the disk of a shared
machine changes from minute to minute; what counts is the ratio within a round. Nothing is timed before some planes have
landed and been forgotten, whose memory others get (:mod:`otf_stream.bench.pagecache`). In the end each plane is read
back from the disk and compared.
"""

from __future__ import annotations

import multiprocessing
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from itertools import islice
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from otf_stream.acquire.publisher import Publisher
from otf_stream.bench.ceilings import (
    Planes,
    checksum,
    draw_planes,
    loopback,
    numbered,
    sequential_write,
    settle_disk,
)
from otf_stream.bench.listening import listening
from otf_stream.bench.pagecache import forget_cached, forgetting
from otf_stream.bench.writers import stack_of, write_rates
from otf_stream.store.chunks import chunk_file
from otf_stream.store.session import SessionStore

Result = dict[str, Any]
DISTINCT = 8
"""Planes that are drawn; each is told apart by its first pixels."""
_FIRST = 64  # planes, before any is timed
_MEMORY = 256 << 20  # of the publisher
_LOOK_S = 0.02  # between looks at the listener's memory
_PAUSE_S = 0.004  # between looks whether the camera may go on


def run_ingest(
    *, planes: int, side: int, rounds: int, folder: Path, progress: Callable[[str], None] = lambda said: None
) -> list[Result]:
    """Measure the ingest path and what bounds it, in turn.

    Parameters
    ----------
    planes, side
        Size of the stack, uint16.
    rounds
        How often everything is measured.
    folder
        On the disk that is to be measured; what is written there is deleted.
    progress
        Is told of each round.

    Returns
    -------
    list of dict
        For each round, rates in bytes/s: ``ingest``, ``sequential`` (before and after it), ``ratio`` of the two,
        ``unprepared`` (what the first attempt at each of the latter gave), ``loopback``, ``checksum``, ``writers`` by
        library; ``published`` planes, and how many of them were ``lost`` and ``altered``; ``listener_rss``, the most
        memory in bytes; ``listener_cpu`` and ``publisher_cpu`` in s; ``load`` of the machine; ``planes`` that were
        timed, ``side``.
    """
    drawn = draw_planes(DISTINCT, side)
    found: list[Result] = []
    for _ in range(rounds):
        with tempfile.TemporaryDirectory(dir=folder, prefix="otf_stream-bench-") as scratch:
            load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
            found_before, before = sequential_write(Path(scratch), drawn, planes)
            settle_disk()
            result = ingest(Path(scratch), drawn, planes)
            found_after, after = sequential_write(Path(scratch), drawn, planes)
            found.append(
                {
                    "planes": planes,
                    "side": side,
                    "load": load,
                    "sequential": [before, after],
                    "unprepared": [found_before, found_after],
                    "ratio": result["ingest"] / statistics.mean([before, after]),
                    **result,
                    "loopback": loopback(drawn, planes),
                    "checksum": checksum(drawn),
                    "writers": write_rates(Path(scratch), drawn, planes),
                }
            )
        progress(f"{len(found)} of {rounds}: {_said(found[-1])}")
    return found


def ingest(folder: Path, drawn: Planes, count: int) -> Result:
    """Publish ``count`` planes to a listener in a process of its own, and look at what is on the disk then.

    Parameters
    ----------
    folder
        Where the listener lands them.
    drawn
        ``(side, side)`` uint16, which are published in turn, each numbered.

    Returns
    -------
    dict
        ``ingest``, from the first plane to the last acknowledgement, in bytes/s, and what `run_ingest` tells of it.
    """
    with listening(folder, folder / "listener.log") as (address, process), forgetting(folder):
        listener = psutil.Process(process.pid)
        rss = []
        with _publishing(address, drawn, count) as timed:
            timed.recv()
            used = processor_seconds(listener)
            while not timed.poll(_LOOK_S):
                rss.append(listener.memory_info().rss)
            rss.append(listener.memory_info().rss)  # of a run that was over before anybody looked
            took, publisher_cpu = timed.recv()
            listener_cpu = processor_seconds(listener) - used
    (store,) = folder.glob("*.ome.zarr")
    lost, altered = _compare(store, drawn, _FIRST + count)
    return {
        "ingest": count * drawn[0].nbytes / took,
        "published": _FIRST + count,
        "lost": lost,
        "altered": altered,
        "listener_rss": max(rss),
        "listener_cpu": listener_cpu,
        "publisher_cpu": publisher_cpu,
    }


@contextmanager
def _publishing(address: str, drawn: Planes, count: int) -> Iterator[Connection]:
    """Publish planes from a process of its own; yield what comes from `_publish`."""
    processes = multiprocessing.get_context("spawn")
    ours, theirs = processes.Pipe(duplex=False)
    publisher = processes.Process(target=_publish, args=(address, len(drawn), drawn[0].shape[0], count, theirs))
    publisher.start()
    theirs.close()
    with ours:
        yield ours
    publisher.join()
    publisher.close()


def _publish(address: str, distinct: int, side: int, count: int, done: Connection) -> None:
    """Publish planes as fast as they are acknowledged: the body of a process.

    It says when the first ones have landed, and in the end how long the others took, in seconds, and of the processor.
    """
    drawn = draw_planes(distinct, side)
    with done, flowing(address, drawn, _FIRST + count) as (publisher, flow):
        while not publisher.connected:
            time.sleep(_PAUSE_S)
        for _ in islice(flow, _FIRST):
            pass
        while publisher.pending:
            time.sleep(_PAUSE_S)
        done.send(None)
        used, begun = time.process_time(), time.perf_counter()
        for _ in flow:
            pass
        publisher.drain()
        done.send((time.perf_counter() - begun, time.process_time() - used))


@contextmanager
def flowing(address: str, drawn: Planes, count: int) -> Iterator[tuple[Publisher, Iterator[int]]]:
    """Yield a publisher of a stack, and what publishes a plane at each step, no sooner than it has room for it."""
    # What waits in it beyond that goes to files, on the disk that is being measured.
    window = _MEMORY * 5 // 8 // drawn[0].nbytes
    with Publisher(address, stack_of(drawn, count), memory=_MEMORY) as publisher:

        def flow() -> Iterator[int]:
            for z in range(count):
                while publisher.pending >= window:
                    time.sleep(_PAUSE_S)
                publisher.publish(numbered(drawn, z), z=z)
                yield z

        yield publisher, flow()


def _compare(path: Path, drawn: Planes, count: int) -> tuple[int, int]:
    """Read every plane from the disk; return how many are not there, and how many are not as they were."""
    lost = altered = 0
    with closing(SessionStore.open(path)) as store:
        durable = store.journal.durable()
        for z in range(count):
            if (0, 0, z) not in durable:
                lost += 1
                continue
            forget_cached(chunk_file(path, (0, 0, z)))
            altered += not np.array_equal(store.read_plane((0, 0, z)), numbered(drawn, z))
    return lost, altered


def processor_seconds(process: psutil.Process) -> float:
    """Seconds of the processor that a process has used."""
    times = process.cpu_times()
    return float(times.user + times.system)


def _said(result: Result) -> str:
    return (
        f"ingest {result['ingest'] / 1e9:.2f} GB/s, {result['ratio']:.2f} of the disk's, "
        f"{result['lost']} planes lost, listener {result['listener_rss'] / 1e6:.0f} MB"
    )


def rows(results: Sequence[Result]) -> list[tuple[str, str, str]]:
    """Return the table: what was measured, the median in GB/s with the least and the most, and its share of the disk's.

    The share is the median of the shares in each round.
    """
    disk = [statistics.mean(result["sequential"]) for result in results]

    def row(name: str, rates: Sequence[float], *, of_disk: bool = True) -> tuple[str, str, str]:
        spread = f"{statistics.median(rates) / 1e9:.2f} ({min(rates) / 1e9:.2f} … {max(rates) / 1e9:.2f})"
        share = statistics.median(rate / best for rate, best in zip(rates, disk, strict=True))
        return name, spread, f"{share:.2f}" if of_disk else ""

    return [
        row("**ingest: published, received, durable, acknowledged**", [result["ingest"] for result in results]),
        row("disk: one file, sequential, one fsync", disk, of_disk=False),
        row("the same, as the machine was found", [statistics.mean(result["unprepared"]) for result in results]),
        row("loopback ZeroMQ, thrown away", [result["loopback"] for result in results], of_disk=False),
        row("checksum (CRC-32), one core", [result["checksum"] for result in results], of_disk=False),
        *(
            row(f"written to Zarr by {name}", [result["writers"][name] for result in results])
            for name in results[0]["writers"]
        ),
    ]


def as_text(results: Sequence[Result]) -> str:
    """Return the result for a terminal."""
    lines = [f"{'':<56}{'GB/s':>22}{'of the disk':>14}"]
    lines += [f"{name.strip('*'):<56}{rate:>22}{share:>14}" for name, rate, share in rows(results)]
    return "\n".join([*lines, "", *_facts(results)])


def _facts(results: Sequence[Result]) -> list[str]:
    gigabytes = [result["planes"] * result["side"] ** 2 * 2 / 1e9 for result in results]

    def per_gigabyte(what: str) -> float:
        return float(statistics.median(result[what] / size for result, size in zip(results, gigabytes, strict=True)))

    loads = [result["load"] for result in results if result["load"] is not None]
    return [
        f"Planes lost: {sum(result['lost'] for result in results)}, altered: "
        f"{sum(result['altered'] for result in results)}, of {sum(result['published'] for result in results)}.",
        f"Listener: at most {max(result['listener_rss'] for result in results) / 1e6:.0f} MB resident, "
        f"{per_gigabyte('listener_cpu'):.1f} s of a core per GB; publisher: {per_gigabyte('publisher_cpu'):.1f} s.",
        f"Load of the machine meanwhile (processes that wanted to run): {min(loads):.1f} to {max(loads):.1f}."
        if loads
        else "The load of the machine is unknown.",
    ]


def machine() -> str:
    """Say on what figures were taken."""
    return f"{os.cpu_count()} cores {platform.machine()}, {platform.system()}, Python {platform.python_version()}"


def section(results: Sequence[Result], command: str) -> str:
    """Write the section of the documentation from the results."""
    planes, side = results[0]["planes"], results[0]["side"]
    table = "\n".join(f"| {name} | {rate} | {share} |" for name, rate, share in rows(results))
    return f"""Written by `{command}` on {machine()}.

{planes} planes of {side} × {side} pixels of 16 bits, {side**2 * 2 / 1e6:.1f} MB each, over loopback, published as fast
as they are acknowledged, after {_FIRST} others. A plane is acknowledged when its bytes, its name and its entry in the
journal are on the disk. Median of {len(results)} rounds, and the range; the share is the median of the shares in each
round. A virtual machine has to get memory that it has not used lately from its host, which can take longer than the
disk takes to write. So that nothing waits for that, neither the disk's figure nor another, everything finds memory that
was used just before, and the system forgets planes that have landed.

| | GB/s | of the disk |
|---|---|---|
{table}

{chr(10).join(f"- {fact}" for fact in _facts(results))}

Planes were read back from the disk and compared with what was published. The libraries were given the planes in memory,
as fast as they take them: this store computes the checksum, names each plane durably and records it, the others do
less.

The store writes its files itself: an uncompressed chunk is the plane's bytes, straight from the memory that ZeroMQ
received them into, so that a library has no work to take off it. An acknowledgement promises more than they wait for
(tensorstore for a file and the folder it is in; after the other two, everything was synchronised once, at the end), so
the rest would have to be done beside them. Compression is for the restored volume, which is not on this path.
"""
