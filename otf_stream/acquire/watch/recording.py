"""One acquisition that another program saves: from its growing files to the sessions of its places.

Nobody told how long it will be, so it is an unplanned one as any other; what the files tell in advance is used. Planes
stay in their files until there is room for them, so a slow network fills no memory.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any, Literal

import numpy as np

from otf_stream.acquire.hooks.growing import GrowingPlace, Plane
from otf_stream.acquire.hooks.stream import Stream
from otf_stream.acquire.hooks.unplanned import Unplanned, unplanned_name
from otf_stream.acquire.watch.plane import Growing
from otf_stream.acquisition import Acquisition, Modality, Optics, Sizes, VoxelSize
from otf_stream.store.formats.source import pixel_type, stated_voxel_size

log = logging.getLogger(__name__)

_ROOM = 64 << 20  # bytes of planes that are handed over and not acknowledged yet
_PATIENCE = 60.0  # seconds without an acknowledgement, after which planes are handed over all the same, and spilled

State = Literal["waiting", "streaming", "finished", "aborted", "skipped", "refused"]


@dataclass(frozen=True)
class Given:
    """What the user gives about every acquisition.

    Parameters
    ----------
    voxel_size
        In µm; overrides what the metadata say.
    name
        What to call the acquisitions; after their files if not given.
    modality, numerical_aperture
        Of the microscope.
    """

    voxel_size: VoxelSize | None = None
    name: str | None = None
    modality: Modality | None = None
    numerical_aperture: float | None = None


@dataclass(frozen=True)
class Watched:
    """What came of one acquisition.

    Parameters
    ----------
    name
        Of the acquisition.
    path
        Of its file or folder.
    state
        ``skipped`` if it is no stack, ``refused`` if it could not be streamed.
    sessions
        Ids, one for each place.
    found
        Planes that were whole on disk.
    durable
        Planes that the listener has on disk.
    lost
        Planes that could not be streamed.
    repeated
        Planes that came again with other pixels; the first stands.
    faults
        What was wrong with the files, and what went wrong on the way.
    """

    name: str
    path: str
    state: State
    sessions: list[str] = field(default_factory=list)
    found: int = 0
    durable: int = 0
    lost: int = 0
    repeated: int = 0
    faults: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """Return it for JSON."""
        return asdict(self)

    def as_text(self) -> str:
        """Return it for a human."""
        counts = [f"{self.durable} of {self.found} planes durable"]
        counts += [f"{n} {what}" for n, what in ((self.lost, "lost"), (self.repeated, "repeated")) if n]
        return "\n  ".join([f"{self.name}: {self.state}, {', '.join(counts)}", *self.faults])


class Recording:
    """An acquisition that is being saved.

    Parameters
    ----------
    name
        What to call it.
    reader
        Of its files.
    stream
        Of its own.
    given
        By the user.
    """

    def __init__(self, name: str, reader: Growing, stream: Stream, given: Given) -> None:
        self.name = name
        self.path = reader.path
        self.state: State = "waiting"
        self._reader = reader
        self._stream = stream
        self._given = given
        self._found = 0
        self._places = self._unplanned()
        self._due: deque[Plane] = deque()
        self._acknowledged = (0, time.monotonic())
        self._told_faults = 0

    @property
    def busy(self) -> bool:
        """Whether planes wait to be sent."""
        return bool(self._due)

    def look(self, *, last: bool = False) -> bool:
        """Look for new planes and stream what there is; return whether there was anything new."""
        new: list[Plane] = []
        try:
            for plane in self._reader.look(last=last):
                new.append(replace(plane, read=partial(_pixels, plane)))
        except Exception as error:  # one damaged file must not end the watch
            log.exception("%s cannot be read on", self.path)
            self._reader.faults.append(f"{self.path} cannot be read on: {error}")
        for fault in self._reader.faults[self._told_faults :]:
            log.warning("%s", fault)
        self._told_faults = len(self._reader.faults)
        self._found += len(new)
        if new and self.state in ("finished", "aborted", "skipped"):
            log.warning("%s goes on after it fell quiet: in a new session; give a longer --quiet", self.path)
            self.state = "waiting"
            self._places = self._unplanned()
        if self.state != "refused":
            self._due.extend(self._places.admit(new))
            self._send(last)
        return bool(new)

    def end(self, *, aborted: bool) -> None:
        """End the sessions: what is there is delivered in the background."""
        self.look(last=not aborted)
        self._send(last=True)
        streamed = self.state == "streaming"
        if streamed and self._places.held:
            self._stream.fail(
                f"{self.path}: {self._places.held} planes are of places without a stack, and were not streamed"
            )
        elif self._found == 0 and self._reader.faults:
            self.state = "refused"
        if self.state != "refused":
            self.state = ("aborted" if aborted else "finished") if streamed else "skipped"
        self._stream.close(aborted=aborted)

    def wait(self) -> None:
        """Wait until all that was streamed is on the listener's disk, or cannot be."""
        self._stream.wait()

    def watched(self) -> Watched:
        """Say what has come of it so far."""
        stream = self._stream
        return Watched(
            self.name, str(self.path), self.state, list(stream.sessions), self._found, stream.acknowledged,
            stream.lost, stream.repeated, [*self._reader.faults, *stream.failures],
        )  # fmt: skip

    def _unplanned(self) -> Unplanned:
        return Unplanned(
            self._stream, self.name, self._describe, remedy="see that its planes are numbered from 0", in_memory=False
        )

    def _send(self, last: bool) -> None:
        if self._places.refused:
            self.state = "refused"
            self._due.clear()
        while self._due and (last or self._room(self._due[0])):
            self._places.send(self._due.popleft())

    def _room(self, plane: Plane) -> bool:
        """Whether another plane may be handed over."""
        now, (known, since) = time.monotonic(), self._acknowledged
        stream = self._stream
        if stream.acknowledged > known or stream.published == stream.acknowledged:
            self._acknowledged = stream.acknowledged, now
            since = now
        size = plane.shape[0] * plane.shape[1] * plane.dtype.itemsize
        unanswered = stream.published - stream.acknowledged
        return unanswered < max(2, _ROOM // size) or now - since > _PATIENCE

    def _describe(self, first: Plane, growing: GrowingPlace) -> Acquisition:
        told = self._reader.told()
        z, y, x = told.spacing
        voxel_size = self._given.voxel_size or stated_voxel_size(self.path, (growing.z_step_um or z, y, x))
        names = told.channels
        if isinstance(first.channel, str) and first.channel not in names:
            names = (first.channel,)
        t, c, depth = told.sizes
        channels = max(c, len(names))
        self.state = "streaming"
        return Acquisition(
            # A position that is the only one needs no number.
            name=unplanned_name(self.name, replace(first, position=None) if told.positions == 1 else first),
            sizes=Sizes(t=t, c=channels, z=depth, y=first.shape[0], x=first.shape[1]),
            dtype=pixel_type(self.path, first.dtype),
            voxel_size=voxel_size,
            channels=names if len(names) == channels else (),
            modality=self._given.modality or "unknown",
            optics=Optics(numerical_aperture=self._given.numerical_aperture),
            growing=True,
            interval_s=told.interval_s,
        )


def _pixels(plane: Plane) -> np.ndarray:
    try:
        pixels = plane.read()
    except Exception as error:  # each compression has errors of its own
        raise ValueError(f"a plane cannot be read: {error}") from error
    return pixels.astype(np.float32) if pixels.dtype.kind == "f" else pixels
