"""How wrong haze is computed is found by computing it where it is known."""

import pytest
import torch

from otf_stream.optics.forward import convolved
from otf_stream.optics.haze import binned, haze, share_left, spread
from otf_stream.optics.haze_errors import haze_errors
from otf_stream.optics.pointspread import Microscope, focus_width, point_spread
from otf_stream.optics.psf import SplitPsf, split_psf
from simulators.phantom import cells

MICROSCOPE = Microscope("widefield", 1.1)
BINNING = 4
STEP = 3.0


@pytest.fixture(scope="module")
def stack():
    """A point spread function, planes freed of haze, and by how much that haze was overestimated."""
    pixel = focus_width(MICROSCOPE) / 2.3548
    psf = split_psf(torch.from_numpy(point_spread(MICROSCOPE, (97, 49), z_um=pixel, pixel_um=pixel)), 1.0)
    sample = torch.from_numpy(cells((94, 96, 96), seed=8)) * 500
    planes, true = (convolved(sample, part)[::3] for part in (psf.whole, psf.tail))
    light = binned(planes.clamp(min=0), BINNING)
    found = haze(light, psf, STEP, binning=BINNING)
    free = (light - found) / share_left(light, found, psf)
    return psf, free, found - binned(true, BINNING)


def positions(planes):
    return torch.arange(len(planes)) * STEP


def test_rehearsed_errors_are_like_those_that_are_made(stack):
    psf, free, real = stack
    errors = haze_errors(free, positions(free), psf, STEP, binning=BINNING)
    assert errors.shape == (2, *free.shape)
    for along in errors:
        assert 0.3 < float(along.std() / real.std()) < 1.5
        assert abs(float(along.mean())) < 0.2 * float(along.std())


def test_where_there_is_no_haze_none_is_overestimated(stack):
    line = torch.exp(-0.5 * (torch.arange(-20.0, 21.0) / 2.5) ** 2)
    psf = SplitPsf(line / line.sum(), torch.zeros(41, 21, 21), 1.0)
    free = stack[1]
    assert float(haze_errors(free, positions(free), psf, STEP, binning=BINNING).abs().max()) < 1e-3


def test_which_of_the_lateral_axes_is_which_makes_no_difference(stack):
    psf, free, _ = stack
    along_y, along_x = haze_errors(free[:, :, :64], positions(free), psf, STEP, binning=BINNING)
    turned_x, turned_y = haze_errors(free[:, :, :64].mT, positions(free), psf, STEP, binning=BINNING)
    torch.testing.assert_close(turned_y.mT, along_y, rtol=1e-2, atol=1e-2)
    torch.testing.assert_close(turned_x.mT, along_x, rtol=1e-2, atol=1e-2)


def test_a_gap_between_planes_is_bridged(stack):
    psf, free, _ = stack
    there = [z for z in range(len(free)) if z not in (5, 6)]
    whole = haze_errors(free, positions(free), psf, STEP, binning=BINNING)[:, there]
    errors = haze_errors(free[there], positions(free)[there], psf, STEP, binning=BINNING)
    alike = torch.corrcoef(torch.stack([errors.flatten(), whole.flatten()]))[0, 1]
    assert float(alike) > 0.8


def test_errors_lie_where_the_planes_are_that_they_belong_to(stack):
    """A bright ball: it is smeared along the axis that plays z, and what it loses lies in its own planes."""
    psf, free, _ = stack
    z, y, x = torch.meshgrid(*(torch.arange(n).float() for n in free.shape), indexing="ij")
    ball = 100 * torch.exp(
        -0.5 * (((z - 12) * STEP / 6) ** 2 + ((y - 8) * BINNING / 6) ** 2 + ((x - 15) * BINNING / 6) ** 2)
    )
    for errors in haze_errors(ball, positions(ball), psf, STEP, binning=BINNING):
        plane, row, column = (int(i) for i in torch.unravel_index(errors.abs().argmax(), errors.shape))
        assert abs(plane - 12) <= 3
        assert abs(row - 8) <= 3
        assert abs(column - 15) <= 3
    assert spread(errors, BINNING, slice(0, 96), slice(0, 96)).shape == (len(ball), 96, 96)
