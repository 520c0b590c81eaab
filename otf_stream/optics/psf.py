"""A point spread function in two parts, and the family of axial blurs around it.

The *core* is as sharp laterally as the focus and spreads along z only: what it does to a sample can be learnt from
lateral planes, which show the sample sharp. The *tail* is the rest, broad in every direction: haze, which no plane
is without and which is computed and taken away (:mod:`otf_stream.optics.haze`).

The true core varies with depth and aberration, and training on one guess makes a network invent structure. A family is
drawn around the estimate: wider and narrower, and lopsided either way, as spherical aberration makes it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

_FAINT = 2e-3  # share of the peak below which a kernel is cut off
_NARROWEST = 0.3  # of the core: a microscope is never much sharper along z than across
_SPREAD = 1.15
_SKEW = 1.12
_TO_SIGMA = 2.3548


@dataclass(frozen=True)
class AxialBlur:
    """A family of kernels along z.

    Parameters
    ----------
    kernel
        Centre of the family, in lateral pixels: ``(odd,)``, float32, sum 1.
    spread
        Members are between ``1 / spread`` and ``spread`` times as wide.
    skew
        Their two sides differ by at most this factor from their mean width.
    """

    kernel: Tensor
    spread: float = _SPREAD
    skew: float = _SKEW

    @property
    def width(self) -> float:
        """Full width at half maximum, in lateral pixels."""
        return full_width(self.kernel)

    @property
    def sigma(self) -> float:
        """Standard deviation, in lateral pixels, of the Gaussian of this width."""
        return self.width / _TO_SIGMA

    @property
    def reach(self) -> float:
        """How far, in lateral pixels, the widest member spreads light."""
        return len(self.kernel) // 2 * self.spread * self.skew

    def draw(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw the widths of ``n`` members, below and above the focus, relative to the kernel: ``(n,)`` each."""
        u, v = (torch.rand(n, generator=generator, device=generator.device) * 2 - 1 for _ in range(2))
        return self.spread**u * self.skew**v, self.spread**u * self.skew**-v


@dataclass(frozen=True)
class SplitPsf:
    """A point spread function on the isotropic grid, in two parts.

    Parameters
    ----------
    core
        What the core spreads along z: ``(odd,)``, float32. Its sum is the share of the light that is not haze.
    tail
        The rest, ``(z, y, x)``, float32, odd sides.
    lateral_sigma
        Of the core, in pixels.
    """

    core: Tensor
    tail: Tensor
    lateral_sigma: float

    @property
    def core_share(self) -> float:
        """Share of the light that is not haze."""
        return float(self.core.sum())

    @property
    def width(self) -> float:
        """Full width at half maximum of the core along z, in lateral pixels."""
        return full_width(self.core)

    @property
    def kernel(self) -> Tensor:
        """What blurs a sample seen as sharply along z as across into the sample seen: ``(odd,)``, sum 1.

        That is the core without the share of its width that the focus has too, cut off where it is faint.
        """
        beyond = max(1 - (_TO_SIGMA * self.lateral_sigma / max(self.width, 1e-3)) ** 2, _NARROWEST**2)
        core = stretched(self.core, beyond**0.5)
        there = torch.nonzero(core > _FAINT * core.max())[:, 0] - len(core) // 2
        reach = max(int(there.abs().max()), 1) if len(there) else 1
        middle = len(core) // 2
        kernel = core[max(middle - reach, 0) : middle + reach + 1]
        return kernel / kernel.sum()

    @property
    def whole(self) -> Tensor:
        """The point spread function, ``(z, y, x)``, sum 1."""
        return self.tail + self.core[:, None, None] * focus(self.tail.shape[1], self.lateral_sigma)

    @property
    def of_planes(self) -> Tensor:
        """What a sample goes through that is as sharp as planes are: without the focus, which planes went through.

        ``(z, y, x)``, sum 1.
        """
        psf, kernel = self.tail.clone(), self.core_share * self.kernel
        first = (len(psf) - len(kernel)) // 2
        psf[first : first + len(kernel), psf.shape[1] // 2, psf.shape[2] // 2] += kernel.to(psf)
        return psf

    def changed(self, stretch: float, haze: float) -> SplitPsf:
        """Stretch along z, and take so many times the haze; the light stays 1."""
        core, tail = stretched(self.core, stretch), stretched(self.tail, stretch) * haze
        light = core.sum() + tail.sum()
        return SplitPsf(core / light, tail / light, self.lateral_sigma)


def split_psf(psf: Tensor, lateral_sigma: float) -> SplitPsf:
    """Split a point spread function into core and tail.

    Parameters
    ----------
    psf
        ``(z, y, x)``, float32, odd sides, sum 1, in isotropic voxels.
    lateral_sigma
        Standard deviation of the focus, in pixels.
    """
    sharp = focus(psf.shape[1], lateral_sigma).to(psf.device)
    core = ((psf * sharp).sum((1, 2)) / (sharp**2).sum()).clamp(min=0)
    return SplitPsf(core, psf - core[:, None, None] * sharp, lateral_sigma)


def focus(side: int, sigma: float) -> Tensor:
    """Return a Gaussian focus ``(side, side)``, float32, sum 1."""
    offset = torch.arange(side, dtype=torch.float32) - side // 2
    line = torch.exp(-0.5 * (offset / max(sigma, 1e-3)) ** 2)
    line = line / line.sum()
    return line[:, None] * line


def stretched(psf: Tensor, stretch: float) -> Tensor:
    """Stretch along the first axis, about its middle, and keep the sum.

    Cubic convolution (Keys 1981), which makes nothing wider than is asked for, as linear interpolation would: by 3 % at
    a full width of 5 voxels.

    Parameters
    ----------
    psf
        ``(odd, …)``, float32. What is stretched past the ends is cut off.
    stretch
        Above 1 makes it wider.
    """
    offset = torch.arange(len(psf), dtype=torch.float32) - len(psf) // 2
    matrix = _cubic(offset[:, None] / stretch - offset)
    changed = torch.tensordot(matrix.to(psf.device), psf, dims=1)
    before, after = psf.sum(), changed.sum()
    kept: Tensor = changed * (before / after) if abs(float(after)) > 1e-9 else changed
    return kept


def _cubic(distance: Tensor) -> Tensor:
    """Weight of a sample at some distance in voxels: eq. 15 of Keys, Cubic convolution interpolation, 1981."""
    far = distance.abs()
    near = (1.5 * far - 2.5) * far**2 + 1
    beyond = ((-0.5 * far + 2.5) * far - 4) * far + 2
    return torch.where(far < 1, near, torch.where(far < 2, beyond, 0.0))


def full_width(kernel: Tensor) -> float:
    """Full width at half maximum of a kernel ``(odd,)``, in voxels, between its outermost crossings."""
    values: list[float] = [0.0, *kernel.tolist(), 0.0]
    half = max(values) / 2
    above = [index for index, value in enumerate(values) if value >= half]
    first, last = above[0], above[-1]
    left = first - (values[first] - half) / (values[first] - values[first - 1])
    right = last + (values[last] - half) / (values[last] - values[last + 1])
    return right - left
