"""The optics and the camera that image a known sample, sharp across and blurred along the optical axis.

Two microscopes are here. The simple one (`expected`) images a truth, which already is what the lateral optics pass: it
adds a Gaussian axial blur and planes further apart than the pixels. The blur is evaluated at each plane's exact
position rather than by filtering the grid and picking voxels, so any ratio of z step to pixel size is imaged without
rounding. The physical one (`through_optics`) images a sharp sample through the point spread function of a real kind of
microscope. Noise comes after blur, as it does in a camera.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from otf_stream.optics.forward import convolved
from otf_stream.optics.pointspread import Microscope, focus_width, point_spread
from simulators.phantom import LATERAL_SIGMA

_REACH = (48, 24)  # voxels along z and across that a point spreads over


@dataclass(frozen=True)
class Camera:
    """A camera of known noise.

    Parameters
    ----------
    photons
        Photoelectrons a voxel of truth 1.0 yields.
    gain
        Grey values a photoelectron.
    offset
        Grey value of darkness.
    read_noise
        Standard deviation of the read-out, in photoelectrons.
    """

    photons: float = 800.0
    gain: float = 2.0
    offset: float = 100.0
    read_noise: float = 2.0

    def __post_init__(self) -> None:
        if self.photons <= 0 or self.gain <= 0 or self.read_noise < 0 or self.offset < 0:
            raise ValueError(f"photons and gain must be above 0, offset and read_noise at least 0: {self}")

    def expose(self, expected: NDArray[np.float32], *, seed: int | list[int]) -> NDArray[np.uint16]:
        """Photograph planes of expected light.

        Parameters
        ----------
        expected
            Fractions of `photons`, any shape, not negative.
        seed
            The same seed gives the same noise.

        Returns
        -------
        ndarray
            uint16, the shape of ``expected``: Poisson and read-out noise, gain, offset, rounded and clipped.
        """
        rng = np.random.default_rng(seed)
        electrons = rng.poisson(expected * self.photons).astype(np.float32)
        electrons += np.float32(self.read_noise) * rng.standard_normal(expected.shape, dtype=np.float32)
        grey = electrons * np.float32(self.gain) + np.float32(self.offset)
        return np.asarray(np.clip(np.rint(grey), 0, np.iinfo(np.uint16).max), np.uint16)


def planes_within(depth: int, anisotropy: float) -> int:
    """How many planes, ``anisotropy`` voxels apart from voxel 0 on, give an isotropic grid of ``depth`` voxels.

    The inverse of `otf_stream.acquisition.isotropic_depth`: the last plane may lie less than a voxel past the grid.
    """
    return math.ceil(depth / anisotropy - 1e-6)


def expected(truth: NDArray[np.float32], *, anisotropy: float, axial_sigma: float | None = None) -> NDArray[np.float32]:
    """Image a truth without noise.

    Parameters
    ----------
    truth
        ``(z, y, x)`` on the isotropic grid. Beyond its ends it is taken to continue as its mirror image.
    anisotropy
        The z step in voxels of the isotropic grid, at least 1; need not be whole.
    axial_sigma
        σ of the axial blur in voxels of the isotropic grid, at least 0.5 (below which a Gaussian is not sampled);
        by default half the z step, a full width at half maximum of 1.2 z steps.

    Returns
    -------
    ndarray
        float32 ``(plane, y, x)``; plane ``k`` lies at voxel ``k·anisotropy``, and there are `planes_within` the
        truth's depth.

    Raises
    ------
    ValueError
        If ``anisotropy`` or ``axial_sigma`` is too small.
    """
    sigma = anisotropy / 2 if axial_sigma is None else axial_sigma
    if anisotropy < 1:
        raise ValueError(f"anisotropy is {anisotropy}, but planes are at least 1 voxel apart")
    if sigma < 0.5:
        raise ValueError(f"axial_sigma is {sigma} voxels, but a Gaussian narrower than 0.5 is not sampled")
    weights = _axial_weights(truth.shape[0], anisotropy, sigma)
    return np.asarray(np.tensordot(weights, truth, axes=1), np.float32)


def image(
    truth: NDArray[np.float32],
    *,
    anisotropy: float,
    axial_sigma: float | None = None,
    camera: Camera = Camera(),
    seed: int,
) -> NDArray[np.uint16]:
    """Image a truth as a microscope would: `expected`, then noise.

    Parameters
    ----------
    truth, anisotropy, axial_sigma
        As in `expected`.
    camera
        Whose noise.
    seed
        Of the noise.

    Returns
    -------
    ndarray
        uint16 ``(plane, y, x)``.
    """
    return camera.expose(expected(truth, anisotropy=anisotropy, axial_sigma=axial_sigma), seed=seed)


def pixel_size(microscope: Microscope) -> float:
    """Return the pixel, in µm, that samples a microscope as finely as `simulators.phantom` expects.

    That is, in which the point spread function in focus has the width of a Gaussian of `LATERAL_SIGMA`.
    """
    return focus_width(microscope) / (2 * math.sqrt(2 * math.log(2)) * LATERAL_SIGMA)


def physical_psf(microscope: Microscope, pixel_um: float | None = None) -> NDArray[np.float32]:
    """Compute the point spread function on an isotropic grid: ``(z, y, x)``, sum 1, vectorial.

    Parameters
    ----------
    microscope
        Whose.
    pixel_um
        Of the grid; that of `pixel_size` where not given.
    """
    pixel = pixel_um or pixel_size(microscope)
    depth, side = (2 * reach + 1 for reach in _REACH)
    return point_spread(microscope, (depth, side), z_um=pixel, pixel_um=pixel, model="vectorial")


def through_optics(sample: NDArray[np.float32], psf: NDArray[np.float32]) -> NDArray[np.float32]:
    """Image a sharp sample without noise, every voxel of it in focus once.

    Parameters
    ----------
    sample
        ``(z, y, x)``. Beyond its ends it is taken to continue as its mirror image.
    psf
        ``(z, y, x)``, odd sides, sum 1.

    Returns
    -------
    ndarray
        float32, the shape of ``sample``; planes of a stack are every so many of it.
    """
    image = convolved(torch.from_numpy(sample), torch.from_numpy(psf))
    return np.asarray(image.clamp(min=0), np.float32)


def _axial_weights(depth: int, anisotropy: float, sigma: float) -> NDArray[np.float32]:
    """What each voxel of the truth gives each plane: ``(plane, z)``, rows summing to 1."""
    centres = anisotropy * np.arange(planes_within(depth, anisotropy))
    reach = math.ceil(4 * sigma) + 1
    positions = np.arange(-reach, depth + reach)
    gaussian = np.exp(-0.5 * ((positions - centres[:, None]) / sigma) ** 2)
    gaussian /= gaussian.sum(axis=1, keepdims=True)
    mirrored = np.pad(np.arange(depth), reach, mode="reflect" if depth > 1 else "edge")
    weights = np.zeros((len(centres), depth))
    np.add.at(weights.T, mirrored, gaussian.T)
    return weights.astype(np.float32)
