"""What a microscope tells of its voxels: the z step, from heights of the focus, and the pixel size.

No acquisition software states the z step for sure. All tell where the focus stood, though, or will stand: for a
stack, a height in µm by the index of each plane. Channels may be focused differently and the focus may drift with
time, so heights are compared within a stack only.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

Heights = Mapping[int, float]
"""Of one stack: where the focus stands, in µm, by the index of the plane."""

_UNEVEN = 0.01  # of a z step: the positions of a stage are rounded


def first_step_um(stacks: Iterable[Heights]) -> float | None:
    """Return the first z step that is none of 0, in µm, between neighbouring planes; None if there is none."""
    steps = (abs(float(step)) for heights in stacks for step in _steps_um(heights))
    return next((step for step in steps if step > 0), None)


def even_step_um(stacks: Iterable[Heights], *, remedy: str) -> float | None:
    """Return the z step of all stacks, in µm; None if no two planes of a stack have heights.

    Raises
    ------
    ValueError
        If the steps differ by more than 1 %, or are 0; ends with the ``remedy``.
    """
    steps = np.concatenate([np.empty(0), *map(_steps_um, stacks)])
    if not len(steps):
        return None
    step = float(steps.mean())
    if step == 0 or np.abs(steps - step).max() > _UNEVEN * abs(step):
        raise ValueError(
            f"the z positions lie {steps.min():g} to {steps.max():g} µm apart, but a stack has even steps; {remedy}"
        )
    return abs(step)


def known_pixel_size(pixel_size_um: float | None) -> float:
    """Return the pixel size, in µm, that Micro-Manager or the user tells.

    Raises
    ------
    ValueError
        If it is not known: None, or 0 as Micro-Manager says.
    """
    if pixel_size_um is None or not pixel_size_um > 0:
        raise ValueError(
            f"the pixel size is {pixel_size_um or 0} µm, so not known; give it as pixel_size_um, "
            "or calibrate it in Micro-Manager (Devices, Pixel Size Calibration)"
        )
    return pixel_size_um


def _steps_um(heights: Heights) -> np.ndarray:
    order = sorted(heights)
    return np.asarray(np.diff([heights[z] for z in order]) / np.diff(order))
