"""Images to pre-train on, drawn by rule: dead leaves, fractal fields, filaments, membranes and cells.

A deblurring network must know edges, lines, points and textures at every scale and contrast; it need not know one
organ from another. What microscopes show is a sum of few such things over a background, seen through the lateral
point-spread function. Nothing is downloaded, so nobody's licence travels with the weights, and a seed gives the same
images everywhere.

References
----------
Lee, Mumford, Huang: Occlusion models for natural images, IJCV 41 (2001), for dead leaves.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.ndimage import gaussian_filter
from scipy.spatial import cKDTree

Image = np.ndarray

_MARGIN = 16  # pixels drawn around an image and cut off, so that its edges are no edges


def draw_image(side: int, rng: np.random.Generator) -> Image:
    """Draw one image.

    Parameters
    ----------
    side
        Of the image, in pixels.
    rng
        Source of randomness.

    Returns
    -------
    numpy.ndarray
        ``(side, side)``, float32; between its darkest per cent and its brightest thousandth lies 1.
    """
    wide = side + 2 * _MARGIN
    kinds: list[Callable[[int, np.random.Generator], Image]] = [_leaves, _fractal, _filaments, _membranes, _cells]
    image = np.zeros((wide, wide))
    for kind in rng.choice(len(kinds), size=rng.integers(1, 4), replace=False):
        image += rng.uniform(0.2, 1.0) * kinds[kind](wide, rng)
    # Uneven light, and what glows out of focus.
    image = image * (1 + 0.4 * _field(wide, 3.0, rng)).clip(0.2) + rng.uniform(0, 0.3) * gaussian_filter(image, 12)
    image = gaussian_filter(image, rng.uniform(0.7, 1.8))[_MARGIN:-_MARGIN, _MARGIN:-_MARGIN]
    dark, bright = np.percentile(image, (1, 99.9))
    return np.asarray((image - dark) / max(bright - dark, 1e-6), np.float32)


def _field(side: int, slope: float, rng: np.random.Generator) -> Image:
    """Gaussian random field whose amplitude falls as ``f**-slope``; mean 0, variance 1."""
    fy, fx = np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)
    amplitude = np.maximum(np.hypot(fy, fx), 1 / side) ** -slope
    amplitude[0, 0] = 0
    field = np.fft.irfft2(np.fft.rfft2(rng.normal(size=(side, side))) * amplitude, s=(side, side))
    return np.asarray(field / field.std())


def _ellipses(
    side: int, count: int, radius: Callable[[], float], rng: np.random.Generator
) -> list[tuple[slice, slice, Image]]:
    """Random ellipses: window in the image, and the distance from the centre there, 1 at the rim."""
    drawn = []
    for _ in range(count):
        cy, cx = rng.uniform(0, side, 2)
        a = radius()
        b, angle = a * rng.uniform(0.5, 1.0), rng.uniform(0, np.pi)
        y = slice(max(int(cy - a) - 1, 0), min(int(cy + a) + 2, side))
        x = slice(max(int(cx - a) - 1, 0), min(int(cx + a) + 2, side))
        dy, dx = np.mgrid[y, x] - np.array([cy, cx])[:, None, None]
        u, v = dx * np.cos(angle) + dy * np.sin(angle), dy * np.cos(angle) - dx * np.sin(angle)
        drawn.append((y, x, np.hypot(u / a, v / b)))
    return drawn


def _leaves(side: int, rng: np.random.Generator) -> Image:
    """Opaque leaves of all sizes, the later in front; some of them textured."""
    image = np.full((side, side), rng.uniform(0, 0.5))
    texture = (1 + 0.3 * rng.uniform() * _field(side, rng.uniform(0.8, 1.6), rng)).clip(0)
    smallest, largest = rng.uniform(1.5, 4), rng.uniform(20, side / 3)

    def radius() -> float:  # density r⁻³ between the two
        u = rng.uniform()
        return float((smallest**-2 + u * (largest**-2 - smallest**-2)) ** -0.5)

    for y, x, distance in _ellipses(side, int(rng.integers(150, 600)), radius, rng):
        image[y, x] = np.where(distance < 1, rng.uniform(0, 1) ** 1.5 * texture[y, x], image[y, x])
    return image


def _fractal(side: int, rng: np.random.Generator) -> Image:
    """Clouds: a fractal field, through a random contrast curve."""
    field = _field(side, rng.uniform(0.9, 2.0), rng)
    return np.asarray(np.exp(rng.uniform(0.3, 1.2) * field) / 4 if rng.uniform() < 0.5 else field.clip(0) / 2)


def _filaments(side: int, rng: np.random.Generator) -> Image:
    """Fibres that wind at random, of different brightness, some beaded."""
    image = np.zeros((side, side))
    steps, stiffness = int(3 * side), rng.uniform(0.005, 0.06)
    for _ in range(int(rng.integers(8, 50))):
        angle = rng.uniform(0, 2 * np.pi) + np.cumsum(rng.normal(0, stiffness, steps))
        start = rng.uniform(0, side, 2)
        y, x = start[0] + np.cumsum(0.5 * np.sin(angle)), start[1] + np.cumsum(0.5 * np.cos(angle))
        light = rng.uniform(0.2, 1.0) * (1 + rng.uniform(0, 0.9) * np.sin(np.arange(steps) / rng.uniform(2, 12)))
        inside = (y >= 0) & (y < side - 1) & (x >= 0) & (x < side - 1)
        y, x, light = y[inside], x[inside], light[inside]
        i, j = y.astype(int), x.astype(int)
        for di in (0, 1):
            for dj in (0, 1):
                weight = (1 - abs(y - i - di)) * (1 - abs(x - j - dj))
                np.add.at(image, (i + di, j + dj), light * weight)
    return np.asarray(gaussian_filter(image, rng.uniform(0.3, 1.5)))


def _membranes(side: int, rng: np.random.Generator) -> Image:
    """Walls between cells that touch, of uneven brightness."""
    spacing = rng.uniform(14, 60)
    count = max(int((side / spacing) ** 2 * 1.5), 4)
    seeds = rng.uniform(-spacing, side + spacing, (count, 2))
    pixels = np.mgrid[:side, :side].reshape(2, -1).T
    bent = pixels + 2.5 * np.stack([_field(side, 2.5, rng).ravel() for _ in range(2)], axis=-1)
    nearest, _ = cKDTree(seeds).query(bent, k=2)
    walls = np.exp(-0.5 * ((nearest[:, 1] - nearest[:, 0]) / rng.uniform(1, 3)) ** 2).reshape(side, side)
    return np.asarray(walls * (0.7 + 0.3 * _field(side, 2.0, rng)).clip(0))


def _cells(side: int, rng: np.random.Generator) -> Image:
    """Nuclei with textured chromatin and nucleoli, and small bright vesicles."""
    image = np.zeros((side, side))
    chromatin = (1 + 0.5 * _field(side, rng.uniform(0.8, 1.5), rng)).clip(0)
    size = rng.uniform(5, 30)
    nuclei = _ellipses(side, int(rng.integers(5, 60)), lambda: size * float(rng.uniform(0.7, 1.3)), rng)
    for y, x, distance in nuclei:
        body = 1 / (1 + np.exp((distance - 1) * 12))
        rim = rng.uniform(0, 0.5) * np.exp(-0.5 * ((distance - 0.95) / 0.08) ** 2)
        image[y, x] = np.maximum(image[y, x], rng.uniform(0.3, 1.0) * (body * chromatin[y, x] + rim))
    for y, x, distance in _ellipses(side, int(rng.integers(0, 80)), lambda: float(rng.uniform(1, 4)), rng):
        image[y, x] += rng.uniform(-0.3, 1.0) * np.exp(-2 * distance**2) * (image[y, x] > 0.1)
    return np.asarray(image.clip(0))
