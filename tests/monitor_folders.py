"""What a data folder has in it while a service runs: planes that land, a listener and a worker that are at work."""

import time
import zlib

import numpy as np

from otf_stream.acquire.status import ListenerStatus, write_status
from otf_stream.monitor.work import WorkerStatus, write_work


def land(store, *planes):
    """Make planes durable; their pixels tell where they belong."""
    sizes = store.acquisition.sizes
    group = []
    for t, c, z in planes:
        pixels = np.full((sizes.y, sizes.x), 1000 * t + 100 * c + z, "uint16")
        group.append(((t, c, z), pixels.data, zlib.crc32(pixels.data)))
    store.write_planes(group)


def stack(t, planes, c=0):
    """Planes of one stack."""
    return [(t, c, z) for z in planes]


def at_work(data, *, listener=True, worker=True, opened=None, awaited=(), **more):
    """Let the listener and the worker of a data folder be at work, as far as their files tell."""
    now = time.time()
    if listener:
        figures = {"connections": 1, "sessions": 1, "disk_free": 9 * 10**9, "disk_reserve": 2 * 10**9, "holding": False}
        counters = {"received": 7, "durable": 6, "duplicates": 1, "bytes": 768, "refused": {"bad-shape": 2}}
        told = {"at": now, "address": "tcp://127.0.0.1:1", "counters": counters} | figures | more
        write_status(data, ListenerStatus(open=opened or {}, **told))
    if worker:
        write_work(data, WorkerStatus(now, 1, "cpu", now, len(awaited), tuple(awaited)))
