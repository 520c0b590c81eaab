"""One good instrument of each modality: its optics, and the light and the z step at which it is usually run.

The benchmarks and the virtual microscope share them. None of them is a default of `otf_stream.optics.pointspread`, so
that a restoration which assumes a usual instrument is not flattered.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np
from numpy.typing import NDArray

from otf_stream.acquisition import Modality
from otf_stream.optics.pointspread import Microscope
from simulators.microscope import Camera, physical_psf, pixel_size

PHOTONS = {"low": 1600.0, "middle": 400.0, "high": 100.0}
"""By level of noise: photoelectrons of a voxel of truth 1.0. Chromatin has an eighth of it."""


@dataclass(frozen=True)
class Instrument:
    """A microscope and how it is run.

    Parameters
    ----------
    microscope
        Its optics, a little aberrated.
    noise
        Level of noise, of `PHOTONS`.
    z_step
        Distance of planes in pixels; less than the depth of focus.
    """

    microscope: Microscope
    noise: str
    z_step: int

    @cached_property
    def pixel_um(self) -> float:
        """Lateral pixel size: it samples the focus finely."""
        return pixel_size(self.microscope)

    @property
    def z_step_um(self) -> float:
        """Distance of planes."""
        return self.z_step * self.pixel_um

    @property
    def camera(self) -> Camera:
        """The camera, with the light of the level of noise."""
        return Camera(photons=PHOTONS[self.noise])


INSTRUMENTS: dict[Modality, Instrument] = {
    "confocal": Instrument(Microscope("confocal", 1.15, depth_um=20, index_mismatch=0.02), "middle", 4),
    "multiphoton": Instrument(
        Microscope("multiphoton", 1.05, excitation_um=0.92, depth_um=60, index_mismatch=0.02), "high", 4
    ),
    "light-sheet": Instrument(Microscope("light-sheet", 1.0, sheet_um=2.0, depth_um=20, index_mismatch=0.02), "low", 6),
    "widefield": Instrument(Microscope("widefield", 1.1, depth_um=10, index_mismatch=0.02), "low", 3),
}
"""By modality. Two-photon microscopes are short of light, cameras behind a light sheet are not."""


@cache
def instrument_psf(modality: Modality) -> NDArray[np.float32]:
    """Compute an instrument's point spread function on the isotropic grid of its pixels: ``(z, y, x)``, sum 1."""
    return physical_psf(INSTRUMENTS[modality].microscope)
