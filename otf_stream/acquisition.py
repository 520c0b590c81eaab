"""What an acquisition is: its axes, voxel size, channels and optics.

One frozen description crosses every boundary of the project: the microscope's PC sends it in the greeting,
the session store keeps it, the worker restores by it. It therefore lives below all other modules, and
imports neither zarr nor torch, so that the microscope's PC can use it.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails

Modality = Literal["unknown", "confocal", "multiphoton", "light-sheet", "widefield"]
PixelType = Literal["uint8", "uint16", "int16", "float32"]

Micrometres = Annotated[float, Field(gt=0, lt=1e4, allow_inf_nan=False)]
MAX_LENGTH = 1_000_000
"""The longest that an axis may be."""
Length = Annotated[int, Field(ge=1, le=MAX_LENGTH)]
MAX_CHANNELS = 1_000
"""The most channels that one acquisition may have; a store describes each of them to viewers."""
_Place = Annotated[float, Field(gt=-1e7, lt=1e7, allow_inf_nan=False)]

_MOST_ANISOTROPIC = 100

NAMES = (
    "names are of at most 100 letters without accents, digits, spaces and _ . + -, and begin with one of the first two"
)
"""What an acquisition may be called, in words."""

_LIMITS = {
    "greater_than": ("above", "gt"),
    "greater_than_equal": ("at least", "ge"),
    "less_than": ("below", "lt"),
    "less_than_equal": ("at most", "le"),
    "literal_error": ("one of", "expected"),
}
"""Words for a limit, and where the parser tells it."""

MAX_PLANES = 10_000_000
"""The most planes that one acquisition may have."""

PlaneIndex = tuple[int, int, int]
"""Where a plane belongs: ``(t, c, z)``."""

StackIndex = tuple[int, int]
"""Which stack: ``(t, c)``. A stack is what is restored as one volume."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Sizes(_Frozen):
    """Lengths of the five axes, in planes (t, c, z) and pixels (y, x)."""

    t: Length = 1
    c: Annotated[int, Field(ge=1, le=MAX_CHANNELS)] = 1
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
    z_ranges
        For each channel its first plane and one past its last; every channel has all planes where none are given.
    every
        For each channel, every how many time points it is acquired; at all of them where none are given.
    growing
        Nobody knows yet how long it will be: the sizes along t, c and z are those so far. Planes beyond them extend
        them.
    interval_s
        Seconds between time points, where they are even.
    stage_um
        Where the stage stood, ``(x, y)`` in µm.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9 _.+-]{0,99}$")]
    sizes: Sizes
    dtype: PixelType
    voxel_size: VoxelSize
    channels: tuple[Annotated[str, Field(max_length=200)], ...] = ()
    modality: Modality = "unknown"
    optics: Optics = Optics()
    z_ranges: tuple[tuple[int, int], ...] = ()
    every: tuple[Length, ...] = ()
    growing: bool = False
    interval_s: Annotated[float, Field(gt=0, lt=1e8, allow_inf_nan=False)] | None = None
    stage_um: tuple[_Place, _Place] | None = None

    @model_validator(mode="after")
    def _one_of_each_a_channel(self) -> Self:
        for what, given in (("channel names", self.channels), ("z ranges", self.z_ranges), ("intervals", self.every)):
            if given and len(given) != self.sizes.c:
                raise ValueError(f"{len(given)} {what} for {self.sizes.c} channels; give one a channel")
        for first, stop in self.z_ranges:
            if not 0 <= first < stop <= self.sizes.z:
                raise ValueError(
                    f"the z range {first} to {stop} (not included) does not lie within the {self.sizes.z} planes; "
                    "give ranges from 0 on"
                )
        if self.growing and (self.z_ranges or self.every):
            raise ValueError("an acquisition of unknown length has neither z_ranges nor every; leave them out")
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

    def planes_of(self, channel: int) -> range:
        """Along z, the planes of a stack of this channel."""
        return range(*self.z_ranges[channel]) if self.z_ranges else range(self.sizes.z)

    def plans(self, stack: StackIndex) -> bool:
        """Whether planes of ``(t, c)`` are to be acquired."""
        t, c = stack
        return not self.every or t % self.every[c] == 0

    @property
    def planned(self) -> int:
        """How many planes are announced; so far, if it grows."""
        sizes = self.sizes
        times = [len(range(0, sizes.t, n)) for n in self.every or (1,) * sizes.c]
        return sum(n * len(self.planes_of(c)) for c, n in enumerate(times))

    @property
    def planned_stacks(self) -> int:
        """How many stacks are announced; so far, if it grows."""
        channels = [c for c in range(self.sizes.c) if len(self.planes_of(c)) > 1]
        return sum(len(range(0, self.sizes.t, self.every[c] if self.every else 1)) for c in channels)

    def stacks(self) -> list[StackIndex]:
        """Every stack of the acquisition, in order of time; a channel of single planes has none."""
        channels = [c for c in range(self.sizes.c) if len(self.planes_of(c)) > 1]
        return [(t, c) for t in range(self.sizes.t) for c in channels if self.plans((t, c))]

    def admits(self, plane: PlaneIndex) -> bool:
        """Whether ``plane`` lies inside the axes, or extends those of a growing acquisition within the limits."""
        if not self.growing:
            return self.holds(plane)
        t, c, z = self._lengths(plane)
        return min(plane) >= 0 and max(t, z) <= MAX_LENGTH and c <= MAX_CHANNELS and t * c * z <= MAX_PLANES

    def extended(self, plane: PlaneIndex) -> Acquisition:
        """Return the acquisition with axes that hold ``plane``, which it `admits`."""
        if self.holds(plane):
            return self
        t, c, z = self._lengths(plane)
        sizes = self.sizes.model_copy(update={"t": t, "c": c, "z": z})
        names = self.channels and (*self.channels, *(str(i) for i in range(self.sizes.c, c)))
        return self.model_copy(update={"sizes": sizes, "channels": names})

    def joined(self, other: Acquisition) -> Acquisition | None:
        """Return what both descriptions of a growing acquisition tell together; None if they are of two acquisitions.

        Of one that does not grow, both must tell the same. A channel that is called by its number has only been seen:
        a plane of it may come before its name does.
        """
        if not self.growing or not other.growing:
            return self if self == other else None
        least = Sizes(z=1, y=1, x=1)
        lengths = {axis: max(getattr(self.sizes, axis), getattr(other.sizes, axis)) for axis in "tcz"}
        both = [a.model_copy(update={"sizes": least, "channels": ()}) for a in (self, other)]
        if both[0] != both[1] or self.sizes.shape[3:] != other.sizes.shape[3:]:
            return None
        names: list[str] = []
        for i in range(lengths["c"] if self.channels or other.channels else 0):
            told = {a.channels[i] for a in (self, other) if i < len(a.channels)} - {str(i)}
            if len(told) > 1:
                return None
            names += told or {str(i)}
        return self.model_copy(update={"sizes": self.sizes.model_copy(update=lengths), "channels": tuple(names)})

    def outside(self, plane: PlaneIndex) -> str:
        """Say that ``plane`` is not admitted, and why."""
        t, c, z = plane
        sizes = self.sizes
        if self.growing:
            return (
                f"plane t={t}, c={c}, z={z} is past what an acquisition may have, {MAX_LENGTH} along an axis, "
                f"{MAX_CHANNELS} channels and {MAX_PLANES} planes in all, or below zero; split the acquisition into "
                "several, and count from 0"
            )
        return (
            f"plane t={t}, c={c}, z={z} lies outside the announced {sizes.t} time points, {sizes.c} channels and "
            f"{sizes.z} planes; announce an acquisition that holds it"
        )

    def _lengths(self, plane: PlaneIndex) -> tuple[int, int, int]:
        t, c, z = (max(n, i + 1) for n, i in zip(self.sizes.shape[:3], plane, strict=True))
        return t, c, z


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


def faults(error: ValidationError) -> list[str]:
    """Say what is wrong with a description, for each value that does not hold: its name, why, and what it is."""
    return [_in_words(one) for one in error.errors()]


def _in_words(one: ErrorDetails) -> str:
    """Say what is wrong with a value as people would, where the parser's words are a program's."""
    kind, limits = one["type"], one.get("ctx", {})
    name = ".".join(map(str, one["loc"]))
    if kind == "extra_forbidden":
        return f"there is no {name} here"
    if kind == "missing":
        return f"{name} is missing"
    if kind in _LIMITS:
        words, key = _LIMITS[kind]
        limit = limits[key]
        why = f"has to be {words} {limit if isinstance(limit, str) else format(limit, 'g')}"
    elif kind == "string_pattern_mismatch" and name == "name":
        why = NAMES
    else:
        why = one["msg"].removeprefix("Value error, ")
    # What concerns all values together names those that matter.
    return f"{name}: {why} (it is {one['input']!r})" if name else why
