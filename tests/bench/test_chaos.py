"""Runs of the chaos benchmark do what they say, and see what is wrong."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from uuid import uuid4

import numpy as np
import pytest
from stacks import write
from typer.testing import CliRunner

from otf_stream.bench.chaos import kills as killing
from otf_stream.bench.chaos import report
from otf_stream.bench.chaos.checks import plane_problems, restored_problems
from otf_stream.bench.chaos.cuts import cuts
from otf_stream.bench.chaos.kills import VICTIMS, kills
from otf_stream.bench.chaos.part import Part, Runs, numbered, run_of
from otf_stream.bench.chaos.report import PARTS, forget, page
from otf_stream.bench.chaos.sample import Sample
from otf_stream.bench.results import Result, read_results
from otf_stream.cli.commands import app
from otf_stream.store.chunks import chunk_file
from otf_stream.store.session import SessionStore

QUICK_KILLS, QUICK_CUTS = 96, 42  # seeds of stacks that come quickly, and of a network that mostly works
posix = pytest.mark.skipif(sys.platform == "win32", reason="ends processes with POSIX signals")


@posix
def test_whatever_is_killed_nothing_is_lost() -> None:
    with kills(1, QUICK_KILLS, method="interpolate") as runs:
        found = [run() for run in runs.values()]
    assert [result["kind"] for result in found] == list(VICTIMS)
    assert [problem for result in found for problem in result["problems"]] == []
    assert all(result["recovered_s"] > 0 for result in found)
    assert "| publisher | 1 |" in killing.section(found)


def test_whatever_the_network_does_nothing_is_lost() -> None:
    with cuts(1, QUICK_CUTS, cuts_s=(0.3, 0.6)) as runs:
        found = [run() for run in runs.values()]
    assert [result["kind"] for result in found] == ["stream", "messages"]
    assert [problem for result in found for problem in result["problems"]] == []
    assert all(result["faults"]["cut"] > 0 for result in found)
    assert "| messages | 1 | 60 |" in PARTS["cuts"].section(found)


def test_cases_are_drawn_by_seed_and_number() -> None:
    first, same, other = (killing.Case.draw("publisher", 0, number) for number in (1, 1, 2))
    assert first == same
    assert first != other
    assert first.sample.session != other.sample.session
    np.testing.assert_array_equal(first.sample.stack(), Sample.from_json(first.sample.as_json()).stack())
    cases = [killing.Case.draw("publisher", 0, number) for number in range(20)]
    assert {case.delivers for case in cases} == {True, False}


def test_what_is_wrong_on_the_disk_is_seen(tmp_path: Path) -> None:
    sample = Sample("cells", uuid4().hex, seed=1, planes=5, side=16)
    assert plane_problems(tmp_path, sample, range(5)) == ["there are 0 stores of the session"]
    path = tmp_path / "cells.ome.zarr"
    with closing(SessionStore.create(path, sample.acquisition, session=sample.session)) as store:
        write(store, [((0, 0, z), plane) for z, plane in enumerate(sample.stack()) if z != 4])
    assert plane_problems(tmp_path, sample, range(4)) == []
    chunk = chunk_file(path, (0, 0, 1))
    chunk.write_bytes(chunk.read_bytes()[::-1])
    chunk_file(path, (0, 0, 2)).unlink()
    assert plane_problems(tmp_path, sample, range(5)) == [
        "plane 4 was acknowledged and is not in the journal",
        "the chunk of plane 1 is altered",
        "the chunk of plane 2 is missing",
    ]
    assert restored_problems(tmp_path, sample, closed=("finished",)) == ["the stack is arriving"]


def test_what_a_run_raises_is_a_problem_of_it() -> None:
    def run(number: int) -> Result:
        raise TimeoutError("waited too long")

    ((key, tried),) = numbered("kills", {"worker": run}, 1, 7).items()
    result = tried()
    assert run_of(result) == key == ("kills", "worker", 7, 0)
    assert result["problems"][0].startswith("TimeoutError: waited too long (run, line ")


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> None:
    """A part of which every second run fails."""

    @contextmanager
    def runs(count: int, seed: int) -> Iterator[Runs]:
        yield numbered("broken", {"some": lambda number: {"problems": ["a | b"] if number % 2 else []}}, count, seed)

    part = Part("broken", "What breaks", runs, 2, lambda results: f"{len(results)} results.")
    monkeypatch.setitem(report.PARTS, "broken", part)


@pytest.mark.usefixtures("broken")
def test_failures_are_on_the_page_and_in_the_exit_code(tmp_path: Path) -> None:
    out = tmp_path / "chaos.md"

    def bench(*options: str) -> int:
        return CliRunner().invoke(app, ["bench", "chaos", "--parts", "broken", "--out", str(out), *options]).exit_code

    assert bench("--runs", "1") == 0
    assert "None, in 1 runs." in out.read_text("utf-8")
    assert bench("--runs", "4") == 1
    text = out.read_text("utf-8")
    assert "`otf-stream bench chaos --parts broken --runs 4 --seed 0`" in text
    assert "## What breaks\n\n4 results." in text
    assert "2 of 4 runs." in text
    assert "| broken | some | 0 | 3 | a / b |" in text
    assert len(read_results(out.with_suffix(".jsonl"))) == 4
    assert bench("--runs", "1", "--again") == 0
    assert len(read_results(out.with_suffix(".jsonl"))) == 1
    assert CliRunner().invoke(app, ["bench", "chaos", "--parts", "nothing"]).exit_code == 2


def test_the_results_of_other_parts_stay(tmp_path: Path) -> None:
    results = tmp_path / "chaos.jsonl"
    forget(["kills"], results)
    there = [{"part": part, "kind": "x", "seed": 0, "run": 0, "problems": []} for part in ("kills", "cuts")]
    results.write_text("".join(json.dumps(result) + "\n" for result in there))
    forget(["kills"], results)
    assert read_results(results) == there[1:]
    assert "## Networks that are cut and garble" in page(there[1:], "command", "machine")
