"""Of the figures only what does not depend on the machine: that all was measured, and is told."""

from __future__ import annotations

import json
import logging

import pytest

from otf_stream.bench import publish
from otf_stream.bench.publish import ClientCosts, Publishing, Times, measure, page, publish_into_the_void


def test_times_are_summarised_in_milliseconds() -> None:
    times = Times.of([0.001 * n for n in range(101)])
    assert (times.count, times.p50, times.p95, times.max) == pytest.approx((101, 50, 95, 100))
    assert Times.of([]) == Times(0, 0, 0, 0)


def test_planes_are_published_until_they_go_to_files(caplog: pytest.LogCaptureFixture) -> None:
    found = publish_into_the_void(planes=40, side=2048, rate=1000)
    counts = {name: times.count for name, times in found.times.items()}
    states = [counts[f"publish, planes {s}"] for s in ("kept in memory", "going to files", "waiting for the disk")]
    assert sum(states) == 40
    assert 20 <= states[0] < 40  # three quarters of 256 MB are 24 planes; the first file takes its time
    assert counts["publish, the first 10 planes"] == 10
    assert counts["copy into mapped memory"] == 40
    assert all(times.p50 > 0 for times in found.times.values() if times.count)
    assert not caplog.records
    assert logging.getLogger("otf_stream.acquire.publisher").propagate


def test_all_that_is_measured_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publish, "_INTERPRETERS", 1)
    told: list[str] = []
    costs = measure(planes=12, side=64, rates=[200, 400], progress=told.append)
    assert told == ["importing", "publishing 12 planes at 200 a second", "publishing 12 planes at 400 a second"]
    assert [*costs.imports_s] == ["python alone", "numpy", "publisher and hook", "command line"]
    assert json.loads(json.dumps(costs.as_dict()))["publishing"][1]["planes_per_second"] == 400
    for text in (costs.as_text(), page(costs, "otf-stream bench publish")):
        for name in [*costs.imports_s, "publish, planes kept in memory", "copy into fresh memory", "write to a file"]:
            assert name in text
        assert "waiting for the disk" not in text


def test_a_page_names_the_machine_its_load_and_the_rates() -> None:
    times = {"publish, planes kept in memory": Times(3, 0.5, 1.25, 2)}
    costs = ClientCosts("2 cores, Test", 0.3, "1", 1000, {"numpy": 0.07}, [Publishing(20, times)])
    text = page(costs, "the command")
    assert "Written by `the command` on 2 cores, Test, with a load of 0.3" in text
    assert "| numpy | 0.070 |" in text
    assert "At 20 planes a second, 40 MB/s" in text
    assert "| publish, planes kept in memory | 3 | 0.50 | 1.25 | 2.00 |" in text
    assert "with a load of unknown" not in text
