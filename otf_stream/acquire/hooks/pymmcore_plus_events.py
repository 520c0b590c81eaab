"""What the events of pymmcore-plus announce, and what they tell of a frame where nothing was announced.

A sequence knows the whole plan, and its events count every axis from 0. A script may also run events of its own, made
one by one: a generator, a list, a queue. The engine then has no plan either, and an event says what its author needed
to say: an index of some axes or of none, a preset, a height, a stage position. What the index has stands; the rest is
told by the other three.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from otf_stream.acquire.hooks.growing import Plane
from otf_stream.acquire.hooks.stream import Place, place_name
from otf_stream.acquire.hooks.voxels import even_step_um, known_pixel_size
from otf_stream.acquisition import Acquisition, Modality, Optics, PixelType, Sizes, VoxelSize

if TYPE_CHECKING:
    from pymmcore_plus import CMMCorePlus
    from useq import MDAEvent, MDASequence

_PIXEL_TYPES: dict[int, PixelType] = {1: "uint8", 2: "uint16"}
_AXES = ("t", "p", "g", "c", "z")
_ARRIVED = "ImageNumber"


def describe(
    core: CMMCorePlus,
    sequence: MDASequence,
    *,
    name: str,
    pixel_size_um: float | None = None,
    z_step_um: float | None = None,
    modality: Modality = "unknown",
    optics: Optics = Optics(),  # noqa: B008  frozen
) -> dict[Place, Acquisition]:
    """Describe what ``sequence`` acquires on ``core``, for every place that it visits.

    Parameters
    ----------
    core, name, pixel_size_um, z_step_um, modality, optics
        As for `otf_stream.acquire.hooks.pymmcore_plus.streaming`.
    sequence
        With a z plan of even steps; time points, channels, positions and grids as wanted.

    Returns
    -------
    dict
        By ``(position, tile)``, in the order in which they are visited. Places without a z-stack are left out.

    Raises
    ------
    ValueError
        If no place has a z-stack, the z steps are uneven or not known, the pixel size is unknown, or the camera's
        images are not single ones of 8 or 16 bits.
    """
    pixel_size = known_pixel_size(core.getPixelSizeUm() if pixel_size_um is None else pixel_size_um)
    visited = _visited(sequence)
    stacks = {
        place: events for place, events in visited.items() if len({planned_index(event)[3] for event in events}) > 1
    }
    if not stacks:
        raise ValueError(
            "the sequence has less than 2 z positions everywhere, but a stack has at least 2; give it a z_plan, "
            "such as {'range': 40, 'step': 1.2}"
        )
    interval = getattr(sequence.time_plan, "interval", None)
    common = {
        "dtype": camera_pixels(core),
        "modality": modality,
        "optics": optics,
        "interval_s": interval.total_seconds() if interval else None,
    }
    return {
        place: _acquisition(
            core, sequence, events, (z_step_um, pixel_size), {**common, "name": place_name(name, place, list(visited))}
        )
        for place, events in stacks.items()
    }


def _visited(sequence: MDASequence) -> dict[Place, list[MDAEvent]]:
    """List the frames of one time point for each place: those of all are the same, and may be a million."""
    visited: dict[Place, list[MDAEvent]] = {}
    for event in sequence.replace(time_plan=None):
        if getattr(event.action, "type", "") == "acquire_image":
            visited.setdefault(planned_index(event)[0], []).append(event)
    return visited


def _acquisition(
    core: CMMCorePlus,
    sequence: MDASequence,
    events: list[MDAEvent],
    voxel_um: tuple[float | None, float],
    common: dict[str, Any],
) -> Acquisition:
    z_step, pixel_size = voxel_um
    indices = [planned_index(event) for event in events]
    names = {
        c: event.channel.config if event.channel else str(c)
        for event, (_, _, c, _) in zip(events, indices, strict=True)
    }
    channels = range(max(names) + 1)
    planes = {c: {z for _, _, channel, z in indices if channel == c} for c in channels}
    depth = max(map(max, filter(None, planes.values()))) + 1
    ranges = tuple((min(zs), max(zs) + 1) if zs else (0, depth) for zs in planes.values())
    # A time plan may also stand in the sequence of a position.
    times = max(sequence.sizes.get("t", 0), max(t for _, t, _, _ in indices) + 1)
    every = tuple(channel.acquire_every for channel in sequence.channels)
    x, y = events[0].x_pos, events[0].y_pos
    return Acquisition(
        sizes=Sizes(t=times, c=len(channels), z=depth, y=core.getImageHeight(), x=core.getImageWidth()),
        voxel_size=VoxelSize(z=_z_step(events) if z_step is None else z_step, y=pixel_size, x=pixel_size),
        channels=tuple(names.get(c, str(c)) for c in channels),
        z_ranges=ranges if set(ranges) != {(0, depth)} else (),
        every=every if set(every) - {1} and len(every) == len(channels) else (),
        stage_um=None if x is None or y is None else (x, y),
        **common,
    )


def planned_index(event: MDAEvent) -> tuple[Place, int, int, int]:
    """Return the place, t, c and z of a frame of a sequence."""
    index = _by_name(event)
    return (index.get("p", 0), index.get("g", 0)), index.get("t", 0), index.get("c", 0), index.get("z", 0)


def _by_name(event: MDAEvent) -> dict[str, int]:
    return {str(axis): int(number) for axis, number in event.index.items()}


def _z_step(events: list[MDAEvent]) -> float:
    heights: dict[int, dict[int, float]] = {}
    for event in events:
        if event.z_pos is not None:
            _, _, c, z = planned_index(event)
            heights.setdefault(c, {})[z] = event.z_pos  # channels may be focused differently
    remedy = "give a z_plan with one step"
    step = even_step_um([max(heights.values(), key=len, default={})], remedy=remedy)
    if step is None:
        raise ValueError(f"the z positions lie at no known heights, but a stack has even steps; {remedy}")
    return step


def camera_pixels(core: CMMCorePlus) -> PixelType:
    """Return the pixel type of the camera.

    Raises
    ------
    ValueError
        If its images are not single ones of 8 or 16 bits.
    """
    cameras, components, size = core.getNumberOfCameraChannels(), core.getNumberOfComponents(), core.getBytesPerPixel()
    if cameras != 1 or components != 1 or size not in _PIXEL_TYPES:
        raise ValueError(
            f"the camera gives {cameras} images of {components} components and {size} bytes a pixel; "
            "choose one camera and grey values of 8 or 16 bits (its PixelType property)"
        )
    return _PIXEL_TYPES[size]


def is_planned(sequence: MDASequence) -> bool:
    """Whether a sequence that has started knows its events: the engine's stand-in for other events has no axes."""
    return bool(sequence.axis_order)


class Seen:
    """Reads from events without a sequence where their frames belong."""

    def __init__(self) -> None:
        self._stops: dict[tuple[float | None, float | None], int] = {}
        self._at: tuple[float | None, float | None] = (None, None)
        self._height_um: float | None = None

    def plane(self, pixels: np.ndarray, event: MDAEvent, *, taken: float | None) -> Plane:
        """Return a frame as a plane of an acquisition that nobody announced.

        Parameters
        ----------
        pixels
            ``(y, x)``.
        event
            That it was taken for.
        taken
            When it was exposed, in UNIX seconds.

        Raises
        ------
        ValueError
            If the index has an axis that a session has not.
        """
        index = _by_name(event)
        strange = sorted(index.keys() - set(_AXES))
        if strange:
            raise ValueError(
                f"the axis {strange[0]!r} of the index is none of {', '.join(_AXES)}; "
                "make each of its values a position of its own"
            )
        self._height_um = event.z_pos if event.z_pos is not None else self._height_um
        preset = event.channel.config if event.channel else None
        x, y = event.x_pos, event.y_pos
        return Plane(
            t=index.get("t"),
            channel=index.get("c", preset or "0"),
            channel_name=preset or str(index.get("c", 0)),
            z=index.get("z"),
            read=lambda: pixels,
            shape=pixels.shape,
            dtype=pixels.dtype,
            position=self._position(index, event),
            tile=index.get("g"),
            height_um=event.z_pos if "z" in index else self._height_um,  # it stays where no event moves it
            stage_um=None if x is None or y is None else (x, y),
            taken=taken,
        )

    def _position(self, index: dict[str, int], event: MDAEvent) -> int | None:
        """Number the stage positions where nothing else does: with time points, the stage may follow the sample."""
        if "p" in index or "t" in index:
            return index.get("p")
        x, y = self._at
        self._at = (x if event.x_pos is None else event.x_pos, y if event.y_pos is None else event.y_pos)
        if self._at == (None, None):
            return None
        return self._stops.setdefault(self._at, len(self._stops))


class Bursts:
    """Tells for which events the frames of hardware-triggered bursts were exposed.

    The engine counts the frames of a burst. If the camera loses one, those after it are taken for the plane before
    theirs, and the last one for missing. Micro-Manager's ``ImageNumber`` counts what arrived, too, and its times are
    those of arrival. Only a number that the camera itself gives tells what was exposed; each make has its own name
    for it.

    Parameters
    ----------
    frame_counter
        That name; None if the camera does not number its frames.

    Raises
    ------
    ValueError
        If it is Micro-Manager's own number.
    """

    def __init__(self, frame_counter: str | None) -> None:
        if frame_counter == _ARRIVED:
            raise ValueError(
                f"frame_counter is {_ARRIVED!r}, which counts the frames that arrived, not those that were exposed; "
                "give the name of a number that the camera itself puts into its metadata, or leave it out"
            )
        self._counter = frame_counter
        self._events: tuple[MDAEvent, ...] = ()
        self._frames = 0
        self._first: int | None = None  # the number of the first frame of a burst

    def begin(self, event: MDAEvent) -> None:
        """Note that an event begins, which may stand for those of a burst."""
        self._events, self._frames = getattr(event, "events", ()), 0

    def lost(self) -> str | None:
        """Say of the burst that is over that it was short of frames, if those after the lost ones cannot be told."""
        events, frames = len(self._events), self._frames
        self._events = ()
        if self._counter is not None or frames >= events:
            return None
        return (
            f"a burst of {events} frames brought {frames}, which the engine told apart by counting: those after a lost "
            "one lie a plane too early; give frame_counter=, the name of the frame's number in the camera's metadata"
        )

    def event_of(self, event: MDAEvent, metadata: Mapping[str, Any]) -> MDAEvent:
        """Return the event for which a frame was exposed, given the one for which the engine takes it.

        Raises
        ------
        ValueError
            If the camera tells no number of the burst: once, since from then on frames are told apart by counting.
        """
        self._frames += 1
        if self._counter is None or not self._events:
            return event
        told = metadata.get("camera_metadata", {})
        try:
            number = int(told[self._counter])
            self._first = number if self._first is None else min(self._first, number)
            return self._events[number - self._first]
        except (KeyError, ValueError, IndexError) as error:
            counter, self._counter = self._counter, None
            raise ValueError(
                f"the camera's metadata have no number {counter!r} that begins anew with each burst of "
                f"{len(self._events)} frames (but {', '.join(f'{key}={told[key]}' for key in told) or 'nothing'}); "
                "give another frame_counter; until then frames are told apart by counting"
            ) from error
