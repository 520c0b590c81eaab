"""What goes wrong on a microscope, each fault by itself and as strong as wanted.

Faults of the light (bleaching, stripes, hot pixels) change what is expected of a plane before the camera adds its
noise; where the sample drifts to, and which frames get lost, is decided here as well. Everything random comes from
seeds: a fault that was seen can be seen again.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Light = NDArray[np.float32]

_HOT = (0.5, 3.0)  # light of hot pixels, as fractions of a voxel of truth 1.0
_STRIPE_EVERY = 24  # rows to a shadow, on the average
_STRIPE_WIDTH = (0.7, 4.0)  # rows, σ


@dataclass(frozen=True)
class Faults:
    """Which faults an instrument and its sample have; none by default.

    Parameters
    ----------
    bleaching
        Fraction of its light that a position loses, in one channel, with each plane that is exposed there.
    drift_um
        How far the sample moves along x from one time point to the next, in µm; it moves by whole pixels.
    dropped
        Probability of each frame to get lost.
    hot_pixels
        How many pixels of the camera give light that is not there; always the same ones.
    stripes
        Fraction of the light that the darkest row loses to shadows, which fall along the rows as in a light-sheet
        microscope lit from the side.

    Raises
    ------
    ValueError
        If one of them cannot be.
    """

    bleaching: float = 0.0
    drift_um: float = 0.0
    dropped: float = 0.0
    hot_pixels: int = 0
    stripes: float = 0.0

    def __post_init__(self) -> None:
        for name, value in (("bleaching", self.bleaching), ("dropped", self.dropped), ("stripes", self.stripes)):
            if not 0 <= value < 1:
                raise ValueError(f"{name} is {value}, but is a fraction: at least 0 and less than 1")
        if not math.isfinite(self.drift_um):
            raise ValueError(f"drift_um is {self.drift_um}, but must be a finite number of µm for each time point")
        if self.hot_pixels < 0:
            raise ValueError(f"hot_pixels is {self.hot_pixels}, but must be at least 0")


def hot_light(shape: tuple[int, int], count: int, *, seed: list[int]) -> Light:
    """Return the light, ``shape``, that ``count`` hot pixels of a camera add: 0 everywhere else.

    Raises
    ------
    ValueError
        If the camera has fewer pixels.
    """
    pixels = shape[0] * shape[1]
    if count > pixels:
        raise ValueError(f"{count} hot pixels are more than the {pixels} pixels of the camera")
    rng = np.random.default_rng(seed)
    light = np.zeros(pixels, np.float32)
    light[rng.choice(pixels, count, replace=False)] = rng.uniform(*_HOT, count)
    return light.reshape(shape)


def stripe_shadows(rows: int, depth: float, *, seed: list[int]) -> Light:
    """Return the fraction of the light that is left in each row, ``(rows, 1)``: 1 − ``depth`` in the darkest."""
    rng = np.random.default_rng(seed)
    shadow = np.zeros(rows)
    for _ in range(max(1, rows // _STRIPE_EVERY)):
        distance = (np.arange(rows) - rng.integers(rows)) / rng.uniform(*_STRIPE_WIDTH)
        shadow = np.maximum(shadow, rng.uniform(0.3, 1.0) * np.exp(-0.5 * distance**2))
    return np.asarray(1 - depth * shadow / shadow.max(), np.float32)[:, None]
