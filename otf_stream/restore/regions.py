"""Restoring by regions: columns of the volume, as the store writes them.

A region spans all of z and a rectangle of y and x. A method maps the raw planes of a region to its isotropic voxels,
and knows neither the store nor the other regions; so regions run one after another on one device or side by side on
many, and no volume has to fit in memory.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from otf_stream.restore.turns import Work


class Region(NamedTuple):
    """A rectangle of the lateral field of view: rows and columns, in pixels."""

    y: slice
    x: slice


@dataclass(frozen=True)
class Method:
    """A way to restore.

    Parameters
    ----------
    name
        As in the provenance.
    restore
        Maps raw planes ``(z, y, x)``, float32 counts, and the region that they are of, to isotropic voxels
        ``(z', y, x)``, float32 counts, by turns.
    """

    name: str
    restore: Callable[[Tensor, Region], Work[Tensor]]
