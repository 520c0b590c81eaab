"""A place of an acquisition that nobody announced: what its first planes tell, and the index of every plane.

Two planes of a stack tell where z begins and how far apart planes are, so the first planes of a place are held until
there are two. Planes that were sent cannot be renumbered: what comes before the first time point or below the first
plane later on has no index.

Every software says in its own words where a plane belongs; `Plane` is what is common to all, live or from files. Where
even the index of a plane is not told, its height tells z, and a time point is over when one of its planes comes again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from otf_stream.acquire.hooks.stream import Place
from otf_stream.acquire.hooks.voxels import first_step_um
from otf_stream.acquisition import PlaneIndex

_BESIDE = 0.25  # of a z step: a plane that lies further from where planes should lie has no index


@dataclass(frozen=True)
class Plane:
    """A plane that is there, and what its software tells of it.

    Parameters
    ----------
    t, z
        Where it belongs; None if that is not told.
    channel
        Number or name of its channel.
    read
        Reads it, ``(y, x)``, in any byte order.
    shape, dtype
        Of its pixels.
    channel_name
        Of a channel that has a number.
    position
        Of the stage; None where there is but one.
    tile
        Of a grid around the position; None without one.
    height_um
        Where the focus stood.
    stage_um
        Where the stage stood, ``(x, y)``.
    pixel_um
        Lateral pixel size.
    taken
        When it was exposed, in UNIX seconds.
    """

    t: int | None
    channel: int | str
    z: int | None
    read: Callable[[], np.ndarray]
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    channel_name: str | None = None
    position: int | None = None
    tile: int | None = None
    height_um: float | None = None
    stage_um: tuple[float, float] | None = None
    pixel_um: float | None = None
    taken: float | None = None

    @property
    def place(self) -> Place:
        """Where the stage stood, by numbers."""
        return self.position or 0, self.tile or 0

    @property
    def alone(self) -> bool:
        """Whether it is of the only place that there is."""
        return self.position is None and self.tile is None


class GrowingPlace:
    """A place of an acquisition of unknown length: holds its first planes, then numbers all.

    Parameters
    ----------
    from_first
        Whether the first time point and plane are 0, whatever their numbers; otherwise only a plane below 0 is.

    Attributes
    ----------
    held
        Planes that came before it was `known`.
    names
        Of the channels so far, by their index; empty where they have none.
    z_step_um
        Between neighbouring planes; None if it is not known.
    """

    def __init__(self, *, from_first: bool = False) -> None:
        self.held: list[Plane] = []
        self.names: list[str] = []
        self.z_step_um: float | None = None
        self._from_first = from_first
        self._first_time = self._first_plane = 0
        self._heights: tuple[float, float] | None = None  # of plane 0, and from each to the next
        self._time = 0
        self._present: set[tuple[int, int]] = set()  # channels and planes of this time point

    def known(self) -> bool:
        """Whether the planes that are held are of a stack: then what they tell is learnt."""
        order = list(dict.fromkeys(plane.z for plane in self.held if plane.z is not None))
        self._heights = None if order else _first_heights(self.held)
        if len(order) < 2 and self._heights is None:
            return False
        self.z_step_um = abs(self._heights[1]) if self._heights else _step_um(self.held)
        if self._heights is None:
            # Upwards it begins with the first; downwards nobody knows where it ends, but in most scripts at 0.
            upwards = self._from_first and order[1] > order[0]
            self._first_plane = min(order) if upwards else min(0, *order)
        if self._from_first:
            self._first_time = min(plane.t or 0 for plane in self.held)
        self.names = _names(self.held)
        return True

    def announced(self) -> dict[str, Any]:
        """What the planes that are held tell, for `otf_stream.acquisition.Acquisition`; of its sizes t, c and z."""
        return {
            "sizes": {"c": max(1, len(self.names)), "z": 1},
            "z_step_um": self.z_step_um,
            "growing": True,
            "channels": tuple(self.names),
            "stage_um": self.held[0].stage_um,
        }

    def index(self, plane: Plane) -> PlaneIndex:
        """Return ``(t, c, z)`` of a plane, in the order in which they came; a channel that is new gets its name.

        Raises
        ------
        ValueError
            If it lies before the first time point or below the first plane, which are sent already, or between planes.
        """
        z = self._z(plane)
        if z < 0 or (plane.t is not None and plane.t < self._first_time):
            came = plane.z if self._heights is None else z
            raise ValueError(
                f"a plane with t={plane.t}, z={came} came, but the acquisition began with t={self._first_time}, "
                f"z={self._first_plane}"
            )
        c = self._channel(plane)
        if plane.t is not None:
            return plane.t - self._first_time, c, z
        if (c, z) in self._present:
            self._time += 1
            self._present.clear()
        self._present.add((c, z))
        return self._time, c, z

    def _z(self, plane: Plane) -> int:
        if self._heights is None:
            return 0 if plane.z is None else plane.z - self._first_plane
        first, step = self._heights
        if plane.height_um is None:
            return 0
        steps = (plane.height_um - first) / step
        if abs(steps - round(steps)) > _BESIDE:
            raise ValueError(
                f"a plane at {plane.height_um:g} µm came, but planes began at {first:g} µm and are {step:g} µm apart"
            )
        return round(steps)

    def _channel(self, plane: Plane) -> int:
        if isinstance(plane.channel, int):
            if plane.channel_name is not None and plane.channel >= len(self.names):
                self.names += [str(c) for c in range(len(self.names), plane.channel)] + [plane.channel_name]
            return plane.channel
        if plane.channel not in self.names:
            self.names.append(plane.channel)
        return self.names.index(plane.channel)


def _names(planes: Sequence[Plane]) -> list[str]:
    """Return the names of the channels by index: by their numbers, or in the order in which they came."""
    numbered = {p.channel: p.channel_name for p in planes if isinstance(p.channel, int) and p.channel_name is not None}
    if numbered:
        return [numbered.get(c, str(c)) for c in range(max(numbered) + 1)]
    return list(dict.fromkeys(plane.channel for plane in planes if isinstance(plane.channel, str)))


def _first_heights(planes: Iterable[Plane]) -> tuple[float, float] | None:
    """Return the first height of a stack and the step to the next, in µm; None if no stack has two."""
    begins: dict[tuple[int | None, int | str], float] = {}
    for plane in planes:
        if plane.height_um is not None:
            first = begins.setdefault((plane.t, plane.channel), plane.height_um)
            if plane.height_um != first:
                return first, plane.height_um - first
    return None


def _step_um(planes: Iterable[Plane]) -> float | None:
    """Return the z step from where the focus stood at two planes of a stack, which is surer than any summary."""
    stacks: dict[tuple[int | None, int | str], dict[int, float]] = {}
    for plane in planes:
        if plane.height_um is not None and plane.z is not None:
            stacks.setdefault((plane.t, plane.channel), {})[plane.z] = plane.height_um
    return first_step_um(stacks.values())
