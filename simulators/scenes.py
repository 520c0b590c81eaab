"""What a virtual camera looks at: a scene, seen from where the stages and the filter wheel stand.

A scene knows nothing of Micro-Manager, and the devices nothing of samples. The plain scene is here, a stack that is
there already; one with optics, noise and faults is `simulators.specimen`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Frame = NDArray[np.uint8] | NDArray[np.uint16]


@dataclass(frozen=True)
class View:
    """Where a microscope looks: stage positions in µm, and which filter is in the light."""

    x_um: float
    y_um: float
    z_um: float
    channel: int


class Scene(Protocol):
    """Anything that a virtual camera can look at."""

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the camera."""

    @property
    def dtype(self) -> np.dtype:
        """Pixel type, uint8 or uint16."""

    @property
    def pixel_um(self) -> float:
        """Lateral pixel size in the sample."""

    @property
    def channels(self) -> tuple[str, ...]:
        """Label of each filter."""

    def expose(self, view: View) -> Frame | None:
        """Expose once. None if the camera delivers no frame."""


@dataclass(frozen=True)
class Stack:
    """A stack whose planes are seen as they are, the same wherever the XY stage stands.

    Parameters
    ----------
    planes
        ``(z, y, x)``, uint8 or uint16; the first lies at stage position 0.
    z_step_um
        Distance of neighbouring planes. Off its planes, the nearest is seen.
    pixel_um
        Lateral pixel size.
    channels
        Labels of filters; every channel shows the same.

    Raises
    ------
    ValueError
        If ``planes`` is no stack of uint8 or uint16.
    """

    planes: Frame
    z_step_um: float
    pixel_um: float
    channels: tuple[str, ...] = ("FITC",)

    def __post_init__(self) -> None:
        if self.planes.ndim != 3 or self.planes.dtype not in (np.uint8, np.uint16):
            raise ValueError(
                f"planes must be (z, y, x) of uint8 or uint16, got {self.planes.dtype} {self.planes.shape}"
            )

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the planes."""
        return self.planes.shape[1], self.planes.shape[2]

    @property
    def dtype(self) -> np.dtype:
        """Pixel type of the planes."""
        return self.planes.dtype

    def expose(self, view: View) -> Frame:
        """Return the plane nearest to the z stage."""
        number = round(view.z_um / self.z_step_um)
        plane: Frame = self.planes[min(max(number, 0), len(self.planes) - 1)]
        return plane
