"""A denoiser for lateral planes that looks at the planes around them, and learns from the noisy planes alone.

It starts from weights that were trained on drawn scenes (:mod:`otf_stream.learn.scenes`), and is told how strong
the noise is: a map of its standard deviation is part of the input. On the stack itself it goes on by
*recorruption*: noise of the estimated model is added to a plane in one copy and subtracted in another, such that
the noises of the two copies are independent; the network learns to predict one from the other and, since noise
cannot be predicted, learns the sample. It needs no second exposure and no blind spot. The planes before and after
are independent recordings of nearly the same sample: they are given as they are. Most of what is asked for there is
noise, so that it is learnt slowly. The other way is to *rehearse*: the planes as they are denoised so far are taken for
the sample, noise is drawn upon them, and the network is asked for them. Each needs the other: what is rehearsed is
only as good as the denoiser was.

The variance of the noise model is linear in the pixel, so the noisy pixel itself gives an unbiased variance.

References
----------
Pang, Zheng, Quan, Ji: Recorrupted-to-Recorrupted, CVPR 2021.
Zhang, Li, Law, Wang, Qin, Li: IDR, self-supervised denoising via iterative data refinement, CVPR 2022 (rehearsal).
Zhang, Zuo, Zhang: FFDNet, IEEE TIP 27 (2018), for the map of the noise.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.nn import functional

from otf_stream.learn.compute import Compute
from otf_stream.learn.folding import folded
from otf_stream.learn.nafnet import NAFNet
from otf_stream.learn.planes import PlanePool
from otf_stream.learn.training import PARTS, Pairs, Trainer, apply_network
from otf_stream.optics.forward import mirrored
from otf_stream.optics.noise import NoiseModel

NEIGHBOURS = 2
"""Planes on each side that help to denoise a plane."""

PATCH = 64
"""Side of a training patch, in pixels."""

BEGINNING = 0.2
"""Share of the training that is recorruption; the rest is to rehearse."""

REHEARSING_RATE = 1e-3
"""Learning rate for planes that are clean: what is asked for is no noise, and more may be learnt from each step."""

_RECORRUPTION = 0.7
_LEARNING_RATE = 3e-4  # the network knows noise already; more makes it forget
_SMOOTHING = 5  # pixels over which light is averaged to tell the noise


def denoising_network() -> NAFNet:
    """Return a new network: noise is local, and the time belongs to deblurring.

    One that looks twice as far, by a level more and a sixth more arithmetic, was tried: it went on from this one for
    5600 steps of four scenes, and planes of four stacks had 0.04 dB less error.
    """
    return NAFNet(
        width=32, enc_blk_nums=(1, 1), middle_blk_num=2, dec_blk_nums=(1, 1), guide_channels=2 * NEIGHBOURS + 1
    )


def neighbourhoods(planes: Tensor, wanted: slice = slice(None)) -> Tensor:
    """Gather each plane with its neighbours.

    Parameters
    ----------
    planes
        ``(n, y, x)``, in the order in which they lie. Past the ends the stack is mirrored.
    wanted
        Which of them to gather for.

    Returns
    -------
    Tensor
        ``(m, 1 + 2 · NEIGHBOURS, y, x)``: the plane itself, then those before and after, nearest first.
    """
    n = len(planes)
    at = torch.arange(n, device=planes.device)[wanted]
    offsets = [0] + [side * distance for distance in range(1, NEIGHBOURS + 1) for side in (-1, 1)]
    return torch.stack([planes[mirrored(at + offset, n)] for offset in offsets], dim=1)


def with_noise_map(planes: Tensor, noise: NoiseModel, strength: float = 1.0) -> Tensor:
    """Append a map of the standard deviation of the noise of the first channel, times ``strength``.

    Parameters
    ----------
    planes
        ``(n, c, y, x)``, as :func:`neighbourhoods` gathers them.
    """
    edge = _SMOOTHING // 2
    local = functional.avg_pool2d(functional.pad(planes[:, :1], (edge,) * 4, mode="replicate"), _SMOOTHING, stride=1)
    return torch.cat([planes, noise.variance(local).sqrt() * strength], dim=1)


def recorrupted(patches: Tensor, noise: NoiseModel, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Make an input and a target with independent noise from noisy patches.

    Parameters
    ----------
    patches
        ``(n, c, y, x)``, as :func:`neighbourhoods` gathers them.
    noise
        The noise that the patches carry, in their unit.
    generator
        Source of randomness, on the patches' device.

    Returns
    -------
    tuple of Tensor
        Input ``(n, c + 1, y, x)``, the map of the noise last, and target ``(n, 1, y, x)``.
    """
    centre = patches[:, :1]
    extra = noise.draw(centre, generator)
    given = torch.cat([centre + _RECORRUPTION * extra, patches[:, 1:]], dim=1)
    return with_noise_map(given, noise, math.sqrt(1 + _RECORRUPTION**2)), centre - extra / _RECORRUPTION


def renoised(clean: Tensor, noise: NoiseModel, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Make an input by drawing noise upon patches that were denoised before, and ask for those.

    Parameters
    ----------
    clean
        ``(n, c, y, x)``, as :func:`neighbourhoods` gathers denoised planes.
    noise
        Of the camera, in their unit.
    generator
        Source of randomness, on the patches' device.

    Returns
    -------
    tuple of Tensor
        Input ``(n, c + 1, y, x)``, the map of the noise last, and target ``(n, 1, y, x)``.
    """
    noisy = clean + noise.draw(clean.flatten(0, 1)[:, None], generator).view_as(clean)
    return with_noise_map(noisy, noise), clean[:, :1]


Ask = Callable[[Tensor, NoiseModel, torch.Generator], tuple[Tensor, Tensor]]
"""Makes, of patches ``(n, c, y, x)`` with their neighbours, what is given, and what is to be predicted."""


def denoiser_pairs(
    pool: PlanePool, noise: NoiseModel, compute: Compute, generator: torch.Generator, *, ask: Ask = recorrupted
) -> Pairs:
    """Return what draws batches from the neighbourhoods in ``pool``, as many patches as suit the device."""
    return lambda: ask(pool.patches(compute.patches, PATCH, PATCH, generator), noise, generator)


def denoiser_trainer(
    network: NAFNet, pool: PlanePool, noise: NoiseModel, compute: Compute, generator: torch.Generator
) -> Trainer:
    """Return a trainer of ``network`` for the noisy neighbourhoods in ``pool``, whose noise is ``noise``."""
    pairs = denoiser_pairs(pool, noise, compute, generator)
    return Trainer(network, pairs, compute, learning_rate=_LEARNING_RATE, parts=PARTS)


def rehearse(
    trainer: Trainer, clean: PlanePool, noise: NoiseModel, compute: Compute, generator: torch.Generator
) -> None:
    """Let a trainer go on with the denoised neighbourhoods in ``clean``, upon which ``noise`` is drawn."""
    trainer.pairs = denoiser_pairs(clean, noise, compute, generator, ask=renoised)
    trainer.learning_rate = REHEARSING_RATE


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

    @cached_property
    def _folded(self) -> NAFNet:
        return folded(self.network, self.compute)

    @property
    def reach(self) -> int:
        """Lateral pixels around a pixel that its value depends on."""
        reach: int = self.network.reach + _SMOOTHING // 2
        return reach

    def parts(self, planes: Tensor, wanted: slice = slice(None)) -> Iterator[tuple[slice, slice, slice, Tensor]]:
        """Denoise the ``wanted`` ones of ``planes``, ``(n, y, x)``, counts, in the order in which they lie, by tiles.

        Tiles bound the memory, and do not show: each is denoised with as much around it as its pixels depend on.
        Those of several small planes go through the network together.

        Yields
        ------
        tuple
            Which of the wanted planes, the rows and columns of the tiles, and the tiles, ``(n, y, x)`` counts.
        """
        offset, scale = self.noise.offset, self.scale
        planes = planes.to(self.compute.device)
        noise, network = self.noise.rescaled(offset, scale), self._folded
        height, width = planes.shape[1:]
        halo = -(-self.reach // network.multiple) * network.multiple
        # Neighbours past the ends of the stack depend on where the ends are, not on which planes are wanted.
        indices = range(len(planes))[wanted]
        longest = math.isqrt(self.compute.pixels // 2)  # the rest is halo, and its neighbours
        rows, columns = (_cut(side, longest, network.multiple) for side in (height, width))
        together = max(longest**2 // (min(height, longest) * min(width, longest)), 1)
        starts = range(indices.start, indices.stop, together)
        tiles = [(slice(i, min(i + together, indices.stop)), y, x) for i in starts for y in rows for x in columns]

        def clean(tile: tuple[slice, slice, slice]) -> tuple[slice, slice, slice, Tensor]:
            some, y, x = tile
            top, left = max(y.start - halo, 0), max(x.start - halo, 0)
            window = planes[:, top : y.stop + halo, left : x.stop + halo].sub(offset).div_(scale)
            given = with_noise_map(neighbourhoods(window, some), noise)
            denoised = apply_network(network, given, self.compute)[:, 0]
            inner = denoised[:, y.start - top : y.stop - top, x.start - left : x.stop - left]
            return slice(some.start - indices.start, some.stop - indices.start), y, x, inner * scale + offset

        yield from self.compute.map(clean, tiles)

    def __call__(self, planes: Tensor, wanted: slice = slice(None)) -> Tensor:
        """Denoise the ``wanted`` ones of ``planes``, ``(n, y, x)``, counts, in the order in which they lie."""
        clean = torch.empty(len(range(len(planes))[wanted]), *planes.shape[1:], device=self.compute.device)
        for some, y, x, tiles in self.parts(planes, wanted):
            clean[some, y, x] = tiles
        return clean

    def recorded(self, planes: Tensor, generator: torch.Generator) -> Tensor:
        """Draw what the camera makes of true counts, ``(n, y, x)``."""
        return self.noise.draw(planes[:, None], generator)[:, 0].add_(planes)

    def errors(self, planes: Tensor, generator: torch.Generator) -> Tensor:
        """Draw the errors that denoising leaves in a stack whose true counts are ``planes``, ``(n, y, x)``."""
        return self(self.recorded(planes, generator)) - planes


def _cut(side: int, longest: int, multiple: int) -> list[slice]:
    """Cut a side into parts of about one length, that begin at multiples of so many pixels."""
    parts = -(-side // longest)
    length = -(-side // (parts * multiple)) * multiple
    return [slice(start, min(start + length, side)) for start in range(0, side, length)]
