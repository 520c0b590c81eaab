"""Planes are read once, with their neighbours, and only when those are there."""

import gc
from dataclasses import replace

import numpy as np
import pytest
import torch
from stacks import small_stack, write

from otf_stream.learn.checkpoints import shipped_network
from otf_stream.learn.compute import choose_compute
from otf_stream.learn.denoise import Denoiser
from otf_stream.optics.noise import NoiseModel
from otf_stream.restore.turns import Turn, at_once
from otf_stream.service.character import usual_psf
from otf_stream.service.cleaned import CleanStack, Feed
from otf_stream.service.source import StackSource

CPU = choose_compute("cpu")


def test_a_growing_stack_is_read_plane_by_plane_with_neighbours(session):
    stack = small_stack(planes=12)
    store = session({(0, 0): stack[:5]}, planes=12, close=False)
    feed = Feed(StackSource(store, (0, 0)), CPU)
    read = []

    def look():
        for batch in feed.fresh(at_once=True):
            assert len(range(len(batch.planes))[batch.wanted]) == len(batch.indices)
            for z, plane in zip(batch.indices, batch.planes[batch.wanted], strict=True):
                assert np.array_equal(plane, stack[z])
            read.append((batch.indices, len(batch.planes)))

    look()
    assert read == [([0, 1, 2], 5)]  # the last two wait for what comes after them
    look()
    write(store, [((0, 0, z), stack[z]) for z in range(5, 12)])
    look()
    assert [z for indices, _ in read for z in indices] == list(range(12))
    assert feed.seen == 12


def test_few_new_planes_may_wait_for_more(session):
    stack = small_stack(planes=12)
    store = session({(0, 0): stack[:8]}, planes=12, close=False)
    feed = Feed(StackSource(store, (0, 0)), CPU)

    def look():
        return [z for batch in feed.fresh(at_once=True, least=0.5) for z in batch.indices]

    assert look() == [0, 1, 2, 3, 4, 5]
    write(store, [((0, 0, z), stack[z]) for z in range(8, 10)])
    assert look() == []
    write(store, [((0, 0, z), stack[z]) for z in range(10, 12)])
    assert look() == [6, 7, 8, 9, 10, 11]


def test_planes_that_never_come_are_bridged_in_the_haze_and_some_are_held_out(session):
    store = session({(0, 0): small_stack(planes=18)}, skip=(3, 4))
    source = StackSource(store, (0, 0))
    generator = torch.Generator().manual_seed(0)
    denoiser = Denoiser(shipped_network("denoise"), NoiseModel(2.0, 100.0, 4.0), 300.0, CPU)
    clean = CleanStack(source, denoiser, generator)
    list(clean.taking(at_once=True))
    assert clean.seen == 16
    grid = source.grid()
    field = clean.haze(usual_psf(source), grid.planes)
    assert field.coarse.shape == (16, 18, 18)
    assert torch.isfinite(field.coarse).all()
    assert 0 < field.core_share <= 1.2
    found = usual_psf(source)
    field = clean.haze(found, grid.planes)
    assert clean.haze(found, grid.planes) is field  # computed once
    assert clean.haze(replace(found), grid.planes) is not field  # and anew for another point spread function
    lessons = at_once(clean.lessons(found))
    assert lessons.held_out_planes == 1  # plane 12; 4 never came
    assert len(lessons.clean) == 15
    assert len(lessons.held_out) == 1
    light = torch.from_numpy(source.read(grid.planes)) - 100
    left = field.removed(light, slice(0, 72), slice(0, 72))
    assert float(left.mean()) == pytest.approx(float(light.mean()), rel=0.05)
    torch.testing.assert_close(field.added(left, slice(0, 72), slice(0, 72)), light, atol=1e-2, rtol=1e-4)


def test_axial_slices_are_those_of_the_denoised_planes_from_the_first_to_the_last(session):
    store = session({(0, 0): small_stack(planes=10)}, planes=14, close=False)
    source = StackSource(store, (0, 0))
    denoiser = Denoiser(shipped_network("denoise"), NoiseModel(2.0, 100.0, 4.0), 300.0, CPU)
    clean = CleanStack(source, denoiser, torch.Generator().manual_seed(0))
    list(clean.taking(at_once=True))
    found = usual_psf(source)
    grid, (xz, yz) = clean.axial(found)
    seen = clean.seen
    assert list(grid.planes) == list(range(seen))
    assert grid.depth == round((seen - 1) * source.acquisition.voxel_size.anisotropy) + 1
    light = torch.from_numpy(source.read(list(range(10)))) - 100
    free = clean.haze(found, list(range(seen))).removed(denoiser(light + 100)[:seen] - 100, slice(0, 72), slice(0, 72))
    assert xz.shape == yz.shape == (12, seen, 72)
    torch.testing.assert_close(xz[3], free[:, 21], atol=2.0, rtol=0)
    torch.testing.assert_close(yz[3], free[:, :, 21], atol=2.0, rtol=0)


def test_every_plane_is_denoised_once_and_put_aside(session):
    store = session({(0, 0): small_stack(planes=10)})
    source = StackSource(store, (0, 0))
    denoiser = Denoiser(shipped_network("denoise"), NoiseModel(2.0, 100.0, 4.0), 300.0, CPU)
    stack = CleanStack(source, denoiser, torch.Generator().manual_seed(0))
    assert stack.left_to_denoise == 10
    list(stack.taking(at_once=True))
    assert stack.left_to_denoise == 0
    planes, y, x = [7, 0, 2], slice(8, 40), slice(16, 48)
    clean = denoiser(torch.from_numpy(source.read(range(10)))) - 100
    torch.testing.assert_close(stack.light(planes, y, x), clean[planes, y, x])


def test_of_large_planes_windows_are_learnt_from(session, monkeypatch):
    monkeypatch.setattr("otf_stream.service.cleaned._WINDOW", 48)
    monkeypatch.setattr("otf_stream.service.cleaned._KEPT", 4 * 48**2)
    source = StackSource(session({(0, 0): small_stack(planes=10)}), (0, 0))
    denoiser = Denoiser(shipped_network("denoise"), NoiseModel(2.0, 100.0, 4.0), 300.0, CPU)
    stack = CleanStack(source, denoiser, torch.Generator().manual_seed(0))
    list(stack.taking(at_once=True))
    found = usual_psf(source)
    field = stack.haze(found)
    lessons = at_once(stack.lessons(found))
    assert 3 <= len(lessons.clean) + len(lessons.held_out) * (lessons.held_out_planes > 0) <= 4
    free = field.removed(stack.light(range(10), slice(0, 72), slice(0, 72)), slice(0, 72), slice(0, 72)) / lessons.scale
    places = free.unfold(1, 48, 1).unfold(2, 48, 1)
    for window in lessons.clean.planes[:, 0, :48, :48]:  # what follows is mirrored
        assert float((places - window).abs().amax(dim=(-1, -2)).min()) < 1e-4


def test_nothing_is_kept_for_training_once_it_is_over(session):
    source = StackSource(session({(0, 0): small_stack(planes=10)}), (0, 0))
    denoiser = Denoiser(shipped_network("denoise"), NoiseModel(2.0, 100.0, 4.0), 300.0, CPU)
    stack = CleanStack(source, denoiser, torch.Generator().manual_seed(0))
    list(stack.taking(at_once=True))

    def windows():
        gc.collect()
        return sum(type(each) is torch.Tensor and each.shape == (72, 72) for each in gc.get_objects())

    kept = windows()
    stack.stop_keeping()
    assert windows() == kept - 10
    assert stack.light([3], slice(0, 72), slice(0, 72)).shape == (1, 72, 72)  # restoring reads them from the disk


def test_a_full_disk_is_waited_for(session):
    source = StackSource(session({(0, 0): small_stack(planes=10)}), (0, 0))
    denoiser = Denoiser(shipped_network("denoise"), NoiseModel(2.0, 100.0, 4.0), 300.0, CPU)
    waited = []

    def room(write):
        if not waited:
            waited.append(write)
            yield Turn.WAITING
        write()

    stack = CleanStack(source, denoiser, torch.Generator().manual_seed(0), room=room)
    assert Turn.WAITING in list(stack.taking(at_once=True))
    assert stack.left_to_denoise == 0
