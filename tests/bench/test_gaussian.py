import json
from dataclasses import asdict

import numpy as np
import pytest

from otf_stream.bench import contenders
from otf_stream.bench.cases import all_cases
from otf_stream.bench.contenders import interpolated, richardson_lucy
from otf_stream.bench.gaussian import GaussianCase, gaussian_cases
from otf_stream.restore.evaluate import psnr

CASES = {case.trait: case for case in gaussian_cases()}


def test_each_case_has_a_trait_and_a_sample_of_its_own() -> None:
    assert len(CASES) == len(gaussian_cases()) == 10
    others = all_cases()
    assert not {case.name for case in CASES.values()} & {case.name for case in others}
    assert not {case.sample for case in CASES.values()} & {case.sample for case in others}
    assert not {case.seed for case in CASES.values()} & {case.seed for case in others}
    assert {case.modality for case in CASES.values()} == {case.modality for case in others}
    assert json.loads(json.dumps(asdict(CASES["cone"])))["axial"] == 4.7


@pytest.mark.parametrize("case", [CASES["tails"], CASES["dark"], CASES["fine-pixels"]], ids=lambda case: case.trait)
def test_a_case_is_what_it_says(case: GaussianCase) -> None:
    truth, planes = case.draw()
    sizes = case.acquisition.sizes
    assert planes.shape == (sizes.z, sizes.y, sizes.x)
    assert truth.shape == case.shape
    assert planes.dtype == np.uint16
    light = (planes.mean() - case.offset) / case.gain / case.camera.photons
    assert light == pytest.approx(truth.mean(), rel=0.15)
    assert case.acquisition.voxel_size.anisotropy == pytest.approx(case.z_step)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_the_axial_width_is_that_of_the_optics(case: GaussianCase) -> None:
    if not (case.tail or case.aside or case.trait == "cone"):
        assert case.axial_width == pytest.approx(2.3548 * case.axial, rel=0.01)
    assert case.axial_width > 2.3548 * case.lateral


def test_a_finer_pixel_samples_the_focus_with_more_of_them() -> None:
    assert CASES["fine-pixels"].pixel_um * 2.2 == pytest.approx(CASES["plain"].pixel_um)


def test_rivals_are_judged_as_sharp_as_the_truth(monkeypatch) -> None:
    """Whose focus is wider than that of the other cases: an estimate of the sharp sample is looked at through it."""
    monkeypatch.setattr(contenders, "_MOST_ITERATIONS", 20)
    case = CASES["fine-pixels"]
    truth, planes = case.draw()
    deconvolved, _ = richardson_lucy(case, planes, truth)
    assert psnr(deconvolved, truth) > psnr(interpolated(case, planes, order=1), truth) + 2
    assert np.abs(np.diff(deconvolved, axis=2)).mean() < 1.5 * np.abs(
        np.diff(case.camera.gain * truth, axis=2)
    ).mean() * (case.camera.photons)
