"""Every family is asked for what it cannot see, and the comparison is told."""

import json

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
    run_denoisers,
    sub_sampling,
)
from otf_stream.bench.results import machine
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


def test_only_what_was_asked_for_counts():
    asked = torch.tensor([[[[1.0, float("nan")]]]])
    assert float(asked_error(torch.tensor([[[[3.0, 100.0]]]]), asked)) == 4


def tiny(name=None):
    return NAFNet(width=4, enc_blk_nums=(1,), middle_blk_num=1, dec_blk_nums=(1,), guide_channels=5)


def test_a_comparison_trains_every_family_and_is_told(monkeypatch):
    monkeypatch.setattr(denoisers, "shipped_network", tiny)
    monkeypatch.setattr(denoisers, "denoising_network", tiny)
    result = compare(Case("confocal", "low", 6), choose_compute("cpu"), seconds=0.5, n2v2_python=None)
    assert set(result["psnr"]) == set(denoisers._NAMES) - {"n2v2"}
    assert set(result["steps"]) == {
        *denoisers.FAMILIES,
        "pre-trained + recorruption",
        "pre-trained + rehearsal",
        "pre-trained + both",
    }
    assert all(steps >= 1 for steps in result["steps"].values())
    assert result["psnr"]["pre-trained"] == pytest.approx(result["psnr"]["noisy"], abs=0.1)  # it does nothing yet
    told = page([result], "otf-stream bench denoisers")
    assert "| the noisy planes |" in told
    assert "N2V2 (careamics)" not in told
    assert result["case"] in line(result)


def test_a_way_that_is_new_is_run_without_those_that_are_known(monkeypatch, tmp_path):
    monkeypatch.setattr(denoisers, "shipped_network", tiny)
    monkeypatch.setattr(denoisers, "denoising_network", tiny)
    compute, case, path = choose_compute("cpu"), Case("confocal", "low", 6), tmp_path / "denoising.jsonl"
    known = {name: 30.0 for name in denoisers._NAMES if name not in ("n2v2", "pre-trained + both")}
    old = {
        "case": case.name, "seconds": 0.5, "psnr": known, "steps": {}, "machine": machine(compute), "version": "0",
        "ours": denoisers.version_of_ours(),
    }  # fmt: skip
    path.write_text(json.dumps(old) + "\n", "utf-8")
    for _ in range(2):
        [result] = run_denoisers([case], path, compute, seconds=0.5, n2v2_python=None)
        assert set(result["steps"]) == {"pre-trained + both"}
        assert result["psnr"].items() >= known.items()
    assert len(path.read_text("utf-8").splitlines()) == 2


def test_what_another_version_of_ours_reached_is_not_taken_for_this_ones(monkeypatch, tmp_path):
    compute, case, path = choose_compute("cpu"), Case("confocal", "low", 6), tmp_path / "denoising.jsonl"
    compared = []

    def made(case, compute, *, seconds, n2v2_python, known):
        compared.append(known)
        return {
            "case": case.name, "seconds": seconds, "psnr": dict.fromkeys(denoisers._NAMES.keys() - {"n2v2"}, 30.0),
            "machine": machine(compute), "ours": denoisers.version_of_ours(),
        }  # fmt: skip

    monkeypatch.setattr(denoisers, "compare", made)
    for version in ("before", "before", "now"):
        monkeypatch.setattr(denoisers, "version_of_ours", lambda version=version: version)
        run_denoisers([case], path, compute, seconds=0.5, n2v2_python=None)
    assert compared == [None, None]
