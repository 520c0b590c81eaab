"""What the events of a pycromanager acquisition announce, and what its frames tell: pure functions and small tables.

Events and frames have axes, such as ``{"time": 0, "position": "A1", "channel": "DAPI", "z": -3}``. None of them is
mandatory, and their values are what the script chose: z may begin below zero, positions may have labels. A session
counts from 0. The list of all events gives every value its index before the first frame.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from otf_stream.acquire.hooks.growing import Plane
from otf_stream.acquire.hooks.stream import Place
from otf_stream.acquire.hooks.voxels import even_step_um
from otf_stream.acquisition import PlaneIndex

Axes = Mapping[str, Any]
Event = Mapping[str, Any]

_AXES = ("time", "channel", "z", "position", "row", "column")
_UNEVEN = 0.01  # of an interval
_PIXEL_SIZE = ("PixelSize_um", "PixelSizeUm")  # of the engines; of Micro-Manager's own metadata


class Places:
    """Numbers the places of an acquisition: positions by their number, labels and tiles as they first come."""

    def __init__(self) -> None:
        self._labels: dict[str, int] = {}
        self._tiles: dict[tuple[Any, Any], int] = {}

    def of(self, axes: Axes) -> Place:
        """Return the place that ``axes`` tell.

        Raises
        ------
        ValueError
            If there is an axis that a session has not, or the position is a number below 0.
        """
        strange = sorted(axes.keys() - set(_AXES))
        if strange:
            raise ValueError(
                f"the axis {strange[0]!r} is none of {', '.join(_AXES)}; make each of its values a position of its own"
            )
        position = axes.get("position", 0)
        if isinstance(position, str):
            position = self._labels.setdefault(position, len(self._labels))
        elif position < 0:
            raise ValueError(f"the position is {position}; number positions from 0, or give them labels")
        corner = (axes.get("row"), axes.get("column"))
        tile = 0 if corner == (None, None) else self._tiles.setdefault(corner, len(self._tiles))
        return int(position), tile


@dataclass(frozen=True)
class Plan:
    """What is acquired at a place, and the index of each value on its axes.

    Attributes
    ----------
    times, channels, planes
        Index of each value along t, c and z; None stands for events without that axis.
    names
        One a channel.
    z_step_um
        Between neighbouring planes.
    z_ranges, every, interval_s, stage_um
        As in `otf_stream.acquisition.Acquisition`.
    """

    times: Mapping[Any, int]
    channels: Mapping[Any, int]
    planes: Mapping[Any, int]
    names: tuple[str, ...]
    z_step_um: float
    z_ranges: tuple[tuple[int, int], ...]
    every: tuple[int, ...]
    interval_s: float | None
    stage_um: tuple[float, float] | None

    def announced(self) -> dict[str, Any]:
        """What is known in advance, for `otf_stream.acquisition.Acquisition`; of its sizes t, c and z."""
        return {
            "sizes": {"t": max(self.times.values()) + 1, "c": len(self.names), "z": max(self.planes.values()) + 1},
            "z_step_um": self.z_step_um,
            "channels": self.names,
            "z_ranges": self.z_ranges,
            "every": self.every,
            "interval_s": self.interval_s,
            "stage_um": self.stage_um,
        }

    def index(self, axes: Axes) -> PlaneIndex:
        """Return ``(t, c, z)`` of a frame.

        Raises
        ------
        ValueError
            If no event has these values.
        """
        try:
            return (
                self.times[axes.get("time")],
                self.channels[axes.get("channel")],
                self.planes[axes.get("z")],
            )
        except KeyError as error:
            raise ValueError(
                f"no event has the axes {dict(axes)}; give all events as events=, or none if they are not known"
            ) from error


def plans(events: Sequence[Event], places: Places, *, z_step_um: float | None = None) -> dict[Place, Plan]:
    """Read the whole acquisition from its events.

    Parameters
    ----------
    events
        As for ``Acquisition.acquire``, in the order in which they are acquired.
    places
        What numbers the places.
    z_step_um
        Distance of neighbouring planes; from the heights ``"z"`` of the events if not given.

    Returns
    -------
    dict
        By place, in the order in which they are first visited. Places without a z-stack are left out.

    Raises
    ------
    ValueError
        If no place has a z-stack, the z steps are uneven or not known, or an axis is none of a session.
    """
    visited: dict[Place, list[Event]] = {}
    for event in events:
        if "axes" in event:
            visited.setdefault(places.of(event["axes"]), []).append(event)
    planned = {
        place: _plan(here, z_step_um)
        for place, here in visited.items()
        if len({event["axes"]["z"] for event in here if "z" in event["axes"]}) > 1
    }
    if not planned:
        raise ValueError(
            "the events have less than 2 z positions everywhere, but a stack has at least 2; "
            "give z_start, z_end and z_step to multi_d_acquisition_events"
        )
    return planned


def _plan(events: Sequence[Event], z_step_um: float | None) -> Plan:
    times = _ranks(event["axes"].get("time") for event in events)
    planes = _ranks(event["axes"].get("z") for event in events)
    channels: dict[Any, int] = {}
    names: list[str] = []
    taken: list[tuple[set[int], set[int]]] = []  # for each channel its time points and planes
    for event in events:
        channel = event["axes"].get("channel")
        c = channels.setdefault(channel, len(channels))
        if c == len(names):
            names.append(_channel_name(channel, event))
            taken.append((set(), set()))
        taken[c][0].add(times[event["axes"].get("time")])
        taken[c][1].add(planes[event["axes"].get("z")])
    depth, duration = max(planes.values()) + 1, max(times.values()) + 1
    ranges = tuple((min(zs), max(zs) + 1) for _, zs in taken)
    every = tuple(_every(sorted(ts), duration) for ts, _ in taken)
    x, y = events[0].get("x"), events[0].get("y")
    return Plan(
        times=times,
        channels=channels,
        planes=planes,
        names=tuple(names),
        z_step_um=_z_step(events, times, planes) if z_step_um is None else z_step_um,
        z_ranges=ranges if set(ranges) != {(0, depth)} else (),
        every=every if set(every) != {1} and 0 not in every else (),
        interval_s=_interval(events, times),
        stage_um=None if x is None or y is None else (float(x), float(y)),
    )


def seen(pixels: np.ndarray, axes: Axes, metadata: Mapping[str, Any], *, place: Place, taken: float) -> Plane:
    """Return a frame as a plane of an acquisition that nobody announced.

    Parameters
    ----------
    pixels
        ``(y, x)``.
    axes, metadata
        That came with them.
    place
        As `Places` numbers it.
    taken
        When it was exposed, in UNIX seconds.
    """
    x, y = _number(metadata, "XPosition_um_Intended"), _number(metadata, "YPosition_um_Intended")
    return Plane(
        t=axes.get("time"),
        channel=_channel_name(axes.get("channel"), {}),
        z=axes.get("z"),
        read=lambda: pixels,
        shape=pixels.shape,
        dtype=pixels.dtype,
        position=place[0] if "position" in axes else None,
        tile=place[1] if "row" in axes or "column" in axes else None,
        height_um=_number(metadata, "ZPosition_um_Intended") if "z" in axes else None,  # otherwise of no stack
        stage_um=None if x is None or y is None else (x, y),
        pixel_um=pixel_um(metadata),
        taken=taken,
    )


def pixel_um(metadata: Mapping[str, Any]) -> float | None:
    """Return the lateral pixel size that came with a frame; None if it is not known."""
    told = (_number(metadata, key) for key in _PIXEL_SIZE)
    return next((size for size in told if size), None)


def _number(metadata: Mapping[str, Any], key: str) -> float | None:
    value = metadata.get(key)
    return None if value is None else float(value)


def _channel_name(channel: Any, event: Event) -> str:
    """Return the name of a channel: its value on the axis, or of a number the preset, where the event has one."""
    preset = event.get("config_group")
    return str(preset[1]) if preset and not isinstance(channel, str) else str(channel if channel is not None else 0)


def _ranks(values: Iterable[Any]) -> dict[Any, int]:
    """Number what occurs on an axis, in order; events without the axis are counted to its beginning."""
    seen = set(values)
    ranks = {value: rank for rank, value in enumerate(sorted(seen - {None}))}
    return ranks | {None: 0} if None in seen else ranks


def _z_step(events: Sequence[Event], times: Mapping[Any, int], planes: Mapping[Any, int]) -> float:
    stacks: dict[tuple[int, Any], dict[int, float]] = {}
    for event in events:
        axes = event["axes"]
        if event.get("z") is not None and "z" in axes:
            stack = stacks.setdefault((times[axes.get("time")], axes.get("channel")), {})
            stack[planes[axes["z"]]] = float(event["z"])
    step = even_step_um(stacks.values(), remedy="give events with one z step")
    if step is None:
        raise ValueError("the events have no heights of the focus (key 'z'); give z_step_um")
    return step


def _every(times: Sequence[int], duration: int) -> int:
    """Every how many time points these are; 0 if that varies."""
    every = times[1] - times[0] if len(times) > 1 else duration
    return every if list(times) == list(range(0, duration, every)) else 0


def _interval(events: Sequence[Event], times: Mapping[Any, int]) -> float | None:
    starts: dict[int, float] = {}
    for event in events:
        # The first time point may start at once and say nothing.
        start, t = float(event.get("min_start_time", 0)), times[event["axes"].get("time")]
        starts[t] = min(start, starts.get(t, start))
    intervals = np.diff([starts[t] for t in sorted(starts)])
    if not len(intervals) or intervals.min() <= 0 or np.ptp(intervals) > _UNEVEN * intervals.mean():
        return None
    return float(intervals.mean())
