"""What quality is measured on: phantoms of four modalities, three levels of noise and three z steps.

Each is imaged through the physical point spread function of its modality, which the restoration is not told. Half of
what is reported comes from samples unlike those that anything was tuned on (`HELD_OUT`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import product

import numpy as np
import torch
from numpy.typing import NDArray

from otf_stream.acquisition import Acquisition, Modality, Optics, Sizes, VoxelSize
from otf_stream.optics.psf import split_psf
from simulators.instruments import INSTRUMENTS, PHOTONS, instrument_psf
from simulators.microscope import Camera, through_optics
from simulators.phantom import LATERAL_SIGMA, Volume, cells, seen_isotropically
from simulators.tissues import foam, vesicles

PLANES = 32
SIDE = 256

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
    def shape(self) -> tuple[int, int, int]:
        """Of the isotropic grid, ``(z', y, x)``."""
        return self.depth, SIDE, SIDE

    @property
    def camera(self) -> Camera:
        """The camera, whose gain and offset no method is told."""
        return Camera(photons=PHOTONS[self.noise])

    @property
    def pixel_um(self) -> float:
        """Lateral pixel size."""
        return INSTRUMENTS[self.modality].pixel_um

    @property
    def lateral_sigma(self) -> float:
        """σ across, in pixels, of the point spread function in focus; the truth is as sharp along z."""
        return LATERAL_SIGMA

    @property
    def acquisition(self) -> Acquisition:
        """What the microscope announces: its modality and voxels, no optics."""
        pixel = self.pixel_um
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
        return instrument_psf(self.modality)

    @property
    def axial_width(self) -> float:
        """True width of the core of the point spread function along z, in pixels, full at half maximum."""
        return split_psf(torch.from_numpy(self.psf), self.lateral_sigma).width

    def draw(self) -> tuple[Volume, NDArray[np.uint16]]:
        """Return the truth ``(z', y, x)`` and the planes ``(z, y, x)``; neither can be written to."""
        return _drawn(self)

    def expected(self) -> Volume:
        """Return the planes without noise, ``(z, y, x)``, in photons of a voxel of truth 1.0."""
        return self._imaged()[1]

    def _imaged(self) -> tuple[Volume, Volume]:
        """Return the truth, and the planes without noise."""
        sample = _SAMPLES[self.sample](self.shape, seed=self.seed)
        # As bright in every modality: what differs is blur, and noise is a level of its own.
        return seen_isotropically(sample), through_optics(sample, self.psf)[:: self.z_step]


@lru_cache(maxsize=1)  # drawing takes longer than many a method, and cases are run by many methods in a row
def _drawn(case: Case) -> tuple[Volume, NDArray[np.uint16]]:
    truth, light = case._imaged()
    planes = case.camera.expose(light, seed=case.seed)
    truth.flags.writeable = planes.flags.writeable = False
    return truth, planes


def all_cases() -> list[Case]:
    """Return the whole benchmark: every modality, noise and z step on cells, then on samples held out."""
    grid = [Case(m, n, z) for m, n, z in product(INSTRUMENTS, PHOTONS, Z_STEPS)]
    held_out = [
        replace(case, sample=HELD_OUT[index % len(HELD_OUT)], seed=case.seed + 100) for index, case in enumerate(grid)
    ]
    return [*grid, *held_out]


def few_cases() -> list[Case]:
    """Return four cases, each instrument as it is usually run: every level of noise and z step is among them."""
    return [Case(modality, usual.noise, usual.z_step) for modality, usual in INSTRUMENTS.items()]


def held_out_cases() -> list[Case]:
    """Return all with samples held out, modalities by turns: where a run is cut off, there are some of each."""
    return sorted((case for case in all_cases() if case.sample in HELD_OUT), key=lambda case: (case.z_step, case.noise))


def few_held_out_cases() -> list[Case]:
    """Return those of the samples held out that are imaged like :func:`few_cases`."""
    held_out = {(case.modality, case.noise, case.z_step): case for case in held_out_cases()}
    return [held_out[case.modality, case.noise, case.z_step] for case in few_cases()]
