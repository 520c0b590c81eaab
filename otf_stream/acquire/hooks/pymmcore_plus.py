"""Streams what pymmcore-plus acquires: connects to the engine's events, and hands each frame to a stream.

The engine calls its listeners in the camera's thread, and an acquisition stops if they take their time. So a frame is
only handed over. The whole plan is read from the sequence before its first frame. A sequence that cannot be streamed
(no stack, no pixel size) is acquired all the same: the script that runs it may be somebody's night.

pymmcore-plus itself is not imported: the core that is passed in brings all that is needed.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from otf_stream.acquire.hooks.stream import Place, Stream, place_name
from otf_stream.acquire.hooks.voxels import even_step_um, known_pixel_size
from otf_stream.acquisition import Acquisition, Modality, Optics, PixelType, Sizes, VoxelSize

if TYPE_CHECKING:
    from pymmcore_plus import CMMCorePlus
    from useq import MDAEvent, MDASequence

_PIXEL_TYPES: dict[int, PixelType] = {1: "uint8", 2: "uint16"}


@contextmanager
def streaming(
    core: CMMCorePlus,
    address: str,
    *,
    name: str,
    pixel_size_um: float | None = None,
    modality: Modality = "unknown",
    optics: Optics = Optics(),  # noqa: B008  frozen
    wait_s: float = 60.0,
) -> Iterator[Stream]:
    """Stream every sequence that ``core`` runs within the block.

    Leaving the block waits until all planes are durable. It ends a sequence that still runs in another thread as
    aborted: join the thread that ``core.run_mda`` returns before. Where the listener cannot be reached, or refuses, and
    where a sequence cannot be streamed, nothing is raised: what failed is logged and in ``failures`` of the stream, and
    planes that are left are kept in files.

    Parameters
    ----------
    core
        Whose acquisition engine is listened to.
    address
        Of the listener, ``tcp://HOST:PORT``.
    name
        What to call the acquisitions; with several positions ``NAME_p0``, ``NAME_p1`` …
    pixel_size_um
        Lateral pixel size in the sample; as configured in the core if not given.
    modality, optics
        What is known of the microscope.
    wait_s
        Seconds to wait at the end while nothing is acknowledged.

    Examples
    --------
    >>> with streaming(core, "tcp://restoration-pc:8421", name="embryo"):  # doctest: +SKIP
    ...     core.mda.run(useq.MDASequence(z_plan={"range": 40, "step": 1.2}))
    """
    stream = Stream(address, wait_s=wait_s)
    connection = _Connection(
        core, stream, {"name": name, "pixel_size_um": pixel_size_um, "modality": modality, "optics": optics}
    )
    connection.connect()
    try:
        yield stream
    finally:
        connection.disconnect()
        stream.wait()


class _Connection:
    """Listens to the engine of a core; each sequence becomes a session for every place that it visits.

    A cancelled or failed one is closed as aborted: the planes that were taken are kept.
    """

    def __init__(self, core: CMMCorePlus, stream: Stream, described: Mapping[str, Any]) -> None:
        self._core = core
        self._stream = stream
        self._described = described
        self._running = self._cancelled = False
        self._begun = 0.0

    def connect(self) -> None:
        """Listen from now on."""
        events = self._core.mda.events
        events.sequenceStarted.connect(self._started)
        events.frameReady.connect(self._frame)
        events.sequenceCanceled.connect(self._canceled)
        events.sequenceFinished.connect(self._finished)

    def disconnect(self) -> None:
        """Listen no longer."""
        events = self._core.mda.events
        events.sequenceStarted.disconnect(self._started)
        events.frameReady.disconnect(self._frame)
        events.sequenceCanceled.disconnect(self._canceled)
        events.sequenceFinished.disconnect(self._finished)
        self._end_unfinished()

    def _started(self, sequence: MDASequence, metadata: object = None) -> None:
        self._end_unfinished()
        self._running, self._cancelled, self._begun = True, False, time.time()
        try:
            places = describe(self._core, sequence, **self._described)
            for place, acquisition in places.items():
                self._stream.open(place, acquisition, places=len(places))
        except Exception as error:
            self._stream.fail(f"a sequence is not streamed: {error}")

    def _frame(self, image: np.ndarray, event: MDAEvent, metadata: Mapping[str, Any] | None = None) -> None:
        place, t, c, z = _index(event)
        if not self._stream.is_open(place):  # no stack is taken there, or another thread has disconnected
            return
        elapsed = (metadata or {}).get("runner_time_ms")
        self._stream.frame(place, image, t=t, c=c, z=z, taken=None if elapsed is None else self._begun + elapsed / 1000)

    def _canceled(self, sequence: MDASequence) -> None:
        self._cancelled = True

    def _end_unfinished(self) -> None:
        """End a sequence that has not said that it finished: the engine is silent if its own clean-up fails."""
        if self._running:
            self._cancelled = True
            self._finished()

    def _finished(self, sequence: MDASequence | None = None) -> None:
        self._running = False
        status = getattr(self._core.mda, "status", None)  # Older engines do not tell.
        errored = str(getattr(status, "finish_reason", None)) == "errored"
        self._stream.close(aborted=self._cancelled or errored)


def describe(
    core: CMMCorePlus,
    sequence: MDASequence,
    *,
    name: str,
    pixel_size_um: float | None = None,
    modality: Modality = "unknown",
    optics: Optics = Optics(),  # noqa: B008  frozen
) -> dict[Place, Acquisition]:
    """Describe what ``sequence`` acquires on ``core``, for every place that it visits.

    Parameters
    ----------
    core, name, pixel_size_um, modality, optics
        As for `streaming`.
    sequence
        With a z plan of even steps; time points, channels, positions and grids as wanted.

    Returns
    -------
    dict
        By ``(position, tile)``, in the order in which they are visited. Places without a z-stack are left out.

    Raises
    ------
    ValueError
        If no place has a z-stack, the z steps are uneven, the pixel size is unknown, or the camera's images are not
        single ones of 8 or 16 bits.
    """
    pixel_size = known_pixel_size(core.getPixelSizeUm() if pixel_size_um is None else pixel_size_um)
    visited = _visited(sequence)
    stacks = {place: events for place, events in visited.items() if len({_index(event)[3] for event in events}) > 1}
    if not stacks:
        raise ValueError(
            "the sequence has less than 2 z positions everywhere, but a stack has at least 2; give it a z_plan, "
            "such as {'range': 40, 'step': 1.2}"
        )
    interval = getattr(sequence.time_plan, "interval", None)
    common = {
        "dtype": _pixel_type(core),
        "modality": modality,
        "optics": optics,
        "interval_s": interval.total_seconds() if interval else None,
    }
    return {
        place: _acquisition(
            core, sequence, events, pixel_size, {**common, "name": place_name(name, place, list(visited))}
        )
        for place, events in stacks.items()
    }


def _visited(sequence: MDASequence) -> dict[Place, list[MDAEvent]]:
    """List the frames of one time point for each place: those of all are the same, and may be a million."""
    visited: dict[Place, list[MDAEvent]] = {}
    for event in sequence.replace(time_plan=None):
        if getattr(event.action, "type", "") == "acquire_image":
            visited.setdefault(_index(event)[0], []).append(event)
    return visited


def _acquisition(
    core: CMMCorePlus, sequence: MDASequence, events: list[MDAEvent], pixel_size: float, common: dict[str, Any]
) -> Acquisition:
    indices = [_index(event) for event in events]
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
        voxel_size=VoxelSize(z=_z_step(events), y=pixel_size, x=pixel_size),
        channels=tuple(names.get(c, str(c)) for c in channels),
        z_ranges=ranges if set(ranges) != {(0, depth)} else (),
        every=every if set(every) - {1} and len(every) == len(channels) else (),
        stage_um=None if x is None or y is None else (x, y),
        **common,
    )


def _index(event: MDAEvent) -> tuple[Place, int, int, int]:
    index = {str(axis): number for axis, number in event.index.items()}
    return (index.get("p", 0), index.get("g", 0)), index.get("t", 0), index.get("c", 0), index.get("z", 0)


def _z_step(events: list[MDAEvent]) -> float:
    heights: dict[int, dict[int, float]] = {}
    for event in events:
        if event.z_pos is not None:
            _, _, c, z = _index(event)
            heights.setdefault(c, {})[z] = event.z_pos  # channels may be focused differently
    remedy = "give a z_plan with one step"
    step = even_step_um([max(heights.values(), key=len, default={})], remedy=remedy)
    if step is None:
        raise ValueError(f"the z positions lie at no known heights, but a stack has even steps; {remedy}")
    return step


def _pixel_type(core: CMMCorePlus) -> PixelType:
    cameras, components, size = core.getNumberOfCameraChannels(), core.getNumberOfComponents(), core.getBytesPerPixel()
    if cameras != 1 or components != 1 or size not in _PIXEL_TYPES:
        raise ValueError(
            f"the camera gives {cameras} images of {components} components and {size} bytes a pixel; "
            "choose one camera and grey values of 8 or 16 bits (its PixelType property)"
        )
    return _PIXEL_TYPES[size]
