"""One acquisition that another program saves: from its growing files to the sessions of its places.

A session is opened when two planes of a stack are there: only then is the z step known, and a snapshot is no stack.
Planes stay in their files until there is room for them, so a slow network fills no memory.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np

from otf_stream.acquire.hooks.stream import Place, Stream, place_name
from otf_stream.acquire.hooks.voxels import first_step_um
from otf_stream.acquire.watch.plane import Growing, Plane, Told
from otf_stream.acquisition import Acquisition, Modality, Optics, Sizes, VoxelSize
from otf_stream.store.formats.source import Spacing, pixel_type, stated_voxel_size

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
        self._waiting: deque[Plane] = deque()
        self._channels: dict[Place, dict[int | str, int]] = {}
        self._lowest = 0  # z of the lowest plane, if that is below 0
        self._acknowledged = (0, time.monotonic())
        self._told_faults = 0

    @property
    def busy(self) -> bool:
        """Whether planes wait to be sent."""
        return bool(self._waiting)

    def look(self, *, last: bool = False) -> bool:
        """Look for new planes and stream what there is; return whether there was anything new."""
        before = self._found
        try:
            for plane in self._reader.look(last=last):
                self._found += 1
                self._waiting.append(plane)
        except Exception as error:  # one damaged file must not end the watch
            log.exception("%s cannot be read on", self.path)
            self._reader.faults.append(f"{self.path} cannot be read on: {error}")
        for fault in self._reader.faults[self._told_faults :]:
            log.warning("%s", fault)
        self._told_faults = len(self._reader.faults)
        if self._found > before and self.state in ("finished", "aborted", "skipped"):
            log.warning("%s goes on after it fell quiet: in a new session; give a longer --quiet", self.path)
            self.state = "waiting"
            self._channels.clear()
        self._send(last)
        return self._found > before

    def end(self, *, aborted: bool) -> None:
        """End the sessions: what is there is delivered in the background."""
        self.look(last=not aborted)
        self._send(last=True)
        if self._waiting:
            left, self._waiting = len(self._waiting), deque()
            if self._channels:
                self._stream.fail(f"{self.path}: {left} planes are of places without a stack, and were not streamed")
        elif self._found == 0 and self._reader.faults:
            self.state = "refused"
        if self.state != "refused":
            self.state = ("aborted" if aborted else "finished") if self._channels else "skipped"
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

    def _send(self, last: bool) -> None:
        if self.state == "refused":
            self._waiting.clear()
        held: deque[Plane] = deque()
        closed: set[Place] = set()  # places of which no stack is known yet
        while self._waiting:
            plane = self._waiting[0]
            place = (plane.position or 0, plane.tile or 0)
            if place in closed or not (self._stream.is_open(place) or self._open(place)):
                closed.add(place)
                held.extend([self._waiting.popleft()] if self._waiting else [])
            elif last or self._room(plane):
                self._hand_over(place, self._waiting.popleft())
            else:
                break
        self._waiting.extendleft(reversed(held))

    def _hand_over(self, place: Place, plane: Plane) -> None:
        try:
            pixels = plane.read()
        except Exception as error:  # each compression has errors of its own
            self._stream.lose(f"{self.path}: a plane cannot be read: {error}")
            return
        if pixels.dtype.kind == "f":
            pixels = pixels.astype(np.float32)
        channel = self._channel(place, plane.channel)
        self._stream.frame(place, pixels, t=plane.t, c=channel, z=plane.z - self._lowest, taken=plane.taken)

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

    def _channel(self, place: Place, channel: int | str) -> int:
        if isinstance(channel, int):
            return channel
        known = self._channels[place]
        if channel not in known:
            known[channel] = self._stream.add_channel(place, channel)
        return known[channel]

    def _open(self, place: Place) -> bool:
        """Open the session of a place once two planes of a stack are known; return whether it is open."""
        planes = [plane for plane in self._waiting if (plane.position or 0, plane.tile or 0) == place]
        if len({plane.z for plane in planes}) < 2:
            return False
        told = self._reader.told()
        if not self._channels:
            self._lowest = min(0, *(plane.z for plane in self._waiting))
        try:
            acquisition = self._describe(place, planes, told)
            self._stream.open(place, acquisition)
        except ValueError as error:
            self._refuse(str(error))
            return False
        self._channels[place] = {name: c for c, name in enumerate(acquisition.channels)}
        self.state = "streaming"
        return True

    def _describe(self, place: Place, planes: list[Plane], told: Told) -> Acquisition:
        first = planes[0]
        voxel_size = self._given.voxel_size or stated_voxel_size(self.path, _spacing(told.spacing, planes))
        names = told.channels
        if isinstance(first.channel, str) and first.channel not in names:
            names = (first.channel,)
        t, c, z = told.sizes
        channels = max(c, len(names))
        return Acquisition(
            name=self._name(first, place, told),
            sizes=Sizes(t=t, c=channels, z=z, y=first.shape[0], x=first.shape[1]),
            dtype=pixel_type(self.path, first.dtype),
            voxel_size=voxel_size,
            channels=names if len(names) == channels else (),
            modality=self._given.modality or "unknown",
            optics=Optics(numerical_aperture=self._given.numerical_aperture),
            growing=True,
            interval_s=told.interval_s,
        )

    def _name(self, plane: Plane, place: Place, told: Told) -> str:
        if plane.tile is None and (plane.position is None or told.positions == 1):
            return self.name
        # How many places there will be is not known: each has its number from the first on.
        another = (place[0] + 1, place[1] if plane.tile is None else 1)
        return place_name(self.name, place, [place, another])

    def _refuse(self, why: str) -> None:
        """Give the acquisition up, and say why."""
        self.state = "refused"
        self._stream.fail(why)
        self._waiting.clear()


def _spacing(told: Spacing, planes: Iterable[Plane]) -> Spacing:
    """Take the z step from where the focus stood at two neighbouring planes, which is surer than any summary."""
    heights: dict[tuple[int, int | str], dict[int, float]] = {}
    for plane in planes:
        if plane.height_um is not None:
            heights.setdefault((plane.t, plane.channel), {})[plane.z] = plane.height_um
    step = first_step_um(heights.values())
    return told if step is None else (step, told[1], told[2])
