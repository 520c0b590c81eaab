"""The point spread function of a stack, found from the stack itself.

A sample does not know where the optical axis lies: at one spatial frequency it has, on average, as much power along z
as across. What the stack shows is that power times the squared optical transfer function, folded by the coarse sampling
along z, smeared by the window, plus the noise. So of all point spread functions that a microscope of this kind may
have, the true one is that under which a power spectrum of *any radial shape* explains the whole spectrum of the stack:
its axial width, but also the haze, which takes light from frequencies near the axis, can be read off.

How well each explains it is its likelihood, in which the noise has its place: where the sample is weaker than the
noise, nothing is learnt and nothing goes wrong. The window must not be left out: haze lies in a ridge of low axial
frequencies, and what the window smears beside it looks like light of the core. What is used is the average of those
that explain the stack, since the best one changes with the noise.

References
----------
Whittle: Estimation and information in stationary time series, 1953, for the likelihood of a spectrum.
Févotte, Bertin, Durrieu: Nonnegative matrix factorization with the Itakura–Saito divergence, 2009, for its
maximisation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.fft import fft, rfft2

from otf_stream.optics.grain import grain_spectrum
from otf_stream.optics.noise import NoiseModel
from otf_stream.optics.psf import SplitPsf

_STRETCHES = np.geomspace(0.25, 2.5, 24)
_HAZES = np.linspace(0.0, 1.5, 7)
# Chosen on instruments drawn at random, none of them one that results are reported of; stacks without haze were seen.
_ALIKE = 32  # values of a spectrum that tell as much as one: samples are isotropic on average only
_USUAL_STRETCH = 0.2  # standard deviation of its logarithm
_USUAL_HAZE = 1.25, 0.35  # mean and standard deviation: aberrations add to what the physics of a good objective says
_WITHOUT_HAZE = 0.1  # share of the stacks: simulated with Gaussians, or with their haze taken away before
_KNOTS = 12
_SHARPEST = 0.75  # cycles per pixel: beyond it nothing folds back that matters
_DECAY = 2.5  # the power of a sample of edges falls about so fast; it only conditions the fit
_FOLDS = 2
_STEPS = 40
_FEWEST_PLANES = 8
_SMALLEST_SIDE = 32
_LARGEST_SIDE = 256
_RINGS = 40

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Spectrum:
    """Power of a stack, averaged around the optical axis.

    Parameters
    ----------
    axial, lateral
        Frequencies in cycles per pixel, ``(m,)`` and ``(n,)``.
    power, noise
        ``(m, n)``.
    weight
        How many independent values each average holds, ``(m, n)``.
    anisotropy
        The z step in pixels.
    """

    axial: Array
    lateral: Array
    power: Array
    noise: Array
    weight: Array
    anisotropy: float


def spectrum(stack: NDArray[np.float32], anisotropy: float, noise: NoiseModel) -> Spectrum:
    """Measure the spectrum of ``stack``, ``(z, y, x)``, counts, and that of its noise."""
    planes, height, width = stack.shape
    side = min(height, width, _LARGEST_SIDE)
    top, left = (height - side) // 2, (width - side) // 2
    across = _window(side)
    window = (_window(planes)[:, None, None] * across[:, None] * across).astype(np.float32)
    looked = window**2
    energy = looked.sum()
    field = stack[:, top : top + side, left : left + side]
    # Bright regions are noisier: what counts is where the window looks.
    variance = float((noise.variance(field) * looked).sum() / energy)
    field = (field - (field * window).sum() / window.sum()) * window
    power = np.abs(fft(rfft2(field, axes=(1, 2)), axis=0)) ** 2 / energy
    fy, fx = np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)
    radius, rings = np.hypot(fy, fx).ravel(), min(_RINGS, side // 4)
    bins = np.minimum((radius * 2 * (rings)).astype(int), rings)  # corners past Nyquist go to a last bin
    count = np.bincount(bins, minlength=rings + 1)[:-1]

    def averaged(plane: Array) -> Array:
        return np.asarray(np.bincount(bins, plane.ravel(), minlength=rings + 1)[:-1] / count)

    around = np.stack([averaged(plane) for plane in power])
    half = planes // 2 + 1
    floor = averaged(max(variance, 1e-9) * grain_spectrum(noise.grain[0], fy) * grain_spectrum(noise.grain[1], fx))
    return Spectrum(
        axial=np.arange(half) / (planes * anisotropy),
        lateral=averaged(radius),
        power=np.stack([0.5 * (around[k] + around[-k]) for k in range(half)]),
        noise=np.broadcast_to(floor, (half, len(floor))),
        weight=np.where(np.arange(half) == 0, 0.5, 1.0)[:, None] * count,
        anisotropy=anisotropy,
    )


def _window(length: int) -> Array:
    return np.asarray(np.hanning(length + 2)[1:-1])


def _smearing(planes: int) -> Array:
    """Share of the power at each axial frequency that the window shows at each other, ``(m, m)``; rows sum to 1."""
    shown = np.abs(fft(_window(planes))) ** 2
    shown /= shown.sum()
    at = np.arange(planes // 2 + 1)
    itself_negative = (at == 0) | (2 * at == planes)
    return np.asarray(
        shown[(at[:, None] - at) % planes] + np.where(itself_negative, 0, shown[(at[:, None] + at) % planes])
    )


def estimate_psf(
    stack: NDArray[np.float32],
    anisotropy: float,
    candidates: Sequence[SplitPsf],
    noise: NoiseModel,
) -> tuple[SplitPsf, bool]:
    """Estimate the point spread function that makes the sample isotropic.

    Parameters
    ----------
    stack
        ``(z, y, x)``, counts, planes at an even distance.
    anisotropy
        The z step in lateral pixels.
    candidates
        What the microscope may have, the most likely one first. Each is stretched along z to 0.25 … 2.5 times its
        width, with 0 … 1.5 times its haze.
    noise
        Of the stack; how strong it is need not be known exactly. Planes are independent recordings: along z it is
        white.

    Returns
    -------
    SplitPsf
        One of them with the average width and haze of those that explain the stack, or the first as it is where the
        stack cannot tell.
    bool
        Whether it could: it needs 8 planes of 32 × 32 pixels with structure above the noise.
    """
    if len(stack) < _FEWEST_PLANES or min(stack.shape[1:]) < _SMALLEST_SIDE:
        return candidates[0], False
    seen = spectrum(np.asarray(stack, np.float32), anisotropy, noise)
    # The lowest frequencies hold the shape of the field of view.
    kept = np.hypot(seen.axial[:, None], seen.lateral) > 1.5 / (len(stack) * anisotropy)
    if not kept.any() or (seen.power[kept] > 3 * seen.noise[kept]).mean() < 0.01:
        return candidates[0], False
    folds = np.abs(seen.axial + np.arange(-_FOLDS, _FOLDS + 1)[:, None] / anisotropy)
    shapes, smearing = _hats(np.hypot(folds[..., None], seen.lateral)), _smearing(len(stack))

    def misfits_of(psf: SplitPsf, stretch: float) -> Array:
        core, tail = _transfer(psf, folds * stretch, seen.lateral)
        hazes = _HAZES[:, None, None, None]
        passed = np.abs(core + hazes * tail) ** 2 / (psf.core_share + hazes * (1 - psf.core_share)) ** 2
        folded = np.einsum("hfzr,fzrk->hzrk", passed, shapes)
        basis = np.einsum("mz,hzrk->hmrk", smearing, folded, optimize=True)[:, kept]
        return _misfits(basis, seen.power[kept], seen.noise[kept], seen.weight[kept])

    guesses = [(psf, stretch) for psf in candidates for stretch in _STRETCHES]
    misfits = np.stack([misfits_of(psf, stretch) for psf, stretch in guesses])
    return _average(candidates, misfits.reshape(len(candidates), len(_STRETCHES), len(_HAZES))), True


def _average(candidates: Sequence[SplitPsf], misfits: Array) -> SplitPsf:
    """Return the point spread function with the average width and haze of all, ``(candidate, stretch, haze)``.

    Many explain a stack almost equally well, and which of them does so best is up to its noise and to how isotropic
    its sample happens to be. They count by their likelihood, made less decided by that, and by how usual they are.
    """
    unlikely = misfits / _ALIKE + _unusual()
    weights = np.exp(unlikely.min() - unlikely)
    weights /= weights.sum()
    widths = np.array([psf.width for psf in candidates])[:, None] * _STRETCHES
    shares = np.array([psf.core_share for psf in candidates])[:, None]
    shares = shares / (shares + _HAZES * (1 - shares))
    width = np.exp((weights.sum(2) * np.log(widths)).sum())
    share = (weights.sum(1) * shares).sum()
    psf = candidates[int(weights.sum((1, 2)).argmax())]
    own = psf.core_share
    haze = own * (1 - share) / max(share * (1 - own), 1e-9)
    return psf.changed(float(width / psf.width), float(haze))


def _unusual() -> Array:
    """Negative logarithm of how usual each ``(stretch, haze)`` is, up to a constant.

    Haze is not just little of what is usual: some stacks have none at all. With the normal distribution alone, a tenth
    of the light of such a stack was taken for haze.
    """
    mean, deviation = _USUAL_HAZE
    hazes = np.exp(-0.5 * ((_HAZES - mean) / deviation) ** 2)
    hazes *= (1 - _WITHOUT_HAZE) / hazes.sum()
    hazes[0] += _WITHOUT_HAZE
    return np.asarray(0.5 * (np.log(_STRETCHES)[:, None] / _USUAL_STRETCH) ** 2 - np.log(hazes))


def _hats(radius: Array) -> Array:
    """Triangular functions of log frequency, ``(…, knots)``: what a radial spectrum is a sum of."""
    knots = np.geomspace(0.006, _SHARPEST, _KNOTS)
    at = np.interp(np.log(np.clip(radius, knots[0], knots[-1])), np.log(knots), np.arange(_KNOTS))
    hats = np.clip(1 - np.abs(at[..., None] - np.arange(_KNOTS)), 0, None)
    return np.asarray(hats * np.clip(radius, knots[0], None)[..., None] ** -_DECAY)


def _transfer(psf: SplitPsf, axial: Array, lateral: Array) -> tuple[Array, Array]:
    """Optical transfer of core and tail at ``(fold, m)`` × ``(n,)`` frequencies: complex ``(fold, m, n)``."""
    core, tail = psf.core.numpy(), psf.tail.sum(1).numpy()  # around the axis all directions are one
    z = np.arange(len(core)) - len(core) // 2
    x = np.arange(tail.shape[1]) - tail.shape[1] // 2
    # Beyond half a cycle per sample a transform repeats itself; what was sampled passes nothing there.
    along = np.exp(-2j * np.pi * axial[..., None] * z) * (np.abs(axial) < 0.5)[..., None]
    across = tail @ np.cos(2 * np.pi * x[:, None] * lateral)
    sharp = np.exp(-2 * (np.pi * psf.lateral_sigma * lateral) ** 2)
    return (along @ core)[..., None] * sharp, along @ across


def _misfits(basis: Array, power: Array, noise: Array, weight: Array) -> Array:
    """Negative log likelihood of the best sum of each ``basis``, ``(n, values, knots)``, and of noise.

    How strong the noise is, is found with it, from what is told on: in the dark it is told a few hundredths too strong.
    """
    count, values, knots = basis.shape
    share = np.repeat(power.mean() / np.maximum(basis.mean((1, 2)) * knots, 1e-30), knots).reshape(count, knots, 1)
    share = np.concatenate([share, np.ones((count, 1, 1))], axis=1)
    basis = np.concatenate([basis, np.broadcast_to(noise[:, None], (count, values, 1))], axis=2)
    turned = basis.transpose(0, 2, 1)
    for _ in range(_STEPS):
        seen = basis @ share
        more = turned @ (weight * power / seen[..., 0] ** 2)[..., None]
        share *= np.sqrt(more / np.maximum(turned @ (weight / seen[..., 0])[..., None], 1e-30))
    seen = (basis @ share)[..., 0]
    return np.asarray((weight * (power / seen + np.log(seen))).sum(1))
