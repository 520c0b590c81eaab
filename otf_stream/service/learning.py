"""Stages 3 to 6: what is learned from a stack, while its planes still arrive.

One loop serves live and recorded stacks: take a training step, and now and then look whether planes have come. The
point spread function, and the haze it makes, are found from the first planes and again whenever there are half as many
more. After every step another stack may have the device.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from otf_stream.config import LayerChoice
from otf_stream.learn.checkpoints import shipped_network
from otf_stream.learn.compute import Compute
from otf_stream.learn.denoise import Denoiser
from otf_stream.learn.nafnet import NAFNet
from otf_stream.learn.pairs import AxialPairs, SlicePairs, both
from otf_stream.learn.slices import shown
from otf_stream.learn.training import PARTS, Trainer, with_statistics
from otf_stream.learn.zest import select_layers
from otf_stream.restore.deblurring import slices_at_once
from otf_stream.restore.methods import CleanPlanes, Grid
from otf_stream.restore.trust import Trust, examine
from otf_stream.restore.turns import Room, Turn, Work
from otf_stream.service.budget import Schedule
from otf_stream.service.character import Character, FoundPsf, characterise, find_psf
from otf_stream.service.cleaned import CleanStack
from otf_stream.service.costs import RestoringTime
from otf_stream.service.curve import Curve, Progress
from otf_stream.service.denoising import learn_to_denoise
from otf_stream.service.rehearsal import SIDES, TAKES, rehearsed, share
from otf_stream.service.source import StackSource
from otf_stream.service.speed import Speedometer
from otf_stream.service.tidying import tidy_up

FEWEST_PLANES = 5
_LEARNING_RATE = 2e-3
_PAIRS = 2  # times as many in a step as patches
_LATERAL = 0.25  # of the pairs are of lateral planes, the others of the stack on its side
_LONGEST_LINE = 512  # pixels: what a network takes before its statistics are known is more than after
_MORE = 1.5  # times as many planes are worth being learnt from anew


@dataclass(frozen=True)
class Learned:
    """Networks for one stack, what they were taught with, and how they came about.

    ``scale`` is the unit of the deblurring network: counts, haze left out, of the brightest thousandth. ``layers`` were
    fine-tuned, all if None. ``planes`` had been denoised when the blur was estimated. ``weights`` is the SHA-256 of
    those it started from.
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
    layers: tuple[str, ...] | None
    planes: int
    weights: str = ""

    def clean(self, grid: Grid) -> CleanPlanes:
        """Return the planes of a grid, all of them denoised, and what is known of them."""
        return self.stack.clean(grid, self.found, self.scale)


def learn(
    source: StackSource,
    network: NAFNet,
    character: Character,
    schedule: Schedule,
    speed: Speedometer,
    compute: Compute,
    *,
    seed: int,
    progress: Progress,
    finetune: bool = True,
    measured: Path | None = None,
    layers: LayerChoice = "all",
    denoising: NAFNet | None = None,
    curve: Curve | None = None,
    room: Room,
) -> Work[Learned]:
    """Learn to denoise and to deblur a stack, from the stack, by turns.

    Parameters
    ----------
    source
        The stack, with at least :data:`FEWEST_PLANES` planes and some contrast.
    network
        Where deblurring starts from; trained in place.
    character
        Of the stack.
    schedule
        Says how far training is.
    speed
        Of the networks.
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
    layers
        Which layers of the network to train.
    denoising
        Where denoising starts from, trained in place; the shipped network if None.
    curve
        Is told of every step.
    room
        Puts denoised planes aside on the disk, and may wait for it to have room.
    """
    generator, curve = compute.generator(seed), curve or Curve()
    denoiser, denoiser_steps = yield from learn_to_denoise(
        source,
        denoising or shipped_network("denoise"),
        character,
        schedule,
        speed,
        compute,
        generator,
        progress,
        curve,
        finetune=finetune,
    )
    # More planes have come meanwhile. The denoiser is told the noise, and may be told better.
    character = characterise(source)
    denoiser = replace(denoiser, noise=character.noise, scale=character.scale)
    tidy_up(source)
    stack = CleanStack(source, denoiser, generator, room=room)
    yield from stack.taking(at_once=True)
    tidy_up(source)
    found = find_psf(source, character.noise, measured)
    yield Turn.READY
    begun = schedule.spent
    lessons = yield from stack.lessons(found)
    refreshing = schedule.spent - begun
    anisotropy, batch = source.acquisition.voxel_size.anisotropy, _PAIRS * compute.patches
    pairs = AxialPairs(
        lessons.clean,
        lessons.errors,
        found.blur,
        anisotropy,
        generator,
        haze=lessons.clean_haze,
        batch=batch,
    )
    selected = select_layers(network, pairs(), compute) if finetune and layers == "zest" else None
    trainer = Trainer(network, pairs, compute, learning_rate=_LEARNING_RATE, layers=selected, parts=PARTS)

    def rehearse() -> Work[None]:
        """Learn from the stack laid on its side too; where there is no time for that, from what there was before."""
        sizes = source.acquisition.sizes
        shape, whole = (source.grid().depth, sizes.y, sizes.x), TAKES * speed.restoring_time(0).first
        side = next((side for side in SIDES if schedule.spares(share(shape, side) * whole)), 0)
        slices = (yield from rehearsed(stack, found, lessons.scale, side=side)) if side else None
        if slices is not None:
            pairs.batch = round(_LATERAL * batch)
            trainer.pairs = both(pairs, SlicePairs(slices, generator, batch=batch - pairs.batch))

    def examined() -> Work[tuple[Trust, NAFNet]]:
        exam = AxialPairs(
            lessons.held_out, lessons.errors, found.blur, anisotropy, generator, haze=lessons.held_out_haze
        )
        ready = trainer.network()
        yield Turn.READY
        trust = examine(ready, exam, compute, planes=lessons.held_out_planes)
        yield Turn.READY
        # Of pairs, it is fair to examine the network by their statistics; of axial slices, it is to have theirs.
        return trust, with_statistics(ready, _axial_slices(stack, found, lessons.scale, compute), compute)

    if finetune:
        schedule.reserve(lambda: time_left(speed, stack), anew=True)
        begun = schedule.spent
        yield from rehearse()
        refreshing += schedule.spent - begun
        trainer.prepare()
        yield Turn.READY
        if compute.device.type != "cpu":
            # What comes after training is tried before it: kernels for it are found, and how long it takes.
            begun = schedule.spent
            yield from examined()
            schedule.ending = schedule.spent - begun
    known = stack.seen
    schedule.reserve(lambda: time_left(speed, stack), anew=True)
    while finetune and (done := schedule.deblurring(trainer.steps)) < 1:
        if schedule.paused:
            yield Turn.WAITING
        else:
            with schedule.step():
                trainer.step(done)
            progress("finetune", done)
            curve.stepped("finetune", trainer)
            schedule.reserve(lambda: time_left(speed.measure(), stack))
            yield Turn.READY
        seen = stack.seen
        yield from stack.taking()
        if stack.seen > seen:  # less is left to be denoised
            schedule.reserve(lambda: time_left(speed.measured_lately(), stack), anew=True)
        if stack.seen >= _MORE * known and schedule.spares(refreshing):
            known = stack.seen
            if measured is None:
                found = find_psf(source, character.noise)
            yield Turn.READY
            lessons = yield from stack.lessons(found)
            pairs.clean, pairs.haze = lessons.clean, lessons.clean_haze
            pairs.errors, pairs.blur = lessons.errors, found.blur
            yield from rehearse()
    trainer.forget()
    stack.stop_keeping()
    trust, ready = yield from examined()
    return Learned(
        denoiser,
        ready,
        stack,
        character,
        found,
        lessons.scale,
        trust,
        denoiser_steps,
        trainer.steps,
        tuple(trainer.losses),
        selected,
        known,
    )


def _axial_slices(stack: CleanStack, found: FoundPsf, scale: float, compute: Compute) -> Iterator[Tensor]:
    """Yield axial slices of the planes that have been taken as the network will be shown them."""
    grid, directions = stack.axial(found)
    for planes in (part for lines in directions for part in torch.split(lines, _LONGEST_LINE, dim=-1)):
        device = planes.device
        imaging, interpolation = grid.imaging(found.psf.kernel, device), grid.interpolation(device)
        batch = slices_at_once(grid.depth, planes.shape[-1], compute.pixels)
        for start in range(0, len(planes), batch):
            yield shown(imaging, interpolation, planes[start : start + batch] / scale)


def time_left(speed: Speedometer, stack: CleanStack) -> RestoringTime:
    """Return what restoring will take once what is learnt has been learnt."""
    took = speed.restoring_time(stack.left_to_denoise)
    return replace(took, first=took.first + stack.haze_time_of_all)
