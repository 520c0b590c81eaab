"""What restoring costs on this device: measured on a sample before, and corrected by what it really took.

A measurement on a few slices knows nothing of the disk, of compression, or of what else the machine is doing. Once
whole stacks have been restored, the ratio of what they took to what had been measured is known, and the margin that
guards a deadline can be smaller, though not smaller than the slowest of them allows.
"""

from __future__ import annotations

import os
import statistics
from collections import deque
from dataclasses import dataclass

_UNTRIED_MARGIN, _TRIED_MARGIN, _SLOWER = 1.6, 1.5, 1.15
_REMEMBERED = 8  # stacks
_LEAST_RATIO = 0.8
_GUESSED_VOXEL, _GUESSED_ON_DEVICE = 2e-6, 2e-8  # seconds to restore one on a slow core, or a GPU, before any was
_INTERPOLATED_STACK = 1.0  # seconds, for noise and blur, whatever the size, on a busy machine

WRITERS = max((os.cpu_count() or 2) // 2, 1)
"""Threads that write a volume."""

WRITTEN_PER_SECOND = 15e6 * float(WRITERS**0.9)
"""Voxels: reading, comparing, compressing and the pyramid, on slow cores, which get in each other's way."""

_INTERPOLATED_VOXEL = (1 + 1.25 / WRITERS) / WRITTEN_PER_SECOND  # on a busy machine, whose cores others take


@dataclass(frozen=True)
class RestoringTime:
    """Seconds that restoring takes.

    Parameters
    ----------
    first
        With XZ slices alone: denoising what is not yet, and writing, included.
    second
        More, for all YZ slices as well.
    """

    first: float
    second: float

    def of(self, yz: float) -> float:
        """Return the seconds with a share of the YZ slices, from 0 to 1."""
        return self.first + yz * self.second


class Costs:
    """The measured costs of one device; shared by all stacks that it restores.

    Parameters
    ----------
    on_processor
        Whether that is a processor: until a stack has been restored, what it costs is guessed.
    """

    def __init__(self, *, on_processor: bool = True) -> None:
        self._guessed_voxel = _GUESSED_VOXEL if on_processor else _GUESSED_ON_DEVICE + _INTERPOLATED_VOXEL
        self._ratios: deque[float] = deque(maxlen=_REMEMBERED)
        self._before: deque[float] = deque(maxlen=_REMEMBERED)
        self._voxels: deque[float] = deque(maxlen=_REMEMBERED)
        self._interpolated: deque[float] = deque(maxlen=_REMEMBERED)

    def restored(self, voxels: int, *, measured: float, landed: float, taken: float) -> None:
        """Take note of a stack of ``voxels`` that was restored with a network.

        Parameters
        ----------
        voxels
            Of the isotropic volume.
        measured, landed
            Seconds that restoring and writing it were to take, by a sample, and took.
        taken
            Seconds for all that cannot be cut short: noise, blur and haze as well, but no training.
        """
        self._before.append(taken - landed)
        self._voxels.append(landed / max(voxels, 1))
        if measured > 0:
            self._ratios.append(max(landed / measured, _LEAST_RATIO))

    def interpolated(self, voxels: int, taken: float) -> None:
        """Take note of a stack of ``voxels`` that was interpolated and written in ``taken`` seconds."""
        self._interpolated.append(taken / max(voxels, 1))

    def corrected(self, measured: float) -> float:
        """Return how many seconds restoring will take of which ``measured`` were measured on a sample."""
        return measured * (statistics.median(self._ratios) if self._ratios else 1.0)

    def with_margin(self, measured: float) -> float:
        """Return how many seconds to keep free for that: a busy machine is slower than the one that was measured."""
        if not self._ratios:
            return measured * _UNTRIED_MARGIN
        return max(self.corrected(measured) * _TRIED_MARGIN, measured * max(self._ratios) * _SLOWER)

    def restoring(self, voxels: int) -> float:
        """Return how many seconds restoring ``voxels`` with a network will take, where no sample was measured."""
        if not self._voxels:
            return voxels * self._guessed_voxel
        return self.preparing + voxels * statistics.median(self._voxels)

    @property
    def preparing(self) -> float:
        """Seconds for what comes before restoring; they take a small stack about as long as a large one."""
        return statistics.median(self._before) if self._before else 0.0

    def restoring_at_best(self, voxels: int) -> float:
        """Return the same by the fastest that was seen; 0 where nothing was.

        It is by this that a stack is given up before it has begun: if it were by the usual time, and all stacks were
        given up in a busy moment, nobody would see that the moment is over.
        """
        return min(self._before, default=0.0) + voxels * min(self._voxels, default=0.0)

    def interpolating(self, voxels: int) -> float:
        """Return how many seconds interpolating ``voxels`` will take."""
        took = statistics.median(self._interpolated) if self._interpolated else _INTERPOLATED_VOXEL
        return _INTERPOLATED_STACK + voxels * max(took, _INTERPOLATED_VOXEL)
