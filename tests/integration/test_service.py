"""``serve`` and ``replay`` as separate programs: stacks are restored whatever is killed meanwhile."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import pytest
import tifffile
from stacks import small_stack
from waiting import until

from otf_stream.monitor.lookout import overview
from otf_stream.monitor.state import Session
from otf_stream.store.restored import read_provenance, read_restored
from otf_stream.store.session import SessionStore

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="ends processes with POSIX signals")

SCRIPT = shutil.which("otf-stream", path=str(Path(sys.executable).parent))
COMMAND = [SCRIPT] if SCRIPT else [sys.executable, "-m", "otf_stream.cli"]
VOXEL_SIZE = ("--voxel-size", "0.8", "0.2", "0.2")
INTERPOLATE = ("--method", "interpolate")
LEARN = ("--method", "auto", "--budget", "12", "--tail", "0")


@dataclass
class Served:
    """A running ``otf-stream serve``."""

    process: subprocess.Popen[bytes]
    log: Path
    data: Path

    @property
    def told(self) -> str:
        """What it printed, unwrapped."""
        return " ".join(self.log.read_text(encoding="utf-8").split())

    @property
    def address(self) -> str | None:
        found = re.search(r"listening on (tcp://[\d.]+:\d+)", self.told)
        return found and found[1]

    def children(self) -> tuple[psutil.Process | None, psutil.Process | None]:
        """The listener, which is the one that listens, and the other, the worker."""
        assert self.address is not None
        port = int(self.address.rsplit(":", 1)[1])
        listener = worker = None
        for child in psutil.Process(self.process.pid).children():
            try:
                if not any("spawn_main" in word for word in child.cmdline()):
                    continue  # multiprocessing's own
                ports = {c.laddr.port for c in child.net_connections("tcp") if c.status == psutil.CONN_LISTEN}
            except psutil.Error:
                continue  # just died
            if port in ports:
                listener = child
            else:
                worker = child
        return listener, worker

    def kill(self, which: str) -> None:
        """Kill the listener or the worker, as the kernel does when memory runs out."""
        child = self.children()[("listener", "worker").index(which)]
        assert child is not None
        child.kill()
        until(lambda: f"{which} ended with code -9" in self.told)

    def stop(self) -> int:
        """Stop it as a service manager does; return its exit code."""
        self.process.terminate()
        return self.process.wait(60)


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Served]]:
    """Start the service, and wait until it listens."""
    started: list[Served] = []
    config = tmp_path / "otf.toml"
    config.write_text(
        f"data = {json.dumps(str(tmp_path / 'data'))}\ndisk_reserve_gb = 0\nthreads = 1\n"
        "monitor = ''\nreports = 'none'\n"
    )

    def start(*options: str) -> Served:
        log = tmp_path / f"serve {len(started)}.log"
        with log.open("wb") as file:
            process = subprocess.Popen(
                [*COMMAND, "serve", "--config", config, "--listen", "tcp://127.0.0.1:*", *options],
                stdout=subprocess.DEVNULL,
                stderr=file,
                env={**os.environ, "PYTHONIOENCODING": "utf-8", "NO_COLOR": "1"},
            )
        served = Served(process, log, tmp_path / "data")
        started.append(served)
        until(lambda: served.address or process.poll() is not None)
        assert served.address, served.told
        return served

    yield start
    for served in started:
        if served.process.poll() is None:
            served.stop()
        assert "Traceback" not in served.told, served.told


def replay(served: Served, path: Path, stack: np.ndarray, *options: str) -> subprocess.Popen[str]:
    """Write a stack to ``path`` and start streaming it."""
    tifffile.imwrite(path, stack, photometric="minisblack", metadata={"axes": "ZYX"})
    assert served.address is not None
    command = [*COMMAND, "replay", path, *VOXEL_SIZE, "--to", served.address, "--json", *options]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(replaying: subprocess.Popen[str]) -> dict[str, object]:
    """Wait for a replay's end; return what it says of itself."""
    stdout, stderr = replaying.communicate(timeout=120)
    assert replaying.returncode == 0, stderr
    summary: dict[str, object] = json.loads(stdout)
    return summary


def session(served: Served) -> Session | None:
    """Look at the only session, if it is there."""
    sessions = overview(served.data)
    return sessions[0] if sessions else None


def await_restored(served: Served, sessions: int = 1) -> None:
    until(lambda: len(seen := overview(served.data)) == sessions and all(s.done for s in seen))
    assert all(s.states == {"restored": 1} for s in overview(served.data)), served.told


def stages(path: Path) -> list[str]:
    """List the stages of the session's stacks, in the order they began."""
    with closing(SessionStore.open(path)) as store:
        return [str(event.detail["stage"]) for event in store.journal.events() if event.kind == "stage"]


def check(path: Path, stack: np.ndarray) -> None:
    """Every plane is on disk as it was sent, and the restored volume is there."""
    with closing(SessionStore.open(path)) as store:
        assert store.journal.planes_of((0, 0)) == list(range(len(stack)))
        for z, plane in enumerate(stack):
            np.testing.assert_array_equal(store.read_plane((0, 0, z)), plane)
        assert store.journal.closed == "finished"
    volume = read_restored(path, (0, 0))
    assert volume.shape == (4 * (len(stack) - 1) + 1, *stack.shape[1:])
    # Planes lie at every fourth voxel; whatever the method, the volume resembles them there.
    assert np.corrcoef(volume[::4].ravel(), stack.ravel())[0, 1] > 0.5


def test_two_microscopes_at_a_time(serve: Callable[..., Served], tmp_path: Path) -> None:
    served = serve(*INTERPOLATE)
    stacks = {name: small_stack(seed=seed) for seed, name in enumerate(("left", "right"))}
    replaying = [
        replay(served, tmp_path / f"{name}.tif", stack, "--planes-per-second", "20") for name, stack in stacks.items()
    ]
    for number, name in enumerate(stacks):
        summary = finish(replaying[number])
        assert (summary["name"], summary["planes"], summary["missing"]) == (name, 10, 0)
    await_restored(served, sessions=2)
    for name, stack in stacks.items():
        check(served.data / f"{name}.ome.zarr", stack)
        provenance = read_provenance(served.data / f"{name}.ome.zarr")["t0c0"]
        assert (provenance["method"], provenance["missing_planes"]) == ("interpolate", [])
        until(lambda name=name: f"{name}.ome.zarr: 10/10 planes, 1 restored" in served.told)
    assert served.stop() == 0
    assert served.told.endswith("stopped; unfinished stacks go on at the next start")


def test_planes_land_though_the_listener_is_killed(serve: Callable[..., Served], tmp_path: Path) -> None:
    served = serve(*INTERPOLATE)
    stack = small_stack(planes=20)
    replaying = replay(served, tmp_path / "cells.tif", stack, "--planes-per-second", "10")
    until(lambda: (seen := session(served)) and seen.durable >= 5)
    served.kill("listener")
    assert finish(replaying)["planes"] == 20
    assert "listener restarted" in served.told
    await_restored(served)
    check(served.data / "cells.ome.zarr", stack)

    # And if the service itself is killed, neither of the two is left to hold the port and the stores.
    children = [child for child in served.children() if child is not None]
    assert len(children) == 2
    served.process.kill()
    served.process.wait(60)
    _, alive = psutil.wait_procs(children, timeout=60)
    assert not alive


def test_a_stack_is_restored_though_the_worker_is_killed(serve: Callable[..., Served], tmp_path: Path) -> None:
    served = serve(*LEARN)
    stack = small_stack()
    replaying = replay(served, tmp_path / "cells.tif", stack)
    until(lambda: (seen := session(served)) and seen.stage)
    served.kill("worker")
    assert finish(replaying)["planes"] == 10
    await_restored(served)
    assert stages(served.data / "cells.ome.zarr").count("characterise") == 2  # it began anew
    assert "worker restarted" in served.told
    assert "set aside" not in served.told  # once may be chance
    check(served.data / "cells.ome.zarr", stack)


def test_a_stack_that_was_interrupted_is_restored_after_the_next_start(
    serve: Callable[..., Served], tmp_path: Path
) -> None:
    served = serve("--method", "auto", "--budget", "300", "--tail", "0")  # longer than a stop waits
    stack = small_stack()
    finish(replay(served, tmp_path / "cells.tif", stack))
    until(lambda: (seen := session(served)) and seen.stage)
    assert served.stop() == 0
    seen = session(served)
    assert seen is not None
    assert "restored" not in seen.states
    again = serve(*INTERPOLATE)
    await_restored(again)
    check(again.data / "cells.ome.zarr", stack)
