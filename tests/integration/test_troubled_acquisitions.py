"""What may go wrong between a microscope and the service: planes arrive, and the microscope's script goes on."""

from __future__ import annotations

import json
import re
import socket
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import useq
from pymmcore_plus.experimental.unicore import UniMMCore
from typer.testing import CliRunner
from waiting import until

from otf_stream.acquire.hooks.pymmcore_plus import streaming
from otf_stream.cli.commands import app
from otf_stream.config import ServiceConfig
from otf_stream.monitor.lookout import overview
from otf_stream.service.supervisor import Service
from otf_stream.store.session import SessionStore
from simulators.core import acquire_stack, unload, virtual_microscope
from simulators.microscope import image
from simulators.phantom import phantom
from simulators.scenes import Stack


@pytest.fixture
def config(tmp_path: Path) -> ServiceConfig:
    """A service at a port that is known before it runs."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return ServiceConfig(
        data=tmp_path / "data",
        listen=f"tcp://127.0.0.1:{port}",
        monitor="",
        method="interpolate",
        threads=1,
        disk_reserve_gb=0,
        reports="none",
    )


@pytest.fixture(scope="module")
def planes() -> np.ndarray:
    return image(phantom((77, 64, 64), seed=0), anisotropy=4, seed=0)


@pytest.fixture
def core(planes: np.ndarray) -> Iterator[UniMMCore]:
    core = virtual_microscope(Stack(planes, z_step_um=0.8, pixel_um=0.2))
    yield core
    unload(core)


def check_landed(config: ServiceConfig, planes: np.ndarray, ended: str, count: int | None = None) -> None:
    """Every plane is on disk as the camera gave it, and what is there is restored."""
    until(lambda: (sessions := overview(config.data)) and all(session.done for session in sessions))
    (session,) = overview(config.data)
    assert (session.closed, session.states) == (ended, {"restored": 1})
    with closing(SessionStore.open(session.store)) as store:
        assert store.journal.planes_of((0, 0)) == list(range(len(planes) if count is None else count))
        for z in store.journal.planes_of((0, 0)):
            np.testing.assert_array_equal(store.read_plane((0, 0, z)), planes[z])


def test_a_service_that_starts_after_the_microscope(core: UniMMCore, planes: np.ndarray, config: ServiceConfig) -> None:
    acquired, started = threading.Event(), threading.Event()

    def serve() -> None:
        assert acquired.wait(60)
        with Service(config):
            started.set()
            check_landed(config, planes, "finished")

    with ThreadPoolExecutor(1) as pool:
        service = pool.submit(serve)
        with streaming(core, config.listen, name="early") as stream:
            acquire_stack(core, planes=len(planes), z_step_um=0.8)
            assert not started.is_set()
            acquired.set()
        service.result(120)
    assert (stream.acknowledged, stream.failures) == (len(planes), [])


def test_a_service_that_never_starts_costs_the_script_nothing_but_the_wait(
    core: UniMMCore, planes: np.ndarray, config: ServiceConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with streaming(core, config.listen, name="alone", wait_s=0.5) as stream:
        acquire_stack(core, planes=len(planes), z_step_um=0.8)
    (said,) = stream.failures
    assert f"otf-stream deliver {tmp_path}" in said
    with Service(config):
        listed = CliRunner().invoke(app, ["deliver", str(tmp_path), "--list"])
        assert re.search(r"\(session \w+\):\s+\d+\s+planes,\s+since", listed.stderr)
        done = CliRunner().invoke(app, ["deliver", str(tmp_path), "--to", config.listen, "--json"])
        assert done.exit_code == 0, done.output
        assert list(json.loads(done.stdout).values()) == [len(planes)]
        check_landed(config, planes, "finished")
    again = CliRunner().invoke(app, ["deliver", str(tmp_path), "--to", config.listen])
    assert "nothing to deliver" in again.stdout


def test_a_service_that_is_restarted_amid_the_stack(core: UniMMCore, planes: np.ndarray, config: ServiceConfig) -> None:
    with streaming(core, config.listen, name="restarted") as stream:
        core.setExposure(50)
        with Service(config):
            running = core.run_mda(
                useq.MDASequence(z_plan=useq.ZAbsolutePositions(absolute=[0.8 * k for k in range(len(planes))]))
            )
            until(lambda: stream.acknowledged >= 3)
        assert running.is_alive()
        with Service(config):
            running.join(60)
            assert not running.is_alive()
            until(lambda: stream.acknowledged == len(planes))
            check_landed(config, planes, "finished")
    assert stream.failures == []


def test_an_abort_amid_the_stack(core: UniMMCore, planes: np.ndarray, config: ServiceConfig) -> None:
    def cancel(frame: np.ndarray, event: useq.MDAEvent) -> None:
        if event.index["z"] == 8:
            core.mda.cancel()

    with Service(config):
        with streaming(core, config.listen, name="aborted"):
            core.mda.events.frameReady.connect(cancel)
            acquire_stack(core, planes=len(planes), z_step_um=0.8)
        check_landed(config, planes, "aborted", 9)


def test_an_exception_in_the_users_own_hook(core: UniMMCore, planes: np.ndarray, config: ServiceConfig) -> None:
    def fail(event: useq.MDAEvent) -> None:
        if event.index["z"] == 8:
            raise RuntimeError("a mistake of the user's")

    core.mda.events.eventStarted.connect(fail)
    with Service(config):
        with pytest.raises(Exception, match="a mistake"), streaming(core, config.listen, name="mistaken"):
            acquire_stack(core, planes=len(planes), z_step_um=0.8)
        check_landed(config, planes, "aborted", 8)
