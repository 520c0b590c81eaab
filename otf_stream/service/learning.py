"""Stages 2 to 6: what is learned from a stack, while its planes still arrive.

One loop serves live and recorded stacks: take a training step, and now and then look whether planes have come. The
noise and the blur are characterised from the first planes and again whenever their number has doubled.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from otf_stream.learn.compute import Compute
from otf_stream.learn.denoise import PATCH as NOISY_PATCH
from otf_stream.learn.denoise import Denoiser, denoiser_trainer
from otf_stream.learn.nafnet import NAFNet
from otf_stream.learn.pairs import PATCH, AxialPairs, patch_side
from otf_stream.learn.planes import PlanePool
from otf_stream.learn.training import Trainer, apply_network
from otf_stream.optics.noise import NoiseModel, estimate_noise
from otf_stream.optics.psf import AxialBlur, estimate_axial_blur
from otf_stream.restore.methods import slices_at_once
from otf_stream.restore.regions import split_into_regions
from otf_stream.service.budget import Schedule
from otf_stream.service.source import StackSource
from otf_stream.store.restored import BLOCK

FIRST_PLANES = 4
_LOOK = 0.5  # seconds between two looks for new planes
_BATCH = 8  # planes read at a time
_NOISE_PLANES = 8
_WRITTEN_PER_SECOND = 15e6  # voxels: reading, comparing, compressing and the pyramid, on one slow core
_LEARNING_RATE = 3e-3
_BLUR_FIELD = 512  # pixels; a stack's blur is that of the middle of its field of view

Progress = Callable[[str, float], None]
"""Told the stage and its progress, from 0 to 1."""


@dataclass(frozen=True)
class Character:
    """What a stack says of its microscope.

    Parameters
    ----------
    noise
        In counts.
    blur
        In lateral pixels.
    scale
        The counts between no light and the brightest thousandth of the pixels; 0 for a constant stack.
    planes
        How many planes this was read from.
    """

    noise: NoiseModel
    blur: AxialBlur
    scale: float
    planes: int

    @property
    def origin(self) -> float:
        """Counts without light."""
        return self.noise.offset

    @property
    def normalised_noise(self) -> NoiseModel:
        """The noise in the unit that networks see."""
        return self.noise.rescaled(self.origin, self.scale)

    def normalised(self, counts: Tensor) -> Tensor:
        """Express ``counts``, of any shape, in the unit that networks see."""
        return (counts - self.origin) / self.scale


@dataclass(frozen=True)
class Learned:
    """A deblurring network for one stack, the intensities it expects, and how it came about."""

    denoiser: Denoiser
    network: NAFNet
    character: Character
    denoiser_steps: int
    steps: int
    losses: tuple[float, ...]


def characterise(source: StackSource) -> Character:
    """Estimate noise, blur and scale from the planes that are there. At least one must be."""
    there = source.planes()
    # Neighbours, from everywhere: their differences show the noise.
    starts = np.linspace(0, max(len(there) - 2, 0), _NOISE_PLANES // 2).astype(int)
    some = sorted({z for i in starts for z in there[i : i + 2]})
    planes = source.read(some)
    noise = estimate_noise(planes)
    scale = float(np.percentile(planes, 99.9)) - noise.offset
    # The spectrum along z needs planes at an even distance: the longest run without a gap.
    run = max(np.split(there, np.flatnonzero(np.diff(there) != 1) + 1), key=len)
    sizes = source.acquisition.sizes
    stack = source.read(run.tolist(), _middle(sizes.y, _BLUR_FIELD), _middle(sizes.x, _BLUR_FIELD))
    variance = float(noise.variance(stack).mean())
    blur = estimate_axial_blur(
        stack, source.acquisition.voxel_size.anisotropy, noise_variance=variance, grain=noise.grain
    )
    return Character(noise, blur, max(scale, 0.0), len(there))


def uncharacterised(source: StackSource) -> Character:
    """Return what is assumed of a stack that cannot be characterised: no noise, the usual blur."""
    blur = AxialBlur(max(0.5 * source.acquisition.voxel_size.anisotropy, 0.5), 1.5, estimated=False)
    return Character(NoiseModel(0.0, 0.0, 0.0), blur, 0.0, len(source.planes()))


def learn(
    source: StackSource,
    network: NAFNet,
    schedule: Schedule,
    compute: Compute,
    *,
    seed: int,
    progress: Progress,
    finetune: bool = True,
) -> Learned:
    """Learn to denoise and to deblur a stack, from the stack.

    Parameters
    ----------
    source
        The stack, with at least :data:`FIRST_PLANES` planes and some contrast.
    network
        Where deblurring starts from; trained in place.
    schedule
        Says how far training is.
    compute
        Device and precision.
    seed
        Of every draw.
    progress
        Is told of denoising and deblurring.
    finetune
        Whether to train the deblurring network. If not, it only takes on the stack's statistics.
    """
    generator = compute.generator(seed)
    denoiser, denoiser_steps = _learn_to_denoise(source, schedule, compute, generator, progress)
    character = characterise(source)
    anisotropy = source.acquisition.voxel_size.anisotropy
    pool = PlanePool(compute.device, smallest=patch_side(anisotropy))
    errors = PlanePool(compute.device, smallest=PATCH)
    feed = Feed(source)

    def take() -> None:
        for planes in feed.fresh():
            clean = denoiser(planes)
            pool.add(character.normalised(clean), generator)
            errors.add(denoiser.errors(clean, generator) / character.scale, generator)

    take()
    pairs = AxialPairs(pool, errors, character.blur, anisotropy, generator)
    trainer = Trainer(network, pairs, compute, learning_rate=_LEARNING_RATE)
    seen = character.planes
    while finetune and (done := schedule.deblurring(trainer.steps)) < 1:
        trainer.step(done)
        progress("finetune", done)
        schedule.reserve(lambda: restoring_time(network, source, compute))
        take()
        if feed.seen >= 2 * seen:
            pairs.blur, seen = characterise(source).blur, feed.seen
    return Learned(
        denoiser,
        trainer.network(),
        replace(character, blur=pairs.blur),
        denoiser_steps,
        trainer.steps,
        tuple(trainer.losses),
    )


def _learn_to_denoise(
    source: StackSource, schedule: Schedule, compute: Compute, generator: torch.Generator, progress: Progress
) -> tuple[Denoiser, int]:
    """Train a denoiser; return it and the steps it took."""
    character = characterise(source)
    pool = PlanePool(compute.device, smallest=NOISY_PATCH)
    feed = Feed(source)
    for planes in feed.fresh():
        pool.add(character.normalised(planes), generator)
    trainer = denoiser_trainer(pool, character.normalised_noise, compute, generator)
    while (done := schedule.denoising(trainer.steps)) < 1:
        trainer.step(done)
        progress("denoise", done)
        for planes in feed.fresh():
            pool.add(character.normalised(planes), generator)
    return Denoiser(trainer.network(), character.noise, character.scale, compute), trainer.steps


class Feed:
    """Reads each plane of a growing stack once, a few at a time."""

    def __init__(self, source: StackSource) -> None:
        self._source = source
        self._read: set[int] = set()
        self._looked = float("-inf")

    @property
    def seen(self) -> int:
        """How many planes have been read."""
        return len(self._read)

    def fresh(self) -> Iterator[Tensor]:
        """Yield the planes that have come since the last look, ``(n, 1, y, x)``, float32 counts."""
        if time.monotonic() - self._looked < _LOOK:
            return
        self._looked = time.monotonic()
        new = [z for z in self._source.planes() if z not in self._read]
        for start in range(0, len(new), _BATCH):
            batch = new[start : start + _BATCH]
            yield torch.from_numpy(self._source.read(batch))[:, None]
            self._read.update(batch)


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


def _middle(length: int, window: int) -> slice:
    start = max(length - window, 0) // 2
    return slice(start, start + window)
