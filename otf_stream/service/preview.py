"""A preview of every stack, in the store within moments of its last plane: interpolated, and flagged as such.

It has a thread of its own beside the one that learns and restores, since nobody at a microscope should wait for a
training step of another stack to see their own. The coarser levels of the pyramid, which viewers open first, come
first; of a large stack they are all there is, and its planes are pooled as they come. A stack whose restoring begins is
left alone from then on: what is restored is never painted over.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import AbstractContextManager, suppress
from itertools import islice
from threading import Event
from typing import Any

import numpy as np
import torch

from otf_stream.restore.methods import Grid
from otf_stream.service.pending import Key, PendingStack, PendingStacks
from otf_stream.service.source import StackSource
from otf_stream.service.whereabouts import Whereabouts
from otf_stream.store.disk import passes
from otf_stream.store.pyramid import halve
from otf_stream.store.restored import RestoredWriter, finest_level

log = logging.getLogger(__name__)

_POLL = 0.2
_AGAIN = 5.0  # seconds, after what went wrong
_POOLED = 8  # planes of a stack, before the others are looked at again
_FIRST_VOXELS = 4 * 2**20  # of the finest level that is written at once
_VOXELS = 48 * 2**20  # of the finest one that is written after that; a second or two, and 200 MB


Pooled = dict[int, np.ndarray]
"""Planes by their index, as coarse as the preview will be."""


class Previewer:
    """Writes previews of the stacks that have arrived.

    Parameters
    ----------
    pending
        The stacks that are to be restored; the previewer's own, since it looks at them in its own thread.
    silence
        Seconds without a plane after which a stack counts as arrived; never if None.
    whereabouts
        Where it says what it is at.
    """

    def __init__(
        self, pending: PendingStacks, *, silence: float | None = None, whereabouts: Whereabouts | None = None
    ) -> None:
        self._pending = pending
        self._silence = silence
        self._whereabouts = whereabouts or Whereabouts()
        self._lock = threading.Lock()
        self._writing: Key | None = None
        self._claimed: set[Key] = set()
        self._previewed: dict[Key, int] = {}
        self._pooled: dict[Key, Pooled] = {}

    def run(self, stop: Event) -> None:
        """Write previews until ``stop`` is set: the body of a thread."""
        while not stop.is_set():
            try:
                self.write_all()
            except Exception:  # of one session; the others, and what comes later, shall be seen all the same
                log.exception("cannot write previews now")
                stop.wait(_AGAIN)
            stop.wait(_POLL)
        self._pending.close()

    def claim(self, key: Key) -> bool:
        """Leave a stack alone from now on; False while its preview is being written, to be asked again."""
        with self._lock:
            if self._writing == key:
                return False
            self._claimed.add(key)
            return True

    def write_all(self) -> None:
        """Write a preview of every stack that has arrived and has none; pool the planes of those that arrive."""
        found = [pending for pending in self._pending.find() if pending.previewed]
        for gone in self._pooled.keys() - {pending.key for pending in found}:
            del self._pooled[gone]
        arriving = []
        for pending in found:
            source = StackSource(pending.store, pending.stack, silence=self._silence)
            arrivals = source.arrivals()
            if not arrivals.complete:
                arriving.append((pending, source))
            elif arrivals.received and self._begin(pending.key, arrivals.received):
                try:
                    with self._at(pending):
                        for level in write_preview(pending, source, self._pooled.pop(pending.key, {})):
                            pending.store.journal.note(
                                "preview",
                                stack=list(pending.stack),
                                level=level,
                                since_last_plane_s=round(time.time() - arrivals.latest, 3),
                            )
                except Exception as error:  # a preview is a courtesy: the stack will be restored whatever becomes of it
                    if not passes(error):  # of a full disk the listener tells
                        with suppress(OSError, sqlite3.Error):
                            pending.store.journal.note(
                                "preview failed", stack=list(pending.stack), trace=traceback.format_exc()
                            )
                finally:
                    with self._lock:
                        self._writing = None
        for pending, source in arriving:  # none of them is waited for
            with suppress(Exception), self._at(pending):  # what cannot be read now will be read again
                _pool(source, self._pooled.setdefault(pending.key, {}))

    def _at(self, pending: PendingStack) -> AbstractContextManager[None]:
        return self._whereabouts.at("preview", pending.store.path.name, pending.stack)

    def _begin(self, key: Key, planes: int) -> bool:
        with self._lock:
            if key in self._claimed or self._previewed.get(key) == planes:
                return False
            self._writing, self._previewed[key] = key, planes
            return True


def _pool(source: StackSource, pooled: Pooled) -> None:
    """Pool the planes of a large stack that have come, of which it is known how finely a preview will show them."""
    if source.acquisition.growing or not (finest := finest_level(source.acquisition, _VOXELS)):
        return
    for z in islice((z for z in source.planes() if z not in pooled), _POOLED):
        pooled[z] = _halved(source.read([z])[0], finest)


def write_preview(pending: PendingStack, source: StackSource, pooled: Pooled | None = None) -> Iterator[int]:
    """Interpolate a stack into the restored image, the coarse levels first.

    Parameters
    ----------
    pending, source
        The stack; all of its planes are there.
    pooled
        Planes that were pooled as they came.

    Yields
    ------
    int
        The finest level of the pyramid that is there by now.
    """
    writer = RestoredWriter.create(pending.store, dtype=source.acquisition.dtype)
    grid = source.grid()
    finest = writer.finest_level(_VOXELS)
    pooled = pooled or {}
    planes = np.stack([pooled[z] if z in pooled else _halved(source.read([z])[0], finest) for z in grid.planes])
    for level in sorted({finest, writer.finest_level(_FIRST_VOXELS)}, reverse=True):
        # Interpolating pooled planes is pooling interpolated ones: both are linear, along different axes.
        matrix = _padded(grid, writer.shape[0])
        for _ in range(level):
            matrix = halve(matrix, axes=(0,))
        shown = planes
        for _ in range(level - finest):
            shown = halve(shown, axes=(1, 2))
        volume = torch.from_numpy(matrix) @ torch.from_numpy(shown.reshape(len(shown), -1))
        writer.write_level(pending.stack, level, volume.numpy().reshape(-1, *shown.shape[1:]))
        told: dict[str, Any] = {"method": "interpolate", "preview": True, "level": level, "warnings": []}
        writer.write_provenance(pending.stack, told)
        yield level


def _padded(grid: Grid, depth: int) -> np.ndarray:
    """Matrix ``(z', z)`` of interpolation, in an image of ``depth``: zeros where the channel has no planes."""
    matrix = grid.interpolation(torch.device("cpu")).numpy()
    return np.pad(matrix, (grid.padding(depth), (0, 0)))


def _halved(plane: np.ndarray, times: int) -> np.ndarray:
    for _ in range(times):
        plane = halve(plane)
    return plane
