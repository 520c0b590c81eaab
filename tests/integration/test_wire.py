"""A publisher and a listener in processes of their own: killed at any moment, and under load."""

from __future__ import annotations

import multiprocessing
import socket
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from multiprocessing.context import SpawnProcess
from pathlib import Path

import numpy as np
import psutil
import pytest
import waiting

from otf_stream.acquire.process import run_listener
from otf_stream.acquire.publisher import Publisher
from otf_stream.acquisition import Acquisition, Sizes, VoxelSize
from otf_stream.store.session import SessionStore

Start = Callable[[str], tuple[SpawnProcess, str]]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start a listener in a process of its own, wait until it listens."""
    processes = multiprocessing.get_context("spawn")
    started: list[SpawnProcess] = []

    def start(address: str) -> tuple[SpawnProcess, str]:
        ours, theirs = processes.Pipe(duplex=False)
        process = processes.Process(
            target=run_listener, args=(tmp_path / "data", address), kwargs={"ready": theirs, "disk_reserve": 0}
        )
        process.start()
        started.append(process)
        theirs.close()
        with ours:
            assert ours.poll(60)
            return process, ours.recv_bytes().decode()

    yield start
    for process in started:
        process.terminate()
        process.join(30)
        assert process.exitcode is not None
        process.close()


def acquisition(planes: int, side: int) -> Acquisition:
    return Acquisition(
        name="cells",
        sizes=Sizes(z=planes, y=side, x=side),
        dtype="uint16",
        voxel_size=VoxelSize(z=0.5, y=0.1, x=0.1),
    )


def frame(z: int, side: int) -> np.ndarray:
    return (np.arange(side * side, dtype=np.uint32) * 2654435761 + z * 40503).astype(np.uint16).reshape(side, side)


until = partial(waiting.until, seconds=60, pause=0.005)


def check(path: Path, planes: int, side: int) -> None:
    store = SessionStore.open(path)
    try:
        assert list(store.journal.durable()) == [(0, 0, z) for z in range(planes)]
        for z in range(planes):
            np.testing.assert_array_equal(store.read_plane((0, 0, z)), frame(z, side))
        assert store.journal.closed == "finished"
    finally:
        store.close()


def test_every_plane_arrives_though_the_listener_is_killed_again_and_again(tmp_path: Path, start: Start) -> None:
    planes, side = 120, 512
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{probe.getsockname()[1]}"
    process, _ = start(address)
    spill = tmp_path / "spill"
    with Publisher(address, acquisition(planes, side), memory=8 << 20, spill=spill) as publisher:
        for z in range(planes):
            publisher.publish(frame(z, side), z=z)
            if z in (30, 60, 90):
                until(lambda done=z - 15: publisher.acknowledged > done)
                process.kill()
                process.join()
                acknowledged = publisher.acknowledged
                process, _ = start(address)
                assert publisher.acknowledged >= acknowledged
    assert publisher.acknowledged == planes
    (store,) = (tmp_path / "data").glob("*.ome.zarr")
    check(store, planes, side)
    assert not list(spill.iterdir())


@pytest.mark.skipif(sys.platform == "win32", reason="counts resident memory, which Windows trims")
def test_a_listener_stays_small_while_large_planes_stream(tmp_path: Path, start: Start) -> None:
    planes, side = 60, 2048
    process, address = start("tcp://127.0.0.1:*")
    assert process.pid is not None
    resident, peak = psutil.Process(process.pid).memory_info, 0
    with Publisher(address, acquisition(planes, side), spill=tmp_path / "spill") as publisher:
        for z in range(planes):
            publisher.publish(frame(z, side), z=z)
            peak = max(peak, resident().rss)
        while publisher.pending:
            peak = max(peak, resident().rss)
            time.sleep(0.005)
    assert peak < 500e6
    check(tmp_path / "data" / "cells.ome.zarr", planes, side)
