"""Streams what pycromanager acquires: a function for its ``image_process_fn``, another for its ``image_saved_fn``.

pycromanager tells no hook what it is going to acquire, nor how it ended. So the plan is read from the list of events
that the script has at hand; and an acquisition whose last event never became a frame has been aborted, whatever did
it: the script, somebody who closed the viewer, a hook that raised (the Python engine prints that and ends as if
nothing had happened), the camera. Size and type of the frames, and the pixel size, come with the first one.

Both functions are called in threads of pycromanager that the saving of frames waits for. They copy the frame and
return.

The Python engine and the Java one (Micro-Manager's window, or its headless mode) call them alike, so only the start-up
of a script differs. All of it was run with the Python engine; of the Java one only the code was read. pycromanager
itself is not imported.
"""

from __future__ import annotations

import json
import math
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from otf_stream.acquire.hooks.pycromanager_events import Axes, Event, Places, Plan, plans
from otf_stream.acquire.hooks.pycromanager_growing import Frame, Growing, number
from otf_stream.acquire.hooks.stream import Place, Stream, place_name
from otf_stream.acquire.hooks.voxels import known_pixel_size
from otf_stream.acquisition import Acquisition, Modality, Optics, PixelType, PlaneIndex, Sizes, VoxelSize

_Acquisition = TypeVar("_Acquisition")

_PIXEL_TYPES: dict[str, PixelType] = {"uint8": "uint8", "uint16": "uint16"}
_NDTIFF_PIXELS: dict[int, tuple[type[np.generic], tuple[int, ...]]] = {0: (np.uint8, ()), 2: (np.uint8, (3,))}
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
            self._read_plan(events)

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

        For cameras beyond the 100 to 200 MB/s that come from Micro-Manager's window to Python: the frame is read from
        the disk, and stays out of the camera's way.

        Parameters
        ----------
        axes
            Of the frame.
        dataset
            Where it was saved.
        """
        try:
            pixels, metadata = _read(dataset, axes)
            self._take(pixels, axes, metadata)
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

    def _read_plan(self, events: Sequence[Event]) -> None:
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
            place, frame = self._places.of(axes), Frame(pixels, axes, metadata, self._taken(metadata))
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

    def _planned(self, place: Place, plan: Plan, frame: Frame) -> None:
        if self._last == (place, plan.index(frame.axes)):
            self._last = None
        if self._started(place, plan, frame, self._visited):
            self._send(place, plan, frame)

    def _unplanned(self, place: Place, frame: Frame) -> None:
        growing = self._growing.setdefault(place, Growing(self._z_step_um))
        if self.is_open(place):
            self._send(place, growing, frame)
        elif place in self._refused:
            self.lose(self._refused[place])
        else:
            growing.held.append(replace(frame, pixels=frame.pixels.copy()))
            if growing.ready():
                # Where there are positions, or tiles, there will be more than this one.
                tiled = "row" in frame.axes or "column" in frame.axes
                others = [(place[0] + 1, int(tiled))] if tiled or "position" in frame.axes else []
                first, held, growing.held = growing.held[0], growing.held, []
                for early in held:
                    if self._started(place, growing, first, [place, *others]):
                        self._send(place, growing, early)
            elif sum(early.pixels.nbytes for early in growing.held) > _HELD_BYTES:
                self._give_up(place, growing)

    def _started(self, place: Place, plan: Plan | Growing, frame: Frame, places: Sequence[Place]) -> bool:
        """Open the session of a place with its first frame; where that cannot be, lose each that comes."""
        if not self.is_open(place) and place not in self._refused:
            try:
                name = place_name(self._name, place, places)
                share = len(places) if self._plans is not None or len(places) == 1 else _PLACES
                self.open(place, self._describe(name, plan, frame), places=share)
            except Exception as error:
                self._refused[place] = f"{self._name} is not streamed: {error}"
        if place in self._refused:
            self.lose(self._refused[place])
        return self.is_open(place)

    def _describe(self, name: str, plan: Plan | Growing, frame: Frame) -> Acquisition:
        pixels, announced = frame.pixels, plan.announced(frame)
        if pixels.ndim != 2 or pixels.dtype.name not in _PIXEL_TYPES:
            raise ValueError(
                f"the camera gives frames of {pixels.shape} {pixels.dtype}; "
                "choose grey values of 8 or 16 bits (its PixelType property)"
            )
        told = [number(frame.metadata, key) for key in _PIXEL_SIZE]
        pixel_size = known_pixel_size(
            next(filter(None, told), None) if self._pixel_size_um is None else self._pixel_size_um
        )
        sizes = Sizes(**announced.pop("sizes"), y=pixels.shape[0], x=pixels.shape[1])
        return Acquisition(
            name=name,
            sizes=sizes,
            dtype=_PIXEL_TYPES[pixels.dtype.name],
            voxel_size=VoxelSize(z=announced.pop("z_step_um"), y=pixel_size, x=pixel_size),
            **announced,
            **self._described,
        )

    def _send(self, place: Place, plan: Plan | Growing, frame: Frame) -> None:
        try:
            t, c, z = plan.index(frame.axes)
            if isinstance(plan, Growing):
                self.add_channel(place, plan.names[c])
        except Exception as error:  # told here, because further frames may be held
            self.lose(f"{self._name}: {error}")
        else:
            self.frame(place, frame.pixels, t=t, c=c, z=z, taken=frame.taken)

    def _give_up(self, place: Place, growing: Growing) -> None:
        """Lose the frames of a place of which no two tell the z step."""
        held, growing.held = growing.held, []
        if held:
            self._refused[place] = (
                f"{self._name} is not streamed: {len(held)} frames came without two heights of the focus drive among "
                "them, so that the z step is not known; give z_step_um, or the events as events="
            )
        for _ in held:
            self.lose(self._refused[place])


def _read(dataset: Any, axes: Axes) -> tuple[np.ndarray, Mapping[str, Any]]:
    """Read a frame of a dataset that is being written.

    ``dataset.read_image`` cannot be used on a file: its reader reads ahead, beyond what is written, and takes the
    beginning of a later frame from what it read then (ndstorage 0.1.18: in a quarter of the frames of 512 × 512, up to
    1,600 pixels are zero). So the place in the file is all that is taken from it.
    """
    full = dataset.res_levels[0] if hasattr(dataset, "res_levels") else dataset  # a grid has smaller versions, too
    entry = getattr(full, "index", {}).get(frozenset(axes.items()))
    if entry is None:  # kept in memory
        return dataset.read_image(**axes), dataset.read_metadata(**axes)
    dtype, colours = _NDTIFF_PIXELS.get(entry["pixel_type"], (np.uint16, ()))  # the others are 10 to 16 bits
    shape = (entry["image_height"], entry["image_width"], *colours)
    with Path(full.path, entry["filename"]).open("rb", buffering=0) as file:
        file.seek(entry["pix_offset"])
        pixels = np.fromfile(file, dtype, math.prod(shape)).reshape(shape)
        file.seek(entry["metadata_offset"])
        return pixels, json.loads(file.read(entry["metadata_length"]))
