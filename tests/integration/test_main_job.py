"""The main job with real processes: serve in one, replay from another, an isotropic volume in the end."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import tifffile
from stacks import small_stack

from otf_stream.service.overview import overview
from otf_stream.store.restored import read_provenance, read_restored
from otf_stream.store.session import SessionStore
from simulators.camera import acquire_stack, virtual_microscope

PROGRAM = Path(sys.executable).with_name("otf-stream")
VOXELS = ("--voxel-size", "0.8", "0.2", "0.2")


def run(*arguments, timeout=200):
    return subprocess.run([PROGRAM, *map(str, arguments)], capture_output=True, text=True, timeout=timeout, check=False)


def until(condition, timeout=120):
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "timed out"
        time.sleep(0.1)


@pytest.fixture
def recorded(tmp_path):
    path = tmp_path / "cells.tif"
    tifffile.imwrite(path, small_stack(), photometric="minisblack")
    return path


@pytest.fixture
def service(tmp_path):
    """A running service: its process, its address and its data folder."""
    data = tmp_path / "data"
    log = tmp_path / "serve.log"
    with log.open("w") as file:
        process = subprocess.Popen(
            [PROGRAM, "serve", "--data", data, "--listen", "tcp://127.0.0.1:*", "--budget", "40", "--tail", "20"],
            stderr=file,
            env={**os.environ, "COLUMNS": "300"},
        )
        try:
            until(lambda: "listening on" in log.read_text())
            address = log.read_text().split("listening on ")[1].split(",")[0]
            yield process, address, data
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0
    assert "Traceback" not in log.read_text()


def restored(data):
    sessions = overview(data) if data.exists() else []
    return bool(sessions) and all(session.done for session in sessions)


def test_a_replayed_stack_is_restored(service, recorded):
    _, address, data = service
    told = json.loads(run("replay", recorded, "--to", address, *VOXELS, "--json").stdout)
    assert told["planes"] == 10
    until(lambda: restored(data))
    (session,) = overview(data)
    assert (session.expected, session.durable, session.states) == (10, 10, {"restored": 1})
    assert read_restored(session.store, (0, 0)).shape == (37, 72, 72)
    provenance = read_provenance(session.store)["t0c0"]
    assert provenance["method"] == "finetune"
    assert not provenance["timing"]["late"]


def test_a_killed_worker_and_a_killed_listener_lose_nothing(service, recorded):
    process, address, data = service
    replay = subprocess.Popen(
        [PROGRAM, "replay", recorded, "--to", address, *VOXELS, "--planes-per-second", "3"], stderr=subprocess.DEVNULL
    )
    until(lambda: data.exists() and any(s.durable >= 3 for s in overview(data)))
    for child in psutil.Process(process.pid).children():
        if "spawn_main" in " ".join(child.cmdline()):  # not multiprocessing's resource tracker
            child.kill()
    assert replay.wait(120) == 0
    until(lambda: restored(data))
    (session,) = overview(data)
    store = SessionStore.open(session.store)
    try:
        planes = np.stack([store.read_plane((0, 0, z)) for z in range(10)])
    finally:
        store.close()
    assert np.array_equal(planes, tifffile.imread(recorded))
    assert session.states == {"restored": 1}


def test_a_real_core_streams_what_its_camera_saw(service):
    from otf_stream.acquire.hooks.pymmcore_plus import streaming

    _, address, data = service
    planes = small_stack(planes=8, side=64)
    core = virtual_microscope(planes, z_step_um=0.8, pixel_size_um=0.2)
    try:
        with streaming(core, address, name="cells"):
            acquire_stack(core, planes=8, z_step_um=0.8)
    finally:
        core.unloadAllDevices()
    until(lambda: restored(data))
    store = SessionStore.open(data / "cells.ome.zarr")
    try:
        assert np.array_equal(np.stack([store.read_plane((0, 0, z)) for z in range(8)]), planes)
        assert store.acquisition.voxel_size.anisotropy == pytest.approx(4)
    finally:
        store.close()
    assert read_restored(data / "cells.ome.zarr", (0, 0)).shape == (29, 64, 64)
