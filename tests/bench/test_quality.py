import json

import numpy as np
import pytest

from otf_stream.bench import contenders, quality
from otf_stream.bench.cases import HELD_OUT, Case, all_cases, few_cases, few_held_out_cases, held_out_cases
from otf_stream.bench.contenders import interpolated, richardson_lucy
from otf_stream.bench.quality import draw, page, run_cases
from otf_stream.bench.results import read_results
from otf_stream.learn.compute import choose_compute
from otf_stream.restore.evaluate import psnr
from simulators.instruments import PHOTONS

CASE = Case("confocal", "low", 4)


@pytest.fixture(scope="module")
def drawn() -> tuple[np.ndarray, np.ndarray]:
    truth, planes = CASE.draw()
    return truth[:, :96, :96], planes[:, :96, :96]


def test_the_benchmark_covers_every_modality_noise_and_z_step() -> None:
    cases = all_cases()
    assert len({case.name for case in cases}) == len(cases) == 72
    cells = [case for case in cases if case.sample == "cells"]
    assert len({(case.modality, case.noise, case.z_step) for case in cells}) == 36
    held_out = [case for case in cases if case.sample in HELD_OUT]
    assert not {case.seed for case in cells} & {case.seed for case in held_out}
    assert {case.modality for case in few_cases()} == {case.modality for case in cases}
    assert len(few_held_out_cases()) == len(few_cases())
    assert not {case.sample for case in few_held_out_cases()} & {case.sample for case in few_cases()}
    assert {case.name for case in held_out_cases()} == {case.name for case in held_out}
    assert len({case.modality for case in held_out_cases()[:4]}) == 4
    assert set(PHOTONS) == {case.noise for case in cases}


def test_a_case_is_what_it_says(drawn) -> None:
    truth, planes = drawn
    assert (len(planes), len(truth)) == (32, CASE.depth)
    assert CASE.acquisition.voxel_size.anisotropy == pytest.approx(4)
    assert planes.dtype == np.uint16


def test_rivals_restore_on_the_exact_grid(drawn, monkeypatch) -> None:
    monkeypatch.setattr(contenders, "_MOST_ITERATIONS", 40)
    truth, planes = drawn
    linear = interpolated(CASE, planes, order=1)
    assert np.allclose(linear[::4], planes)
    assert psnr(interpolated(CASE, planes, order=3), truth) > psnr(linear, truth) - 0.5
    deconvolved, iteration = richardson_lucy(CASE, planes, truth)
    assert deconvolved.shape == truth.shape
    assert psnr(deconvolved, truth) > psnr(linear, truth) + 1.5
    assert iteration > 1


def test_the_page_tells_the_mean_and_the_worst(tmp_path) -> None:
    def result(modality: str, sample: str, linear: float, mine: float) -> dict:
        return {
            "case": f"{modality}-{sample}", "modality": modality, "noise": "low", "z_step": 4, "sample": sample,
            "machine": "2 cores", "budget": 120.0,
            "psnr": {"linear": linear, "otf_stream": mine}, "ssim": {"linear": 0.8, "otf_stream": 0.9},
            "provenance": {"method": "finetune"}, "seconds": {"otf_stream": 118.0},
            "axial_width": {"estimated": 5.5, "true": 5.0}, "gain": {"estimated": 1.98, "true": 2.0},
        }  # fmt: skip

    results = [result("confocal", "cells", 20, 26), result("widefield", "cells", 21, 23), result("x", "foam", 20, 30)]
    path = tmp_path / "results.jsonl"
    path.write_text("".join(json.dumps(r) + "\n" for r in results), encoding="utf-8")
    told = page(read_results(path), "otf-stream bench quality")
    assert "| linear interpolation | 20.50 | +4.00 | +2.00 | 0.800 |" in told
    assert "| linear interpolation | 20.00 | +10.00 | +10.00 | 0.800 |" in told
    assert "| confocal | 1 | +6.00 |\n| widefield | 1 | +2.00 |\n| low noise | 2 | +4.00 |" in told
    assert "`otf-stream bench quality`" in told


def test_a_picture_is_drawn(tmp_path, drawn) -> None:
    truth, planes = drawn
    draw(tmp_path / "a" / "case.png", {"linear": interpolated(CASE, planes, order=1)}, truth)
    assert (tmp_path / "a" / "case.png").stat().st_size > 10_000


def test_with_another_version_of_ours_rivals_are_not_run_again(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(contenders, "_MOST_ITERATIONS", 5)

    def run() -> list[dict]:
        return run_cases([CASE], tmp_path / "results.jsonl", choose_compute("cpu"), seconds=1.0, care_python=None)

    (first,) = run()
    assert run() == [first]
    monkeypatch.setattr(quality, "version_of_ours", lambda: "others")
    monkeypatch.setattr(quality, "richardson_lucy", None)
    (again,) = run()
    assert again["psnr"]["richardson-lucy"] == first["psnr"]["richardson-lucy"]
    assert again["ours"] == "others" != first["ours"]
    assert len(read_results(tmp_path / "results.jsonl")) == 2
