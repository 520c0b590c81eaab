"""A service whose disk really fills, and recovers."""

from __future__ import annotations

import sys

import pytest

from otf_stream.bench.chaos import disk as filling
from otf_stream.bench.chaos.disk import Case, section, way


@pytest.mark.skipif(sys.platform != "linux" or way() is None, reason="this system lets nobody mount a file system")
def test_a_service_recovers_from_a_full_disk() -> None:
    found = filling._run("no reserve", 0, 4)  # one that is soon over
    assert found["problems"] == []
    assert found["acknowledged"] + found["held"] > 0
    assert "| no reserve | 1 |" in section([found | {"kind": "no reserve"}])


def test_where_nobody_may_mount_it_is_told_not_to_have_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filling, "way", lambda: None)
    with filling.disk(1, 0) as runs:
        found = [run() for run in runs.values()]
    assert [result["problems"] for result in found] == [[], []]
    assert "Not run: this system lets nobody mount a file system" in section(found)
    assert "| reserve kept | not run |" in section(found)


def test_cases_are_drawn_by_seed_and_number() -> None:
    assert Case.draw("no reserve", 0, 1) == Case.draw("no reserve", 0, 1) != Case.draw("no reserve", 0, 2)
    rooms = [Case.draw("no reserve", 0, number).room for number in range(50)]
    assert min(rooms) < filling._RAW < max(rooms)
