"""Streams what pycromanager acquires: a function for its ``image_process_fn``, another for its ``image_saved_fn``.

pycromanager tells no hook what it is going to acquire, nor how it ended. So the plan is read from the list of events
that the script has at hand; and an acquisition whose last event never became a frame has been aborted, whatever did
it: the script, somebody who closed the viewer, a hook that raised (pycromanager's Python engine prints that and goes
on as if nothing had happened), the camera. Size and type of the frames, and the pixel size, come with the first frame.

Both functions are called in threads of pycromanager that the saving of frames waits for. They copy the frame and
return.

The Python engine and the Java one (Micro-Manager's window, or its headless mode) call them alike, so that only the
start-up differs; what follows was tested with the Python engine, and of the Java one only its code was read.
pycromanager itself is not imported.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np

from otf_stream.acquire.hooks.pycromanager_events import Axes, Event, Places, Plan, plans
from otf_stream.acquire.hooks.pycromanager_growing import Growing, Held, number
from otf_stream.acquire.hooks.stream import Place, Stream, place_name
from otf_stream.acquisition import Acquisition, Modality, Optics, PixelType, PlaneIndex, Sizes, VoxelSize

_Acquisition = TypeVar("_Acquisition")

_PIXEL_TYPES: dict[str, PixelType] = {"uint8": "uint8", "uint16": "uint16"}
_PIXEL_SIZE = ("PixelSize_um", "PixelSizeUm")  # of the engines; of Micro-Manager's own metadata
_HELD_BYTES = 64 << 20  # of frames that wait for a second height to tell the z step
_PLACES = 8  # among how many places to share the memory, where nobody knows how many there will be


@contextmanager
def streaming(
    address: str,
    *,
    name: str,
    events: Sequence[Event] | None = None,
    pixel_size_um: float | None = None,
    z_step_um: float | None = None,
    modality: Modality = "unknown",
    optics: Optics = Optics(),  # noqa: B008  frozen
    wait_s: float = 60.0,
) -> Iterator[AcquisitionStream]:
    """Stream one acquisition, which begins and ends within the block.

    Leaving the block waits until all planes are durable. Where the listener cannot be reached, or refuses, and where an
    acquisition cannot be streamed, nothing is raised: what failed is logged and in ``failures`` of the stream, and
    planes that are left are kept in files. The acquisition is closed as aborted if an exception leaves the block, or
    if it ended before its last event.

    Parameters
    ----------
    address
        Of the listener, ``tcp://HOST:PORT``.
    name
        What to call the acquisition; with several positions ``NAME_p0``, ``NAME_p1`` …
    events
        The list of all events, in the order in which they are acquired. Where they are not known in advance (a
        generator is not read), the acquisition is of unknown length, and grows.
    pixel_size_um
        Lateral pixel size in the sample; as configured in Micro-Manager if not given.
    z_step_um
        Distance of neighbouring planes; from the heights of the focus drive if not given.
    modality, optics
        What is known of the microscope.
    wait_s
        Seconds to wait at the end while nothing is acknowledged.

    Raises
    ------
    ValueError
        If the address is not of that form.

    Examples
    --------
    >>> with streaming("tcp://restoration-pc:8421", name="embryo", events=events) as stream:  # doctest: +SKIP
    ...     with Acquisition(directory="D:/data", name="embryo", image_process_fn=stream.process) as acq:
    ...         acq.acquire(events)
    """
    stream = AcquisitionStream(
        address,
        name=name,
        events=events,
        pixel_size_um=pixel_size_um,
        z_step_um=z_step_um,
        described={"modality": modality, "optics": optics},
        wait_s=wait_s,
    )
    aborted = True
    try:
        yield stream
        aborted = False
    finally:
        stream.finish(aborted=aborted)
        stream.wait()


class AcquisitionStream(Stream):
    """The frames of one pycromanager acquisition; `streaming` is the way to have one, and tells the parameters."""

    def __init__(
        self,
        address: str,
        *,
        name: str,
        events: Sequence[Event] | None,
        pixel_size_um: float | None,
        z_step_um: float | None,
        described: Mapping[str, Any],
        wait_s: float,
    ) -> None:
        super().__init__(address, wait_s=wait_s)
        self._name = name
        self._pixel_size_um = pixel_size_um
        self._z_step_um = z_step_um
        self._described = described
        self._places = Places()
        self._plans: dict[Place, Plan] | None = None
        self._visited: list[Place] = []
        self._last: tuple[Place, PlaneIndex] | None = None
        self._growing: dict[Place, Growing] = {}
        self._refused: dict[Place, str] = {}
        self._lock = threading.Lock()  # frames come in pycromanager's threads, the end in the script's
        self._over = self._aborted = False
        self._engine_aborts: threading.Event | None = None
        self._begun: float | None = None
        if isinstance(events, list | tuple):
            self._read(events)

    def process(self, image: np.ndarray, metadata: dict[str, Any]) -> tuple[np.ndarray, dict[str, Any]]:
        """Take a copy of a frame; for ``image_process_fn``, or to be called from a function of your own there.

        Parameters
        ----------
        image
            ``(y, x)`` of 8 or 16 bits.
        metadata
            That came with it.

        Returns
        -------
        tuple
            Both as they came, for pycromanager to save.
        """
        try:
            self._take(image, metadata["Axes"], metadata)
        except Exception as error:
            self.lose(f"{self._name}: {error}")
        return image, metadata

    def saved(self, axes: dict[str, Any], dataset: Any) -> None:
        """Take a frame from where it was saved; for ``image_saved_fn``.

        For cameras beyond the 100 to 200 MB/s that pycromanager gets from Micro-Manager's window to Python: the frame
        is read from the disk, and so stays out of the camera's way.

        Parameters
        ----------
        axes
            Of the frame.
        dataset
            Where it was saved.
        """
        try:
            _forget_what_was_read_ahead(dataset)
            self._take(dataset.read_image(**axes), axes, dataset.read_metadata(**axes))
        except Exception as error:
            self.lose(f"{self._name}: {error}")

    def watch(self, acq: _Acquisition) -> _Acquisition:
        """Notice if ``acq`` is aborted, and return it: for acquisitions whose events are not known in advance.

        Examples
        --------
        >>> with stream.watch(Acquisition(directory=d, image_process_fn=stream.process)) as acq:  # doctest: +SKIP
        ...     acq.acquire(forever())
        """
        watched: Any = acq
        abort = watched.abort

        def noted(exception: Exception | None = None) -> None:
            self._aborted = True
            abort(exception)

        watched.abort = noted
        # The Python engine also aborts by itself, when a hook raises. Nothing of the Java one is kept: it would not go.
        requested = getattr(getattr(acq, "_acq", None), "abort_requested_", None)
        self._engine_aborts = requested if isinstance(requested, threading.Event) else None
        return acq

    def finish(self, *, aborted: bool) -> None:
        """Take no more frames, and end the sessions: as aborted if the caller or what came of the events says so."""
        with self._lock:
            self._over = True
            for place, growing in self._growing.items():
                self._give_up(place, growing)
            engine = self._engine_aborts is not None and self._engine_aborts.is_set()
            self.close(aborted=aborted or self._aborted or engine or self._last is not None)

    def _read(self, events: Sequence[Event]) -> None:
        self._plans = {}
        try:
            self._plans = plans(events, self._places, z_step_um=self._z_step_um)
            self._visited = list(dict.fromkeys(self._places.of(event["axes"]) for event in events if "axes" in event))
            for event in reversed(events):
                place = self._places.of(event.get("axes", {}))
                if "axes" in event and place in self._plans:
                    self._last = place, self._plans[place].index(event["axes"])
                    break
        except Exception as error:
            self.fail(f"{self._name} is not streamed: {error}")

    def _take(self, pixels: np.ndarray, axes: Axes, metadata: Mapping[str, Any]) -> None:
        with self._lock:
            if self._over:
                raise ValueError("a frame came after the block of streaming() was left; leave it after the acquisition")
            place, frame = self._places.of(axes), Held(pixels, axes, metadata, self._taken(metadata))
            if self._plans is None:
                self._unplanned(place, frame)
            elif place in self._plans:  # otherwise no stack is taken there
                self._planned(place, self._plans[place], frame)

    def _taken(self, metadata: Mapping[str, Any]) -> float:
        """When a frame was exposed, in UNIX seconds; pycromanager tells it in milliseconds since the first one."""
        now, elapsed = time.time(), (number(metadata, "ElapsedTime-ms") or 0.0) / 1000
        begun = now - elapsed
        self._begun = begun if self._begun is None else min(begun, self._begun)  # the least delayed frame knows best
        return self._begun + elapsed

    def _planned(self, place: Place, plan: Plan, frame: Held) -> None:
        if self._last == (place, plan.index(frame.axes)):
            self._last = None
        if self._start(place, plan, frame, self._visited):
            self._send(place, plan, frame)

    def _unplanned(self, place: Place, frame: Held) -> None:
        growing = self._growing.setdefault(place, Growing(self._z_step_um))
        if not self.is_open(place) and place not in self._refused:
            growing.held.append(replace(frame, pixels=frame.pixels.copy()))
            if growing.ready():
                # Where there are positions, or tiles, there will be more than this one.
                tiled = "row" in frame.axes or "column" in frame.axes
                others = [(place[0] + 1, int(tiled))] if tiled or "position" in frame.axes else []
                self._start(place, growing, frame, [place, *others])
                held, growing.held = growing.held, []
                for earlier in held:
                    self._send(place, growing, earlier)
            elif sum(held.pixels.nbytes for held in growing.held) > _HELD_BYTES:
                self._give_up(place, growing)
            return
        self._send(place, growing, frame)

    def _start(self, place: Place, announcer: Plan | Growing, frame: Held, visited: Sequence[Place]) -> bool:
        """Open the session of a place with its first frame; return whether frames of it are taken."""
        if self.is_open(place) or place in self._refused:
            return self.is_open(place)
        try:
            places = _PLACES if isinstance(announcer, Growing) and len(visited) > 1 else len(visited)
            self.open(place, self._acquisition(place, announcer, frame, visited), places=places)
        except Exception as error:
            self._refused[place] = str(error)
            self.fail(f"{self._name} is not streamed at position {place[0]}, tile {place[1]}: {error}")
        return self.is_open(place)

    def _acquisition(
        self, place: Place, announcer: Plan | Growing, frame: Held, visited: Sequence[Place]
    ) -> Acquisition:
        pixels, announced, z_step = frame.pixels, announcer.announced, announcer.z_step_um
        if pixels.ndim != 2 or str(pixels.dtype) not in _PIXEL_TYPES:
            raise ValueError(
                f"the camera gives images of shape {pixels.shape} and {pixels.dtype}; "
                "choose grey values of 8 or 16 bits (its PixelType property)"
            )
        told = [number(frame.metadata, key) for key in _PIXEL_SIZE]
        pixel_size = self._pixel_size_um or next(filter(None, told), None)
        if not pixel_size or z_step is None:
            raise ValueError(
                f"the pixel size is {pixel_size} µm, so not known; give it as pixel_size_um, "
                "or calibrate it in Micro-Manager (Devices, Pixel Size Calibration)"
            )
        y, x = pixels.shape
        return Acquisition(
            name=place_name(self._name, place, visited),
            dtype=_PIXEL_TYPES[str(pixels.dtype)],
            voxel_size=VoxelSize(z=z_step, y=pixel_size, x=pixel_size),
            **{**self._described, **announced, "sizes": Sizes(**announced["sizes"], y=y, x=x)},
        )

    def _send(self, place: Place, announcer: Plan | Growing, frame: Held) -> None:
        if place in self._refused:
            self.lose(f"{self._name} is not streamed at position {place[0]}, tile {place[1]}: {self._refused[place]}")
            return
        t, c, z = announcer.index(frame.axes)
        if isinstance(announcer, Growing):
            self.add_channel(place, announcer.names[c])
        self.frame(place, frame.pixels, t=t, c=c, z=z, taken=frame.taken)

    def _give_up(self, place: Place, growing: Growing) -> None:
        """Let go of frames that were held for a second height, which has not come."""
        if growing.held:
            self._refused[place] = "its frames tell no z step; give z_step_um, or events with heights"
            held, growing.held = growing.held, []
            for frame in held:
                self._send(place, growing, frame)


def _forget_what_was_read_ahead(dataset: Any) -> None:
    """Make ndstorage read from the file: its readers keep what lay behind the last frame, before this one was written.

    A file of NDTiff is laid out in advance, full of zeros, which is what they would return of the beginning of a frame.
    """
    with dataset._lock:
        for reader in dataset._readers_by_filename.values():
            reader.file.seek(0, os.SEEK_END)
