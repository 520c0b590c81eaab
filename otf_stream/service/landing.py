"""Stage 8: a stack's way into the store, region by region.

A region is restored and compared with its raw planes, and then another stack may have the device; it is written by a
thread of its own while the next one is restored. Where the disk is full, what was restored waits for room.
"""

from __future__ import annotations

import sqlite3
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from otf_stream.acquisition import StackIndex
from otf_stream.learn.compute import Compute
from otf_stream.restore.fidelity import Fidelity
from otf_stream.restore.methods import Grid
from otf_stream.restore.regions import Method, Region
from otf_stream.restore.turns import Turn, Work
from otf_stream.service.costs import WRITERS
from otf_stream.service.curve import Progress
from otf_stream.service.source import StackSource
from otf_stream.service.tidying import tidy_up
from otf_stream.store.disk import is_full, passes
from otf_stream.store.journal import Journal
from otf_stream.store.restored import RestoredWriter

Written = TypeVar("Written")

_ROOM_POLL = 2.0


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
    regions = [Region(*region) for region in writer.regions()]
    # Where the channel has no planes, nothing is known: zeros.
    ends = grid.padding(writer.shape[0])
    writes = deque[_Behind]()
    with ThreadPoolExecutor(WRITERS, thread_name_prefix="landing") as pool:
        for landed, region in enumerate(regions):
            progress("restore", landed / len(regions))
            raw = compute.upload(source.read(grid.planes, *region))
            volume = yield from method.restore(raw, region)
            fidelity.add(raw, volume, region)
            voxels = _rounded(volume, writer.dtype).cpu().numpy()
            del raw, volume  # writing takes memory as well
            if any(ends):
                voxels = np.pad(voxels, (ends, (0, 0), (0, 0)))
            if len(writes) == WRITERS:
                yield from room(writes.popleft().finish)
            writes.append(_Behind(pool, partial(writer.write, source.stack, region, voxels)))
            del voxels
            tidy_up(source)
            yield Turn.READY
        while writes:
            yield from room(writes.popleft().finish)


def _rounded(volume: Tensor, dtype: np.dtype[Any]) -> Tensor:
    """Round voxels to what the store holds, in place: what waits to be written takes half the memory, and half the way.

    Voxels that are not finite stay as they are, for the store to refuse.
    """
    kind = {"uint8": torch.uint8, "uint16": torch.uint16}.get(dtype.name)
    # What is not finite shows in the extremes; to look at each voxel would take as much memory again.
    if kind is None or not all(extreme.isfinite() for extreme in volume.aminmax()):
        return volume
    return volume.round_().clamp_(0, np.iinfo(dtype).max).to(kind)


def scaled(writer: RestoredWriter, stack: StackIndex, grid: Grid, background: float, factor: float) -> Method:
    """Return what gives the volume that has landed, with its light, above the background, times ``factor``."""

    def restore(raw: Tensor, region: Region) -> Work[Tensor]:
        yield Turn.READY
        landed = writer.read(stack, region)[grid.start : grid.start + grid.depth]
        return torch.from_numpy(landed).to(raw.device).sub_(background).mul_(factor).add_(background)

    return Method("scaled", restore)


class _Behind:
    """Something that is written by a thread; again by who finishes it, if that failed."""

    def __init__(self, pool: ThreadPoolExecutor, write: Callable[[], None]) -> None:
        self._write = write
        self._writing: Future[None] | None = pool.submit(write)

    def finish(self) -> None:
        writing, self._writing = self._writing, None
        return writing.result() if writing else self._write()


def writing(journal: Journal, write: Callable[[], Written], *, patient: bool) -> Work[Written]:
    """Write; where what hinders that may pass and there is patience, write again some time later.

    Parameters
    ----------
    journal
        Is told of the wait.
    write
        Writes, or raises.
    patient
        Wait, rather than raise, where the disk is full or the journal is locked.

    Raises
    ------
    OSError, sqlite3.Error
        If it does not go (where that is not waited for) or never will.
    """
    while True:
        try:
            return write()
        except (OSError, sqlite3.Error) as error:
            if not (patient and passes(error)):
                raise
            awaited = "room on the disk" if is_full(error) else f"what passes ({error})"
            with suppress(OSError, sqlite3.Error):  # the journal lies on the same disk
                journal.note("stage", stage=f"waiting for {awaited}")
            again = time.monotonic() + _ROOM_POLL
            while time.monotonic() < again:
                yield Turn.WAITING
