"""A slice that was drawn lately is not drawn anew, nor its planes read again, and what is kept has a bound."""

import numpy as np
from monitor_folders import land, stack
from monitor_server import serving

from otf_stream.monitor import api, slices
from otf_stream.monitor.monitor import Monitor
from otf_stream.monitor.recent import Recent


def test_the_oldest_go_when_there_is_no_room():
    recent = Recent(most_bytes=10)
    for key in "abc":
        recent.keep(key, key.upper(), 4)
    assert [recent.get(key) is not None for key in "abc"] == [False, True, True]
    recent.get("b")
    recent.keep("d", "D", 4)
    assert [recent.get(key) for key in "bcd"] == ["B", None, "D"]


def test_of_two_threads_the_first_keeps_and_what_is_too_large_is_not_kept():
    recent = Recent(most_bytes=10)
    assert recent.keep("a", "first", 4) == "first"
    assert recent.keep("a", "second", 4) == "first"
    assert recent.keep("b", "large", 11) == "large"
    assert recent.get("b") is None


def test_browsers_that_show_the_same_have_it_drawn_once(session, tmp_path, monkeypatch):
    store = session()
    land(store, *stack(0, range(6)))
    monitor = Monitor(tmp_path, throughput=False)
    monitor.look()
    drawn, draw = [], api.as_png
    monkeypatch.setattr(api, "as_png", lambda *about: drawn.append(1) or draw(*about))
    with serving(api.create_app(monitor)) as client:
        address = f"/api/v1/sessions/{store.session}/slices?at=2&low=0&high=9"
        first, second = (client.get(f"{address}&v=6") for _ in range(2))
        assert first.content == second.content
        assert first.headers["X-Window"] == second.headers["X-Window"]
        assert len(drawn) == 1
        client.get(f"{address}&v=7")
        client.get(address)
        client.get(address)
        assert len(drawn) == 4
    monitor.close()


def test_a_plane_is_read_once_for_an_axial_slice_that_is_shown_while_its_stack_grows(session, tmp_path, monkeypatch):
    store = session()
    monitor = Monitor(tmp_path, throughput=False)
    pooled, pool = [], slices._pooled
    monkeypatch.setattr(slices, "_pooled", lambda *about: pooled.append(1) or pool(*about))
    with serving(api.create_app(monitor)) as client:
        for z in range(6):
            land(store, *stack(0, [z]))
            monitor.look()
            for axis in ("xz", "yz"):
                address = f"/api/v1/sessions/{store.session}/slices?axis={axis}&format=raw"
                there = np.frombuffer(client.get(address).content, "<u2").reshape(6, 8).any(1)
                assert there.tolist() == [0 < one <= z for one in range(6)]  # the first plane is black
            assert len(pooled) == 2 * (z + 1)
    monitor.close()


def test_a_report_is_handed_out_once_there_is_one(session, tmp_path):
    store = session()
    monitor = Monitor(tmp_path, throughput=False)
    monitor.look()
    with serving(api.create_app(monitor)) as client:
        address = f"/api/v1/sessions/{store.session}/stacks/0/0/report"
        assert client.get(address).status_code == 404
        (tmp_path / "cells.report.t0-c0.html").write_text("<p>report</p>", encoding="utf-8")
        assert client.get(address).text == "<p>report</p>"
        assert client.get(address).headers["content-type"].startswith("text/html")
    monitor.close()
