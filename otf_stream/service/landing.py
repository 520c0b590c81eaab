"""Stages 7 and 8: which way a stack is restored, and its way into the store, region by region.

A region is restored, compared with its raw planes and written, and then another stack may have the device. Where the
disk is full, what was restored waits for room.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import TypeVar

import numpy as np
import torch

from otf_stream.config import MethodName
from otf_stream.learn.compute import Compute
from otf_stream.restore.fidelity import Fidelity
from otf_stream.restore.methods import Grid, HazeField, clean_richardson_lucy, deblur, interpolate, richardson_lucy
from otf_stream.restore.regions import Method, restore_region, split_into_regions
from otf_stream.service.character import Character, FoundPsf
from otf_stream.service.learning import Learned, Progress
from otf_stream.service.source import StackSource
from otf_stream.service.turns import Turn, Work
from otf_stream.store.disk import is_full
from otf_stream.store.journal import Journal
from otf_stream.store.restored import BLOCK, RestoredWriter

Written = TypeVar("Written")

_ROOM_POLL = 2.0


def choose_method(
    choice: MethodName, grid: Grid, character: Character, found: FoundPsf, learned: Learned | None, compute: Compute
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
    """
    if learned and learned.trust.best == "interpolate":
        return interpolate(grid), None
    if learned:
        field, cleaner = learned.stack.haze(found, grid.planes), learned.stack.cleaner(grid.planes)
        kernel = found.psf.kernel
        if learned.trust.best == "richardson-lucy":
            return clean_richardson_lucy(grid, cleaner, field, kernel, character.origin), field
        deblurred = deblur(
            grid,
            cleaner,
            field,
            kernel,
            learned.network,
            compute,
            origin=character.origin,
            scale=learned.scale,
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
    regions = list(split_into_regions(grid.depth, sizes.y, sizes.x, block=BLOCK, halo=method.halo))
    for index, region in enumerate(regions):
        progress("restore", index / len(regions))
        raw = torch.from_numpy(source.read(grid.planes, region.halo_y, region.halo_x)).to(compute.device)
        volume = restore_region(method, region, raw)
        y, x = region.inner
        fidelity.add(raw[:, y, x], volume, region)
        # Where the channel has no planes, nothing is known: zeros.
        ends = grid.start, writer.shape[0] - grid.start - grid.depth
        voxels = np.pad(volume.cpu().numpy(), (ends, (0, 0), (0, 0)))
        del raw, volume  # another stack may need the memory
        yield from room(partial(writer.write, source.stack, (region.y, region.x), voxels))
        yield Turn.READY


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
