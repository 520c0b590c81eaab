"""What a stack says of its microscope: noise, brightness, and point spread function.

The first two are read from a few planes and cheap; the point spread function needs a run of planes and takes
seconds. All come from the raw planes, whose noise is known, and not from denoised ones, in which it is not.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from otf_stream.acquisition import Acquisition
from otf_stream.optics.isotropy import estimate_psf
from otf_stream.optics.measured import focus_sigma, on_grid
from otf_stream.optics.noise import NoiseModel, estimate_noise
from otf_stream.optics.pointspread import likely_psfs, microscope_of
from otf_stream.optics.psf import AxialBlur, SplitPsf, split_psf
from otf_stream.service.source import StackSource
from otf_stream.store.formats.source import RecordingError
from otf_stream.store.recordings import open_recording

_NOISE_PAIRS, _NOISE_PIXELS = 4, 2**22  # of planes; of all of them, where planes are large
_STRIP = 64  # rows
_FIELD = 256  # pixels; a stack's point spread function is that of the middle of its field of view


@dataclass(frozen=True)
class Character:
    """Noise and brightness of a stack.

    Parameters
    ----------
    noise
        In counts.
    scale
        The counts between no light and the brightest thousandth of the pixels; 0 for a constant stack.
    """

    noise: NoiseModel
    scale: float

    @property
    def origin(self) -> float:
        """Counts without light."""
        return self.noise.offset

    @property
    def normalised_noise(self) -> NoiseModel:
        """The noise in the unit that the denoiser sees."""
        return self.noise.rescaled(self.origin, self.scale)

    def normalised(self, counts: Tensor) -> Tensor:
        """Express ``counts``, of any shape, in the unit that the denoiser sees."""
        return (counts - self.origin) / self.scale


@dataclass(frozen=True)
class FoundPsf:
    """The point spread function of a stack, and where it comes from: the stack, a file, or what is usual."""

    psf: SplitPsf
    origin: Literal["estimated", "measured", "usual"]

    @property
    def blur(self) -> AxialBlur:
        """The family of its axial blurs."""
        return AxialBlur(self.psf.kernel)


def characterise(source: StackSource) -> Character:
    """Estimate noise and scale from the planes that are there. At least one must be."""
    there = source.planes()
    # Neighbours, from everywhere: their differences show the noise.
    starts = np.linspace(0, max(len(there) - 2, 0), _NOISE_PAIRS).astype(int)
    some = sorted({z for i in starts for z in there[i : i + 2]})
    sizes = source.acquisition.sizes
    planes = np.concatenate([source.read(some, rows) for rows in _strips(sizes.y, len(some) * sizes.x)], axis=1)
    noise = estimate_noise(planes)
    scale = float(np.percentile(planes, 99.9)) - noise.offset
    return Character(noise, max(scale, 0.0))


def _strips(height: int, pixels: int) -> list[slice]:
    """Choose strips of rows, from everywhere, so that they have not too many pixels; of so many each row is."""
    wanted = max(_NOISE_PIXELS // (pixels * _STRIP), 1)
    if wanted * _STRIP >= height:
        return [slice(0, height)]
    return [slice(top, top + _STRIP) for top in np.linspace(0, height - _STRIP, wanted).astype(int).tolist()]


def uncharacterised() -> Character:
    """Return what is assumed of a stack that cannot be characterised: no noise."""
    return Character(NoiseModel(0.0, 0.0, 0.0), 0.0)


def usual_psf(source: StackSource) -> FoundPsf:
    """Return the point spread function that a microscope of this kind usually has."""
    acquisition = source.acquisition
    return FoundPsf(likely_psfs(acquisition.modality, acquisition.optics, acquisition.voxel_size.lateral)[0], "usual")


def measured_psf(path: Path, acquisition: Acquisition) -> FoundPsf:
    """Read a user's own point spread function from a TIFF, and bring it to the grid of a stack.

    Its voxel size is that which the file tells, or that of the stack.

    Raises
    ------
    PsfError
        If it cannot be used for this stack.
    RecordingError
        If the file is no TIFF of a volume.
    """
    told = acquisition.voxel_size
    try:
        recording = open_recording(path)
    except RecordingError:
        recording = open_recording(path, voxel_size=told)
    with closing(recording):
        sizes, voxel_size = recording.acquisition.sizes, recording.acquisition.voxel_size
        volume = np.stack([recording.plane((0, 0, z)) for z in range(sizes.z)])
    planes = acquisition.sizes
    psf = on_grid(
        volume,
        voxel_size,
        pixel_um=told.lateral,
        extent_um=((planes.z - 1) * told.z, (planes.y - 1) * told.y, (planes.x - 1) * told.x),
    )
    return FoundPsf(split_psf(torch.from_numpy(psf), focus_sigma(psf)), "measured")


def check_optics(acquisition: Acquisition, measured: Path | None) -> None:
    """Refuse what cannot be before any time is spent on it.

    Raises
    ------
    PsfError, RecordingError
        As :func:`measured_psf`.
    ValueError
        If the numerical aperture is not below the refractive index.
    """
    microscope_of(acquisition.modality, acquisition.optics)
    if measured is not None:
        measured_psf(measured, acquisition)


def find_psf(source: StackSource, noise: NoiseModel, measured: Path | None = None) -> FoundPsf:
    """Return the point spread function in the file ``measured``, or estimate it from the planes that are there."""
    if measured is not None:
        return measured_psf(measured, source.acquisition)
    acquisition, there = source.acquisition, source.planes()
    # The spectrum along z needs planes at an even distance: the longest run without a gap.
    run = max(np.split(there, np.flatnonzero(np.diff(there) != 1) + 1), key=len)
    stack = source.read(run.tolist(), middle(acquisition.sizes.y, _FIELD), middle(acquisition.sizes.x, _FIELD))
    psf, estimated = estimate_psf(
        stack,
        acquisition.voxel_size.anisotropy,
        likely_psfs(acquisition.modality, acquisition.optics, acquisition.voxel_size.lateral),
        noise,
    )
    return FoundPsf(psf, "estimated" if estimated else "usual")


def middle(length: int, window: int) -> slice:
    """Return the middle of an axis of ``length``, as long as ``window`` or all of it."""
    start = max(length - window, 0) // 2
    return slice(start, start + window)
