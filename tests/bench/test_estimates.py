"""Estimates are compared with a truth that the service was not told."""

from dataclasses import replace

import pytest

from otf_stream.bench.cases import Case
from otf_stream.bench.estimates import drawn_cases, line, page, run_estimates, wide_cases
from otf_stream.learn.compute import choose_compute
from simulators.instruments import INSTRUMENTS
from simulators.microscope import pixel_size
from simulators.phantom import LATERAL_SIGMA


def test_instruments_are_drawn_of_every_modality_and_no_two_alike():
    cases = drawn_cases(12, seed=0)
    assert [case.modality for case in cases[:4]] == list(INSTRUMENTS)
    assert len({case.microscope for case in cases}) == len({case.name for case in cases}) == 12
    assert {case.sample for case in cases} == {"cells", "foam", "vesicles"}
    assert cases == drawn_cases(12, seed=0)
    assert cases != drawn_cases(12, seed=1)


def test_a_drawn_instrument_images_with_its_own_optics():
    one = drawn_cases(1, seed=0)[0]
    other = replace(one, microscope=replace(one.microscope, numerical_aperture=0.6))
    assert other.axial_width > 1.1 * one.axial_width  # in pixels of its own, which a worse objective makes larger
    assert other.acquisition.voxel_size.x > 1.3 * one.acquisition.voxel_size.x


def test_a_wide_field_has_pixels_larger_than_its_focus():
    cases = wide_cases(8, seed=0)
    assert len({case.name for case in cases}) == 8
    assert cases == wide_cases(8, seed=0)
    for case in cases:
        assert case.pixel_um > 1.5 * pixel_size(case.microscope)
        assert case.lateral_sigma * case.pixel_um == pytest.approx(LATERAL_SIGMA * pixel_size(case.microscope))
    coarse = cases[1]  # two photons
    fine = drawn_cases(2, seed=0)[1]
    assert coarse.psf.shape == fine.psf.shape
    as_fine = replace(coarse, focus=LATERAL_SIGMA)
    assert coarse.axial_width == pytest.approx(as_fine.axial_width * coarse.focus / LATERAL_SIGMA, rel=0.1)


@pytest.fixture(scope="module")
def cases():
    return [Case("confocal", "low", 3, "vesicles", 200), drawn_cases(2, seed=0)[1]]


@pytest.fixture(scope="module")
def found(cases, tmp_path_factory):
    compute, results = choose_compute("cpu"), tmp_path_factory.mktemp("estimates") / "results.jsonl"
    found = run_estimates(cases, results, compute)
    assert run_estimates(cases, results, compute) == found  # from the file
    return found


def test_what_a_stack_tells_is_compared_and_told(cases, found):
    assert [result["drawn"] for result in found] == [False, True]
    for result, case in zip(found, cases, strict=True):
        assert result["origin"] == "estimated"
        assert result["width"]["true"] == pytest.approx(case.axial_width)
        assert result["width"]["estimated"] == pytest.approx(result["width"]["true"], rel=0.15)
        assert result["gain"]["estimated"] == pytest.approx(2.0, rel=0.1)
        assert case.name in line(result)
    told = page(found, "otf-stream bench estimates")
    assert "## Its samples held out" in told
    assert "## Cells" not in told
    assert "More than 15% off in width: 0 of 1." in told


def test_the_page_names_what_is_too_far_off(found):
    true = found[0]["width"]["true"]
    far_off = found[0] | {"width": {"true": true, "estimated": 1.3 * true}}
    told = page([far_off], "command")
    assert "More than 15% off in width: 1 of 1: confocal-low-dz3-vesicles-200 (+30.0%)." in told
