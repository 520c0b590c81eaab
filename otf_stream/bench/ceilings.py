"""What bounds the ingest path on this machine, whatever the program: the disk, the loopback, the checksum.

Each is measured with the same planes as the ingest path itself and next to it in time, because the disk of a shared
machine is twice as fast in one minute as in the next.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import zmq
from isal.isal_zlib import crc32

from otf_stream.store.disk import fsync_folder

Planes = Sequence[np.ndarray]
_QUEUE = 8  # messages that wait at either end


def draw_planes(count: int, side: int) -> list[np.ndarray]:
    """Draw planes of noise, ``(side, side)`` uint16: what no layer below could compress or share."""
    rng = np.random.default_rng(0)
    return [rng.integers(0, 1 << 16, (side, side), np.uint16) for _ in range(count)]


def numbered(planes: Planes, z: int) -> np.ndarray:
    """Return plane ``z`` of a long stack: one of ``planes``, with ``z`` in its first pixels; no two are alike."""
    plane = planes[z % len(planes)]
    plane.reshape(-1)[:2] = z & 0xFFFF, z >> 16
    return plane


def settle_disk() -> None:
    """Wait until nothing that was written before is left to write."""
    if hasattr(os, "sync"):
        os.sync()


def sequential_write(folder: Path, planes: Planes, count: int) -> tuple[float, float]:
    """Write ``count`` planes to one file, one after the other, and wait until the disk has them; in bytes/s.

    This is what a disk is best at: one file, large writes, a single wait at the end. It is done twice: first as the
    machine is found, then with the memory of the first time at hand (:mod:`otf_stream.bench.pagecache`).
    """
    size = count * planes[0].nbytes
    return size / write_and_delete(folder, planes, count), size / write_and_delete(folder, planes, count)


def write_and_delete(folder: Path, planes: Planes, count: int) -> float:
    """Write ``count`` planes to one file, until the disk has them, and delete it; return the seconds it took."""
    path = folder / "sequential"
    settle_disk()
    begun = time.perf_counter()
    with path.open("wb", buffering=0) as file:
        for z in range(count):
            rest = numbered(planes, z).data.cast("B")
            while rest:
                rest = rest[file.write(rest) :]
        os.fsync(file.fileno())
    fsync_folder(folder)
    took = time.perf_counter() - begun
    path.unlink()
    return took


def loopback(planes: Planes, count: int) -> float:
    """Send ``count`` planes to another process over loopback ZeroMQ, which throws them away; in bytes/s."""
    processes = multiprocessing.get_context("spawn")
    ours, theirs = processes.Pipe(duplex=False)
    process = processes.Process(target=_throw_away, args=(count, theirs))
    process.start()
    theirs.close()
    try:
        with ours, zmq.Context() as context, context.socket(zmq.DEALER) as dealer:
            dealer.setsockopt(zmq.LINGER, 0)
            dealer.setsockopt(zmq.SNDHWM, _QUEUE)
            dealer.connect(ours.recv())
            dealer.send(b"ready")
            dealer.recv()
            begun = time.perf_counter()
            for z in range(count):
                dealer.send(planes[z % len(planes)].data, copy=False)
            dealer.recv()
            return count * planes[0].nbytes / (time.perf_counter() - begun)
    finally:
        process.join()
        process.close()


def _throw_away(count: int, ready: Connection) -> None:
    with zmq.Context() as context, context.socket(zmq.ROUTER) as router:
        router.setsockopt(zmq.RCVHWM, _QUEUE)
        router.bind("tcp://127.0.0.1:*")
        with ready:
            ready.send(router.getsockopt_string(zmq.LAST_ENDPOINT))
        peer, _ = router.recv_multipart()
        router.send_multipart([peer, b"ready"])
        for _ in range(count):
            router.recv_multipart(copy=False)
        router.send_multipart([peer, b"taken"])


def checksum(planes: Planes) -> float:
    """Compute the protocol's checksum of planes on one core; in bytes/s."""
    begun = time.perf_counter()
    for plane in planes:
        crc32(plane.data)
    return sum(plane.nbytes for plane in planes) / (time.perf_counter() - begun)
