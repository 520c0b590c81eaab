"""The planes that a publisher still answers for: from the camera's hands until the listener has them on disk.

A plane waits in memory, or past a bound in a file, then is in flight, and leaves when it is acknowledged. The
camera's thread puts planes in and the publisher's thread does all the rest, so that the camera waits for nothing
but a copy. Only when the network is too slow *and* the spill disk cannot keep up does the camera's
thread wait: the alternatives are to lose the plane or to run out of memory.

Spilled planes are whole files whose names say all (``T_C_Z_CRC.plane``): a publisher that is given the same session
again, after a crash or a time-out, finds and delivers them.
"""

from __future__ import annotations

import logging
import re
import threading
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from isal.isal_zlib import crc32

from otf_stream.acquire.blanks import Blanks
from otf_stream.acquire.ledger import Ledger
from otf_stream.acquire.leftovers import (
    PLANE_FILES,
    Reason,
    described_in,
    mark_ended,
    remove_spill_folder,
    resume_spilling,
    start_spilling,
)
from otf_stream.acquisition import Acquisition, PlaneIndex

log = logging.getLogger(__name__)

_SPILL_RETRY = 2.0  # seconds to leave a disk alone that is full, or that cannot be read now
_FILE = re.compile(r"(\d+)_(\d+)_(\d+)_([0-9a-f]{8})\.plane")


class LostPlaneError(Exception):
    """The file of a spilled plane is not what was written; says which plane, and why."""

    def __init__(self, index: PlaneIndex, reason: Exception) -> None:
        super().__init__(f"its file cannot be read back: {reason}")
        self.index = index


class RepeatedPlaneError(ValueError):
    """A plane was published before, with other pixels; the first ones stand."""


@dataclass(eq=False)
class HeldPlane:
    """A plane that is not acknowledged yet; its pixels are in memory, in a file, or both."""

    order: int
    index: PlaneIndex
    pixels: memoryview | None
    taken: float | None = None
    crc: int | None = None
    file: Path | None = None
    attempts: int = 0

    def checksum(self) -> int:
        """CRC-32 of the pixels."""
        if self.crc is None:
            assert self.pixels is not None  # noqa: S101 (a spilled plane has its checksum)
            self.crc = crc32(self.pixels)
        return self.crc


class Outbox:
    """Keeps planes until they are acknowledged; `put` is for the camera's thread, the rest for the publisher's.

    Parameters
    ----------
    acquisition
        Whose planes these are.
    memory
        The most bytes of pixels to keep in memory; never fewer than four planes. From three quarters
        on, the planes that wait longest for their turn go to files.
    folder
        Where those files go; created with the first one.

    Attributes
    ----------
    changed
        Guards everything here; notified whenever planes leave.
    published, sent, acknowledged
        How many planes were put in, went out at least once, and were acknowledged.
    """

    def __init__(self, acquisition: Acquisition, *, memory: int, folder: Path) -> None:
        self.changed = threading.Condition()
        self.published = self.sent = self.acknowledged = 0
        self._acquisition = acquisition
        self._plane_bytes = acquisition.plane_bytes
        self._memory = max(memory, 4 * self._plane_bytes)
        self._folder = folder
        self._ledger = Ledger(acquisition)
        self._held: dict[PlaneIndex, HeldPlane] = {}
        self._ready: deque[HeldPlane] = deque()
        self._spilled: deque[HeldPlane] = deque()
        self._in_flight: dict[PlaneIndex, HeldPlane] = {}
        self._bytes = 0
        self._blanks = Blanks.of(self._plane_bytes)
        self._spill_again = self._read_again = 0.0
        self._find_leftovers()

    @property
    def pending(self) -> int:
        """How many planes are not acknowledged."""
        return len(self._held)

    @property
    def in_flight(self) -> int:
        """How many planes are on their way."""
        return len(self._in_flight)

    @property
    def waiting(self) -> int:
        """How many planes wait for their turn, in memory or in files."""
        return len(self._ready) + len(self._spilled)

    @property
    def spilled(self) -> int:
        """How many planes lie in files."""
        return sum(held.file is not None for held in list(self._held.values()))

    @property
    def most_in_flight(self) -> int:
        """How many planes may be on their way, whatever the listener grants: half of the memory."""
        return self._memory // 2 // self._plane_bytes

    # The camera's thread

    def full(self) -> bool:
        """Whether another plane would exceed the memory; ask while holding `changed`."""
        return self._bytes + self._plane_bytes > self._memory

    def is_new(self, index: PlaneIndex, pixels: memoryview) -> bool:
        """Whether the plane was not put in before; ask while holding `changed`.

        Raises
        ------
        RepeatedPlaneError
            If it was, with other pixels.
        """
        held = self._held.get(index)
        crc = self._ledger.crc(index) if held is None else held.checksum()
        if crc is not None and crc != crc32(pixels):
            t, c, z = index
            raise RepeatedPlaneError(
                f"plane t={t}, c={c}, z={z} was published before with other pixels; give every plane its own index"
            )
        return crc is None

    def blank(self) -> memoryview:
        """Return memory for the bytes of a plane, mapped already if the publisher's thread could `prepare` it."""
        return self._blanks.take()

    def put(self, index: PlaneIndex, pixels: memoryview, taken: float | None) -> None:
        """Take the bytes of a plane that is new and not written to again; call while holding `changed`."""
        held = HeldPlane(self.published, index, pixels, taken)
        self._held[index] = held
        self._ready.append(held)
        self._bytes += self._plane_bytes
        self.published += 1

    # The publisher's thread

    def prepare(self) -> bool:
        """Have memory ready for the next planes, within the bound; return whether there was something to do."""
        return self._blanks.prepare(self._memory - self._bytes)

    def take(self) -> HeldPlane | None:
        """Put the oldest waiting plane in flight and return it, its pixels in memory; None if there is none.

        None too while the memory is too full to read a plane back from its file. Where files cannot be read for now
        (too many are open, another program holds them), planes in memory go first.

        Raises
        ------
        LostPlaneError
            If the plane's file is gone or damaged; the plane counts as in flight.
        """
        with self.changed:
            readable = time.monotonic() >= self._read_again
            queue = self._spilled if readable and _order(self._spilled) < _order(self._ready) else self._ready
            if not queue or (queue is self._spilled and self.full() and self._in_flight):
                return None
            held = queue.popleft()
            self._in_flight[held.index] = held
        if held.pixels is None:
            assert held.file is not None  # noqa: S101 (pixels are in memory, in a file, or both)
            try:
                pixels = self._read(held.file, held.checksum())
            except (FileNotFoundError, ValueError) as error:
                raise LostPlaneError(held.index, error) from error
            except OSError as error:  # it may pass, and this is the only copy
                log.warning("cannot read planes back from %s now (%s)", self._folder, error)
                with self.changed:
                    self._read_again = time.monotonic() + _SPILL_RETRY
                    self._spilled.appendleft(self._in_flight.pop(held.index))
                return None
            with self.changed:
                held.pixels = pixels
                self._bytes += self._plane_bytes
        held.checksum()
        with self.changed:
            self.sent += held.attempts == 0
            held.attempts += 1
        return held

    def acknowledge(self, index: PlaneIndex) -> bool:
        """Forget a plane that is durable; return whether it was waited for."""
        with self.changed:
            if not self.drop(index):
                return False
            self.acknowledged += 1
            return True

    def drop(self, index: PlaneIndex) -> bool:
        """Forget a plane; return whether there was one."""
        with self.changed:
            held = self._held.pop(index, None)
            if held is None:
                return False
            if self._in_flight.pop(index, None) is None:
                (self._spilled if held.pixels is None else self._ready).remove(held)
            self._ledger.record(index, held.checksum())
            if held.pixels is not None:
                self._free(held)
            self.changed.notify_all()
        if held.file is not None:
            try:
                held.file.unlink(missing_ok=True)
            except OSError as error:  # that it is sent once more some day is harmless
                log.warning("cannot delete %s, which was delivered (%s)", held.file, error)
        return True

    def attempts(self, index: PlaneIndex) -> int:
        """How often a plane in flight went out."""
        held = self._in_flight.get(index)
        return held.attempts if held else 0

    def is_intact(self, index: PlaneIndex) -> bool:
        """Whether a plane is here as it was put in; so is one that has left."""
        held = self._in_flight.get(index)
        return held is None or held.pixels is None or crc32(held.pixels) == held.checksum()

    def on_the_way(self) -> list[PlaneIndex]:
        """Return the index of every plane in flight."""
        return list(self._in_flight)

    def again(self, index: PlaneIndex) -> None:
        """Let a plane in flight wait for its turn again: it was lost on the way."""
        with self.changed:
            held = self._in_flight.pop(index, None)
            if held is None:
                return
            if held.file is not None:
                self._free(held)
                self._spilled.appendleft(held)
            else:
                self._ready.appendleft(held)
            self.changed.notify_all()

    def all_again(self) -> None:
        """Let every plane in flight wait again, the oldest first."""
        for index in reversed(self.on_the_way()):
            self.again(index)

    def spill(self) -> bool:
        """Move one waiting plane to a file if the memory is three quarters full; return whether one was moved."""
        with self.changed:
            if self._bytes <= 3 * self._memory // 4 or not self._ready or time.monotonic() < self._spill_again:
                return False
            held = self._ready.pop()
        try:
            self._write(held)
        except OSError as error:
            log.warning("cannot spill planes to %s (%s); they stay in memory", self._folder, error)
            with self.changed:
                self._spill_again = time.monotonic() + _SPILL_RETRY
                self._ready.append(held)
            return False
        with self.changed:
            self._free(held)
            self._spilled.append(held)
            self.changed.notify_all()
        return True

    def keep(self, reason: Reason) -> Path | None:
        """Write every plane that is left to files and return their folder; None if no plane is left.

        ``reason`` is how the acquisition ended.

        Raises
        ------
        OSError
            If they cannot be written.
        """
        for held in list(self._held.values()):
            if held.file is None:
                self._write(held)
        if self._held:
            mark_ended(self._folder, reason)
            return self._folder
        with suppress(OSError):  # It may never have been made, or hold planes of another acquisition.
            remove_spill_folder(self._folder)
        return None

    def _free(self, held: HeldPlane) -> None:
        pixels, held.pixels = held.pixels, None
        self._bytes -= self._plane_bytes
        # ZeroMQ does not copy what it sends. It is done with a plane that was spilled unsent or acknowledged the first
        # time; of one that was sent twice, the second may still be in its queue.
        done = held.attempts == (0 if held.index in self._held else 1)
        if done and pixels is not None:
            self._blanks.give(pixels, self._memory - self._bytes)

    def _read(self, file: Path, crc: int) -> memoryview:
        pixels = self._blanks.take()
        with file.open("rb", buffering=0) as opened:
            if opened.readinto(pixels) != len(pixels):
                raise ValueError("it was cut short")
        if crc32(pixels) != crc:
            raise ValueError("it was altered")
        return pixels

    def _write(self, held: HeldPlane) -> None:
        start_spilling(self._folder, self._acquisition)
        file = self._folder / "{}_{}_{}_{:08x}.plane".format(*held.index, held.checksum())
        partial = file.with_suffix(".partial")
        try:
            assert held.pixels is not None  # noqa: S101 (only planes in memory are written)
            partial.write_bytes(held.pixels)
            partial.replace(file)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
        held.file = file

    def _find_leftovers(self) -> None:
        """Take over what an earlier publisher of this session could not deliver."""
        resume_spilling(self._folder)
        described = described_in(self._folder)
        # One of another length is damaged, if it is of this acquisition, which is told when its turn comes.
        own = described is not None and described.plane_bytes == self._plane_bytes
        for file in sorted(self._folder.glob(PLANE_FILES)):
            match = _FILE.fullmatch(file.name)
            index = (int(match[1]), int(match[2]), int(match[3])) if match else (-1, -1, -1)
            if match and self._acquisition.admits(index) and (own or file.stat().st_size == self._plane_bytes):
                self._held[index] = HeldPlane(self.published, index, None, crc=int(match[4], 16), file=file)
                self._spilled.append(self._held[index])
                self.published += 1


def _order(queue: deque[HeldPlane]) -> float:
    return queue[0].order if queue else float("inf")
