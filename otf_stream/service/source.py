"""One stack of a session, as the worker sees it: planes that are there, and a promise of more.

The worker only ever reads the store and its journal. A recorded stack is one whose planes have all arrived; nothing
downstream can tell the difference.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from itertools import islice

import numpy as np
from numpy.typing import DTypeLike

from otf_stream.acquisition import Acquisition, StackIndex, isotropic_depth
from otf_stream.restore.methods import Grid
from otf_stream.service.budget import Arrivals
from otf_stream.store.scratch import Scratch
from otf_stream.store.session import SessionStore

_LOOK_AHEAD = 2  # time points; a microscope takes them one after the other


class StackSource:
    """Reads one stack of a session store, finished or growing.

    Parameters
    ----------
    store
        The session.
    stack
        Which of its stacks, ``(t, c)``.
    silence
        Seconds without a plane after which no more are expected; never if None.
    """

    def __init__(self, store: SessionStore, stack: StackIndex, *, silence: float | None = None) -> None:
        self._store = store
        self._silence = silence
        self.stack = stack
        self.unreadable = 0
        """Pixels read so far that were not finite, and took their plane's median."""
        self.finishing = False
        """Whether the planes that are there are all that is waited for, as somebody asked."""

    @property
    def acquisition(self) -> Acquisition:
        """What was announced; of a growing acquisition, what is known so far."""
        return self._store.acquisition

    @property
    def extent(self) -> range:
        """The planes that the stack is to have; where nobody knows, those between its first and its last so far."""
        acquisition = self.acquisition
        if not acquisition.growing:
            return acquisition.planes_of(self.stack[1])
        there = self.planes() or [0]
        return range(there[0], there[-1] + 1)

    def planes(self) -> list[int]:
        """Index of every plane that is durable, ascending."""
        return self._store.journal.planes_of(self.stack)

    def arrivals(self) -> Arrivals:
        """What is known of the stack's arrival."""
        received, acquisition = len(self.planes()), self.acquisition
        first, latest = self._store.journal.span(self.stack) or (0.0, 0.0)
        all_there = not acquisition.growing and received == len(self.extent)
        # Of an acquisition of unknown length, the stacks before tell how deep this one may become.
        expected = max(received, acquisition.sizes.z) if acquisition.growing else len(self.extent)
        over = all_there or self._passed_by() or self._silent(latest) or (self.finishing and received > 0)
        return Arrivals(received, expected, first, latest, over)

    def _passed_by(self) -> bool:
        """Whether no more planes will come: all is closed, or a later time point of the channel has begun."""
        journal, (_, c) = self._store.journal, self.stack
        later = islice(self._later(), _LOOK_AHEAD)
        return journal.closed is not None or any(journal.span((time, c)) for time in later)

    def _later(self) -> Iterator[int]:
        t, c = self.stack
        return (time for time in range(t + 1, self.acquisition.sizes.t) if self.acquisition.plans((time, c)))

    @property
    def is_last(self) -> bool:
        """Whether no later time point of the channel will come."""
        return next(self._later(), None) is None and not (
            self.acquisition.growing and self._store.journal.closed is None
        )

    def _silent(self, latest: float) -> bool:
        return self._silence is not None and latest > 0 and time.time() - latest > self._silence

    def grid(self) -> Grid:
        """Where the durable planes lie, and the isotropic grid between the ends of the stack."""
        extent, voxel_size = self.extent, self.acquisition.voxel_size
        start = math.ceil(extent.start * voxel_size.anisotropy - 1e-6)
        depth = isotropic_depth(extent.stop, voxel_size) - start
        return Grid(self.planes(), voxel_size.anisotropy, depth, start)

    @property
    def voxels(self) -> int:
        """How many voxels the isotropic volume will have."""
        sizes = self.acquisition.sizes
        return self.grid().depth * sizes.y * sizes.x

    def read(self, planes: Sequence[int], y: slice = slice(None), x: slice = slice(None)) -> np.ndarray:
        """Read planes, or a window of them.

        Returns
        -------
        numpy.ndarray
            ``(len(planes), y, x)``, float32 counts, finite.
        """
        (t, c), sizes = self.stack, self.acquisition.sizes
        window = np.empty((len(planes), len(range(sizes.y)[y]), len(range(sizes.x)[x])), np.float32)
        for counts, z in zip(window, planes, strict=True):
            counts[:] = self._store.read_plane((t, c, z), y, x)
            if self.acquisition.numpy_dtype.kind == "f":
                self._make_finite(counts)
        return window

    def scratch(self, height: int, width: int, dtype: DTypeLike) -> Scratch:
        """Open a place on the session's disk for images of ``height × width`` that are made of the stack."""
        return Scratch(self._store.path, height, width, dtype)

    def _make_finite(self, plane: np.ndarray) -> None:
        bad = ~np.isfinite(plane)
        if bad.any():
            self.unreadable += int(bad.sum())
            plane[bad] = np.median(plane[~bad]) if not bad.all() else 0.0
