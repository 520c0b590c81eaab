"""Point spread functions of real kinds of microscope, from physical models.

A Gaussian is a fair picture of the core of a point spread function and a poor one of the rest: a widefield microscope
never loses the light that is out of focus, a light sheet cuts it off, index mismatch drives it to one side. The
models of a single lens are those of psfmodels; how lenses make a microscope is said here.

References
----------
Gibson, Lanni: Experimental test of an analytical model of aberration, JOSA A 9, 1992 (the scalar model).
Aguet, Van De Ville, Unser: Super-resolution orientation estimation, 2009 (the vectorial model).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import shift

from otf_stream.acquisition import Modality, Optics
from otf_stream.optics.psf import SplitPsf, split_psf

LensModel = Literal["scalar", "vectorial"]

_COVERSLIP = 1.515
_WORKING_DISTANCE_UM = 1500.0
_FWHM = 2.3548
_REACH = (48, 24)  # voxels along z and across that a point spreads over
_BESIDE = (0.85, 1.2)  # times the usual aperture are as likely, where none is given
_RUNG = 1.4  # apertures between two are so far apart at most
_SHEETS = (1.0, 0.6, 1.6)
_FOCUS = (0.7, 3.0)  # pixels: standard deviation of a focus that the pixels were chosen for
_COARSE = 0.4  # wavelengths by aperture: wider pixels are computed in parts
_PARTS = (3, 5)  # along a side, from twice as wide pixels on the more; with 15 the light on the axis is 2 % less
_SAMPLES = 3  # along a side of other pixels, of which the models take the average
_LARGEST_APERTURE = 0.95  # of the index
_NEAR = 0.01  # voxels
_SAFE_APERTURE = 0.999  # of the index: the models divide by zero where the last ray is parallel to the focal plane


@dataclass(frozen=True)
class Microscope:
    """What the point spread function of a microscope depends on.

    Parameters
    ----------
    modality
        ``unknown`` is taken for confocal, whose blur lies between the others.
    numerical_aperture
        Of the detecting objective, and of the illuminating one where they are the same.
    refractive_index
        Of the immersion medium.
    excitation_um, emission_um
        Wavelengths in µm.
    sheet_um
        Thickness of the light sheet, full width at half maximum.
    pinhole_au
        Diameter of the confocal pinhole in Airy units.
    depth_um, index_mismatch
        The objective looks through so much of a sample whose index is that of the immersion plus the mismatch:
        spherical aberration.

    Raises
    ------
    ValueError
        If the numerical aperture is not below the refractive index.
    """

    modality: Modality = "confocal"
    numerical_aperture: float = 1.0
    refractive_index: float = 1.33
    excitation_um: float = 0.488
    emission_um: float = 0.52
    sheet_um: float = 3.0
    pinhole_au: float = 1.0
    depth_um: float = 0.0
    index_mismatch: float = 0.0

    def __post_init__(self) -> None:
        if not 0 < self.numerical_aperture < self.refractive_index:
            raise ValueError(
                f"a numerical aperture of {self.numerical_aperture:g} is not below the refractive index of "
                f"{self.refractive_index:g}; give the index of the immersion medium (oil 1.515, water 1.33, air 1)"
            )


_DEFAULTS: dict[Modality, Microscope] = {
    "unknown": Microscope("confocal", 1.1),
    "confocal": Microscope("confocal", 1.1),
    "multiphoton": Microscope("multiphoton", 0.95, excitation_um=0.92),
    "light-sheet": Microscope("light-sheet", 0.8),
    "widefield": Microscope("widefield", 0.9),
}


def microscope_of(modality: Modality, optics: Optics) -> Microscope:
    """Return what is known of a microscope, and a usual value for what is not.

    Raises
    ------
    ValueError
        If the numerical aperture is not below the refractive index.
    """
    usual = _DEFAULTS[modality]
    aperture = optics.numerical_aperture or usual.numerical_aperture
    index = optics.refractive_index
    if index is None:
        index = next((n for n in (usual.refractive_index, _COVERSLIP) if aperture < n), _COVERSLIP)
    return Microscope(
        usual.modality,
        aperture,
        index,
        excitation_um=(optics.excitation_nm or 1000 * usual.excitation_um) / 1000,
        emission_um=(optics.emission_nm or 1000 * usual.emission_um) / 1000,
        sheet_um=optics.sheet_um or usual.sheet_um,
    )


@lru_cache(maxsize=4)  # asked again as a stack grows; some megabytes each
def likely_psfs(modality: Modality, optics: Optics, pixel_um: float) -> tuple[SplitPsf, ...]:
    """Compute the point spread functions that a stack may have, on its isotropic grid.

    Parameters
    ----------
    modality, optics
        As the acquisition gives them. What is not given is varied about what is usual. Nobody samples a focus ten times
        as finely as it is: an aperture that the pixel would do so for is not considered. Large fields are often sampled
        too coarsely for the usual aperture: then so are all between it and the one that the pixel would suit.
    pixel_um
        Lateral pixel size.

    Returns
    -------
    tuple of SplitPsf
        The most likely one first; of some that are as likely, the sharpest.

    Raises
    ------
    ValueError
        If the numerical aperture is not below the refractive index.
    """
    known = microscope_of(modality, optics)
    apertures = [known.numerical_aperture]
    if optics.numerical_aperture is None:
        apertures = _likely_apertures(known, pixel_um)
    sheets = [known.sheet_um]
    if known.modality == "light-sheet" and optics.sheet_um is None:
        sheets = [known.sheet_um * factor for factor in _SHEETS]
    depth, side = (2 * reach + 1 for reach in _REACH)
    likely = []
    for aperture in apertures:
        for sheet in sheets:
            microscope = replace(known, numerical_aperture=aperture, sheet_um=sheet)
            psf = point_spread(microscope, (depth, side), z_um=pixel_um, pixel_um=pixel_um)
            likely.append(split_psf(torch.from_numpy(psf), focus_width(microscope) / _FWHM / pixel_um))
    return tuple(likely)


def _likely_apertures(usual: Microscope, pixel_um: float) -> list[float]:
    """Choose apertures that a microscope with such pixels may have, the most likely one first."""
    aperture, most = usual.numerical_aperture, _LARGEST_APERTURE * usual.refractive_index
    width = focus_width(usual) / _FWHM / pixel_um
    suiting = aperture * (width / float(np.clip(width, *_FOCUS)))
    first = max(suiting, aperture)
    rungs = math.ceil(math.log(first / suiting) / math.log(_RUNG))
    likely = [*np.geomspace(first, suiting, rungs + 1).tolist(), first * _BESIDE[1], suiting * _BESIDE[0]]
    return sorted({min(na, most) for na in likely}, key=lambda na: abs(na - first))


def focus_width(microscope: Microscope) -> float:
    """Full width at half maximum of the point spread function in focus, along x, in µm."""
    fine = 0.01
    line = point_spread(microscope, (1, 201), z_um=fine, pixel_um=fine)[0, 100]
    return float((line > line.max() / 2).sum() * fine)


def point_spread(
    microscope: Microscope, shape: tuple[int, int], *, z_um: float, pixel_um: float, model: LensModel = "scalar"
) -> NDArray[np.float32]:
    """Compute the image of a point.

    Parameters
    ----------
    microscope
        Whose.
    shape
        Planes and lateral side, both odd.
    z_um, pixel_um
        Distance of planes and of pixels.
    model
        Of the single lens.

    Returns
    -------
    numpy.ndarray
        float32 ``(z, y, x)``, sum 1, the focus in the middle. Aberration moves it, by more or less than a voxel; by
        how much no stack can tell, and where a point is in focus is where a microscope says that it lies.
    """
    psf = _focused(_point_spread(microscope, _Grid(*shape, z_um, pixel_um), model))
    return np.asarray(psf / psf.sum(), np.float32)


@dataclass(frozen=True)
class _Grid:
    """Where light is computed, and of how many samples along its side each pixel is the average."""

    planes: int
    side: int
    z_um: float
    pixel_um: float
    samples: int = _SAMPLES


def _point_spread(microscope: Microscope, grid: _Grid, model: LensModel) -> NDArray[np.float64]:
    """Image of a point, up to a factor, its brightest plane in the middle."""
    if microscope.modality in ("light-sheet", "widefield"):
        psf = _lens(microscope, microscope.emission_um, grid, model)
        if microscope.modality == "light-sheet":
            z = (np.arange(grid.planes) - grid.planes // 2) * grid.z_um
            psf *= np.exp(-0.5 * (z * _FWHM / microscope.sheet_um) ** 2)[:, None, None]
        return psf
    coarse = _COARSE * microscope.excitation_um / microscope.numerical_aperture
    if grid.pixel_um <= coarse:
        return _twice_through(microscope, grid, model)
    # What passes two lenses is a product, and that is not the product of averages over pixels wider than the focus.
    n = _PARTS[0] if grid.pixel_um <= 2 * coarse else _PARTS[1]
    parts = replace(grid, side=grid.side * n, pixel_um=grid.pixel_um / n, samples=1)
    fine = _twice_through(microscope, parts, model)
    return np.asarray(fine.reshape(grid.planes, grid.side, n, grid.side, n).sum((2, 4)))


def _twice_through(microscope: Microscope, grid: _Grid, model: LensModel) -> NDArray[np.float64]:
    """Image of a point where light passes the lens on its way there and back, or excites with two photons."""
    psf = _lens(microscope, microscope.excitation_um, grid, model)
    if microscope.modality == "multiphoton":
        return psf**2
    airy_um = 1.22 * microscope.emission_um / microscope.numerical_aperture
    radius = 0.5 * microscope.pinhole_au * airy_um / grid.pixel_um
    return psf * _through_pinhole(_lens(microscope, microscope.emission_um, grid, model), radius)


def _focused(psf: NDArray[np.float64]) -> NDArray[np.float64]:
    """Shift along z by the part of a voxel that the focus lies off the brightest plane."""
    planes, side, _ = psf.shape
    if planes < 3:
        return psf
    before, there, after = psf[planes // 2 - 1 : planes // 2 + 2, side // 2, side // 2]
    curvature = before - 2 * there + after
    beyond = 0.5 * (before - after) / curvature if curvature < 0 else 0.0
    if abs(beyond) < _NEAR:
        return psf
    return np.asarray(shift(psf, (-beyond, 0, 0), order=3, mode="nearest").clip(0), np.float64)


def _lens(microscope: Microscope, wavelength: float, grid: _Grid, model: LensModel) -> NDArray[np.float64]:
    """Intensity of the image of a point by one lens, ``(z, y, x)``, its brightest plane in the middle."""
    import psfmodels  # takes half a second of a worker's start, for a library of statistics that it does not use

    planes, side = grid.planes, grid.side
    index = microscope.refractive_index
    aberrated = microscope.depth_um > 0 and microscope.index_mismatch != 0
    # Aberration moves the focus; what it may move by is computed in excess and cut off. Without it, both sides of the
    # focus are alike, and one is enough.
    excess = 2 * (planes // 2) if aberrated else 0
    first = -(planes // 2) - excess // 2 if aberrated else 0
    z = np.arange(first, planes // 2 + excess // 2 + 1) * grid.z_um
    psf: NDArray[np.float64] = psfmodels.make_psf(
        (z + microscope.depth_um).tolist(),
        side,
        dxy=grid.pixel_um,
        pz=microscope.depth_um,
        NA=min(microscope.numerical_aperture, _SAFE_APERTURE * index),
        wvl=wavelength,
        ns=index + microscope.index_mismatch,
        ni=index,
        ni0=index,
        tg=170.0,
        tg0=170.0,
        ng=_COVERSLIP,
        ng0=_COVERSLIP,
        ti0=_WORKING_DISTANCE_UM,
        model=model,
        oversample_factor=grid.samples,
    )
    if not aberrated:
        return np.concatenate([psf[:0:-1], psf])
    brightest = int(psf[:, side // 2, side // 2].argmax())
    start = min(max(brightest - planes // 2, 0), excess)
    return psf[start : start + planes]


def _through_pinhole(psf: NDArray[np.float64], radius: float) -> NDArray[np.float64]:
    """What a pinhole of so many pixels passes: each plane averaged over a disc with a soft edge."""
    side = psf.shape[1]
    offset = np.arange(side) - side // 2
    disc = np.clip(radius + 0.5 - np.hypot(offset[:, None], offset), 0, 1)
    transfer = np.fft.rfft2(np.fft.ifftshift(disc / disc.sum()))
    passed = np.fft.irfft2(np.fft.rfft2(psf, axes=(1, 2)) * transfer, s=(side, side), axes=(1, 2))
    return np.asarray(np.clip(passed, 0, None))
