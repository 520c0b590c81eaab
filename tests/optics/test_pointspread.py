import numpy as np
import psfmodels
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otf_stream.acquisition import Optics
from otf_stream.optics.pointspread import Microscope, _likely_apertures, likely_psfs, microscope_of, point_spread


def psf(microscope: Microscope, planes: int = 61, side: int = 41) -> np.ndarray:
    return point_spread(microscope, (planes, side), z_um=0.15, pixel_um=0.1)


def width(profile: np.ndarray) -> float:
    return float((profile > profile.max() / 2).sum())


@pytest.mark.parametrize("modality", ["unknown", "confocal", "multiphoton", "light-sheet", "widefield"])
def test_a_point_is_imaged_in_the_middle(modality) -> None:
    image = psf(microscope_of(modality, Optics()))
    assert image.shape == (61, 41, 41)
    assert image.sum() == pytest.approx(1, rel=1e-4)
    assert (image >= 0).all()
    assert np.unravel_index(image.argmax(), image.shape) == (30, 20, 20)
    assert np.allclose(image, image[:, ::-1], atol=1e-7)
    assert width(image[:, 20, 20]) * 0.15 > 2 * width(image[30, 20]) * 0.1  # blurred along z


def test_only_widefield_keeps_the_light_that_is_out_of_focus() -> None:
    far = {m: psf(microscope_of(m, Optics()))[0].sum() for m in ("confocal", "multiphoton", "light-sheet", "widefield")}
    assert far["widefield"] > 5 * max(far["confocal"], far["multiphoton"], far["light-sheet"])


def test_a_higher_aperture_sees_sharper() -> None:
    low, high = (psf(microscope_of("confocal", Optics(numerical_aperture=na))) for na in (0.7, 1.2))
    assert width(high[:, 20, 20]) < width(low[:, 20, 20])
    core = [image[30, 19:22, 19:22].sum() / image[30].sum() for image in (low, high)]
    assert core[1] > 1.5 * core[0]


def test_a_thin_sheet_cuts_the_depth() -> None:
    thick, thin = (psf(Microscope("light-sheet", 0.6, sheet_um=um)) for um in (8.0, 1.0))
    assert width(thin[:, 20, 20]) < 0.7 * width(thick[:, 20, 20])


def test_index_mismatch_blurs_to_one_side() -> None:
    def one_sided(microscope: Microscope) -> float:
        axis = psf(microscope, 121)[:, 20, 20]
        return abs(axis[:60].sum() - axis[61:].sum()) / axis.sum()

    good = Microscope("widefield", 1.0)
    bad = Microscope("widefield", 1.0, depth_um=100, index_mismatch=0.05)
    assert one_sided(good) < 0.01
    assert one_sided(bad) > 0.05
    assert psf(bad, 121)[:, 20, 20].argmax() == 60


@pytest.mark.parametrize("model", ["scalar", "vectorial"])
@pytest.mark.parametrize("depth_um", [0.0, 20.0])
def test_one_side_of_the_focus_tells_the_other(model, depth_um) -> None:
    widefield = Microscope("widefield", 0.9, depth_um=depth_um)
    computed = point_spread(widefield, (31, 15), z_um=0.1, pixel_um=0.1, model=model)
    both = psfmodels.make_psf(
        31, 15, dxy=0.1, dz=0.1, NA=0.9, wvl=0.52, pz=depth_um, ns=1.33, ni=1.33, ni0=1.33, ti0=1500.0, tg=170.0,
        tg0=170.0, ng=1.515, ng0=1.515, model=model,
    )  # fmt: skip
    np.testing.assert_allclose(computed, both / both.sum(), rtol=1e-4)


def test_oil_is_taken_where_the_aperture_needs_it() -> None:
    assert microscope_of("confocal", Optics(numerical_aperture=1.4)).refractive_index == pytest.approx(1.515)
    assert microscope_of("confocal", Optics(numerical_aperture=0.8)).refractive_index == pytest.approx(1.33)
    known = microscope_of("multiphoton", Optics(numerical_aperture=1.0, refractive_index=1.38, excitation_nm=800))
    assert (known.refractive_index, known.excitation_um) == (1.38, 0.8)


def test_an_aperture_above_the_index_is_refused() -> None:
    with pytest.raises(ValueError, match=r"aperture of 1.4 is not below the refractive index of 1.33"):
        microscope_of("confocal", Optics(numerical_aperture=1.4, refractive_index=1.33))


@pytest.mark.parametrize("modality", ["confocal", "multiphoton"])
def test_a_pixel_wider_than_the_focus_sees_the_light_of_all_its_parts(modality) -> None:
    microscope = Microscope(modality, 0.95, excitation_um=0.8)
    coarse = point_spread(microscope, (31, 9), z_um=0.3, pixel_um=0.7)
    fine = point_spread(microscope, (31, 63), z_um=0.3, pixel_um=0.1).reshape(31, 9, 7, 9, 7).sum((2, 4))
    elsewhere = {"confocal": 0.06, "multiphoton": 0.03}  # of the light; of a product of averages, twice or thrice that
    assert np.abs(coarse - fine).sum() < elsewhere[modality]


def test_a_pixel_too_coarse_for_the_usual_aperture_leaves_it_likely() -> None:
    usual = likely_psfs("multiphoton", Optics(), 0.1)[0].width * 0.1
    widths = np.array([psf.width for psf in likely_psfs("multiphoton", Optics(), 0.5)]) * 0.5
    assert widths[0] == pytest.approx(usual, rel=0.1)
    assert widths.max() > 6 * usual  # of the aperture that such pixels suit
    assert (np.sort(widths)[1:] / np.sort(widths)[:-1]).max() < 2.5  # widths between are likely too


@given(st.sampled_from(["confocal", "multiphoton", "light-sheet", "widefield"]), st.floats(0.02, 3.0))
@settings(max_examples=40, deadline=None)
def test_no_likely_aperture_counts_twice_and_none_between_is_left_out(modality, pixel_um) -> None:
    usual = microscope_of(modality, Optics())
    likely = np.sort(_likely_apertures(usual, pixel_um))
    steps = likely[1:] / likely[:-1]
    assert 0 < likely[0] <= likely[-1] < usual.refractive_index
    assert (steps > 1).all()
    assert (steps < 1.5).all()


def test_a_known_aperture_is_not_doubted() -> None:
    (only,) = likely_psfs("multiphoton", Optics(numerical_aperture=0.95), 1.0)
    assert only.width * 1.0 == pytest.approx(1.5, rel=0.1)
