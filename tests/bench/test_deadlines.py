"""Acquisitions are drawn by a seed, and all of them land."""

from otf_stream.bench import deadlines
from otf_stream.bench.deadlines import _draw, run_deadlines, section
from otf_stream.learn.compute import choose_compute


def test_what_is_drawn_depends_on_the_seed_alone():
    first, second, other = (_draw(12, 60.0, seed) for seed in (1, 1, 2))
    assert sum(acquisition.channels for acquisition in first) == 12
    assert [a.begins for a in first] == [a.begins for a in second] == sorted(a.begins for a in first)
    assert [a.shape for a in first] != [a.shape for a in other]


def test_every_stack_is_told_of(monkeypatch):
    small = {"_PLANES": (6, 8), "_SIDES": (64, 80), "_RATES": (10.0, 20.0), "_LOADS": (0, 1)}
    for name, bounds in small.items():
        monkeypatch.setattr(deadlines, name, bounds)
    found = run_deadlines(
        choose_compute("cpu"), stacks=2, minutes=0.02, budget_s=6, tail_s=5, seed=3, threads=1
    )  # fmt: skip
    assert len(found) == 2
    assert {r["state"] for r in found} == {"restored"}
    told = section(found, "otf-stream bench deadlines", minutes=0.02, budget_s=6, tail_s=5)
    assert "Complete: 2 of 2" in told
