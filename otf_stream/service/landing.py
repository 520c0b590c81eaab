"""Stages 7 and 8: which way a stack is restored, and its way into the store, region by region.

A region is restored and compared with its raw planes, and then another stack may have the device; it is written by a
thread of its own while the next one is restored. A region that is too large for the memory is cut. Where the disk is
full, what was restored waits for room.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import TypeVar

import numpy as np
import torch

from otf_stream.config import MethodName
from otf_stream.learn.compute import Compute, is_out_of_memory
from otf_stream.restore.deblurring import Pace, deblur
from otf_stream.restore.fidelity import Fidelity
from otf_stream.restore.methods import Grid, HazeField, clean_richardson_lucy, interpolate, richardson_lucy
from otf_stream.restore.regions import Method, blocks, split_further, split_into_regions
from otf_stream.restore.turns import Turn, Work
from otf_stream.service.character import Character, FoundPsf
from otf_stream.service.learning import Learned, Progress
from otf_stream.service.source import StackSource
from otf_stream.store.disk import is_full
from otf_stream.store.journal import Journal
from otf_stream.store.restored import BLOCK, RestoredWriter

Written = TypeVar("Written")

_ROOM_POLL = 2.0
_WRITERS = max((os.cpu_count() or 2) // 2, 1)


def choose_method(
    choice: MethodName,
    grid: Grid,
    character: Character,
    found: FoundPsf,
    learned: Learned | None,
    compute: Compute,
    *,
    pace: Pace,
) -> tuple[Method, HazeField | None]:
    """Return the way to restore, and the haze that it takes away.

    Parameters
    ----------
    choice
        What the user asked for.
    grid
        Of the planes that the volume is made of.
    character, found
        Noise and point spread function.
    learned
        What was learnt of the stack, if anything; its exam has the last word.
    compute
        Device and precision.
    pace
        Decides how far the network goes, as :func:`deblur` asks.
    """
    if learned and learned.trust.best == "interpolate":
        return interpolate(grid), None
    if learned:
        field, light = learned.stack.haze(found, grid.planes), partial(learned.stack.light, grid.planes)
        kernel = found.psf.kernel
        if learned.trust.best == "richardson-lucy":
            return clean_richardson_lucy(grid, light, field, kernel, character.origin), field
        deblurred = deblur(
            grid,
            light,
            field,
            kernel,
            learned.network,
            compute,
            origin=character.origin,
            scale=learned.scale,
            pace=pace,
        )
        return replace(deblurred, name="finetune" if learned.steps else "pretrained"), field
    if choice == "richardson-lucy":
        return richardson_lucy(grid, found.psf.kernel, character.origin), None
    return interpolate(grid), None


def landing(
    source: StackSource,
    grid: Grid,
    method: Method,
    fidelity: Fidelity,
    writer: RestoredWriter,
    compute: Compute,
    progress: Progress,
    room: Callable[[Callable[[], None]], Work[None]],
) -> Work[None]:
    """Restore region by region into the store, and compare each with its raw planes.

    Parameters
    ----------
    source, grid, method
        What is restored, where its planes lie, and how.
    fidelity
        Takes the comparison.
    writer
        Of the session's restored image.
    compute
        Device and precision.
    progress
        Is told of restoring.
    room
        Writes, as :func:`writing` does.
    """
    sizes = source.acquisition.sizes
    regions = deque(split_into_regions(grid.depth, sizes.y, sizes.x, block=BLOCK))
    # Where the channel has no planes, nothing is known: zeros.
    ends = grid.padding(writer.shape[0])
    landed, writes = 0, deque[_Behind]()
    with ThreadPoolExecutor(_WRITERS, thread_name_prefix="landing") as pool:
        while regions:
            region = regions.popleft()
            progress("restore", landed / (sizes.y * sizes.x))
            try:
                raw = torch.from_numpy(source.read(grid.planes, region.y, region.x)).to(compute.device)
                volume = yield from method.restore(raw, region)
            except (RuntimeError, MemoryError) as error:
                smaller = split_further(region, block=BLOCK)
                if not is_out_of_memory(error) or len(smaller) == 1:
                    raise
                regions.extendleft(smaller)
                continue
            for block in blocks(region, block=BLOCK):  # comparing and writing take several times its memory
                inner = ..., _within(block.y, region.y), _within(block.x, region.x)
                fidelity.add(raw[inner], volume[inner], block)
                voxels = volume[inner].cpu().numpy()
                if any(ends):
                    voxels = np.pad(voxels, (ends, (0, 0), (0, 0)))
                if len(writes) == _WRITERS:
                    yield from room(writes.popleft().finish)
                writes.append(_Behind(pool, partial(writer.write, source.stack, (block.y, block.x), voxels)))
                landed += voxels[0].size
                yield Turn.READY
            del raw, volume  # another stack may need the memory
        while writes:
            yield from room(writes.popleft().finish)


def _within(inner: slice, outer: slice) -> slice:
    return slice(inner.start - outer.start, inner.stop - outer.start)


class _Behind:
    """Something that is written by a thread; again by who finishes it, if that failed."""

    def __init__(self, pool: ThreadPoolExecutor, write: Callable[[], None]) -> None:
        self._write = write
        self._writing: Future[None] | None = pool.submit(write)

    def finish(self) -> None:
        writing, self._writing = self._writing, None
        return writing.result() if writing else self._write()


def writing(journal: Journal, write: Callable[[], Written], *, patient: bool) -> Work[Written]:
    """Write; where the disk is full and there is patience, write again when there may be room.

    Parameters
    ----------
    journal
        Is told of the wait.
    write
        Writes, or raises.
    patient
        Wait for room, rather than raise.

    Raises
    ------
    OSError
        If the disk is full (where it is not waited for room) or fails.
    """
    while True:
        try:
            return write()
        except OSError as error:
            if not (patient and is_full(error)):
                raise
            with suppress(OSError):  # the journal lies on the same disk
                journal.note("stage", stage="waiting for room on the disk")
            again = time.monotonic() + _ROOM_POLL
            while time.monotonic() < again:
                yield Turn.WAITING
