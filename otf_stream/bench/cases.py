"""What quality is measured on: phantoms of four modalities, three levels of noise and three z steps.

Each is imaged through the physical point spread function of its modality, which the restoration is not told. Half of
what is reported comes from samples unlike those that anything was tuned on (`HELD_OUT`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from itertools import product

import numpy as np
import torch
from numpy.typing import NDArray

from otf_stream.acquisition import Acquisition, Modality, Optics, Sizes, VoxelSize
from otf_stream.optics.pointspread import Microscope
from otf_stream.optics.psf import split_psf
from simulators.microscope import Camera, physical_psf, pixel_size, through_optics
from simulators.phantom import LATERAL_SIGMA, Volume, cells, seen_isotropically
from simulators.tissues import foam, vesicles

PLANES = 32
SIDE = 256

MICROSCOPES: dict[Modality, Microscope] = {
    "confocal": Microscope("confocal", 1.15, depth_um=20, index_mismatch=0.02),
    "multiphoton": Microscope("multiphoton", 1.05, excitation_um=0.92, depth_um=60, index_mismatch=0.02),
    "light-sheet": Microscope("light-sheet", 1.0, sheet_um=2.0, depth_um=20, index_mismatch=0.02),
    "widefield": Microscope("widefield", 1.1, depth_um=10, index_mismatch=0.02),
}
"""Good instruments, a little aberrated; none of them is a default of `otf_stream.optics.pointspread`."""

PHOTONS = {"low": 1600.0, "middle": 400.0, "high": 100.0}
"""By level of noise: photoelectrons of a voxel of truth 1.0. Chromatin has an eighth of it."""

Z_STEPS = (3, 4, 6)
"""Distance of planes in pixels."""

_SAMPLES = {"cells": cells, "foam": foam, "vesicles": vesicles}
TUNED_ON = ("cells",)
HELD_OUT = ("foam", "vesicles")


@dataclass(frozen=True)
class Case:
    """One stack with a known truth.

    Parameters
    ----------
    modality
        Which microscope.
    noise
        ``low``, ``middle`` or ``high``.
    z_step
        Distance of planes in pixels.
    sample
        Kind of sample.
    seed
        Of the sample and of the noise.
    """

    modality: Modality
    noise: str
    z_step: int
    sample: str = "cells"
    seed: int = 100

    @property
    def name(self) -> str:
        """Unique among cases."""
        return f"{self.modality}-{self.noise}-dz{self.z_step}-{self.sample}-{self.seed}"

    @property
    def depth(self) -> int:
        """Voxels of the isotropic grid along z."""
        return (PLANES - 1) * self.z_step + 1

    @property
    def camera(self) -> Camera:
        """The camera, whose gain and offset no method is told."""
        return Camera(photons=PHOTONS[self.noise])

    @property
    def acquisition(self) -> Acquisition:
        """What the microscope announces: its modality and voxels, no optics."""
        pixel = pixel_size(MICROSCOPES[self.modality])
        return Acquisition(
            name=self.name,
            sizes=Sizes(z=PLANES, y=SIDE, x=SIDE),
            dtype="uint16",
            voxel_size=VoxelSize(z=pixel * self.z_step, y=pixel, x=pixel),
            modality=self.modality,
            optics=Optics(),
        )

    @property
    def psf(self) -> NDArray[np.float32]:
        """The true point spread function, ``(z, y, x)`` on the isotropic grid."""
        return _psf(self.modality)

    @property
    def axial_width(self) -> float:
        """True width of the core of the point spread function along z, in pixels, full at half maximum."""
        return split_psf(torch.from_numpy(self.psf), LATERAL_SIGMA).width

    def draw(self) -> tuple[Volume, NDArray[np.uint16]]:
        """Return the truth ``(z', y, x)`` and the planes ``(z, y, x)``."""
        sample = self._sample()
        return seen_isotropically(sample), self.camera.expose(self._seen(sample), seed=self.seed)

    def expected(self) -> Volume:
        """Return the planes without noise, ``(z, y, x)``, in photons of a voxel of truth 1.0."""
        return self._seen(self._sample())

    def _sample(self) -> Volume:
        return _SAMPLES[self.sample]((self.depth, SIDE, SIDE), seed=self.seed)

    def _seen(self, sample: Volume) -> Volume:
        # As bright in every modality: what differs is blur, and noise is a level of its own.
        return through_optics(sample, self.psf)[:: self.z_step]


@cache
def _psf(modality: Modality) -> NDArray[np.float32]:
    return physical_psf(MICROSCOPES[modality])


def all_cases() -> list[Case]:
    """Return the whole benchmark: every modality, noise and z step on cells, then on samples held out."""
    grid = [Case(m, n, z) for m, n, z in product(MICROSCOPES, PHOTONS, Z_STEPS)]
    held_out = [
        replace(case, sample=HELD_OUT[index % len(HELD_OUT)], seed=case.seed + 100) for index, case in enumerate(grid)
    ]
    return [*grid, *held_out]


def few_cases() -> list[Case]:
    """Return four cases, one a modality, with every level of noise and z step among them."""
    return [
        Case("confocal", "middle", 4),
        Case("multiphoton", "high", 4),
        Case("light-sheet", "low", 6),
        Case("widefield", "low", 3),
    ]


def few_held_out_cases() -> list[Case]:
    """Return those of the samples held out that are imaged like :func:`few_cases`."""
    imaged = {(case.modality, case.noise, case.z_step) for case in few_cases()}
    held_out = [case for case in all_cases() if case.sample in HELD_OUT]
    return [case for case in held_out if (case.modality, case.noise, case.z_step) in imaged]
