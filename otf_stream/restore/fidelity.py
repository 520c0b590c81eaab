"""Whether the restored volume still says what the raw planes said.

Three figures that need no ground truth. *Flux*: the light in the volume against the light in the interpolated stack.
*Residual*: the volume, blurred and sampled again, against the raw planes, in standard deviations of the camera's
noise; 1 is perfect agreement, what lies above it the network has added or lost. *Unexplained*: that surplus as a share
of all that the planes show. Where there is next to no noise, a large residual may be a small one of these.
"""

from __future__ import annotations

import math

from torch import Tensor

from otf_stream.optics.haze import HazeField
from otf_stream.optics.noise import NoiseModel
from otf_stream.restore.methods import Grid
from otf_stream.restore.regions import Region

_NO_NOISE = 1e-12  # counts²


class Fidelity:
    """Adds up the figures over regions.

    Parameters
    ----------
    grid
        Of the stack.
    noise
        Of the camera.
    kernel
        Of the axial blur, in voxels.
    field
        The haze of the stack, which the planes hold and the volume does not; None where the volume holds it too.
    step
        Counts between two values that the planes can take; 0 for floating-point planes. Rounding is noise too, and
        the only noise of a clean recording.
    """

    def __init__(
        self, grid: Grid, noise: NoiseModel, kernel: Tensor, field: HazeField | None = None, *, step: float = 0.0
    ) -> None:
        self._grid = grid
        self._noise = noise
        self._kernel = kernel
        self._field = field
        self._least_variance = max(step**2 / 12, _NO_NOISE)
        self._light = self._expected = 0.0
        self._squares = self._surplus = 0.0
        self._seen = self._seen_squared = 0.0  # counts above the background
        self._pixels = 0

    def add(self, raw: Tensor, restored: Tensor, region: Region) -> None:
        """Add a region: raw planes ``(z, y, x)`` and restored voxels ``(z', y, x)``, counts, without halo."""
        planes, voxels = raw.flatten(1), restored.flatten(1)
        background = self._noise.offset
        self._light += float((voxels.mean(1) - background).sum()) * voxels.shape[1]
        interpolated = self._grid.interpolation(raw.device) @ planes.mean(1, keepdim=True)
        self._expected += float((interpolated - background).sum()) * planes.shape[1]
        imaging = self._grid.imaging(self._kernel, raw.device)
        imaged = (imaging @ voxels).sub_(imaging.sum(1, keepdim=True) * background)
        if self._field is not None:
            imaged = self._field.added(imaged.view(raw.shape), region.y, region.x).flatten(1)
        imaged = imaged + background
        variance = self._noise.variance(imaged).clamp(min=self._least_variance)
        missed, seen, pixels = (imaged - planes).square(), planes - background, planes.numel()
        self._squares += float((missed / variance).mean()) * pixels
        self._surplus += float((missed - variance).mean()) * pixels
        self._seen += float(seen.mean()) * pixels
        self._seen_squared += float(seen.square().mean()) * pixels
        self._pixels += planes.numel()

    @property
    def flux_ratio(self) -> float:
        """Light in the volume over light in the interpolated stack, background subtracted; 1 where there is none."""
        return self._light / self._expected if abs(self._expected) > 1e-9 else 1.0

    @property
    def residual(self) -> float:
        """Root mean square of (imaged volume − raw planes) in standard deviations of the noise."""
        return math.sqrt(self._squares / self._pixels) if self._pixels else 0.0

    @property
    def unexplained(self) -> float:
        """Mean square of (imaged volume − raw planes) beyond that of the noise, over the variance of the raw planes."""
        variance = self._seen_squared - self._seen**2 / max(self._pixels, 1)
        return max(self._surplus, 0.0) / variance if variance > _NO_NOISE * self._pixels else 0.0
