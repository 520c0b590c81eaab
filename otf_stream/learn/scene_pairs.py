"""What the networks are taught of a drawn scene, in which all is known.

The denoiser is asked for planes without their noise. The deblurring network is asked for axial slices of the scene's
truth: planes are recorded by the camera, denoised, freed of haze and shown to it as those of a stack are, with a point
spread function as nearly known as one found in a stack. A share of what teaches it is lateral planes that were made to
look like axial slices. Of a stack it will learn from such pairs too, and by their likes it is examined there; and their
blur, unlike that of scenes, is drawn from a family.

Where lateral pairs alone teach, a network learns nothing of the errors that denoising, and the haze that was taken
away, leave in slices. Where it is then fine-tuned by lateral pairs alone, that is as well: slices of scenes taught it
to doubt, and it was 1 dB worse. Stacks are laid on their side now, and teach such errors as well.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from otf_stream.learn.compute import Compute
from otf_stream.learn.denoise import PATCH as NOISY_PATCH
from otf_stream.learn.denoise import Denoiser, neighbourhoods, with_noise_map
from otf_stream.learn.nafnet import NAFNet
from otf_stream.learn.pairs import PATCH, AxialPairs, SlicePairs, both, patch_side
from otf_stream.learn.planes import PlanePool, random_patches
from otf_stream.learn.scenes import Scene
from otf_stream.learn.slices import shown
from otf_stream.learn.training import Pairs, with_statistics
from otf_stream.optics.forward import imaging_matrix, interpolation_matrix, plane_positions
from otf_stream.optics.haze import HazeField, binned
from otf_stream.optics.psf import AxialBlur, SplitPsf

BATCH = 8
"""Patches of a scene that are dealt out together."""

_AT_ONCE = 64  # patches that are drawn together: few take a graphics card as long as many
_MEASURED = 4  # batches that tell the statistics of a scene's planes
_UNSURE = 0.04  # standard deviation of the logarithm of width and haze, as they are found in stacks
_BINNING = 2  # pixels: of the bins of haze
_BRIGHT, _FAINTEST = 99.9, 1e-3  # percentile, and the least of it, which is the unit of a network

MakePairs = Callable[[Scene, torch.Generator], Pairs]
"""Makes a source of batches from a scene."""


def noisy_pairs(scene: Scene, generator: torch.Generator) -> Pairs:
    """Return a source of what a denoiser is given of a scene, and of what it should make of it."""

    def pairs() -> tuple[Tensor, Tensor]:
        noisy = scene.seen + scene.noise.draw(scene.seen[:, None], generator)[:, 0]
        all_of_it = torch.cat([neighbourhoods(noisy), scene.seen[:, None]], dim=1)
        patches = random_patches(all_of_it, _AT_ONCE, NOISY_PATCH, NOISY_PATCH, generator)
        return with_noise_map(patches[:, :-1], scene.noise), patches[:, -1:]

    return _dealt(pairs, BATCH)


def axial_pairs(denoising: NAFNet, compute: Compute, *, lateral: float) -> MakePairs:
    """Return what makes, of a scene, a source of pairs for deblurring.

    Parameters
    ----------
    denoising
        A pre-trained denoising network, whose errors the pairs carry.
    compute
        Where it runs.
    lateral
        Share of the pairs that are lateral planes, from 0 to 1, rounded to eighths; the others are axial slices.
    """
    many = round(lateral * BATCH)

    def make(scene: Scene, generator: torch.Generator) -> Pairs:
        noisy = noisy_pairs(scene, generator)
        batches = (noisy()[0] for _ in range(_MEASURED))
        denoiser = Denoiser(with_statistics(denoising, batches, compute), scene.noise, 1.0, compute)
        if many == BATCH:
            return _lateral_pairs(scene, denoiser, generator, 1.0, many)
        pool, unit = _slices(scene, denoiser, generator)
        slices = SlicePairs(pool, generator, batch=BATCH - many)
        return both(_lateral_pairs(scene, denoiser, generator, unit, many), slices) if many else slices

    return make


def _lateral_pairs(scene: Scene, denoiser: Denoiser, generator: torch.Generator, unit: float, batch: int) -> Pairs:
    """Return a source of lateral planes and what they would look like as axial slices, as a stack gives them."""
    # Freed of haze, what is left is made as bright as all of it was, and so are the errors in it.
    errors = denoiser.errors(scene.seen, generator) / (scene.psf.core_share * unit)
    clean = PlanePool(scene.truth.device, smallest=patch_side(scene.anisotropy))
    clean.add(scene.truth[:, None] / unit, generator)
    blur = AxialBlur(scene.psf.kernel)
    return _dealt(AxialPairs(clean, errors, blur, scene.anisotropy, generator, batch=_AT_ONCE), batch)


def _slices(scene: Scene, denoiser: Denoiser, generator: torch.Generator) -> tuple[PlanePool, float]:
    """Return the XZ and YZ slices of a scene as a network is shown them, with the truth, half precision; their unit."""
    light = denoiser(denoiser.recorded(scene.seen, generator))
    psf = _nearly(scene.psf, generator)
    field = HazeField.of(binned(light, _BINNING), psf, scene.anisotropy, _BINNING)
    free = field.removed(light, slice(0, light.shape[1]), slice(0, light.shape[2]))
    unit = max(float(np.percentile(free.cpu().numpy(), _BRIGHT)), _FAINTEST)
    depth = (len(free) - 1) * scene.anisotropy + 1
    positions = plane_positions(len(free), scene.anisotropy, free.device)
    matrices = imaging_matrix(depth, positions, psf.kernel.to(free.device)), interpolation_matrix(depth, positions)
    pool = PlanePool(free.device, smallest=PATCH)
    for lines in ((1, 0, 2), (2, 0, 1)):
        given, clean = shown(*matrices, free.permute(lines)), scene.truth[:depth].permute(lines)
        pool.add((torch.cat([given, clean[:, None]], dim=1) / unit).half(), generator)
    return pool, unit


def _nearly(psf: SplitPsf, generator: torch.Generator) -> SplitPsf:
    """Return a point spread function as it might be found in a stack: a little too wide or narrow, of other haze."""
    stretch, more = torch.randn(2, generator=generator, device=generator.device).mul(_UNSURE).exp().tolist()
    return psf.changed(stretch, more)


def _dealt(pairs: Pairs, batch: int) -> Pairs:
    """Deal out what ``pairs`` draws at once in batches of so many; those that are left over are not used."""
    batches: Iterator[tuple[Tensor, Tensor]] = iter(())

    def deal() -> tuple[Tensor, Tensor]:
        nonlocal batches
        while (found := next(batches, None)) is None or len(found[0]) < batch:
            batches = zip(*(torch.split(drawn, batch) for drawn in pairs()), strict=True)
        return found

    return deal
