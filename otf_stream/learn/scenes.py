"""Scenes to pre-train on: a drawn sample, a microscope that looks at it, and the noise of its camera.

Everything of which a restoration is told nothing is drawn at random: kind of microscope, aperture, index, pinhole,
sheet, aberration, pixel, z step, light. What a network can learn from ten thousand such stacks need not be learnt
again from the one on the stage.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import Any, Self

import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor

from otf_stream.acquisition import Modality
from otf_stream.learn.samples import draw_sample
from otf_stream.optics.forward import convolved
from otf_stream.optics.noise import NoiseModel
from otf_stream.optics.pointspread import Microscope, focus_width, point_spread
from otf_stream.optics.psf import SplitPsf, split_psf

SHAPE = (97, 128, 128)
"""Isotropic voxels of a scene."""

_REACH = (40, 20)  # voxels along z and across that a point spreads over
_MODALITIES: tuple[Modality, ...] = ("confocal", "multiphoton", "light-sheet", "widefield")
_LATERAL_SIGMA = (0.8, 1.5)  # pixels
_Z_STEP = (0.25, 1.0)  # full widths of the axial focus
_LONGEST_Z_STEP = 7  # pixels
_GAIN = (1e-4, 0.05)  # of a photon, where the brightest thousandth is 1
_READ_NOISE = (0.002, 0.08)


@dataclass(frozen=True)
class Scene:
    """A stack of which everything is known. Intensities lie between 0, no light, and about 1.

    Parameters
    ----------
    truth
        What a microscope as sharp along z as across would see: ``(z', y, x)``.
    seen
        The planes without noise, ``(z, y, x)``.
    noise
        Of the camera.
    psf
        Point spread function on the isotropic grid.
    anisotropy
        The z step in pixels.
    """

    truth: Tensor
    seen: Tensor
    noise: NoiseModel
    psf: SplitPsf
    anisotropy: int

    def on(self, device: torch.device) -> Scene:
        """Return the scene with its voxels on a device."""
        return replace(self, truth=self.truth.to(device), seen=self.seen.to(device))

    def as_arrays(self) -> dict[str, Any]:
        """Return it with arrays in place of tensors, for another process.

        Tensors that processes hand to each other are files that stay open for as long as they are used.
        """
        fields = asdict(self)
        psf = {name: value.numpy() if isinstance(value, Tensor) else value for name, value in fields["psf"].items()}
        return fields | {"truth": self.truth.numpy(), "seen": self.seen.numpy(), "psf": psf}

    @classmethod
    def from_arrays(cls, fields: dict[str, Any]) -> Self:
        """Return the scene that `as_arrays` gave."""
        psf = fields["psf"]
        return cls(
            truth=torch.from_numpy(fields["truth"]),
            seen=torch.from_numpy(fields["seen"]),
            noise=NoiseModel(**fields["noise"]),
            psf=SplitPsf(torch.from_numpy(psf["core"]), torch.from_numpy(psf["tail"]), psf["lateral_sigma"]),
            anisotropy=fields["anisotropy"],
        )


def draw_scene(rng: np.random.Generator) -> Scene:
    """Draw a scene; a seed of ``rng`` gives the same one everywhere."""
    microscope, sigma = _draw_microscope(rng), float(rng.uniform(*_LATERAL_SIGMA))
    pixel = focus_width(microscope) / (2.3548 * sigma)
    depth, side = (2 * reach + 1 for reach in _REACH)
    psf = point_spread(microscope, (depth, side), z_um=pixel, pixel_um=pixel)
    axial = psf[:, side // 2, side // 2]
    step = int(np.clip(round((axial > axial.max() / 2).sum() * rng.uniform(*_Z_STEP)), 1, _LONGEST_Z_STEP))
    sample = draw_sample(SHAPE, rng)
    seen = convolved(torch.from_numpy(sample), torch.from_numpy(psf)).clamp(min=0)[::step]
    bright = float(np.percentile(seen.numpy(), 99.9)) or 1.0
    gain, read_noise = (low * (high / low) ** rng.uniform() for low, high in (_GAIN, _READ_NOISE))
    grain = (0.0, 0.0) if rng.uniform() < 0.7 else tuple(rng.uniform(0.4, 1.2, 2))
    return Scene(
        truth=torch.from_numpy(gaussian_filter(sample, sigma, mode="nearest")) / bright,
        seen=seen / bright,
        noise=NoiseModel(gain, 0.0, read_noise, (float(grain[0]), float(grain[1]))),
        psf=split_psf(torch.from_numpy(psf), sigma),
        anisotropy=step,
    )


def _draw_microscope(rng: np.random.Generator) -> Microscope:
    index = float(rng.choice([1.33, 1.4, 1.515]))
    aberrated = rng.uniform() < 0.5
    modality = _MODALITIES[rng.integers(len(_MODALITIES))]
    emission = rng.uniform(0.45, 0.65)
    return Microscope(
        modality,
        numerical_aperture=index * rng.uniform(0.45, 0.92),
        refractive_index=index,
        excitation_um=rng.uniform(0.75, 1.05) if modality == "multiphoton" else emission * rng.uniform(0.9, 0.96),
        emission_um=emission,
        sheet_um=rng.uniform(1.2, 5.0),
        pinhole_au=rng.uniform(0.6, 1.6),
        depth_um=rng.uniform(5, 60) if aberrated else 0.0,
        index_mismatch=math.copysign(rng.uniform(0.005, 0.03), rng.uniform(-1, 1)) if aberrated else 0.0,
    )
