"""The monitor of a real service: what it answers and logs agrees with the journals, whatever is lost or killed."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import httpx
import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families
from stacks import small_stack
from waiting import until

from otf_stream.acquire.keys import KeyFolder, KeysError
from otf_stream.acquire.publisher import Publisher
from otf_stream.acquisition import Acquisition, Sizes, VoxelSize
from otf_stream.config import ServiceConfig
from otf_stream.monitor.log import FILE, FOLDER
from otf_stream.monitor.summary import Log, read_log
from otf_stream.monitor.token import TokenFile
from otf_stream.service.monitoring import required_token
from otf_stream.service.supervisor import Service, ServiceError
from otf_stream.store.finding import find_sessions
from otf_stream.store.journal import Journal, journal_path

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="ends processes with POSIX signals")

PLANES, SIDE = 30, 48


def configured(tmp_path: Path, **more: object) -> ServiceConfig:
    settings = {
        "data": tmp_path / "data",
        "listen": "tcp://127.0.0.1:*",
        "monitor": "127.0.0.1:*",
        "method": "interpolate",
        "device": "cpu",
        "threads": 1,
        "disk_reserve_gb": 0,
        "reports": "none",
        "keys": tmp_path / "keys",
    }
    return ServiceConfig.model_validate(settings | more)


def watched(service: Service, done: object) -> list[str]:
    """Watch a service until it is done; return what it told."""
    told: list[str] = []
    until(lambda: told.extend(service.watch()) or done())  # type: ignore[operator]
    return told


@contextmanager
def client_of(service: Service, **headers: str) -> Iterator[httpx.Client]:
    watched(service, lambda: service.monitor)
    with httpx.Client(base_url=service.monitor or "", headers=headers, timeout=30, trust_env=False) as client:
        yield client


def acquisition(name: str) -> Acquisition:
    sizes, voxel = Sizes(t=2, z=PLANES, y=SIDE, x=SIDE), VoxelSize(z=0.8, y=0.2, x=0.2)
    return Acquisition(name=name, sizes=sizes, dtype="uint16", voxel_size=voxel)


def metrics(client: httpx.Client) -> dict[tuple[str, ...], float]:
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(client.get("/metrics").text)
        for sample in family.samples
    }


def logged(data: Path) -> Log:
    return read_log((data / FOLDER).glob(f"{FILE}*"))


def in_journals(data: Path) -> dict[str, int]:
    """How many planes of each session are durable."""
    found = {}
    for path in find_sessions(data):
        with closing(Journal.open(journal_path(path))) as journal:
            found[journal.session] = journal.count()
    return found


def kill(service: Service, which: str) -> None:
    child = {"listener": service._listener, "monitor": service._monitor}[which]
    assert child.process is not None
    assert child.process.pid is not None
    os.kill(child.process.pid, signal.SIGKILL)


def test_metrics_and_log_agree_with_the_journals_though_planes_and_processes_are_lost(tmp_path: Path) -> None:
    config, pixels = configured(tmp_path), small_stack(planes=PLANES, side=SIDE)
    lost = {"left": [(0, 3), (0, 4), (1, 29)], "right": [(1, z) for z in range(PLANES)]}
    with Service(config) as service:
        watched(service, lambda: service.monitor)
        publishers = {
            name: Publisher(service.address, acquisition(name), keys=tmp_path / "none", spill=tmp_path / name)
            for name in lost
        }
        for t in range(2):
            for z in range(PLANES):
                for name, publisher in publishers.items():
                    if (t, z) not in lost[name]:
                        publisher.publish(pixels[z], t=t, z=z)
                if (t, z) == (0, 20):
                    kill(service, "listener")
                    assert "listener ended" in watched(service, lambda: service._listener.deaths)[0]
                if (t, z) == (1, 10):
                    kill(service, "monitor")
                    watched(service, lambda: service._monitor.deaths)
        for publisher in publishers.values():
            watched(service, lambda publisher=publisher: publisher.pending == 0)  # type: ignore[misc]
            publisher.close()
        watched(service, lambda: service._monitor.process is not None)
        with client_of(service) as client:  # at another port, and its log goes on

            def settled() -> bool:
                sessions = client.get("/api/v1/sessions").json()
                return len(sessions) == 2 and all(session["done"] for session in sessions)

            watched(service, settled)
            journals, told, status = in_journals(config.data), metrics(client), client.get("/api/v1/status").json()
            gaps = {
                session["name"]: client.get(f"/api/v1/sessions/{session['id']}").json()["gaps"]
                for session in status["sessions"]
            }
    assert sum(journals.values()) == 4 * PLANES - 3 - PLANES
    assert told["otf_stream_planes_durable",] == sum(journals.values())
    assert told["otf_stream_planes_missing",] == PLANES + 3
    assert told["otf_stream_stacks", "restored"] == 3
    assert told["otf_stream_stacks", "failed"] == 1  # of which not one plane came
    assert {session["id"]: session["durable"] for session in status["sessions"]} == journals
    assert {session["name"]: session["missing"] for session in status["sessions"]} == {"left": 3, "right": PLANES}
    assert [(gap["t"], gap["first"], gap["last"]) for gap in gaps["left"]] == [(0, 3, 4), (1, 29, 29)]
    assert [(gap["t"], gap["first"], gap["last"]) for gap in gaps["right"]] == [(1, 0, PLANES - 1)]
    assert {alarm["kind"] for alarm in status["alarms"]} >= {"planes-missing"}
    log = logged(config.data)
    assert sum(second.planes for second in log.seconds) == sum(journals.values())
    for session, planes in journals.items():
        assert sum(second.sessions.get(session, 0) for second in log.seconds) == planes
    for path in find_sessions(config.data):
        with closing(Journal.open(journal_path(path))) as journal:
            events = [(event.id, event.kind) for event in journal.events()]
            assert [(e.id, e.event) for e in log.events if e.session == journal.session] == events
    ended = [event.detail for event in log.events if event.event == "ended"]
    assert sorted(detail["missing_count"] for detail in ended) == [3, PLANES]


def test_a_port_that_is_taken_stops_nothing_and_serves_once_it_is_free(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with Service(configured(tmp_path, monitor=address)) as service:
            told: list[str] = []
            until(lambda: told.extend(service.watch()) or told)
            (line,) = told
            assert line.startswith(f"no monitor on {address}")
            assert "--monitor HOST:PORT" in line
            taken.close()
            with client_of(service) as client:  # tried again after a while
                assert client.get("/healthz").status_code == 200


def test_off_loopback_a_token_is_asked_for(tmp_path: Path) -> None:
    config = configured(tmp_path, monitor="0.0.0.0:*")
    with pytest.raises(ServiceError, match="otf-stream keys token") as refused, Service(config):
        raise AssertionError("it started")
    for said in ("0.0.0.0:*", "--monitor 127.0.0.1:PORT", "--security none"):
        assert said in str(refused.value)
    file = TokenFile(KeyFolder(tmp_path / "keys"))
    token = file.make()
    with Service(config) as service:
        watched(service, lambda: service.monitor)
        url = (service.monitor or "").replace("0.0.0.0", "127.0.0.1")  # noqa: S104 - where it was told to listen
        assert httpx.get(f"{url}api/v1/status", trust_env=False).status_code == 401
        answer = httpx.get(f"{url}api/v1/status", headers={"Authorization": f"Bearer {token}"}, trust_env=False)
        assert answer.status_code == 200
        command = [sys.executable, "-m", "otf_stream.cli", "monitor", "--url", url]
        done = subprocess.run(
            [*command, "--keys", file.path.parent, "--json"], capture_output=True, text=True, check=True
        )
        assert json.loads(done.stdout)["data"] == str(config.data)
        done = subprocess.run([*command, "--keys", tmp_path], capture_output=True, text=True, check=False)
        assert done.returncode == 1
        assert "answers 401" in " ".join(done.stderr.split())
        assert token not in "".join(path.read_text() for path in config.data.glob("*.json"))


def test_a_token_is_asked_for_where_others_can_ask(tmp_path: Path) -> None:
    everywhere, elsewhere = "0.0.0.0:8420", tmp_path / "elsewhere"
    assert required_token(configured(tmp_path)) is None
    assert required_token(configured(tmp_path, monitor="")) is None
    assert required_token(configured(tmp_path, monitor=everywhere, security="none")) is None
    with pytest.raises(KeysError, match="elsewhere"):
        required_token(configured(tmp_path, monitor_token_file=elsewhere))
    token = TokenFile(KeyFolder(tmp_path / "keys"), elsewhere).make()
    assert required_token(configured(tmp_path, monitor_token_file=elsewhere)) == token
    own = TokenFile(KeyFolder(tmp_path / "keys")).make()
    assert required_token(configured(tmp_path, monitor=everywhere)) == own != token


def test_controls_reach_the_worker_over_http(tmp_path: Path) -> None:
    planes = small_stack(side=SIDE)
    described = acquisition("cells").model_copy(update={"sizes": Sizes(c=2, z=len(planes) + 1, y=SIDE, x=SIDE)})
    with Service(configured(tmp_path)) as service, client_of(service) as client:
        publisher = Publisher(service.address, described, keys=tmp_path / "none", spill=tmp_path / "spill")
        for c in range(2):
            for z, plane in enumerate(planes):  # the last one is still to come
                publisher.publish(plane, c=c, z=z)
        publisher.drain()
        (session,) = in_journals(tmp_path / "data")
        path = f"/api/v1/sessions/{session}"

        def stacks() -> list[dict[str, object]]:
            found = client.get(path)
            return found.json()["stacks"] if found.is_success else []

        watched(service, lambda: len(stacks()) == 2)
        for c, control in enumerate(("finish", "cancel")):
            assert client.post(f"{path}/stacks/0/{c}/{control}").status_code == 202
        watched(service, lambda: [one["state"] for one in stacks()] == ["restored", "failed"])
        first, second = stacks()
        assert (first["method"], first["missing"]) == ("interpolate", 1)
        assert isinstance(first["in_hand_s"], float)
        assert first["in_hand_s"] > 0
        assert second["reason"] == "cancelled"
        image = client.get(f"{path}/slices?image=restored&axis=xz&format=raw")
        assert np.frombuffer(image.content, "uint16").max() > 100
        publisher.abort()
