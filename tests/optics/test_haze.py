"""Haze is computed from a stack with haze in it, taken away, and no light is lost."""

import pytest
import torch

from otf_stream.optics import haze as computing
from otf_stream.optics.forward import convolved
from otf_stream.optics.haze import HazeField, _accelerated, _parts, binned, haze, spread
from otf_stream.optics.pointspread import Microscope, focus_width, point_spread
from otf_stream.optics.psf import SplitPsf, focus, split_psf
from simulators.phantom import cells, seen_isotropically

MICROSCOPE = Microscope("light-sheet", 1.0, sheet_um=2.0)


@pytest.fixture(scope="module")
def hazy():
    pixel = focus_width(MICROSCOPE) / 2.3548
    whole = torch.from_numpy(point_spread(MICROSCOPE, (97, 49), z_um=pixel, pixel_um=pixel))
    sample = cells((97, 112, 112), seed=6)
    truth = torch.from_numpy(seen_isotropically(sample))
    return split_psf(whole, 1.0), truth, convolved(torch.from_numpy(sample), whole).clamp(min=0)[::4] * 500


def everywhere(planes):
    return slice(0, planes.shape[1]), slice(0, planes.shape[2])


@pytest.mark.parametrize("binning", [2, 3, 4])
def test_what_is_left_looks_more_like_the_sample(hazy, binning):
    psf, truth, planes = hazy
    field = HazeField.of(binned(planes, binning), psf, 4.0, binning)
    left = field.removed(planes, *everywhere(planes))
    assert field.core_share == pytest.approx(psf.core_share, rel=0.1)
    assert float(left.mean()) == pytest.approx(float(planes.mean()), rel=0.01)
    torch.testing.assert_close(field.added(left, *everywhere(planes)), planes, rtol=1e-4, atol=1e-3)

    def alike(stack):
        return float(torch.corrcoef(torch.stack([stack.flatten(), truth[::4].flatten()]))[0, 1])

    assert 1 - alike(left) < 0.75 * (1 - alike(planes))


def test_where_there_is_no_haze_none_is_found(hazy):
    line = torch.exp(-0.5 * (torch.arange(-20.0, 21.0) / 2.5) ** 2)
    psf = SplitPsf(line / line.sum(), torch.zeros(41, 21, 21), 1.0)
    assert float(psf.whole.sum()) == pytest.approx(float((line / line.sum()).sum() * focus(21, 1.0).sum()))
    assert float(haze(binned(hazy[2], 2), psf, 4.0, binning=2, iterations=3).abs().max()) < 1e-3


def test_acceleration_saves_most_of_the_iterations():
    wanted = torch.tensor([1.0, 5.0, 2.0, 8.0])

    def improve(x: torch.Tensor, into: torch.Tensor) -> None:
        into.copy_(x + 0.05 * (wanted - x))

    def off(x: torch.Tensor) -> float:
        return float((x - wanted).abs().max())

    plain = start = torch.full((4,), 3.0)
    for _ in range(60):
        plain = plain + 0.05 * (wanted - plain)
    assert off(_accelerated(improve, start, 20)) < off(plain)


def test_by_parts_it_is_the_same(hazy, monkeypatch):
    psf, _, planes = hazy
    light = binned(planes, 4)
    whole = haze(light, psf, 4.0, binning=4, iterations=5)
    monkeypatch.setattr(computing, "_PART", 2000)  # a plane of the domain is larger
    torch.testing.assert_close(haze(light, psf, 4.0, binning=4, iterations=5), whole, rtol=1e-3, atol=1e-4)


def test_parts_are_all_there_is_and_on_a_graphics_card_there_is_one():
    assert list(_parts(5, 2**18, torch.device("cpu"))) == [slice(0, 2), slice(2, 4), slice(4, 6)]
    assert list(_parts(5, 2**18, torch.device("cuda"))) == [slice(0, 5)]


@pytest.mark.parametrize("anisotropy", [0.6, 2.5, 4.42])
def test_any_z_step_will_do(hazy, anisotropy):
    psf, _, planes = hazy
    added = haze(binned(planes, 4), psf, anisotropy, binning=4, iterations=3)
    assert added.shape == (25, 28, 28)
    assert torch.isfinite(added).all()


def test_a_pixels_haze_does_not_depend_on_what_else_is_asked():
    coarse = torch.rand(3, 20, 30, generator=torch.Generator().manual_seed(0))
    whole = spread(coarse, 3, slice(0, 58), slice(0, 89))
    assert whole.shape == (3, 58, 89)
    part = spread(coarse, 3, slice(13, 40), slice(50, 89))
    torch.testing.assert_close(part, whole[:, 13:40, 50:89])
    torch.testing.assert_close(whole[:, 1::3, 1::3][:, :19], coarse[:, :19])  # the middle pixel of a bin of three
