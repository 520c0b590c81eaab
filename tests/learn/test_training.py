"""Training: reproducible, annealed, and what it returns is ready to use."""

import torch

from otf_stream.learn.compute import choose_compute
from otf_stream.learn.denoise import PATCH, Denoiser, denoiser_trainer, new_denoiser, recorrupted
from otf_stream.learn.planes import PlanePool
from otf_stream.learn.training import Trainer, apply_network
from otf_stream.optics.noise import NoiseModel

CPU = choose_compute("cpu")


def discs(n=4, side=96, seed=0):
    """Bright discs, ``(n, 1, side, side)``."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(side)
    planes = torch.zeros(n, 1, side, side)
    for plane in planes[:, 0]:
        for _ in range(12):
            cy, cx, r = (torch.rand(3, generator=generator) * torch.tensor([side, side, 10])).tolist()
            plane[((y[:, None] - cy) ** 2 + (y[None, :] - cx) ** 2) < (3 + r) ** 2] += 0.3
    return planes


def trained(steps, seed=0):
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    clean = discs()
    noise = NoiseModel(0.02, 0.0, 0.08)
    noisy = clean + torch.randn(clean.shape, generator=generator) * noise.variance(clean).sqrt()
    pool = PlanePool(CPU.device, smallest=PATCH)
    pool.add(noisy, generator)
    trainer = denoiser_trainer(pool, noise, CPU, generator)
    for step in range(steps):
        trainer.step(step / steps)
    return clean, noisy, Denoiser(trainer.network(), noise, 1.0, CPU)


def test_the_denoiser_needs_no_clean_plane():
    clean, noisy, denoiser = trained(60)
    before, after = (float((image - clean).square().mean()) for image in (noisy, denoiser(noisy)))
    assert after < before / 3


def test_the_errors_of_a_denoised_plane_are_foretold():
    clean, noisy, denoiser = trained(60)
    true = float((denoiser(noisy) - clean).std())
    foretold = float(denoiser.errors(denoiser(noisy), torch.Generator().manual_seed(3)).std())
    assert 0.6 * true < foretold < 1.2 * true


def test_the_same_seed_gives_the_same_network_bit_for_bit():
    planes = discs(n=1)
    assert torch.equal(trained(5)[2](planes), trained(5)[2](planes))


def test_a_denoiser_works_in_counts():
    denoiser = trained(20)[2]
    noise = denoiser.noise.rescaled(-0.5, 0.01)  # the same camera, in counts of 0.01 above 50
    planes = discs(n=1)
    in_counts = Denoiser(denoiser.network, noise, 100.0, CPU)
    torch.testing.assert_close(in_counts(planes * 100 + 50), denoiser(planes) * 100 + 50, atol=1, rtol=0)


def test_recorrupted_noises_are_independent():
    clean = torch.full((8, 1, 128, 128), 2.0)
    noise = NoiseModel(0.5, 0.0, 1.0)
    generator = torch.Generator().manual_seed(0)
    noisy = clean + torch.randn(clean.shape, generator=generator) * noise.variance(clean).sqrt()
    seen, target = recorrupted(noisy, noise, generator)
    correlation = torch.corrcoef(torch.stack([(seen - clean).flatten(), (target - clean).flatten()]))[0, 1]
    assert abs(float(correlation)) < 0.02
    assert abs(float((target - clean).mean())) < 0.05


def test_the_learning_rate_warms_up_and_anneals():
    network = new_denoiser()
    images = torch.rand(2, 1, 16, 16)
    trainer = Trainer(network, lambda: (images, images), CPU, learning_rate=1e-2)
    rates = []
    for progress in (0.0, 0.03, 0.5, 1.0):
        trainer.step(progress)
        rates.append(trainer._optimiser.param_groups[0]["lr"])
    assert rates[0] < rates[1] > rates[2] > rates[3] > 0


def test_a_network_may_be_taken_at_any_moment_and_training_goes_on():
    images = torch.rand(2, 1, 16, 16)
    trainer = Trainer(new_denoiser(), lambda: (images, images), CPU, learning_rate=1e-2)
    trainer.step(0.1)
    taken = trainer.network(batches=1)
    before = apply_network(taken, images, CPU)
    for _ in range(3):
        trainer.step(0.5)
    assert torch.equal(apply_network(taken, images, CPU), before)


def test_images_of_any_size_pass():
    network = new_denoiser().eval()
    for height, width in ((1, 1), (3, 50), (33, 17), (64, 64)):
        images = torch.rand(1, 1, height, width)
        assert apply_network(network, images, CPU).shape == images.shape
