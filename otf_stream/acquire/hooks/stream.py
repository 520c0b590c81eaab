"""What every hook does with frames: each goes to the session of its place, and the microscope is left in peace.

A hook knows one acquisition software: how it describes an acquisition, and when a frame is there. The rest is
the same for all and is here. A place (a position of the stage, a tile of a grid) is a session of its own, because
it is a volume of its own. Frames are only handed over; sending, and waiting for the last acknowledgements, is done
in threads. Nothing that goes wrong with the stream is raised into the acquisition, which goes on and may save its
frames elsewhere: it is logged, counted, and told at the end.
"""

from __future__ import annotations

import logging
import re
import threading
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from otf_stream.acquire.publisher import OutboxFullError, Publisher, RepeatedPlaneError
from otf_stream.acquisition import Acquisition, Sizes, VoxelSize, faults

log = logging.getLogger(__name__)

Place = tuple[int, int]
"""Where the stage stands: the position, and the tile of a grid around it."""

_ADDRESS = re.compile(r"tcp://[^\s/:]+:\d{1,5}")
_EXAMPLE = "tcp://127.0.0.1:8421"
_PATIENCE = 2.0  # seconds that the camera's thread waits for memory, at the most, before planes are given up
_ABORT_S = 5.0  # seconds for the planes that are left of an acquisition that was aborted


def in_words(error: Exception) -> str:
    """Say what is wrong as people would, where a description does not hold."""
    return "; ".join(faults(error)) if isinstance(error, ValidationError) else str(error)


def check_description(name: str, **described: Any) -> None:
    """Check what a script says of its acquisitions: the time to hear of it is before the experiment.

    Parameters
    ----------
    name
        Of the acquisitions.
    described
        Fields of an :class:`~otf_stream.acquisition.Acquisition`.

    Raises
    ------
    ValueError
        If no acquisition can be called or described so.
    """
    voxel = VoxelSize(z=1, y=1, x=1)
    try:
        Acquisition(name=name, sizes=Sizes(z=1, y=1, x=1), dtype="uint8", voxel_size=voxel, **described)
    except ValidationError as error:
        raise ValueError(in_words(error)) from None


class Stream:
    """The frames of a microscope, each on its way to the session of its place.

    No method raises for what goes wrong with the stream, and none but `wait` waits for the network.

    Parameters
    ----------
    address
        Of the listener, ``tcp://HOST:PORT``.
    memory
        Bytes of planes kept in memory, for all places together; past three quarters of it, planes go to files.
    spill
        Folder for those files; the system's folder for temporary files if not given.
    wait_s
        Seconds to wait at the end while nothing is acknowledged. What is left then is kept in files.

    Raises
    ------
    ValueError
        If the address is not of that form.

    Attributes
    ----------
    sessions
        Ids of the sessions that were opened, in order.
    lost
        How many frames could not be taken. They may have been saved elsewhere.
    repeated
        How many frames had the index of an earlier one, which stands.
    failures
        What went wrong, in sentences.
    """

    def __init__(
        self, address: str, *, memory: int = 256 << 20, spill: Path | None = None, wait_s: float = 60.0
    ) -> None:
        if not _ADDRESS.fullmatch(address):
            raise ValueError(f"{address!r} is no address of a listener; give tcp://HOST:PORT, such as {_EXAMPLE}")
        self.sessions: list[str] = []
        self.lost = self.repeated = 0
        self.failures: list[str] = []
        self._address = address
        self._memory = memory
        self._spill = spill
        self._wait_s = wait_s
        self._open: dict[Place, Publisher] = {}
        self._publishers: list[Publisher] = []  # those that are open, or closing
        self._gone: Counter[str] = Counter()  # what those that were let go had counted
        self._counting = threading.Lock()
        self._closing: list[threading.Thread] = []
        self._patience = _PATIENCE

    @property
    def published(self) -> int:
        """How many frames were taken."""
        return self._count("published")

    @property
    def sent(self) -> int:
        """How many planes went out at least once."""
        return self._count("sent")

    @property
    def acknowledged(self) -> int:
        """How many planes the listener has on disk."""
        return self._count("acknowledged")

    def is_open(self, place: Place) -> bool:
        """Whether frames of this place are taken."""
        return place in self._open

    def open(self, place: Place, acquisition: Acquisition, *, places: int = 1) -> None:
        """Open the session of a place.

        Parameters
        ----------
        place
            Not open yet.
        acquisition
            What is acquired there; its name, from `place_name`, becomes that of the store.
        places
            How many places share the memory.

        Raises
        ------
        ValueError
            If the address cannot be used, or the acquisition is too large for a session. The time to hear of it is
            before the first frame.
        """
        publisher = Publisher(self._address, acquisition, memory=self._memory // places, spill=self._spill)
        self._open[place] = publisher
        with self._counting:
            self._publishers.append(publisher)
        self.sessions.append(publisher.session)

    def frame(
        self, place: Place, pixels: np.ndarray, *, t: int = 0, c: int = 0, z: int = 0, taken: float | None = None
    ) -> None:
        """Take a copy of a frame, ``(y, x)``, and return.

        Parameters
        ----------
        place, t, c, z
            Where it belongs.
        pixels
            Of the acquisition's shape and dtype.
        taken
            When it was exposed, in UNIX seconds; now if not given.
        """
        try:
            publisher = self._open[place]
        except KeyError:
            self.lose(f"a frame of place {place} came, which is not open")
            return
        try:
            publisher.publish(pixels, t=t, c=c, z=z, taken=taken, patience=self._patience)
            self._patience = _PATIENCE
        except RepeatedPlaneError as error:
            self.repeated += 1
            log.warning("%s: %s", publisher.acquisition.name, error)
        except Exception as error:
            if isinstance(error, OutboxFullError):
                self._patience = 0.0  # one wait is enough: the next frames are due
            self.lose(f"{publisher.acquisition.name}: {error}")

    def lose(self, why: str) -> None:
        """Count a frame that cannot be streamed; the first of its kind is told."""
        self.lost += 1
        self.fail(why)

    def fail(self, why: str) -> None:
        """Tell what went wrong; once, if it happens again."""
        if why not in self.failures:
            self.failures.append(why)
            log.error("%s", why)

    def name_channels(self, place: Place, names: Sequence[str]) -> None:
        """Name the channels of a growing acquisition, those that have names already and further ones.

        Raises
        ------
        ValueError
            If the acquisition does not grow, or a channel would get another name.
        """
        publisher = self._open.get(place)
        if publisher is not None and len(names) > len(publisher.acquisition.channels):
            publisher.name_channels(names)

    def close(self, *, aborted: bool = False) -> None:
        """End the session of every place; what is left is delivered in the background."""
        ending, self._open = self._open, {}
        self._closing = [thread for thread in self._closing if thread.is_alive()]
        for publisher in ending.values():
            thread = threading.Thread(
                target=self._end, args=(publisher, aborted), name=f"closing {publisher.acquisition.name}"
            )
            self._closing.append(thread)
            thread.start()

    def wait(self) -> None:
        """Wait until every session that was closed has all its planes on disk, or cannot."""
        while self._closing:
            self._closing.pop().join()

    def _end(self, publisher: Publisher, aborted: bool) -> None:
        try:
            if aborted:
                publisher.abort(min(self._wait_s, _ABORT_S))
            else:
                publisher.close(self._wait_s)
        except Exception as error:
            self.fail(f"{publisher.acquisition.name}: {error}")
        finally:
            self._let_go(publisher)

    def _count(self, what: str) -> int:
        with self._counting:
            return self._gone[what] + sum(int(getattr(publisher, what)) for publisher in self._publishers)

    def _let_go(self, publisher: Publisher) -> None:
        """Keep of a publisher that is closed no more than its counts: its memory may be needed by the next one."""
        with self._counting:
            self._publishers.remove(publisher)
            for what in ("published", "sent", "acknowledged"):
                self._gone[what] += getattr(publisher, what)


def place_name(name: str, place: Place, places: Sequence[Place]) -> str:
    """Return what to call the acquisition at one of several places: ``NAME_p0``, ``NAME_p0_g3``, or just ``NAME``."""
    if len(places) < 2:
        return name
    tiled = any(tile for _, tile in places)
    return f"{name}_p{place[0]}_g{place[1]}" if tiled else f"{name}_p{place[0]}"
