"""Cases of another simulator: samples and optics of which no line is shared with those of the other cases.

What works in one simulator may work because of it. These stacks are blurred by Gaussians, as those of many papers are,
and each has something that the other cases lack: a camera of another gain, a focus sampled finely or coarsely, tails
to one side, points in the dark. Nothing is fitted to them, but for the share of stacks that are taken to have no haze.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from otf_stream.bench.cases import Case
from simulators.gaussian import cone_psf, gaussian_psf, imaged
from simulators.instruments import INSTRUMENTS, PHOTONS
from simulators.microscope import Camera
from simulators.morphologies import beads, clouds, membrane, neurites, nuclei
from simulators.phantom import LATERAL_SIGMA, Volume, seen_isotropically

_SAMPLES = {"nuclei": nuclei, "neurites": neurites, "membrane": membrane, "clouds": clouds, "beads": beads}
MORPHOLOGIES = tuple(_SAMPLES)


@dataclass(frozen=True)
class GaussianCase(Case):
    """A stack of Gaussian optics.

    Parameters
    ----------
    trait
        What it is there for.
    lateral
        σ across, in pixels.
    axial
        σ along z, in pixels; in widefield, the distance from focus at which light is √2 times as wide.
    tail, aside
        As `simulators.gaussian.gaussian_psf` has them.
    gain, offset, read_noise
        Of the camera.
    """

    trait: str = field(kw_only=True)
    lateral: float = field(kw_only=True)
    axial: float = field(kw_only=True)
    tail: float = field(kw_only=True, default=0.0)
    aside: float = field(kw_only=True, default=0.0)
    gain: float = field(kw_only=True, default=2.0)
    offset: float = field(kw_only=True, default=100.0)
    read_noise: float = field(kw_only=True, default=2.0)

    @property
    def name(self) -> str:
        """Unique among cases."""
        return f"{super().name}-{self.trait}"

    @property
    def camera(self) -> Camera:
        """The camera, whose gain and offset no method is told."""
        return Camera(PHOTONS[self.noise], self.gain, self.offset, self.read_noise)

    @property
    def pixel_um(self) -> float:
        """Lateral pixel size, at which the focus of the modality's instrument would have this σ."""
        return INSTRUMENTS[self.modality].pixel_um * LATERAL_SIGMA / self.lateral

    @property
    def lateral_sigma(self) -> float:
        """σ across, in pixels."""
        return self.lateral

    @property
    def psf(self) -> NDArray[np.float32]:
        """The true point spread function, ``(z, y, x)`` on the isotropic grid."""
        if self.modality == "widefield":
            return cone_psf(self.lateral, self.axial)
        return gaussian_psf(self.lateral, self.axial, tail=self.tail, aside=self.aside)

    def _imaged(self) -> tuple[Volume, Volume]:
        psf = self.psf
        wide = [n + m - 1 for n, m in zip(self.shape, psf.shape, strict=True)]
        sample = _SAMPLES[self.sample]((wide[0], wide[1], wide[2]), seed=self.seed)
        inner = tuple(slice(m // 2, m // 2 + n) for n, m in zip(self.shape, psf.shape, strict=True))
        return seen_isotropically(sample, self.lateral)[inner].copy(), imaged(sample, psf)[:: self.z_step]


def gaussian_cases() -> list[GaussianCase]:
    """Return ten cases, each with a trait of its own."""
    drawn = 300  # the seed of samples that no other case has
    return [
        GaussianCase("confocal", "middle", 4, "nuclei", drawn, trait="plain", lateral=1.0, axial=3.0, gain=1.0),
        GaussianCase("confocal", "high", 4, "nuclei", drawn, trait="coarse-pixels", lateral=0.6, axial=3.0),
        GaussianCase("confocal", "middle", 3, "nuclei", drawn, trait="fine-pixels", lateral=2.2, axial=7.0),
        GaussianCase("confocal", "middle", 4, "clouds", drawn, trait="no-edges", lateral=1.0, axial=4.0),
        GaussianCase("confocal", "middle", 4, "neurites", drawn, trait="one-sided", lateral=1.0, axial=3.0, aside=4.0),
        GaussianCase(
            "multiphoton", "high", 5, "neurites", drawn, trait="tails", lateral=1.2, axial=5.0, tail=0.15,
            gain=8.0, offset=400.0, read_noise=1.0,
        ),
        GaussianCase(
            "light-sheet", "middle", 6, "membrane", drawn, trait="thick-sheet", lateral=1.3, axial=6.0,
            gain=0.5, read_noise=1.6,
        ),
        GaussianCase(
            "light-sheet", "high", 6, "nuclei", drawn, trait="dim", lateral=1.3, axial=7.0, tail=0.2,
            gain=0.5, read_noise=1.6,
        ),
        GaussianCase("light-sheet", "high", 4, "beads", drawn, trait="dark", lateral=1.2, axial=5.0),
        GaussianCase("widefield", "middle", 3, "nuclei", drawn, trait="cone", lateral=1.1, axial=4.7),
    ]  # fmt: skip
