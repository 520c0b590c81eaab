"""The HTTP interface hands on what is seen, and tells what cannot be done, and why."""

import io
import json

import numpy as np
import pytest
from monitor_folders import at_work, land, stack
from monitor_server import serving
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families

from otf_stream.monitor.api import create_app
from otf_stream.monitor.monitor import Monitor
from otf_stream.monitor.state import Session, Status
from otf_stream.store.controls import Controls
from otf_stream.store.restored import RestoredWriter

_UNITS = ("_total", "_bytes", "_seconds", "_per_second", "_info")
_COUNTS = ("planes", "stacks", "sessions", "connections", "alarms", "up", "holding", "paused", "late", "waiting")


@pytest.fixture
def monitor(tmp_path):
    monitor = Monitor(tmp_path, throughput=False)
    yield monitor
    monitor.close()


@pytest.fixture
def client(monitor):
    with serving(create_app(monitor)) as client:
        yield client


def problem(answer, status):
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
    told = answer.json()
    assert told.keys() == {"type", "title", "status", "detail", "value", "limit", "remedy"}
    return told


def metrics(client):
    text = client.get("/metrics").text
    return {
        (sample.name, tuple(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_what_is_seen_is_handed_on(session, tmp_path, monitor, client):
    store = session(t=2)
    land(store, *stack(0, [0, 1, 4]))
    at_work(tmp_path)
    monitor.look()
    status = Status.model_validate_json(client.get("/api/v1/status").content)
    assert status.totals == monitor.latest.totals
    assert status.sessions == tuple(client_session.summary() for client_session in monitor.latest.sessions)
    assert "stacks" not in client.get("/api/v1/sessions").json()[0]
    whole = Session.model_validate_json(client.get(f"/api/v1/sessions/{store.session}").content)
    assert whole == monitor.latest.sessions[0]
    assert [(gap.first, gap.last) for gap in whole.gaps] == [(2, 3)]
    assert len(client.get("/api/v1/history").json()) == 2


def test_sessions_come_in_pages_the_latest_first_asked_for(session, monitor, client):
    for name in ("a", "b", "c"):
        session(name)
    monitor.look()

    def names(query):
        return [one["name"] for one in client.get(f"/api/v1/sessions?{query}").json()]

    assert (names("limit=2"), names("limit=2&before=1"), names("limit=5&before=9")) == (["b", "c"], ["a", "b"], [])
    assert problem(client.get("/api/v1/sessions?limit=0"), 422)["value"] == "0"


def test_ready_is_who_takes_planes_and_restores_them(tmp_path, monitor, client):
    assert client.get("/healthz").json() == {"status": "ok"}
    assert client.get("/readyz").status_code == 503
    at_work(tmp_path)
    monitor.look()
    assert client.get("/readyz").status_code == 200
    at_work(tmp_path, holding=True)
    monitor.look()
    answer = client.get("/readyz")
    assert (answer.status_code, answer.json()["checks"]) == (503, {"listener": True, "worker": True, "disk": False})


def test_metrics_agree_with_what_is_seen_and_have_units(session, tmp_path, monitor, client):
    store = session(t=2)
    land(store, *stack(0, [0, 1, 4]))
    at_work(tmp_path)
    monitor.look()
    client.get("/api/v1/status", headers={"Host": "evil.example"})
    told = metrics(client)
    assert told["otf_stream_planes_durable", ()] == 3
    assert told["otf_stream_planes_missing", ()] == 2
    assert told["otf_stream_planes_expected", ()] == 12
    assert told["otf_stream_stacks", ("arriving",)] == 2
    assert told["otf_stream_listener_duplicate_planes_total", ()] == 1
    assert told["otf_stream_listener_refused_total", ("bad-shape",)] == 2
    assert told["otf_stream_process_up", ("worker",)] == 1
    assert told["otf_stream_process_resident_bytes", ("monitor",)] > 1e6
    assert told["otf_stream_monitor_refused_requests_total", ("host",)] == 1
    for name, _ in told:
        assert name.startswith("otf_stream_")
        assert name.endswith(_UNITS) or any(word in name for word in _COUNTS), name
    text = client.get("/metrics").text
    assert store.session not in text
    assert "cells" not in text
    assert text.count("# HELP") == text.count("# TYPE")


def test_requests_reach_the_journal_and_are_checked_against_it(session, monitor, client):
    store = session(t=3)
    land(store, *stack(0, range(6)), *stack(1, range(2)))
    store.journal.finish_stack((0, 0), 6)
    monitor.look()
    at = f"/api/v1/sessions/{store.session}"
    assert client.post(f"{at}/stacks/1/0/cancel").json() == {
        "control": "cancel",
        "session": store.session,
        "t": 1,
        "c": 0,
    }
    assert client.post(f"{at}/stacks/1/0/finish").status_code == 202
    assert client.post(f"{at}/pause").status_code == 202
    assert client.post("/api/v1/pause").json() == [{"control": "pause", "session": store.session, "t": None, "c": None}]
    asked = Controls()
    asked.read(store.journal)
    assert (asked.cancelled, asked.finishing, asked.paused) == ({(1, 0)}, {(1, 0)}, True)
    client.post(f"{at}/resume")
    asked.read(store.journal)
    assert not asked.paused
    assert problem(client.post(f"{at}/stacks/0/0/cancel"), 409)["value"] == "restored"
    assert "wait for its first plane" in problem(client.post(f"{at}/stacks/2/0/finish"), 409)["remedy"]
    assert problem(client.post(f"{at}/stacks/9/0/cancel"), 404)["limit"] == "t from 0 to 2, c from 0 to 0"
    assert problem(client.post("/api/v1/sessions/nobody/pause"), 404)["value"] == "nobody"
    assert problem(client.get(f"{at}/pause"), 405)["value"] == f"{at}/pause"
    assert problem(client.get("/nowhere"), 404)


def test_slices_of_planes_are_what_came(session, monitor, client):
    store = session(z=6, y=20, x=40)
    land(store, *stack(0, [0, 1, 3]))
    monitor.look()

    def get(**query):
        return client.get(f"/api/v1/sessions/{store.session}/slices", params=query)

    def numbers(answer):
        shape = tuple(map(int, answer.headers["x-shape"].split(",")))
        return np.frombuffer(answer.content, answer.headers["x-dtype"]).reshape(shape)

    assert (numbers(get(at=3, format="raw")) == 3).all()
    assert numbers(get(at=3, format="raw")).shape == (20, 40)
    across = get(axis="xz", format="raw")
    assert (across.headers["x-at"], across.headers["x-length"]) == ("10", "20")
    assert numbers(across)[:, 0].tolist() == [0, 1, 0, 3, 0, 0]
    along = get(axis="yz", at=39, format="raw")
    assert numbers(along).shape == (6, 20)
    small = get(at=3, size=16, format="raw")
    assert (numbers(small) == 3).all()
    assert (small.headers["x-shape"], small.headers["x-level"], small.headers["x-pixel-um"]) == ("5,10", "2", "0.8,0.8")
    png = get(axis="xz", low=0, high=3)
    assert (png.headers["x-window"], png.headers["x-stack-state"]) == ("0,3", "arriving")
    assert np.asarray(Image.open(io.BytesIO(png.content)))[:, 0].tolist() == [0, 85, 0, 255, 0, 0]
    assert problem(get(at=6), 404)["limit"] == "at from 0 to 5"
    assert problem(get(size=99999), 422)
    assert "image=raw" in problem(get(image="restored"), 404)["remedy"]


def test_slices_of_volumes_come_at_the_level_that_fits(session, monitor, client):
    store = session(z=5, y=300, x=520)
    land(store, *stack(0, range(5)))
    writer = RestoredWriter.create(store, dtype="uint16")
    rising = np.broadcast_to(np.arange(writer.shape[0])[:, None, None], writer.shape)
    for region in writer.regions():
        writer.write((0, 0), region, rising[:, region[0], region[1]])
    writer.finish((0, 0))
    monitor.look()
    at = f"/api/v1/sessions/{store.session}/slices?image=restored&format=raw&"
    whole = client.get(f"{at}axis=xz&size=600")
    assert (whole.headers["x-shape"], whole.headers["x-level"]) == ("17,520", "0")
    assert np.frombuffer(whole.content, "uint16").reshape(17, 520)[:, 7].tolist() == list(range(17))
    less = client.get(f"{at}axis=xy&at=16&size=300")
    assert (less.headers["x-shape"], less.headers["x-level"], less.headers["x-pixel-um"]) == ("150,260", "1", "0.4,0.4")
    assert (np.frombuffer(less.content, "uint16") == 16).all()
    least = client.get(f"{at}axis=yz&size=100")
    assert max(map(int, least.headers["x-shape"].split(","))) <= 100


def test_the_interface_describes_itself_and_nothing_comes_from_elsewhere(client):
    described = client.get("/openapi.json").json()
    for path, methods in described["paths"].items():
        for method, told in methods.items():
            assert told.get("summary"), (path, method)
            assert told.get("description"), (path, method)
    assert client.get("/docs").status_code == 404
    assert "cdn" not in json.dumps(described)
