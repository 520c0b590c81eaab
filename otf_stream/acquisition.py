"""What an acquisition is: its axes, voxel size, channels and optics.

One frozen description crosses every boundary of the project: the microscope's PC sends it in the greeting,
the session store keeps it, the worker restores by it. It therefore lives below all other modules, and
imports neither zarr nor torch, so that the microscope's PC can use it.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

Modality = Literal["unknown", "confocal", "multiphoton", "light-sheet", "widefield"]
PixelType = Literal["uint8", "uint16", "int16", "float32"]

Micrometres = Annotated[float, Field(gt=0, lt=1e4, allow_inf_nan=False)]
Length = Annotated[int, Field(ge=1, le=1_000_000)]

_MOST_ANISOTROPIC = 100

PlaneIndex = tuple[int, int, int]
"""Where a plane belongs: ``(t, c, z)``."""

StackIndex = tuple[int, int]
"""Which stack: ``(t, c)``. A stack is what is restored as one volume."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Sizes(_Frozen):
    """Lengths of the five axes, in planes (t, c, z) and pixels (y, x)."""

    t: Length = 1
    c: Length = 1
    z: Length
    y: Length
    x: Length

    @property
    def shape(self) -> tuple[int, int, int, int, int]:
        """The shape ``(t, c, z, y, x)``."""
        return (self.t, self.c, self.z, self.y, self.x)

    @property
    def planes(self) -> int:
        """How many planes the acquisition announces."""
        return self.t * self.c * self.z


class VoxelSize(_Frozen):
    """Distance between neighbouring voxels, in µm. Lateral pixels are square (``y`` equals ``x`` within 1 %)."""

    z: Micrometres
    y: Micrometres
    x: Micrometres

    @model_validator(mode="after")
    def _square_pixels(self) -> Self:
        if abs(self.y - self.x) > 0.01 * max(self.y, self.x):
            raise ValueError(
                f"lateral pixels must be square, but y is {self.y} µm and x is {self.x} µm; "
                "resample the planes so that both agree within 1 %"
            )
        return self

    @model_validator(mode="after")
    def _plausible(self) -> Self:
        if not 1 / _MOST_ANISOTROPIC <= self.z / self.x <= _MOST_ANISOTROPIC:
            raise ValueError(
                f"the z step of {self.z} µm is {self.z / self.x:g} times the pixel of {self.x} µm, "
                f"which is more than {_MOST_ANISOTROPIC} to one; give all of them in µm"
            )
        return self

    @property
    def lateral(self) -> float:
        """The lateral pixel size and voxel size of the isotropic grid, in µm."""
        return self.x

    @property
    def anisotropy(self) -> float:
        """The z step in lateral pixels."""
        return self.z / self.x


class Optics(_Frozen):
    """What is known of the optics; all of it optional. ``sheet_um`` is the thickness (FWHM) of a light sheet."""

    numerical_aperture: Annotated[float, Field(gt=0, le=1.7)] | None = None
    refractive_index: Annotated[float, Field(ge=1, le=2)] | None = None
    excitation_nm: Annotated[float, Field(gt=200, lt=3000)] | None = None
    emission_nm: Annotated[float, Field(gt=200, lt=3000)] | None = None
    sheet_um: Annotated[float, Field(gt=0.1, lt=100)] | None = None


class Acquisition(_Frozen):
    """The acquisition as the microscope announces it, before its first plane.

    Parameters
    ----------
    name
        What the user calls it; becomes the name of the session store.
    sizes
        Lengths of the five axes.
    dtype
        Pixel type of every plane.
    voxel_size
        In µm.
    channels
        One name a channel; ``("0", "1", …)`` where the microscope gives none.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9 _.+-]{0,99}$")]
    sizes: Sizes
    dtype: PixelType
    voxel_size: VoxelSize
    channels: tuple[Annotated[str, Field(max_length=200)], ...] = ()
    modality: Modality = "unknown"
    optics: Optics = Optics()

    @model_validator(mode="after")
    def _one_name_a_channel(self) -> Self:
        if self.channels and len(self.channels) != self.sizes.c:
            raise ValueError(f"{len(self.channels)} channel names for {self.sizes.c} channels; give one a channel")
        return self

    @property
    def numpy_dtype(self) -> np.dtype:
        """The pixel type, little-endian: the byte order of the wire and of the store."""
        return np.dtype(self.dtype).newbyteorder("<")

    @property
    def plane_bytes(self) -> int:
        """Size of one plane, in bytes."""
        return self.sizes.y * self.sizes.x * self.numpy_dtype.itemsize

    @property
    def channel_names(self) -> tuple[str, ...]:
        """One name a channel."""
        return self.channels or tuple(str(c) for c in range(self.sizes.c))

    def holds(self, plane: PlaneIndex) -> bool:
        """Whether ``plane`` lies inside the announced axes."""
        return all(0 <= i < n for i, n in zip(plane, self.sizes.shape[:3], strict=True))

    def stacks(self) -> list[StackIndex]:
        """Every stack of the acquisition, in order of time."""
        return [(t, c) for t in range(self.sizes.t) for c in range(self.sizes.c)]


def isotropic_depth(planes: int, voxel_size: VoxelSize) -> int:
    """Length of the isotropic grid along z.

    Plane ``k`` lies at ``k·dz`` and voxel ``j`` at ``j·dxy``; both grids start at the same place.

    Parameters
    ----------
    planes
        Number of planes in the stack.
    voxel_size
        In µm.

    Returns
    -------
    int
        ``floor((planes − 1)·dz / dxy) + 1``.
    """
    # The small term forgives 0.3 / 0.1 = 2.9999999999999996.
    return math.floor((planes - 1) * voxel_size.anisotropy + 1e-6) + 1
