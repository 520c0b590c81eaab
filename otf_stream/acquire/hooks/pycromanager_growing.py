"""A place of a pycromanager acquisition of unknown length: what its first frames tell.

Without a list of events nobody knows where z begins, how far apart planes are, or whether z goes up or down. Two
frames that differ in z tell, so the first frames are held until there are two. Planes that were sent cannot be
renumbered: what comes below the first plane later on is refused, and the remedy is to give the events.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from otf_stream.acquire.hooks.pycromanager_events import Axes, channel_name
from otf_stream.acquire.hooks.voxels import first_step_um
from otf_stream.acquisition import PlaneIndex


@dataclass
class Frame:
    """A frame, its pixels ``(y, x)``, and what is known of it; ``taken`` is in UNIX seconds."""

    pixels: np.ndarray
    axes: Axes
    metadata: Mapping[str, Any]
    taken: float


@dataclass
class Growing:
    """A place of an acquisition of unknown length: holds its first frames, then numbers all.

    Attributes
    ----------
    held
        Frames that came before `ready`.
    names
        Of the channels so far, in the order in which they came.
    z_step_um
        Between neighbouring planes; None until it is known.
    """

    z_step_um: float | None = None
    held: list[Frame] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    _first_time: int = 0
    _first_plane: int = 0

    def ready(self) -> bool:
        """Whether the frames that are held tell where the stack begins, and its z step."""
        order = list(dict.fromkeys(frame.axes["z"] for frame in self.held if "z" in frame.axes))
        if len(order) < 2:
            return False
        if self.z_step_um is None:
            self.z_step_um = self._step()
        # Upwards it begins with the first; downwards nobody knows where it ends, but in most scripts at 0.
        self._first_plane = min(order) if order[1] > order[0] else min(0, *order)
        self._first_time = min(frame.axes.get("time", 0) for frame in self.held)
        return self.z_step_um is not None

    def announced(self, first: Frame) -> dict[str, Any]:
        """What the first frames tell, for `otf_stream.acquisition.Acquisition`; of its sizes t, c and z."""
        self.index(first.axes)  # names its channel
        x, y = number(first.metadata, "XPosition_um_Intended"), number(first.metadata, "YPosition_um_Intended")
        return {
            "sizes": {"z": 1},
            "z_step_um": self.z_step_um,
            "growing": True,
            "channels": tuple(self.names),
            "stage_um": None if x is None or y is None else (x, y),
        }

    def _step(self) -> float | None:
        stacks: dict[tuple[Any, Any], dict[int, float]] = {}
        for frame in self.held:
            height = number(frame.metadata, "ZPosition_um_Intended")
            if height is not None and "z" in frame.axes:
                stack = stacks.setdefault((frame.axes.get("time"), frame.axes.get("channel")), {})
                stack[frame.axes["z"]] = height
        return first_step_um(stacks.values())

    def index(self, axes: Axes) -> PlaneIndex:
        """Return ``(t, c, z)`` of a frame; a channel that is new is appended to ``names``.

        Raises
        ------
        ValueError
            If the frame lies before the first time point or below the first plane, which are sent already.
        """
        t, z = axes.get("time", self._first_time), axes.get("z", self._first_plane)
        if t < self._first_time or z < self._first_plane:
            raise ValueError(
                f"a frame with the axes {dict(axes)} came, but the acquisition began at time {self._first_time} and z "
                f"{self._first_plane}; give its events as events=, which tell the range of both in advance"
            )
        name = channel_name(axes.get("channel"), {})
        if name not in self.names:
            self.names.append(name)
        return t - self._first_time, self.names.index(name), z - self._first_plane


def number(metadata: Mapping[str, Any], key: str) -> float | None:
    """Return a number from the metadata of a frame, where it has it."""
    value = metadata.get(key)
    return None if value is None else float(value)
