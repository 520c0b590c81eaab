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

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np

from otf_stream.acquire.hooks.growing import GrowingPlace, Plane
from otf_stream.acquire.hooks.pycromanager_events import Axes, Event, Places, Plan, pixel_um, plans, seen
from otf_stream.acquire.hooks.pycromanager_saved import read_saved
from otf_stream.acquire.hooks.stream import Place, Stream, check_description, in_words, place_name
from otf_stream.acquire.hooks.unplanned import Unplanned, unplanned_name
from otf_stream.acquire.hooks.voxels import known_pixel_size
from otf_stream.acquisition import Acquisition, Modality, Optics, PixelType, PlaneIndex, Sizes, VoxelSize

_Acquisition = TypeVar("_Acquisition")

_REMEDY = "give its events as events=, which tell all in advance, or give z_step_um if nothing else is missing"
_PIXEL_TYPES: dict[str, PixelType] = {"uint8": "uint8", "uint16": "uint16"}


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
        If the address is not of that form, or no acquisition can be called or described so.

    Examples
    --------
    >>> with streaming("tcp://restoration-pc:8421", name="embryo", events=events) as stream:  # doctest: +SKIP
    ...     with Acquisition(directory="D:/data", name="embryo", image_process_fn=stream.process) as acq:
    ...         acq.acquire(events)
    """
    check_description(name, modality=modality, optics=optics)
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
        self._refused: dict[Place, str] = {}
        self._lock = threading.Lock()  # frames come in pycromanager's threads, the end in the script's
        self._over = self._aborted = False
        self._engine_aborts: threading.Event | None = None
        self._begun: float | None = None
        self._unplanned = Unplanned(self, name, self._grown, from_first=True, remedy=_REMEDY)
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
            pixels, metadata = read_saved(dataset, axes)
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
            self._unplanned.give_up()
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
            self.fail(f"{self._name} is not streamed: {in_words(error)}")

    def _take(self, pixels: np.ndarray, axes: Axes, metadata: Mapping[str, Any]) -> None:
        with self._lock:
            if self._over:
                raise ValueError("a frame came after the block of streaming() was left; leave it after the acquisition")
            place, taken = self._places.of(axes), self._taken(metadata)
            if self._plans is None:
                # What is held must not change. A frame of an open session is copied once, into the memory that waits.
                kept = pixels if self.is_open(place) else pixels.copy()
                self._unplanned.take(seen(kept, axes, metadata, place=place, taken=taken))
            elif place in self._plans:  # otherwise no stack is taken there
                self._planned(place, self._plans[place], pixels, axes, metadata, taken)

    def _taken(self, metadata: Mapping[str, Any]) -> float:
        """When a frame was exposed, in UNIX seconds; pycromanager tells it in milliseconds since the first one."""
        now, elapsed = time.time(), (float(metadata.get("ElapsedTime-ms") or 0)) / 1000
        begun = now - elapsed
        self._begun = begun if self._begun is None else min(begun, self._begun)  # the least delayed frame knows best
        return self._begun + elapsed

    def _planned(
        self, place: Place, plan: Plan, pixels: np.ndarray, axes: Axes, metadata: Mapping[str, Any], taken: float
    ) -> None:
        t, c, z = plan.index(axes)
        if self._last == (place, (t, c, z)):
            self._last = None
        if not self.is_open(place) and place not in self._refused:
            try:
                name = place_name(self._name, place, self._visited)
                described = self._described_as(name, plan.announced(), pixels.shape, pixels.dtype, pixel_um(metadata))
                self.open(place, described, places=len(self._visited))
            except Exception as error:
                self._refused[place] = f"{self._name} is not streamed: {in_words(error)}"
        if place in self._refused:
            self.lose(self._refused[place])
        else:
            self.frame(place, pixels, t=t, c=c, z=z, taken=taken)

    def _grown(self, first: Plane, place: GrowingPlace) -> Acquisition | None:
        announced = place.announced()
        announced["z_step_um"] = self._z_step_um or announced["z_step_um"]
        if announced["z_step_um"] is None:
            return None
        return self._described_as(
            unplanned_name(self._name, first), announced, first.shape, first.dtype, first.pixel_um
        )

    def _described_as(
        self, name: str, announced: dict[str, Any], shape: tuple[int, ...], dtype: np.dtype[Any], told_um: float | None
    ) -> Acquisition:
        if len(shape) != 2 or dtype.name not in _PIXEL_TYPES:
            raise ValueError(
                f"the camera gives frames of {shape} {dtype}; "
                "choose grey values of 8 or 16 bits (its PixelType property)"
            )
        pixel_size = known_pixel_size(told_um if self._pixel_size_um is None else self._pixel_size_um)
        return Acquisition(
            name=name,
            sizes=Sizes(**announced.pop("sizes"), y=shape[0], x=shape[1]),
            dtype=_PIXEL_TYPES[dtype.name],
            voxel_size=VoxelSize(z=announced.pop("z_step_um"), y=pixel_size, x=pixel_size),
            **announced,
            **self._described,
        )
