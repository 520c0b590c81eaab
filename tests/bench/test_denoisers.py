"""Every family is asked for what it cannot see, and the comparison is told."""

import pytest
import torch

from otf_stream.bench import denoisers
from otf_stream.bench.cases import Case
from otf_stream.bench.denoisers import (
    asked_error,
    blind_spot,
    compare,
    line,
    page,
    plane_to_plane,
    rehearsed,
    sub_sampling,
)
from otf_stream.learn.compute import choose_compute
from otf_stream.learn.nafnet import NAFNet
from otf_stream.optics.noise import NoiseModel

NOISE = NoiseModel(0.01, 0.0, 0.01)
PATCHES = torch.rand(3, 5, 16, 16, generator=torch.Generator().manual_seed(0))


def generator():
    return torch.Generator().manual_seed(1)


def test_the_blind_spot_is_asked_for_hidden_pixels_only():
    given, asked = blind_spot(PATCHES.repeat(1, 1, 8, 8), NOISE, generator())
    hidden = ~asked.isnan()
    assert 0.005 < float(hidden.float().mean()) < 0.03
    assert (given[:, :1][hidden] != asked[hidden]).all()
    assert torch.equal(given[:, :1][~hidden], PATCHES.repeat(1, 1, 8, 8)[:, :1][~hidden])


def test_sub_sampling_asks_for_another_pixel_of_the_same_square():
    given, asked = sub_sampling(PATCHES, NOISE, generator())
    assert given.shape == (3, 6, 8, 8)
    assert asked.shape == (3, 1, 8, 8)
    squares = PATCHES[:, 0].unfold(1, 2, 2).unfold(2, 2, 2).flatten(3)
    for pixels in (given[:, 0], asked[:, 0]):
        assert (squares == pixels[..., None]).any(-1).all()
    assert (given[:, 0] != asked[:, 0]).all()


def test_plane_to_plane_never_gives_what_it_asks_for():
    given, asked = plane_to_plane(PATCHES, NOISE, generator())
    assert given.shape == (3, 6, 16, 16)
    for patch, wanted in zip(given, asked, strict=True):
        assert not any(torch.equal(channel, wanted[0]) for channel in patch)


def test_rehearsals_are_of_clean_planes_with_noise_that_is_drawn_anew():
    clean = torch.full((8, 5, 128, 128), 2.0)
    drawn = generator()
    given, target = rehearsed(clean, NoiseModel(0.5, 0.0, 1.0, (0.7, 0.7)), drawn)
    assert given.shape == (8, 6, 128, 128)
    assert torch.equal(target, clean[:, :1])
    wrong = (given[:, :5] - clean).transpose(0, 1).flatten(1)
    torch.testing.assert_close(wrong.std(1), torch.full((5,), 2**0.5), rtol=0.05, atol=0)
    assert float((torch.corrcoef(wrong) - torch.eye(5)).abs().max()) < 0.02
    assert not torch.equal(given, rehearsed(clean, NOISE, drawn)[0])


def test_only_what_was_asked_for_counts():
    asked = torch.tensor([[[[1.0, float("nan")]]]])
    assert float(asked_error(torch.tensor([[[[3.0, 100.0]]]]), asked)) == 4


def test_a_comparison_trains_every_family_and_is_told(monkeypatch):
    def tiny(name=None):
        return NAFNet(width=4, enc_blk_nums=(1,), middle_blk_num=1, dec_blk_nums=(1,), guide_channels=5)

    monkeypatch.setattr(denoisers, "shipped_network", tiny)
    monkeypatch.setattr(denoisers, "denoising_network", tiny)
    result = compare(Case("confocal", "low", 6), choose_compute("cpu"), seconds=0.5, n2v2_python=None)
    assert set(result["psnr"]) == set(denoisers._NAMES) - {"n2v2"}
    assert set(result["steps"]) == {
        *denoisers.FAMILIES,
        "pre-trained + recorruption",
        "pre-trained + rehearsal",
    }
    assert all(steps >= 1 for steps in result["steps"].values())
    assert result["psnr"]["pre-trained"] == pytest.approx(result["psnr"]["noisy"], abs=0.1)  # it does nothing yet
    told = page([result], "otf-stream bench denoisers")
    assert "| the noisy planes |" in told
    assert "N2V2 (careamics)" not in told
    assert result["case"] in line(result)
