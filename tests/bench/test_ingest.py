"""Of the figures only what does not depend on the machine: that all was measured, and is told."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from otf_stream.bench.ceilings import checksum, draw_planes, loopback, numbered, sequential_write
from otf_stream.bench.commands import app
from otf_stream.bench.ingest import Result, as_text, rows, section
from otf_stream.bench.writers import write_rates


def test_no_two_planes_of_a_long_stack_are_the_same() -> None:
    drawn = draw_planes(2, 16)
    stack = [numbered(drawn, z).copy() for z in (0, 2, 1 << 16, (1 << 16) + 2)]
    assert len({plane.tobytes() for plane in stack}) == 4
    assert all(np.array_equal(plane[1:], stack[0][1:]) for plane in stack)


def test_what_bounds_the_rate_is_measured_and_leaves_nothing(tmp_path: Path) -> None:
    drawn = draw_planes(3, 64)
    rates = [*sequential_write(tmp_path, drawn, 5), loopback(drawn, 5), checksum(drawn)]
    assert min(rates) > 0
    assert not list(tmp_path.iterdir())


def test_every_library_that_is_there_writes_the_stack(tmp_path: Path) -> None:
    rates = write_rates(tmp_path, draw_planes(3, 64), 20)
    assert {"this store", "zarr-python"} <= rates.keys()
    assert min(rates.values()) > 0
    assert not list(tmp_path.iterdir())


def test_planes_are_streamed_read_back_and_told(tmp_path: Path) -> None:
    page, folder = tmp_path / "performance.md", tmp_path / "disk"
    folder.mkdir()
    command = ["ingest", "--planes", "30", "--side", "64", "--rounds", "2", "--folder", str(folder)]
    done = CliRunner().invoke(app, [*command, "--out", str(page), "--json"])
    assert done.exit_code == 0, done.output
    found: list[Result] = json.loads(done.stdout)
    assert [(result["lost"], result["altered"]) for result in found] == [(0, 0)] * 2
    for result in found:
        assert result["ratio"] == pytest.approx(2 * result["ingest"] / sum(result["sequential"]))
        assert result["listener_rss"] > 10e6
        assert result["listener_cpu"] > 0
    assert not list(folder.iterdir())
    text = page.read_text("utf-8")
    assert "Written by `otf-stream bench ingest --planes 30 --side 64 --rounds 2` on" in text
    assert "Planes lost: 0, altered: 0, of 188." in text
    for name, rate, share in rows(found):
        assert f"| {name} | {rate} | {share} |" in text


def test_the_table_has_medians_of_ratios_not_ratios_of_medians() -> None:
    def result(ingest: float, disk: float, lost: int) -> Result:
        return {
            "planes": 10, "published": 12, "side": 1000, "load": 0.5, "ingest": ingest, "sequential": [disk, disk],
            "unprepared": [disk / 2, disk / 2],
            "loopback": 2e9, "checksum": 3e9, "writers": {"zarr-python": disk / 4}, "lost": lost, "altered": 0,
            "listener_rss": 200e6, "listener_cpu": 0.02, "publisher_cpu": 0.01,
        }  # fmt: skip

    found = [result(0.1e9, 0.2e9, 0), result(0.9e9, 1e9, 1), result(0.2e9, 0.25e9, 0)]
    (ingest, _, found_so, *_, zarr) = rows(found)
    assert ingest[1:] == ("0.20 (0.10 … 0.90)", "0.80")
    assert found_so[1:] == ("0.12 (0.10 … 0.50)", "0.50")
    assert zarr == ("written to Zarr by zarr-python", "0.06 (0.05 … 0.25)", "0.25")
    assert "Planes lost: 1, altered: 0, of 36." in section(found, "the command")
    assert "Listener: at most 200 MB resident, 1.0 s of a core per GB; publisher: 0.5 s." in as_text(found)
