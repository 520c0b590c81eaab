"""Curves are made of whole restorations, and are told and drawn."""

from dataclasses import replace

import numpy as np

from otf_stream.bench import curves
from otf_stream.bench.cases import Case
from otf_stream.bench.curves import _WAYS, draw, page, run_curves
from otf_stream.learn.compute import choose_compute


def test_every_way_is_run_once_and_told(tmp_path, monkeypatch):
    asked = []

    def restored(case, planes, *, method, seconds, compute, weights, layers):
        asked.append((method, layers, seconds, weights is not None))
        volume = np.repeat(planes, case.z_step, axis=0)[: case.depth].astype(np.float32)
        return volume, {"timing": {"since_first_plane_s": 1.0}, "method": method, "training": {"steps": 5}}

    monkeypatch.setattr(curves, "ours", restored)
    cases = [Case("confocal", "low", 3), replace(Case("confocal", "low", 3), modality="widefield")]
    told = []
    found = run_curves(cases, tmp_path / "r.jsonl", choose_compute("cpu"), budgets=[60, 30], progress=told.append)
    assert len(found) == len(told) == len(asked) == 2 * (3 * 2 + 1)
    assert {way for way, *_ in asked} == {"finetune", "pretrained"}
    assert {(layers, scratch) for _, layers, _, scratch in asked} == {("all", True), ("all", False), ("zest", False)}
    run_curves(cases, tmp_path / "r.jsonl", choose_compute("cpu"), budgets=[30, 60])
    assert len(asked) == len(found)  # nothing is run twice
    monkeypatch.setattr(curves, "version_of_ours", lambda: "others")
    run_curves(cases, tmp_path / "r.jsonl", choose_compute("cpu"), budgets=[30, 60])
    assert len(asked) == 2 * len(found)  # but what another version of ours reached is not taken for this one's
    draw(tmp_path / "curves.png", found)
    assert (tmp_path / "curves.png").stat().st_size > 10_000
    said = page(found, "otf-stream bench curves", "curves.png")
    assert "| | 30 s | 60 s |" in said
    assert said.count("from scratch") == 1
    assert len(_WAYS) == said.count("\n| ") - 1
