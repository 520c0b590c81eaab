"""Pre-training: what the networks can know before they have seen the sample.

Both learn from drawn scenes (:mod:`otf_stream.learn.scene_pairs`), whose truth is known. A step is taught by several,
and each has a part of the batch to itself, because the networks' attention looks at the statistics of a stack. Scenes
that are never trained on say how well they generalise.

Scenes may be drawn by processes of their own, since drawing one takes a second of a core. Each has a seed of its own:
how many processes draw changes nothing.
"""

from __future__ import annotations

import multiprocessing
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from itertools import count, islice
from typing import Any

import numpy as np
import torch
from torch import Tensor

from otf_stream.learn.compute import Compute, use_one_core
from otf_stream.learn.nafnet import NAFNet
from otf_stream.learn.scene_pairs import MakePairs
from otf_stream.learn.scenes import Scene, draw_scene
from otf_stream.learn.training import Trainer, psnr_loss, with_statistics

_JUDGED = 4  # batches of a held-out scene
_AHEAD = 2  # scenes that are drawn before they are needed, for each process
_REPORTS = 10


@dataclass(frozen=True)
class Report:
    """How far pre-training is.

    Parameters
    ----------
    steps
        Taken so far.
    seconds
        Since the first scene was asked for.
    gain_db
        PSNR over that of the first channel of the input, mean over held-out scenes.
    """

    steps: int
    seconds: float
    gain_db: float


def pretrain(
    network: NAFNet,
    make_pairs: MakePairs,
    compute: Compute,
    *,
    steps: int,
    seed: int,
    scenes: int = 128,
    together: int = 1,
    renewals: int = 2,
    learning_rate: float = 3e-3,
    processes: int = 0,
    progress: Callable[[float], None] = lambda done: None,
) -> Iterator[tuple[Report, NAFNet]]:
    """Train a network on drawn scenes; before, ten times on the way, and at the end, report and yield it.

    Parameters
    ----------
    network
        Trained in place.
    make_pairs
        What it learns of a scene.
    compute
        Device and precision.
    steps
        How many batches of eight patches of each scene in them.
    seed
        Of the scenes and of every draw. The same seed on the same machine gives the same weights.
    scenes
        How many are in use at a time.
    together
        How many of them a step is taught by.
    renewals
        How often each is replaced by a new one while training goes on.
    learning_rate
        The highest.
    processes
        That draw scenes beside this one; if 0, it draws them itself.
    progress
        Told how far it is, from 0 to 1.

    Yields
    ------
    tuple of Report and NAFNet
        The network is a copy, ready for inference.
    """
    generator, rng = compute.generator(seed), np.random.default_rng(seed)
    begun = time.monotonic()
    every, renew = max(steps // _REPORTS, 1), max(steps // (renewals * scenes), 1)
    with _drawing(processes) as draw:
        judge = held_out(make_pairs, compute, seed + 1, scenes=max(scenes // 16, 1), draw=draw)
        yield Report(0, time.monotonic() - begun, judge(network)), deepcopy(network).eval()
        fresh = draw(seed)
        drawn = [make_pairs(next(fresh).on(compute.device), generator) for _ in range(scenes)]

        def pairs() -> tuple[Tensor, Tensor]:
            given, clean = zip(*(drawn[i]() for i in rng.choice(scenes, together, replace=False)), strict=True)
            return torch.cat(given), torch.cat(clean)

        trainer = Trainer(network, pairs, compute, learning_rate=learning_rate, loss=psnr_loss, parts=together)
        for step in range(steps):
            trainer.step(step / steps)
            progress((step + 1) / steps)
            if (step + 1) % renew == 0:
                drawn[step // renew % scenes] = make_pairs(next(fresh).on(compute.device), generator)
            if (step + 1) % every == 0 or step + 1 == steps:
                ready = trainer.network()
                yield Report(step + 1, time.monotonic() - begun, judge(ready)), ready


def drawn_scenes(seed: int) -> Iterator[Scene]:
    """Draw scenes without end."""
    return (_scene(seed, number) for number in count())


@contextmanager
def _drawing(processes: int) -> Iterator[Callable[[int], Iterator[Scene]]]:
    """Start processes that draw the scenes of seeds; the same ones as this process does, if there are none."""
    if not processes:
        yield drawn_scenes
        return
    with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn"), initializer=use_one_core) as pool:

        def scenes(seed: int) -> Iterator[Scene]:
            waiting = deque[Future[dict[str, Any]]]()
            try:
                for number in count():
                    waiting.append(pool.submit(_scene_as_arrays, seed, number))
                    if len(waiting) > _AHEAD * processes:
                        yield Scene.from_arrays(waiting.popleft().result())
            finally:
                for unwanted in waiting:
                    unwanted.cancel()

        try:
            yield scenes
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _scene_as_arrays(seed: int, number: int) -> dict[str, Any]:
    return _scene(seed, number).as_arrays()


def _scene(seed: int, number: int) -> Scene:
    return draw_scene(np.random.default_rng((seed, number)))


def held_out(
    make_pairs: MakePairs,
    compute: Compute,
    seed: int,
    *,
    scenes: int,
    draw: Callable[[int], Iterator[Scene]] = drawn_scenes,
) -> Callable[[NAFNet], float]:
    """Return a judge: the mean gain over the input, in dB, on scenes of its own."""
    generator = compute.generator(seed)
    drawn = [make_pairs(scene.on(compute.device), generator) for scene in islice(draw(seed), scenes)]
    batches = [[pairs() for _ in range(_JUDGED)] for pairs in drawn]

    def judge(network: NAFNet) -> float:
        gains = []
        for scene in batches:
            before = after = 0.0
            ready = with_statistics(network, (given for given, _ in scene), compute)
            with torch.inference_mode(), compute.autocast():
                for given, clean in scene:
                    before += float((given[:, :1] - clean).square().mean())
                    after += float((ready(given).float() - clean).square().mean())
            gains.append(10 * np.log10(before / after))
        return float(np.mean(gains))

    return judge
