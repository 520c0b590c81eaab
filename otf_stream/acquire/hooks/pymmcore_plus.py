"""Streams what pymmcore-plus acquires: connects to the engine's events, and hands each frame to a stream.

The engine calls its listeners in the camera's thread, and an acquisition stops if they take their time. So a frame is
only handed over. The whole plan is read from the sequence before its first frame; events without a sequence make an
acquisition of unknown length, which grows. What cannot be streamed (no stack, no pixel size) is acquired all the same:
the script that runs it may be somebody's night.

pymmcore-plus itself is not imported: the core that is passed in brings all that is needed.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from otf_stream.acquire.hooks.growing import GrowingPlace, Plane
from otf_stream.acquire.hooks.pymmcore_plus_events import (
    Bursts,
    Seen,
    camera_pixels,
    describe,
    is_planned,
    planned_index,
)
from otf_stream.acquire.hooks.stream import Stream, check_description, in_words
from otf_stream.acquire.hooks.unplanned import Unplanned, unplanned_name
from otf_stream.acquire.hooks.voxels import known_pixel_size
from otf_stream.acquisition import Acquisition, Modality, Optics, Sizes, VoxelSize

if TYPE_CHECKING:
    from pymmcore_plus import CMMCorePlus
    from useq import MDAEvent, MDASequence

_REMEDY = (
    "run a useq.MDASequence, which tells all in advance, count planes from 0 in the index of the events, or give "
    "z_step_um if nothing else is missing"
)


@contextmanager
def streaming(
    core: CMMCorePlus,
    address: str,
    *,
    name: str,
    pixel_size_um: float | None = None,
    z_step_um: float | None = None,
    modality: Modality = "unknown",
    optics: Optics = Optics(),  # noqa: B008  frozen
    frame_counter: str | None = None,
    wait_s: float = 60.0,
) -> Iterator[Stream]:
    """Stream every sequence that ``core`` runs within the block, and events without a sequence.

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
    z_step_um
        Distance of neighbouring planes; from the heights of the events if not given.
    modality, optics
        What is known of the microscope.
    frame_counter
        Name of the number that the camera itself gives each frame in its metadata, such as ``PVCAM-FrameNr``, and that
        begins anew with every hardware-triggered burst. With it, a frame that the camera loses in a burst does not
        shift those after it; the engine only counts what comes.
    wait_s
        Seconds to wait at the end while nothing is acknowledged.

    Raises
    ------
    ValueError
        If the address or ``frame_counter`` cannot be used, or no acquisition can be called or described so.

    Examples
    --------
    >>> with streaming(core, "tcp://restoration-pc:8421", name="embryo"):  # doctest: +SKIP
    ...     core.mda.run(useq.MDASequence(z_plan={"range": 40, "step": 1.2}))
    """
    check_description(name, modality=modality, optics=optics)
    stream = Stream(address, wait_s=wait_s)
    connection = _Connection(
        core,
        stream,
        name=name,
        voxel_um=(z_step_um, pixel_size_um),
        bursts=Bursts(frame_counter),
        described={"modality": modality, "optics": optics},
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

    def __init__(
        self,
        core: CMMCorePlus,
        stream: Stream,
        *,
        name: str,
        voxel_um: tuple[float | None, float | None],
        bursts: Bursts,
        described: Mapping[str, Any],
    ) -> None:
        self._core = core
        self._stream = stream
        self._name = name
        self._z_step_um, self._pixel_size_um = voxel_um
        self._bursts = bursts
        self._described = described
        self._running = self._cancelled = False
        self._refused: str | None = None  # why the sequence that runs is not streamed
        self._begun = 0.0
        self._unplanned: tuple[Unplanned, Seen] | None = None
        self._lock = threading.Lock()  # frames come in the engine's thread, and the block may be left in another

    def connect(self) -> None:
        """Listen from now on."""
        events = self._core.mda.events
        events.sequenceStarted.connect(self._started)
        events.eventStarted.connect(self._event)
        events.frameReady.connect(self._frame)
        events.sequenceCanceled.connect(self._canceled)
        events.sequenceFinished.connect(self._finished)

    def disconnect(self) -> None:
        """Listen no longer."""
        events = self._core.mda.events
        events.sequenceStarted.disconnect(self._started)
        events.eventStarted.disconnect(self._event)
        events.frameReady.disconnect(self._frame)
        events.sequenceCanceled.disconnect(self._canceled)
        events.sequenceFinished.disconnect(self._finished)
        self._end_unfinished()

    def _started(self, sequence: MDASequence, metadata: object = None) -> None:
        self._end_unfinished()
        self._running, self._cancelled, self._refused, self._begun = True, False, None, time.time()
        try:
            if not is_planned(sequence):
                self._unplanned = Unplanned(self._stream, self._name, self._grown, remedy=_REMEDY), Seen()
                return
            places = describe(
                self._core,
                sequence,
                name=self._name,
                pixel_size_um=self._pixel_size_um,
                z_step_um=self._z_step_um,
                **self._described,
            )
            for place, acquisition in places.items():
                self._stream.open(place, acquisition, places=len(places))
        except Exception as error:
            self._refused = f"a sequence is not streamed: {in_words(error)}"
            self._stream.fail(self._refused)

    def _event(self, event: MDAEvent) -> None:
        self._end_burst()
        self._bursts.begin(event)

    def _end_burst(self) -> None:
        lost = self._bursts.lost()
        if lost is not None and not self._cancelled:
            self._stream.fail(f"{self._name}: {lost}")

    def _frame(self, image: np.ndarray, event: MDAEvent, metadata: Mapping[str, Any] | None = None) -> None:
        metadata = metadata or {}
        try:
            event = self._bursts.event_of(event, metadata)
        except ValueError as error:
            self._stream.fail(f"{self._name}: {error}")
        elapsed = metadata.get("runner_time_ms")
        taken = None if elapsed is None else self._begun + elapsed / 1000
        with self._lock:
            if self._unplanned is not None:
                self._unplanned_frame(*self._unplanned, image, event, taken)
                return
        if self._refused:
            self._stream.lose(self._refused)
            return
        place, t, c, z = planned_index(event)
        if self._stream.is_open(place):  # otherwise no stack is taken there, or another thread has disconnected
            self._stream.frame(place, image, t=t, c=c, z=z, taken=taken)

    def _unplanned_frame(
        self, unplanned: Unplanned, seen: Seen, image: np.ndarray, event: MDAEvent, taken: float | None
    ) -> None:
        try:
            plane = seen.plane(image, event, taken=taken)
            if not self._stream.is_open(plane.place):  # what is held must not change
                kept = image.copy()
                plane = replace(plane, read=lambda: kept)
            unplanned.take(plane)
        except Exception as error:
            self._stream.lose(f"{self._name}: {error}")

    def _grown(self, first: Plane, place: GrowingPlace) -> Acquisition | None:
        announced = place.announced()
        z_step, told = self._z_step_um, announced.pop("z_step_um")
        if z_step is None and told is None:
            return None
        pixel_size = known_pixel_size(
            self._core.getPixelSizeUm() if self._pixel_size_um is None else self._pixel_size_um
        )
        return Acquisition(
            name=unplanned_name(self._name, first),
            sizes=Sizes(**announced.pop("sizes"), y=first.shape[0], x=first.shape[1]),
            dtype=camera_pixels(self._core),
            voxel_size=VoxelSize(z=z_step or told, y=pixel_size, x=pixel_size),
            **announced,
            **self._described,
        )

    def _canceled(self, sequence: MDASequence) -> None:
        self._cancelled = True

    def _end_unfinished(self) -> None:
        """End a sequence that has not said that it finished: the engine is silent if its own clean-up fails."""
        if self._running:
            self._cancelled = True
            self._finished()

    def _finished(self, sequence: MDASequence | None = None) -> None:
        self._running = False
        self._end_burst()
        with self._lock:
            if self._unplanned is not None:
                self._unplanned[0].give_up()
                self._unplanned = None
        status = getattr(self._core.mda, "status", None)  # Older engines do not tell.
        errored = str(getattr(status, "finish_reason", None)) == "errored"
        self._stream.close(aborted=self._cancelled or errored)
