"""A point spread function is taken apart and put together again, and its family lies around it."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from kernels import gaussian

from otf_stream.optics.pointspread import Microscope, point_spread
from otf_stream.optics.psf import AxialBlur, SplitPsf, focus, full_width, split_psf, stretched


def test_a_gaussian_has_no_haze():
    psf = gaussian(2.5)[:, None, None] * focus(21, 1.0)
    split = split_psf(psf, 1.0)
    assert split.core_share == pytest.approx(1, abs=1e-4)
    assert float(split.tail.abs().max()) < 1e-6
    assert split.width == pytest.approx(2.3548 * 2.5, rel=0.02)
    # What lies beyond the focus: 2.5² − 1².
    assert full_width(split.kernel) == pytest.approx(2.3548 * (2.5**2 - 1) ** 0.5, rel=0.03)


def test_core_and_tail_make_the_whole_and_widefield_has_more_haze_than_confocal():
    shares = {}
    for modality in ("confocal", "widefield"):
        psf = torch.from_numpy(point_spread(Microscope(modality, 1.1), (61, 31), z_um=0.1, pixel_um=0.1))
        split = split_psf(psf, 1.0)
        torch.testing.assert_close(split.whole, psf, atol=1e-6, rtol=0)
        shares[modality] = split.core_share
    assert shares["widefield"] < 0.5 * shares["confocal"]


@pytest.mark.parametrize("modality", ["confocal", "widefield"])
def test_planes_seen_through_what_is_left_without_their_focus_are_seen_through_core_and_tail(modality):
    psf = torch.from_numpy(point_spread(Microscope(modality, 1.1), (61, 31), z_um=0.1, pixel_um=0.1))
    split = split_psf(psf, 1.0)
    left = split.of_planes
    assert float(left.sum()) == pytest.approx(1, abs=1e-3)
    core = left - split.tail
    off_axis = core.clone()
    off_axis[:, 15, 15] = 0
    assert float(off_axis.abs().max()) < 1e-7
    # The kernel is the core less the focus along z: with the focus it has the core's width again.
    with_focus = torch.conv1d(core[:, 15, 15][None, None], focus(31, 1.0).sum(0)[None, None], padding=15)[0, 0]
    assert full_width(with_focus) == pytest.approx(split.width, rel=0.1)


@given(st.floats(1.5, 4), st.floats(0.4, 2.0))
def test_stretching_changes_the_width_and_nothing_else(sigma, stretch):
    changed = stretched(gaussian(sigma), stretch)
    assert float(changed.sum()) == pytest.approx(1, abs=1e-4)
    assert full_width(changed) == pytest.approx(full_width(gaussian(sigma * stretch)), rel=0.02)
    torch.testing.assert_close(changed, gaussian(sigma * stretch), atol=0.02, rtol=0)


def test_what_is_stretched_to_once_its_width_stays_as_it_is():
    psf = torch.from_numpy(point_spread(Microscope("widefield", 1.1), (61, 31), z_um=0.1, pixel_um=0.1))
    torch.testing.assert_close(stretched(psf, 1.0), psf)


def test_haze_can_be_taken_away_and_multiplied():
    psf = torch.from_numpy(point_spread(Microscope("widefield", 1.1), (61, 31), z_um=0.1, pixel_um=0.1))
    split = split_psf(psf, 1.0)
    for haze in (0.0, 0.5, 1.0):
        changed = split.changed(1.0, haze)
        assert float(changed.whole.sum()) == pytest.approx(1, abs=1e-3)
        expected = split.core_share / (split.core_share + haze * (1 - split.core_share))
        assert changed.core_share == pytest.approx(expected, abs=0.01)


def test_faint_ends_of_a_kernel_are_cut_off():
    kernel = SplitPsf(gaussian(1.0), torch.zeros(61, 3, 3), 0.3).kernel
    assert len(kernel) < 15
    assert float(kernel.sum()) == pytest.approx(1)


def test_the_family_lies_around_its_centre_and_leans_both_ways():
    family = AxialBlur(gaussian(2.0), spread=1.2, skew=1.1)
    below, above = family.draw(2000, torch.Generator().manual_seed(0))
    for side in (below, above):
        assert 1 / (1.2 * 1.1) <= float(side.min()) < 0.85
        assert 1.18 < float(side.max()) <= 1.2 * 1.1
    assert 0.4 < float((below > above).float().mean()) < 0.6
    assert family.sigma == pytest.approx(2.0, rel=0.02)
