"""Slabs are restored as soon as their planes are there, and what comes of them is what would have come later."""

from dataclasses import replace

import numpy as np
import torch
from stacks import small_stack, write
from volumes import whole

from otf_stream.learn.checkpoints import network_to_deblur, shipped_network
from otf_stream.learn.compute import choose_compute
from otf_stream.learn.denoise import Denoiser
from otf_stream.learn.training import with_statistics
from otf_stream.optics.noise import NoiseModel
from otf_stream.restore.deblurring import CONTEXT, Deblurring
from otf_stream.restore.trust import Trust
from otf_stream.restore.turns import Turn, at_once
from otf_stream.service.ahead import DEEP, go_ahead, may_go_ahead
from otf_stream.service.budget import Budget
from otf_stream.service.character import Character, usual_psf
from otf_stream.service.cleaned import CleanStack
from otf_stream.service.learning import Learned
from otf_stream.service.settings import Settings
from otf_stream.service.source import StackSource
from otf_stream.service.stack import Restoration
from otf_stream.store.restored import read_restored

CPU = choose_compute("cpu")
# What short floats round off is another in slabs, and as large as the bound.
EXACT = replace(CPU, dtype=torch.float32)
PLANES, DEPTH = 80, 317


def learned(source):
    """What would have been learnt of a stack, with the networks as they come."""
    generator = torch.Generator().manual_seed(0)
    noise = NoiseModel(2.0, 100.0, 4.0)
    denoiser = Denoiser(shipped_network("denoise"), noise, 300.0, EXACT)
    network = with_statistics(network_to_deblur(), [torch.rand(1, 2, 64, 64, generator=generator)], EXACT)
    return Learned(
        denoiser, network, CleanStack(source, denoiser, generator), Character(noise, 300.0), usual_psf(source),
        300.0, Trust(3.0, 1.0, 2), 1, 1, (0.1,), None, 5,
    )  # fmt: skip


def deblurring(source, lesson):
    return Deblurring(lesson.network, EXACT, (DEPTH, 40, 40), source.scratch)


def xz(source, lesson, work):
    planes = lesson.clean(source.grid())
    return whole(work.method(planes, 0), torch.empty(PLANES, 40, 40))


def test_slabs_follow_the_planes_and_do_not_show(session, monkeypatch):
    stack = small_stack(planes=PLANES, side=40)
    store = session({(0, 0): stack[:6]}, planes=PLANES, close=False, modality="unknown")
    source = StackSource(store, (0, 0))
    monkeypatch.setattr("otf_stream.service.cleaned._LOOK", 0.0)
    lesson, ends = learned(source), []
    work = deblurring(source, lesson)
    going = go_ahead(source, lesson, work, ends.append)

    def come(planes):
        """Let planes come; return how many voxels have been restored once nothing is left to be done."""
        write(store, [((0, 0, z), stack[z]) for z in planes])
        while next(going) is Turn.READY:
            pass
        return work.across

    assert come([]) == 0
    assert come(range(7, 70)) == 0  # one is missing, and nothing can be told of what lies after it
    first = come([6])
    # Of the 70 planes, two wait for what comes after them; the context of the slab ends at the last of the others.
    assert first == 67 * 4 + 1 - CONTEXT
    assert come(range(70, 72)) == first  # too short for a slab
    write(store, [((0, 0, z), stack[z]) for z in range(72, PLANES)])
    at_once(going)
    assert ends == [first]

    at_once(lesson.stack.taking(at_once=True))
    at_once(work.go_across(lesson.clean(source.grid())))
    at_the_end = deblurring(source, lesson)
    at_once(at_the_end.go_across(lesson.clean(source.grid())))
    found, expected = xz(source, lesson, work).numpy(), xz(source, lesson, at_the_end).numpy()
    # Haze was computed of fewer planes; the last ones of a slab know it least.
    off = np.sqrt(((found - expected) ** 2).mean(axis=(1, 2)))
    assert off.max() < 0.03 * expected.std()
    assert np.median(off) < 0.01 * expected.std()


def test_only_deep_stacks_of_known_depth_are_restored_ahead(session):
    deep, shallow = (
        StackSource(session({(0, 0): np.zeros((planes, 8, 8), np.uint16)}, name=f"{planes}"), (0, 0))
        for planes in (DEEP // 4 + 1, DEEP // 4)
    )
    assert may_go_ahead(deep)
    assert not may_go_ahead(shallow)


def restored(session, monkeypatch, *, anew):
    """Restore a stack of which some planes come once learning is over."""
    stack = small_stack(planes=PLANES, side=40)
    store = session({(0, 0): stack[:70]}, planes=PLANES, close=False, name=f"anew {anew}")
    monkeypatch.setattr(Trust, "best", "network")
    monkeypatch.setattr("otf_stream.service.budget.Schedule.begin_anew", lambda schedule: anew)
    monkeypatch.setattr("otf_stream.service.budget.Schedule.is_out_of_time", lambda schedule: False)
    restoration = Restoration(store, (0, 0), Settings(method="pretrained", budget=Budget(total=600)), CPU)
    while (turn := restoration.turn()) is Turn.READY:
        pass
    assert turn is Turn.WAITING
    decided = [event.detail["decision"] for event in store.journal.events() if event.kind == "decision"]
    assert decided[-1] == "slab ahead"
    write(store, [((0, 0, z), stack[z]) for z in range(70, PLANES)])
    while restoration.turn() is not None:
        pass
    assert read_restored(store.path, (0, 0)).std() > 1
    return restoration.provenance


def test_what_was_restored_ahead_is_told(session, monkeypatch):
    provenance = restored(session, monkeypatch, anew=False)
    assert provenance["ahead"] == round((67 * 4 + 1 - CONTEXT) / DEPTH, 3)
    assert provenance["method"] == "pretrained"


def test_slabs_are_restored_anew_where_there_is_time_after_all(session, monkeypatch):
    assert restored(session, monkeypatch, anew=True)["ahead"] == 0
