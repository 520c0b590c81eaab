"""A denoiser learns from noisy planes first, then from denoised ones, where there is time to denoise them."""

from collections import Counter

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from stacks import small_stack, write

from otf_stream.learn import denoise
from otf_stream.learn.checkpoints import shipped_network
from otf_stream.learn.compute import choose_compute
from otf_stream.restore.turns import Turn
from otf_stream.service import denoising
from otf_stream.service.budget import Arrivals, Budget, Schedule
from otf_stream.service.character import characterise
from otf_stream.service.costs import RestoringTime
from otf_stream.service.curve import Curve
from otf_stream.service.denoising import learn_to_denoise
from otf_stream.service.source import StackSource

CPU = choose_compute("cpu")


class Speed:
    """Denoises a plane in so many seconds."""

    def __init__(self, of_plane=0.0):
        self.of_plane = of_plane

    def restoring_time(self, to_denoise):
        return RestoringTime(1.0 + self.of_plane * to_denoise, 1.0)


class Clock:
    """Is as far as it was turned."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def asked(monkeypatch):
    """Count the batches of either kind, and keep the planes that were rehearsed."""
    counted = Counter()
    recorrupted, renoised = denoise.recorrupted, denoise.renoised

    def noisy(patches, *more):
        counted["noisy"] += 1
        return recorrupted(patches, *more)

    def clean(patches, *more):
        counted["clean"] += 1
        return renoised(patches, *more)

    monkeypatch.setattr(denoise.denoiser_pairs, "__kwdefaults__", {"ask": noisy})
    monkeypatch.setattr(denoise, "renoised", clean)
    return counted


def learnt(store, budget, *, speed=None, pause=0.0, each=lambda: None, finetune=True):
    """Learn under a clock that goes on by so many seconds a step."""
    source, clock, generator = StackSource(store, (0, 0)), Clock(), torch.Generator().manual_seed(0)
    schedule = Schedule(budget, lambda: Arrivals(8, 8, 100.0, 100.0, True), clock=clock)

    def stepped(stage, done):
        clock.now += pause
        schedule.trained += pause
        each()

    work = learn_to_denoise(
        source,
        shipped_network("denoise"),
        characterise(source),
        schedule,
        speed or Speed(),
        CPU,
        generator,
        stepped,
        Curve(),
        finetune=finetune,
    )
    while True:
        try:
            with schedule.turn():
                assert next(work) is Turn.READY
        except StopIteration as end:
            return end.value


def test_a_fifth_of_the_steps_is_of_noisy_planes_and_the_rest_of_denoised_ones(session, asked):
    _, steps = learnt(session({(0, 0): small_stack(planes=8)}), Budget(steps=10))
    assert steps == 10
    statistics = 4  # batches, before denoising in between and at the end
    assert asked == {"noisy": 2 + statistics, "clean": 8 + statistics}


def test_where_there_is_no_time_to_denoise_all_steps_are_of_noisy_planes(session, asked):
    store = session({(0, 0): small_stack(planes=8)})
    learnt(store, Budget(total=100, tail=0), speed=Speed(of_plane=1.0), pause=5.0)
    assert asked["noisy"] > 4
    assert not asked["clean"]
    learnt(store, Budget(total=100, tail=0), speed=Speed(of_plane=0.01), pause=5.0)
    assert asked["clean"]


def test_planes_that_come_later_are_denoised_too(session, asked, monkeypatch):
    stack = small_stack(planes=16)
    store = session({(0, 0): stack[:8]}, planes=16, close=False)
    pools = []

    def rehearse(trainer, pool, *more):
        pools.append(pool)
        denoise.rehearse(trainer, pool, *more)

    monkeypatch.setattr(denoising, "rehearse", rehearse)
    monkeypatch.setattr("otf_stream.service.cleaned._LOOK", 0.0)
    done = []

    def each():
        done.append(len(pools[-1]) if pools else 0)
        if len(done) == 5:
            write(store, [((0, 0, z), stack[z]) for z in range(8, 16)])

    learnt(store, Budget(steps=10), each=each)
    assert done[1] == 0
    assert done[2] == 6
    assert len(pools[-1]) == 16


def test_what_is_learnt_makes_planes_no_worse_than_the_network_that_ships(session):
    rng = np.random.default_rng(0)
    blobs = gaussian_filter(rng.normal(size=(8, 96, 96)), (0.7, 2, 2))
    light = np.clip(blobs / blobs.max(), 0, None) * 20
    noisy = (2 * rng.poisson(light) + 100).astype(np.uint16)
    store = session({(0, 0): noisy})

    def left(**how):
        denoiser, _ = learnt(store, **how)
        made = denoiser(torch.from_numpy(noisy.astype(np.float32))).numpy()
        return float(np.square(made - 2 * light - 100).mean())

    assert left(budget=Budget(steps=60)) < left(budget=Budget(), finetune=False)
