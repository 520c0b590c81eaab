"""The family of axial blurs a stack may have suffered, centred on an estimate from the stack itself.

What is modelled is the blur that turns a lateral view into an axial one: the axial point spread beyond the
lateral. It is estimated by comparing spectra. An isotropic sample has as much power along z as along x at the
same spatial frequency; what is missing along z was removed by the blur. The true blur varies with depth and
aberration, and training on one guess makes a network invent structure: a family is drawn around the estimate.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.fft import rfft2
from torch import Tensor

from otf_stream.optics.grain import grain_spectrum

_MAX_LINES = 256
_SPREAD = 1.25


def widest_blur(anisotropy: float) -> float:
    """Return the largest standard deviation, in lateral pixels, that :func:`estimate_axial_blur` lets a family have."""
    return max(1.5 * anisotropy, 3.0) * _SPREAD


@dataclass(frozen=True)
class AxialBlur:
    """A log-uniform family of Gaussians.

    Parameters
    ----------
    sigma
        Centre of the family, in lateral pixels.
    spread
        Members lie between ``sigma / spread`` and ``sigma · spread``.
    estimated
        Whether ``sigma`` was measured; otherwise it is the default for the z step.
    """

    sigma: float
    spread: float
    estimated: bool

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw ``n`` standard deviations, in lateral pixels: ``(n,)``, float32, on the generator's device."""
        u = torch.rand(n, generator=generator, device=generator.device) * 2 - 1
        return self.sigma * self.spread**u


def estimate_axial_blur(
    stack: np.ndarray,
    anisotropy: float,
    *,
    noise_variance: float = 0.0,
    grain: tuple[float, float] = (0.0, 0.0),
) -> AxialBlur:
    """Estimate the axial blur of a stack from its own spectra.

    Power at axial frequency *f* is ``exp(−4π²σ²f²)`` of the power at the same lateral frequency. The straight line
    of log power ratio against ``f²`` gives σ.

    Parameters
    ----------
    stack
        ``(z, y, x)``, counts.
    anisotropy
        The z step in lateral pixels.
    noise_variance
        Mean variance of the noise, counts²; subtracted from both spectra, which it would flatten.
    grain
        Of the noise, along y and x. Planes are independent recordings: along z the noise has none.

    Returns
    -------
    AxialBlur
        The estimate, kept between 0.35 and 1.5 z steps (a stack that samples its blur sensibly lies there), or the
        default of half a z step where fewer than 8 planes or no usable frequency speak for an estimate.
    """
    default = AxialBlur(sigma=max(0.5 * anisotropy, 0.5), spread=1.5, estimated=False)
    planes = stack.shape[0]
    if planes < 8 or min(stack.shape[1:]) < 16:
        return default
    frequency, ratios = [], []
    for section, along in ((stack.transpose(1, 0, 2), grain[1]), (stack.transpose(2, 0, 1), grain[0])):
        chosen = np.linspace(0, len(section) - 1, min(_MAX_LINES, len(section))).astype(int)
        noise = noise_variance * grain_spectrum(along, np.fft.rfftfreq(section.shape[2]))
        f, ratio = _power_ratio(section[chosen].astype(np.float32), anisotropy, noise)
        frequency.append(f)
        ratios.append(ratio)
    f, ratio = np.concatenate(frequency), np.concatenate(ratios)
    good = np.isfinite(ratio) & (ratio > 0)
    if good.sum() < 4:
        return default
    slope = np.polynomial.polynomial.polyfit(f[good] ** 2, np.log(ratio[good]), 1)[1]
    sigma = float(np.sqrt(max(-slope, 0.0)) / (2 * np.pi))
    lowest, highest = max(0.35 * anisotropy, 0.5), widest_blur(anisotropy) / _SPREAD
    return AxialBlur(sigma=float(np.clip(sigma, lowest, highest)), spread=_SPREAD, estimated=True)


def _power_ratio(sections: np.ndarray, anisotropy: float, noise: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Ratio of axial to lateral power of XZ sections ``(n, z, x)`` at the axial frequencies.

    ``noise`` is its power at each lateral frequency.

    Each is read in a wedge around its axis, so that both see the same kinds of structure.
    """
    _, planes, width = sections.shape
    window = np.outer(np.hanning(planes + 2)[1:-1], np.hanning(width + 2)[1:-1]).astype(np.float32)
    sections = (sections - sections.mean(axis=(1, 2), keepdims=True)) * window
    power = (np.abs(rfft2(sections, axes=(1, 2))) ** 2).mean(axis=0) / (window**2).sum() - noise
    floor = np.broadcast_to(noise, power.shape)
    fz = np.abs(np.fft.fftfreq(planes, d=anisotropy))[:, None]
    fx = np.fft.rfftfreq(width)[None, :]
    step = 1.0 / (planes * anisotropy)
    # The lowest frequencies hold the shape of the field of view; the last hold what sampling folded back.
    centres = np.arange(2, planes // 2 + 1) * step
    ratio = np.full(len(centres), np.nan)
    for index, centre in enumerate(centres):
        near_axis = max(0.35 * centre, 1.0 / width)
        wedges = (
            (np.abs(fz - centre) <= step / 2) & (fx <= near_axis),
            (np.abs(fx - centre) <= max(step, 1.0 / width)) & (fz <= max(0.35 * centre, step / 2)),
        )
        if not all(wedge.any() for wedge in wedges):
            continue
        axial, lateral = (power[wedge] for wedge in wedges)
        # Below the noise, what is left of both spectra is the error of the noise estimate, and their ratio is 1.
        if all(power[wedge].mean() > floor[wedge].mean() for wedge in wedges):
            ratio[index] = axial.mean() / lateral.mean()
    return centres, ratio
