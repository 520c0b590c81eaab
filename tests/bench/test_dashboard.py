"""That the dashboard is looked at while planes come; what it costs depends on the machine."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from otf_stream.bench.commands import app
from otf_stream.bench.dashboard import _COUNT, WHERE, _rate

CHROMIUM = shutil.which("chromium")
_BUSY = f"""() => {{
    ({_COUNT})();
    setInterval(() => {{ for (const end = performance.now() + 5; performance.now() < end; ); }}, 10);
}}"""


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium, Debian's package chromium")
def test_the_ingest_path_is_measured_without_and_with_a_browser_that_looks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("_FLOWS_S", "_OPENED_S", "_CLOSED_S"):
        monkeypatch.setattr(f"otf_stream.bench.dashboard.{name}", 0.5)
    # News come a second apart at best: in half a second a page may rightly do nothing. This one always has to. And
    # beside other tests no core is ever idle: who only gets what nobody wants may get nothing.
    monkeypatch.setattr("otf_stream.bench.dashboard._COUNT", _BUSY)
    monkeypatch.setitem(WHERE, "elsewhere", ("nice", "-n", "1"))
    pytest.importorskip("playwright", reason="playwright drives the browser")
    folder, page, picture = tmp_path / "disk", tmp_path / "performance.md", tmp_path / "picture.png"
    folder.mkdir()
    command = ["dashboard", "--side", "2048", "--seconds", "0.5", "--rounds", "1", "--browsers", "1"]
    done = CliRunner().invoke(
        app, [*command, "--folder", str(folder), "--out", str(page), "--picture", str(picture), "--json"]
    )
    assert done.exit_code == 0, done.output
    (found,) = json.loads(done.stdout)
    for where in ("elsewhere", "here"):
        told = found[where]
        assert told["ratio"] == pytest.approx(2 * told["looking"] / (told["before"] + told["after"]))
        assert min(told["before"], told["looking"], told["after"], told["browsers"]) > 0
        assert min(told["monitor"], told["pictures"], told["messages"]) >= 0  # a busy machine may have time for none
    assert picture.stat().st_size > 10_000  # the page, not an empty window
    assert not list(folder.iterdir())
    assert "| 1 browsers elsewhere look |" in page.read_text("utf-8")


def test_a_rate_is_measured_for_as_long_as_a_plane_needs() -> None:
    looks = []
    rate = _rate(lambda: looks.append(1) or int(len(looks) > 4), 10, 0.01)
    assert len(looks) == 5
    assert 0 < rate < 10 / 0.31  # of the one plane, within the three pauses and more


def test_without_planes_there_is_no_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("otf_stream.bench.dashboard._START_S", 0.2)
    with pytest.raises(RuntimeError, match="no plane has landed"):
        _rate(lambda: 7, 10, 0.01)


@pytest.mark.skipif(not hasattr(os, "SCHED_IDLE"), reason="a policy of Linux")
def test_browsers_elsewhere_get_what_nobody_else_wants_of_the_processor() -> None:
    asked = [*WHERE["elsewhere"], sys.executable, "-c", "import os; print(os.sched_getscheduler(0))"]
    assert int(subprocess.check_output(asked)) == os.SCHED_IDLE


def test_without_a_browser_it_says_what_is_missing(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["dashboard", "--chromium", "no-such-browser", "--out", str(tmp_path / "p.md")])
    assert done.exit_code == 2
    assert "no-such-browser" in done.output
