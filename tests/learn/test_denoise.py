"""The denoiser: it needs no clean plane, uses the planes around, and foretells its errors."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from otf_stream.learn.checkpoints import shipped_network
from otf_stream.learn.compute import choose_compute
from otf_stream.learn.denoise import (
    NEIGHBOURS,
    PATCH,
    Denoiser,
    denoiser_trainer,
    denoising_network,
    neighbourhoods,
    recorrupted,
    renoised,
    with_noise_map,
)
from otf_stream.learn.planes import PlanePool
from otf_stream.learn.scenes import draw_scene
from otf_stream.learn.training import with_statistics
from otf_stream.optics.noise import NoiseModel

CPU = choose_compute("cpu")
NOISE = NoiseModel(0.02, 0.0, 0.08)


def discs(n=6, side=96, seed=0):
    """Bright columns, ``(n, side, side)``: planes of a sample that changes slowly along z."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(side)
    planes = torch.zeros(n, side, side)
    for _ in range(24):
        cy, cx, r, z = (torch.rand(4, generator=generator) * torch.tensor([side, side, 10, n])).tolist()
        disc = ((y[:, None] - cy) ** 2 + (y[None, :] - cx) ** 2) < (3 + r) ** 2
        apart = torch.arange(n) - z
        planes += 0.4 * torch.exp(-0.5 * (apart / 1.5) ** 2)[:, None, None] * disc
    return planes


def trained(steps, seed=0, network=None):
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    clean = discs()
    noisy = clean + NOISE.draw(clean[:, None], generator)[:, 0]
    pool = PlanePool(CPU.device, smallest=PATCH)
    pool.add(neighbourhoods(noisy), generator)
    trainer = denoiser_trainer(network or denoising_network(), pool, NOISE, CPU, generator)
    for step in range(steps):
        trainer.step(step / steps)
    return clean, noisy, Denoiser(trainer.network(), NOISE, 1.0, CPU)


def gain(clean, noisy, denoiser):
    before, after = (float((image - clean).square().mean()) for image in (noisy, denoiser(noisy)))
    return before / after


def test_it_learns_from_noisy_planes_alone():
    assert gain(*trained(80)) > 1.5


def test_it_starts_from_weights_that_know_noise_and_gets_no_worse():
    knowing = gain(*trained(0, network=shipped_network("denoise")))
    assert knowing > 5
    assert gain(*trained(20, network=shipped_network("denoise"))) > 0.9 * knowing


def test_the_errors_of_a_denoised_stack_are_foretold():
    scene = draw_scene(np.random.default_rng(2))
    generator = torch.Generator().manual_seed(3)
    noisy = scene.seen + scene.noise.draw(scene.seen[:, None], generator)[:, 0]
    denoiser = Denoiser(shipped_network("denoise").eval(), scene.noise, 1.0, CPU)
    clean = denoiser(noisy)
    true, foretold = float((clean - scene.seen).std()), float(denoiser.errors(clean, generator).std())
    assert 0.6 * true < foretold < 1.2 * true


def test_the_same_seed_gives_the_same_network_bit_for_bit():
    planes = discs(n=3)
    assert torch.equal(trained(3)[2](planes), trained(3)[2](planes))


def test_a_denoiser_works_in_counts():
    denoiser = trained(0, network=shipped_network("denoise"))[2]
    noise = denoiser.noise.rescaled(-0.5, 0.01)  # the same camera, in counts of 0.01 above 50
    planes = discs(n=3)
    in_counts = Denoiser(denoiser.network, noise, 100.0, CPU)
    torch.testing.assert_close(in_counts(planes * 100 + 50), denoiser(planes) * 100 + 50, atol=1, rtol=0)


def test_planes_are_denoised_alike_alone_and_together():
    _, noisy, denoiser = trained(0, network=shipped_network("denoise"))
    together = denoiser(noisy)
    torch.testing.assert_close(denoiser(noisy, slice(2, 4)), together[2:4])
    window = denoiser(noisy[:5], slice(0, 3))  # what a growing stack shows of its first planes
    torch.testing.assert_close(window, together[:3])


@pytest.mark.parametrize("n", [1, 2, 3, 7])
def test_neighbourhoods_are_mirrored_at_the_ends(n):
    planes = torch.arange(float(n))[:, None, None].expand(n, 4, 4)
    gathered = neighbourhoods(planes)[:, :, 0, 0]
    assert gathered.shape == (n, 1 + 2 * NEIGHBOURS)
    assert torch.equal(gathered[:, 0], torch.arange(float(n)))
    if n == 7:
        assert gathered[0].tolist() == [0, 1, 1, 2, 2]
        assert gathered[3].tolist() == [3, 2, 4, 1, 5]
        assert gathered[6].tolist() == [6, 5, 5, 4, 4]
    assert torch.equal(neighbourhoods(planes, slice(n - 1, n))[0, :, 0, 0], gathered[-1])


def test_the_map_tells_the_noise():
    flat = torch.full((1, 5, 16, 16), 0.5)
    with_map = with_noise_map(flat, NOISE, 2.0)
    assert with_map.shape == (1, 6, 16, 16)
    torch.testing.assert_close(with_map[:, -1], torch.full((1, 16, 16), 2 * (0.02 * 0.5 + 0.08**2) ** 0.5))


def test_recorrupted_noises_are_independent():
    clean = torch.full((8, 5, 128, 128), 2.0)
    noise = NoiseModel(0.5, 0.0, 1.0)
    generator = torch.Generator().manual_seed(0)
    noisy = clean + torch.randn(clean.shape, generator=generator) * noise.variance(clean).sqrt()
    seen, target = recorrupted(noisy, noise, generator)
    assert seen.shape == (8, 6, 128, 128)
    wrong = [(image - clean[:, :1]).flatten() for image in (seen[:, :1], target)]
    assert abs(float(torch.corrcoef(torch.stack(wrong))[0, 1])) < 0.02
    assert abs(float(wrong[1].mean())) < 0.05


def test_tiles_are_invisible_and_come_one_by_one():
    generator = torch.Generator().manual_seed(0)
    planes = torch.rand(6, 90, 70, generator=generator) * 500 + 100
    network = with_statistics(shipped_network("denoise"), [torch.rand(1, 6, 64, 64, generator=generator)], CPU)
    denoiser = Denoiser(network, NoiseModel(2.0, 100.0, 4.0), 300.0, CPU)
    untiled = denoiser(planes, slice(1, 4))
    denoiser = replace(denoiser, compute=replace(CPU, pixels=2 * 32**2))
    parts = list(denoiser.parts(planes, slice(1, 4)))
    assert [some.start for some, *_ in parts] == sorted(some.start for some, *_ in parts)
    assert len(parts) == 3 * 3 * 3
    torch.testing.assert_close(
        denoiser(planes, slice(1, 4)), untiled, atol=1.0 if CPU.dtype != torch.float32 else 0.01, rtol=0
    )


def test_rehearsals_are_of_clean_planes_with_noise_that_is_drawn_anew():
    clean = torch.full((8, 5, 128, 128), 2.0)
    drawn = torch.Generator().manual_seed(0)
    given, target = renoised(clean, NoiseModel(0.5, 0.0, 1.0, (0.7, 0.7)), drawn)
    assert given.shape == (8, 6, 128, 128)
    assert torch.equal(target, clean[:, :1])
    wrong = (given[:, :5] - clean).transpose(0, 1).flatten(1)
    torch.testing.assert_close(wrong.std(1), torch.full((5,), 2**0.5), rtol=0.05, atol=0)
    assert float((torch.corrcoef(wrong) - torch.eye(5)).abs().max()) < 0.02
    assert not torch.equal(given, renoised(clean, NOISE, drawn)[0])
