"""Stage 3: what denoising is learnt from: noisy planes first, then denoised ones with noise drawn anew.

From the noisy planes alone, by recorruption, the network learns what this sample looks like. But most of what it is
asked for is noise, and more of that leaves planes no better than those of the network that ships, or worse where noise
is strong. So after a beginning the planes are denoised with what has been learnt, noise is drawn upon them as the
camera draws it, and the network is asked for them: less true, and far clearer. Where there is little time to learn,
there is none to denoise, and all of it goes to the beginning.
"""

from __future__ import annotations

import math

import torch

from otf_stream.learn.compute import Compute
from otf_stream.learn.denoise import (
    BEGINNING,
    PATCH,
    Denoiser,
    denoiser_trainer,
    neighbourhoods,
    rehearse,
)
from otf_stream.learn.nafnet import NAFNet
from otf_stream.learn.planes import PlanePool, random_window
from otf_stream.restore.methods import denoised
from otf_stream.restore.turns import Turn, Work
from otf_stream.service.budget import Schedule
from otf_stream.service.character import Character
from otf_stream.service.cleaned import Feed
from otf_stream.service.curve import Curve, Progress
from otf_stream.service.source import StackSource
from otf_stream.service.speed import Speedometer

_WINDOW = 384  # side of what is learnt from of a plane, in pixels: with its neighbours it takes five times its memory
_REHEARSED = 2**21  # pixels that are denoised to be learnt from, of all planes
_NARROWEST = 3 * PATCH // 2  # of their windows
_WORTH = 3.0  # times as long as denoising them takes must be left to learn from them
_MORE = 0.5  # times as many planes as are denoised must have come for those to be denoised too


class _Windows:
    """Windows of planes with their neighbours, as they come or denoised: what a denoiser learns from."""

    def __init__(
        self,
        source: StackSource,
        character: Character,
        compute: Compute,
        generator: torch.Generator,
        *,
        side: int,
        denoiser: Denoiser | None = None,
    ) -> None:
        self.pool = PlanePool(compute.device, smallest=PATCH, expected=len(source.extent))
        self._feed = Feed(source, compute)
        self._character = character
        self._generator = generator
        self._side = side
        self._denoiser = denoiser

    def taking(self, *, at_once: bool = False) -> Work[None]:
        """Take the planes that have come, by turns; those that are to be denoised a good many at a time."""
        # A batch is denoised with the neighbours of its ends: of one plane that comes alone, they are most of the work.
        for batch in self._feed.fresh(at_once=at_once, least=_MORE if self._denoiser else 0.0):
            _, height, width = batch.planes.shape
            y, x = random_window(height, width, self._side, self._generator)
            planes = batch.planes[:, y, x]
            if self._denoiser:
                planes = yield from denoised(self._denoiser, planes)
            self.pool.add(self._character.normalised(neighbourhoods(planes, batch.wanted)), self._generator)


def learn_to_denoise(
    source: StackSource,
    network: NAFNet,
    character: Character,
    schedule: Schedule,
    speed: Speedometer,
    compute: Compute,
    generator: torch.Generator,
    progress: Progress,
    curve: Curve,
    *,
    finetune: bool,
) -> Work[tuple[Denoiser, int]]:
    """Fine-tune a denoiser, in place, by turns; return it and the steps it took.

    Parameters are those of :func:`otf_stream.service.learning.learn`.
    """
    noise = character.normalised_noise
    windows = _Windows(source, character, compute, generator, side=_WINDOW)
    yield from windows.taking(at_once=True)
    yield Turn.READY
    trainer = denoiser_trainer(network, windows.pool, noise, compute, generator)
    if finetune:
        trainer.prepare()
        yield Turn.READY

    def denoiser() -> Denoiser:
        return Denoiser(trainer.network(), character.noise, character.scale, compute)

    side = max(min(math.isqrt(_REHEARSED // len(source.extent)), _WINDOW), _NARROWEST)
    rehearses = False
    while finetune and (done := schedule.denoising(trainer.steps)) < 1:
        if schedule.paused:
            yield Turn.WAITING
        elif (
            not rehearses
            and done >= BEGINNING
            and schedule.left_for_denoising > _WORTH * _denoising_time(source, side, speed)
        ):
            rehearses = True
            windows = _Windows(source, character, compute, generator, side=side, denoiser=denoiser())
            yield from windows.taking(at_once=True)
            rehearse(trainer, windows.pool, noise, compute, generator)
        else:
            with schedule.step():
                trainer.step(done)
            progress("denoise", done)
            curve.stepped("denoise", trainer)
            yield Turn.READY
        yield from windows.taking()
    trained = denoiser()
    trainer.forget()
    return trained, trainer.steps


def _denoising_time(source: StackSource, side: int, speed: Speedometer) -> float:
    """Return the seconds that denoising windows of the planes that are there takes, and of the neighbours of each."""
    sizes = source.acquisition.sizes
    planes = speed.restoring_time(2 * len(source.planes())).first - speed.restoring_time(0).first
    return planes * min(side, sizes.y) * min(side, sizes.x) / (sizes.y * sizes.x)
