"""Stages 3 to 6: what is learned from a stack, while its planes still arrive.

One loop serves live and recorded stacks: take a training step, and now and then look whether planes have come. The
point spread function, and the haze it makes, are found from the first planes and again whenever their number has
doubled.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from otf_stream.learn.checkpoints import shipped_network
from otf_stream.learn.compute import Compute
from otf_stream.learn.denoise import PATCH as NOISY_PATCH
from otf_stream.learn.denoise import Denoiser, denoiser_trainer, neighbourhoods
from otf_stream.learn.nafnet import NAFNet
from otf_stream.learn.pairs import AxialPairs
from otf_stream.learn.planes import PlanePool
from otf_stream.learn.training import Trainer, apply_network
from otf_stream.restore.methods import slices_at_once
from otf_stream.restore.regions import split_into_regions
from otf_stream.restore.trust import Trust, examine
from otf_stream.service.budget import Schedule
from otf_stream.service.character import Character, FoundPsf, characterise, find_psf
from otf_stream.service.cleaned import CleanStack, Feed
from otf_stream.service.source import StackSource
from otf_stream.store.restored import BLOCK

FIRST_PLANES = 4
_WRITTEN_PER_SECOND = 15e6  # voxels: reading, comparing, compressing and the pyramid, on one slow core
_LEARNING_RATE = 2e-3

Progress = Callable[[str, float], None]
"""Told the stage and its progress, from 0 to 1."""


@dataclass(frozen=True)
class Learned:
    """Networks for one stack, what they were taught with, and how they came about.

    ``scale`` is the unit of the deblurring network: counts, haze left out, of the brightest thousandth.
    """

    denoiser: Denoiser
    network: NAFNet
    stack: CleanStack
    character: Character
    found: FoundPsf
    scale: float
    trust: Trust
    denoiser_steps: int
    steps: int
    losses: tuple[float, ...]


def learn(
    source: StackSource,
    network: NAFNet,
    character: Character,
    schedule: Schedule,
    compute: Compute,
    *,
    seed: int,
    progress: Progress,
    finetune: bool = True,
    measured: Path | None = None,
) -> Learned:
    """Learn to denoise and to deblur a stack, from the stack.

    Parameters
    ----------
    source
        The stack, with at least :data:`FIRST_PLANES` planes and some contrast.
    network
        Where deblurring starts from; trained in place.
    character
        Of the stack.
    schedule
        Says how far training is.
    compute
        Device and precision.
    seed
        Of every draw.
    progress
        Is told of denoising and deblurring.
    finetune
        Whether to train the networks. If not, they only take on the stack's statistics.
    measured
        File of a measured point spread function, which is then not estimated.
    """
    generator = compute.generator(seed)
    denoiser, denoiser_steps = _learn_to_denoise(
        source, character, schedule, compute, generator, progress, finetune=finetune
    )
    # More planes have come meanwhile. The denoiser is told the noise, and may be told better.
    character = characterise(source)
    denoiser = replace(denoiser, noise=character.noise, scale=character.scale)
    stack = CleanStack(source, denoiser, generator)
    stack.take(at_once=True)
    found = find_psf(source, character.noise, measured)
    lessons = stack.lessons(stack.haze(found))
    anisotropy = source.acquisition.voxel_size.anisotropy
    pairs = AxialPairs(lessons.clean, lessons.errors, found.blur, anisotropy, generator)
    trainer = Trainer(network, pairs, compute, learning_rate=_LEARNING_RATE)
    known = stack.seen
    while finetune and (done := schedule.deblurring(trainer.steps)) < 1:
        trainer.step(done)
        progress("finetune", done)
        schedule.reserve(lambda: restoring_time(network, source, compute))
        stack.take()
        if stack.seen >= 2 * known:
            found, known = find_psf(source, character.noise, measured), stack.seen
            lessons = stack.lessons(stack.haze(found))
            pairs.clean, pairs.errors, pairs.blur = lessons.clean, lessons.errors, found.blur
    ready = trainer.network()
    exam = AxialPairs(lessons.held_out, lessons.errors, found.blur, anisotropy, generator)
    return Learned(
        denoiser,
        ready,
        stack,
        character,
        found,
        lessons.scale,
        examine(ready, exam, compute, planes=lessons.held_out_planes),
        denoiser_steps,
        trainer.steps,
        tuple(trainer.losses),
    )


def _learn_to_denoise(
    source: StackSource,
    character: Character,
    schedule: Schedule,
    compute: Compute,
    generator: torch.Generator,
    progress: Progress,
    *,
    finetune: bool,
) -> tuple[Denoiser, int]:
    """Fine-tune the pre-trained denoiser; return it and the steps it took."""
    pool = PlanePool(compute.device, smallest=NOISY_PATCH)
    feed = Feed(source)

    def take(*, at_once: bool = False) -> None:
        for batch in feed.fresh(at_once=at_once):
            pool.add(character.normalised(neighbourhoods(batch.planes, batch.wanted)), generator)

    take(at_once=True)
    trainer = denoiser_trainer(shipped_network("denoise"), pool, character.normalised_noise, compute, generator)
    while finetune and (done := schedule.denoising(trainer.steps)) < 1:
        trainer.step(done)
        progress("denoise", done)
        take()
    return Denoiser(trainer.network(), character.noise, character.scale, compute), trainer.steps


def restoring_time(network: NAFNet, source: StackSource, compute: Compute) -> float:
    """Measure how many seconds restoring the stack will take on this device, writing included."""
    sizes, depth = source.acquisition.sizes, source.grid().depth
    width = min(max(sizes.x, sizes.y), 1024)
    slices = torch.zeros(slices_at_once(depth, width), 1, depth, width, device=compute.device)
    ready = copy.deepcopy(network).to(compute.device).eval()
    runs = []
    for _ in range(4):  # the first prepares kernels; the others share the machine with whatever else runs
        begun = time.perf_counter()
        float(apply_network(ready, slices, compute).sum())  # waits for the device
        runs.append(time.perf_counter() - begun)
    regions = split_into_regions(depth, sizes.y, sizes.x, block=BLOCK, halo=network.reach)
    pixels = 2 * depth * sum(_area(region.halo_y, region.halo_x) for region in regions)
    return pixels * min(runs[1:]) / slices.numel() + depth * sizes.y * sizes.x / _WRITTEN_PER_SECOND


def _area(y: slice, x: slice) -> int:
    area: int = (y.stop - y.start) * (x.stop - x.start)
    return area
