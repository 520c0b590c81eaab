"""Results are kept one by one, and what is there is not run again."""

import threading
from functools import partial

import pytest

from otf_stream.bench.results import read_results, run_missing


def test_a_run_that_was_cut_off_goes_on_where_it_stopped(tmp_path):
    path, told, ran = tmp_path / "r.jsonl", [], []

    def run(name, fails=False):
        ran.append(name)
        if fails:
            raise RuntimeError("cut off")
        return {"name": name}

    assert read_results(path) == []
    with pytest.raises(RuntimeError, match="cut off"):
        run_missing(
            path, {"a": lambda: run("a"), "b": lambda: run("b", fails=True)}, lambda result: result["name"], told.append
        )
    assert read_results(path) == told == [{"name": "a"}]
    found = run_missing(
        path, {"b": lambda: run("b"), "a": lambda: run("a")}, lambda result: result["name"], told.append
    )
    assert found == [{"name": "b"}, {"name": "a"}]
    assert ran == ["a", "b", "b"]


def test_runs_go_on_side_by_side(tmp_path):
    path, met = tmp_path / "r.jsonl", threading.Barrier(3)

    def run(name):
        met.wait(60)
        return {"name": name}

    wanted = {name: partial(run, name) for name in "abc"}
    found = run_missing(path, wanted, lambda result: result["name"], lambda result: None, at_once=3)
    assert [result["name"] for result in found] == ["a", "b", "c"]
    assert len(read_results(path)) == 3
