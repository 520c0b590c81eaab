"""Pre-training: what a deblurring network can know before it has seen the sample.

It is trained exactly as it will be fine-tuned, on pairs of clean patches and what they would look like as axial
slices, but of images drawn by rule, under many z steps, widths of blur and residues of noise. Each combination is a
*scene*; a batch comes from one scene, as a batch of fine-tuning comes from one stack, because the network's attention
looks at the statistics of its batch. Scenes that are never trained on say how well it generalises.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from otf_stream.learn.compute import Compute
from otf_stream.learn.imagery import draw_image
from otf_stream.learn.nafnet import NAFNet
from otf_stream.learn.pairs import PATCH, AxialPairs
from otf_stream.learn.planes import PlanePool
from otf_stream.learn.training import Trainer, with_statistics
from otf_stream.optics.noise import NoiseModel
from otf_stream.optics.psf import AxialBlur

_IMAGES = 16  # a scene
_SIDE = 192  # pixels; the widest blur at the longest z step still fits
_ANISOTROPY = (1.0, 6.0)
_BLUR = (0.35, 1.2)  # z steps
_ERROR = (0.002, 0.05)  # of the brightest thousandth
_ERROR_GRAIN = (0.4, 1.5)  # pixels
_LEARNING_RATE = 3e-3
_BATCHES = 4  # a held-out scene
_REPORTS = 20


@dataclass(frozen=True)
class Report:
    """How far pre-training is.

    Parameters
    ----------
    steps
        Taken so far.
    seconds
        Since the first step.
    gain_db
        PSNR over that of linear interpolation, mean over held-out scenes.
    """

    steps: int
    seconds: float
    gain_db: float


def pretrain(
    network: NAFNet,
    compute: Compute,
    *,
    steps: int,
    seed: int,
    scenes: int = 64,
    progress: Callable[[float], None] = lambda done: None,
) -> Iterator[tuple[Report, NAFNet]]:
    """Train a network on drawn images; twenty times on the way, and at the end, report and yield it.

    Parameters
    ----------
    network
        Trained in place.
    compute
        Device and precision.
    steps
        How many, of eight patches each.
    seed
        Of the images and every draw.
    scenes
        How many to train on; an eighth as many judge.
    progress
        Is told how far it is, from 0 to 1.

    Yields
    ------
    tuple of Report and NAFNet
        The network is a copy, ready for inference.
    """
    generator = compute.generator(seed)
    rng = np.random.default_rng(seed)
    drawn = [draw_scene(rng, compute, generator) for _ in range(scenes)]
    judge = held_out(compute, seed + 1, scenes=max(scenes // 8, 1))

    def pairs() -> tuple[Tensor, Tensor]:
        return drawn[rng.integers(scenes)]()

    trainer = Trainer(network, pairs, compute, learning_rate=_LEARNING_RATE)
    begun = time.monotonic()
    every = max(steps // _REPORTS, 1)
    for step in range(steps):
        trainer.step(step / steps)
        progress((step + 1) / steps)
        if (step + 1) % every == 0 or step + 1 == steps:
            ready = trainer.network()
            yield Report(step + 1, time.monotonic() - begun, judge(ready)), ready


def draw_scene(rng: np.random.Generator, compute: Compute, generator: torch.Generator) -> AxialPairs:
    """Draw a microscope and a sample: a z step, a blur, a noise and some images."""
    shortest, longest = _ANISOTROPY
    anisotropy = round(shortest * (longest / shortest) ** rng.uniform(), 2)
    if rng.uniform() < 0.5:
        anisotropy = float(round(anisotropy))  # as in many recordings; then slices are cut on whole voxels
    clean = PlanePool(compute.device, smallest=_SIDE)
    clean.add(_stacked([draw_image(_SIDE, rng) for _ in range(_IMAGES)]), generator)
    error = _ERROR[0] * (_ERROR[1] / _ERROR[0]) ** rng.uniform()
    grain = rng.uniform(*_ERROR_GRAIN)
    noise = NoiseModel(0.0, 0.0, error, (grain, grain))
    errors = PlanePool(compute.device, smallest=PATCH)
    errors.add(noise.draw(clean.planes, generator), generator)
    sigma = max(anisotropy * rng.uniform(*_BLUR), 0.5)
    return AxialPairs(clean, errors, AxialBlur(sigma, 1.25, estimated=False), anisotropy, generator)


def held_out(compute: Compute, seed: int, *, scenes: int) -> Callable[[NAFNet], float]:
    """Return a judge: the mean gain over interpolation, in dB, on scenes of its own."""
    generator, rng = compute.generator(seed), np.random.default_rng(seed)
    drawn = [draw_scene(rng, compute, generator) for _ in range(scenes)]
    batches = [[scene() for _ in range(_BATCHES)] for scene in drawn]

    def judge(network: NAFNet) -> float:
        gains = []
        for scene in batches:
            before = after = 0.0
            ready = with_statistics(network, (degraded for degraded, _ in scene), compute)
            with torch.inference_mode(), compute.autocast():
                for degraded, clean in scene:
                    before += float((degraded - clean).square().mean())
                    after += float((ready(degraded).float() - clean).square().mean())
            gains.append(10 * np.log10(before / after))
        return float(np.mean(gains))

    return judge


def _stacked(images: list[np.ndarray]) -> Tensor:
    return torch.from_numpy(np.stack(images))[:, None]
