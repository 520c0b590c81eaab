"""One stack of a session, as the worker sees it: planes that are there, and a promise of more.

The worker only ever reads the store and its journal. A recorded stack is one whose planes have all arrived; nothing
downstream can tell the difference.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from otf_stream.acquisition import StackIndex, isotropic_depth
from otf_stream.restore.methods import Grid
from otf_stream.service.budget import Arrivals
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
    """

    def __init__(self, store: SessionStore, stack: StackIndex) -> None:
        self._store = store
        self.stack = stack
        self.acquisition = store.acquisition
        self.unreadable = 0
        """Pixels read so far that were not finite, and took their plane's median."""

    def planes(self) -> list[int]:
        """Index of every plane that is durable, ascending."""
        return self._store.journal.planes_of(self.stack)

    def arrivals(self) -> Arrivals:
        """What is known of the stack's arrival."""
        journal, expected = self._store.journal, self.acquisition.sizes.z
        received = len(journal.planes_of(self.stack))
        first, latest = journal.span(self.stack) or (0.0, 0.0)
        return Arrivals(received, expected, first, latest, received == expected or self._passed_by())

    def _passed_by(self) -> bool:
        """Whether no more planes will come: all is closed, or a later time point of the channel has begun."""
        journal, (t, c) = self._store.journal, self.stack
        later = range(t + 1, self.acquisition.sizes.t)
        return journal.closed is not None or any(journal.span((time, c)) for time in later[:_LOOK_AHEAD])

    def grid(self) -> Grid:
        """Where the durable planes lie, and the isotropic grid."""
        voxel_size = self.acquisition.voxel_size
        depth = isotropic_depth(self.acquisition.sizes.z, voxel_size)
        return Grid(self.planes(), voxel_size.anisotropy, depth)

    def read(self, planes: Sequence[int], y: slice = slice(None), x: slice = slice(None)) -> np.ndarray:
        """Read planes, or a window of them.

        Returns
        -------
        numpy.ndarray
            ``(len(planes), y, x)``, float32 counts, finite.
        """
        t, c = self.stack
        return np.stack([self._finite(self._store.read_plane((t, c, z))[y, x]) for z in planes])

    def _finite(self, plane: np.ndarray) -> np.ndarray:
        plane = plane.astype(np.float32)
        bad = ~np.isfinite(plane)
        if bad.any():
            self.unreadable += int(bad.sum())
            plane[bad] = np.median(plane[~bad]) if not bad.all() else 0.0
        return plane
