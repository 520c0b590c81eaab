"""A slice that was drawn lately is not drawn anew, and what is kept has a bound."""

from monitor_folders import land, stack
from monitor_server import serving

from otf_stream.monitor import api
from otf_stream.monitor.drawn import Drawn, RecentlyDrawn
from otf_stream.monitor.monitor import Monitor


def test_the_oldest_go_when_there_is_no_room():
    recent = RecentlyDrawn(most_bytes=10)
    for key in "abc":
        recent.keep(key, Drawn(b"1234", {}))
    assert [recent.get(key) is not None for key in "abc"] == [False, True, True]
    recent.get("b")
    recent.keep("d", Drawn(b"1234", {}))
    assert [recent.get(key) is not None for key in "bcd"] == [True, False, True]


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
