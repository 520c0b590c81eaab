"""What networks are taught of a drawn scene: what they will be given of a stack, and the truth."""

import numpy as np
import pytest
import torch

from otf_stream.learn import scene_pairs
from otf_stream.learn.checkpoints import shipped_network
from otf_stream.learn.compute import choose_compute
from otf_stream.learn.denoise import NEIGHBOURS, Denoiser
from otf_stream.learn.pairs import PATCH
from otf_stream.learn.scene_pairs import BATCH, axial_pairs, noisy_pairs
from otf_stream.learn.scenes import draw_scene
from otf_stream.learn.slices import CHANNELS

CPU = choose_compute("cpu")


@pytest.fixture(scope="module")
def scene():
    return draw_scene(np.random.default_rng(3))


@pytest.fixture(scope="module")
def slices(scene):
    """Slices of the scene as the network is shown them with the truth, and their unit."""
    denoiser = Denoiser(shipped_network("denoise").eval(), scene.noise, 1.0, CPU)
    pool, unit = scene_pairs._slices(scene, denoiser, torch.Generator().manual_seed(0))
    return pool.planes.float(), unit


def test_a_denoiser_is_given_planes_with_their_noise(scene):
    given, clean = noisy_pairs(scene, torch.Generator().manual_seed(0))()
    assert given.shape == (BATCH, 2 * NEIGHBOURS + 2, 64, 64)
    assert clean.shape == (BATCH, 1, 64, 64)
    error = float((given[:, :1] - clean).std())
    assert error == pytest.approx(float(given[:, -1].square().mean().sqrt()), rel=0.25)  # as the map of the noise says


@pytest.mark.parametrize("lateral", [0, 0.25, 1])
def test_pairs_of_a_scene_are_as_bright_as_what_they_should_become(scene, lateral):
    pairs = axial_pairs(shipped_network("denoise"), CPU, lateral=lateral)(scene, torch.Generator().manual_seed(0))
    given, clean = (torch.cat(part) for part in zip(*(pairs() for _ in range(4)), strict=True))
    assert given.shape == (4 * BATCH, CHANNELS, PATCH, PATCH)
    assert clean.shape == (4 * BATCH, 1, PATCH, PATCH)
    assert float(given.mean()) == pytest.approx(float(clean.mean()), rel=0.1)


def test_slices_of_a_scene_come_with_its_truth_in_both_directions(scene, slices):
    planes, unit = slices
    truth = scene.truth[: planes.shape[2]]
    side = truth.shape[1]
    assert planes.shape[:2] == (2 * side, CHANNELS + 1)
    for start, lines in ((0, (1, 0, 2)), (side, (2, 0, 1))):
        assert torch.allclose(planes[start : start + side, -1] * unit, truth.permute(lines), atol=2e-3)


def test_slices_show_the_sample_blurred_along_z_and_deconvolved(slices):
    planes, _ = slices
    deconvolved, interpolated, truth = planes.unbind(1)

    def steepness(image):
        return float(image.diff(dim=1).square().mean() / image.diff(dim=2).square().mean())

    assert steepness(interpolated) < steepness(deconvolved) < 1.1 * steepness(truth)
    assert float((deconvolved - truth).square().mean()) < float(truth.var())


def test_the_unit_of_slices_is_the_brightest_thousandth_of_planes_without_haze(slices):
    planes, _ = slices
    assert float(np.percentile(planes[:, 1].numpy(), 99.9)) == pytest.approx(1, abs=0.1)


def test_pairs_are_dealt_out_in_whole_batches():
    numbers = torch.arange(8)
    deal = scene_pairs._dealt(lambda: (numbers, numbers), 3)
    assert [deal()[0].tolist() for _ in range(3)] == [[0, 1, 2], [3, 4, 5], [0, 1, 2]]
