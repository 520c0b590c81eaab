"""A denoiser for lateral planes, trained on the noisy planes alone.

Recorruption: noise of the estimated model is added to a patch in one copy and subtracted in another, such that the
noises of the two copies are independent; the network learns to predict one from the other and, since noise
cannot be predicted, learns the sample. It needs no second exposure and no blind spot, leaves detail of
one pixel where it is, and does little where there is little noise. The variance of the noise model is linear in the
pixel, so the noisy pixel itself gives an unbiased variance.

References
----------
Pang, Zheng, Quan, Ji: Recorrupted-to-Recorrupted, CVPR 2021.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from otf_stream.learn.compute import Compute
from otf_stream.learn.nafnet import NAFNet
from otf_stream.learn.planes import PlanePool
from otf_stream.learn.training import Trainer, apply_network
from otf_stream.optics.noise import NoiseModel

_RECORRUPTION = 0.7
_BATCH = 8
PATCH = 64
"""Side of a training patch, in pixels."""


def new_denoiser() -> NAFNet:
    """Return a small network: noise is local, and the time belongs to deblurring."""
    return NAFNet(width=16, enc_blk_nums=(1,), middle_blk_num=1, dec_blk_nums=(1,))


def recorrupted(patches: Tensor, noise: NoiseModel, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Make an input and a target with independent noise from noisy patches.

    Parameters
    ----------
    patches
        ``(n, 1, y, x)``.
    noise
        The noise that the patches carry, in their unit.
    generator
        Source of randomness, on the patches' device.

    Returns
    -------
    tuple of Tensor
        Input and target, both of the shape of ``patches``.
    """
    extra = noise.draw(patches, generator)
    return patches + _RECORRUPTION * extra, patches - extra / _RECORRUPTION


def denoiser_trainer(pool: PlanePool, noise: NoiseModel, compute: Compute, generator: torch.Generator) -> Trainer:
    """Return a trainer of a new denoiser for the noisy planes in ``pool``, whose noise is ``noise``."""

    def pairs() -> tuple[Tensor, Tensor]:
        return recorrupted(pool.patches(_BATCH, PATCH, PATCH, generator), noise, generator)

    return Trainer(new_denoiser(), pairs, compute, learning_rate=5e-3)


@dataclass(frozen=True)
class Denoiser:
    """A trained denoiser, from counts to counts.

    Parameters
    ----------
    network
        Ready for inference.
    noise
        Of the camera, in counts.
    scale
        The network sees ``(counts − noise.offset) / scale``.
    compute
        Where it runs.
    """

    network: NAFNet
    noise: NoiseModel
    scale: float
    compute: Compute

    @property
    def reach(self) -> int:
        """Lateral pixels around a pixel that its value depends on."""
        reach: int = self.network.reach
        return reach

    def __call__(self, planes: Tensor) -> Tensor:
        """Denoise ``planes``, ``(n, 1, y, x)``, counts; one at a time, which bounds the memory."""
        offset, scale = self.noise.offset, self.scale
        light = (planes.to(self.compute.device) - offset) / scale
        return torch.cat([apply_network(self.network, plane[None], self.compute) for plane in light]) * scale + offset

    def errors(self, planes: Tensor, generator: torch.Generator) -> Tensor:
        """Draw the errors that denoising leaves in planes whose true counts are ``planes``, ``(n, 1, y, x)``."""
        return self(planes + self.noise.draw(planes, generator)) - planes
