"""The sender's end of the wire: takes planes from a camera, and answers for each until the listener has it on disk.

`Publisher.publish` copies the frame and returns: work done in the camera's callback would stop the acquisition.
The planes wait in an outbox, and a thread of its own delivers them.

It runs on the microscope's PC, often under Windows, and imports neither torch nor zarr.
"""

from __future__ import annotations

import logging
import operator
import tempfile
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

import numpy as np

from otf_stream.acquire.delivery import Delivery, PlaneFailure, PublishError
from otf_stream.acquire.leftovers import Leftover, spill_folder
from otf_stream.acquire.outbox import Outbox, RepeatedPlaneError
from otf_stream.acquire.protocol import Ended, Hello, ProtocolError, encode
from otf_stream.acquisition import MAX_PLANES, Acquisition, PlaneIndex

__all__ = ["OutboxFullError", "PlaneFailure", "PublishError", "Publisher", "RepeatedPlaneError", "deliver"]

log = logging.getLogger(__name__)


class OutboxFullError(RuntimeError):
    """There is no memory for a plane; it was not taken."""


class Publisher:
    """Streams the planes of one acquisition to a listener; use it as a context manager.

    Leaving the block normally delivers everything and ends the session; leaving it with an exception delivers what
    it quickly can and ends the session as aborted.

    Parameters
    ----------
    address
        Of the listener, ``tcp://HOST:PORT``. It need not be up yet.
    acquisition
        What is acquired.
    session
        Id of the session, 32 hexadecimal digits; a new one if not given. The id of an earlier session
        resumes it, with the planes that were left in the spill folder.
    memory
        The most bytes of planes kept in memory, at least four planes. Past three quarters of it, planes go to files.
        `publish` blocks only when all of it is full: the network and the spill disk are both too slow.
    spill
        Folder for those files, by default the system's folder for temporary files.
    keys
        Folder of the keys, by default the user's. If it trusts a listener at the address, the connection is encrypted.

    Attributes
    ----------
    session
        Id of the session.

    Raises
    ------
    ValueError
        If the address, its keys, the session's id or the size of the acquisition cannot be used.

    Examples
    --------
    >>> with Publisher("tcp://restoration-pc:8421", acquisition) as publisher:  # doctest: +SKIP
    ...     for z in range(acquisition.sizes.z):
    ...         publisher.publish(camera.snap(), z=z)
    """

    def __init__(
        self,
        address: str,
        acquisition: Acquisition,
        *,
        session: str | None = None,
        memory: int = 256 << 20,
        spill: Path | None = None,
        keys: Path | None = None,
    ) -> None:
        self.session = session or uuid.uuid4().hex
        self.acquisition = acquisition
        hello = _hello(self.session, acquisition)
        self._address = address
        self._closed = self._closing = False
        self._outbox = Outbox(
            acquisition,
            memory=memory,
            folder=spill_folder(spill or Path(tempfile.gettempdir()), self.session),
        )
        self._outbox.prepare()  # The first plane may come before the thread has done anything.
        self._changed = self._outbox.changed
        self._delivery = Delivery(address, hello, self._outbox, keys)

    def publish(
        self,
        pixels: np.ndarray,
        *,
        t: int = 0,
        c: int = 0,
        z: int,
        taken: float | None = None,
        patience: float | None = None,
    ) -> None:
        """Hand over a plane and return; ``pixels`` may be overwritten right after.

        Publishing a plane once more is harmless.

        Parameters
        ----------
        pixels
            ``(y, x)`` and the dtype of the acquisition.
        t, c, z
            Where the plane belongs.
        taken
            When it was exposed by this machine's clock, in UNIX seconds; now if not given.
        patience
            Seconds to wait, at the most, while all of the memory is full; for ever if None.

        Raises
        ------
        ValueError
            If the shape, the dtype or the index is not of this acquisition.
        RepeatedPlaneError
            If the plane was published before with other pixels, which stand; a `ValueError`.
        OutboxFullError
            If the memory is still full after ``patience``; the plane is not taken.
        PublishError
            If the session cannot go on, or is closed.
        """
        index = (operator.index(t), operator.index(c), operator.index(z))
        frame = self._copy(index, pixels)
        with self._changed:
            self._check_open()
            if self._outbox.full():
                log.warning("the network and the spill disk are too slow for the camera: waiting for memory")
                self._wait_for_room(patience)
            if self._outbox.is_new(index, frame):
                self._outbox.put(index, frame, time.time() if taken is None else taken)
        self._delivery.ring()

    def name_channels(self, names: Sequence[str]) -> None:
        """Name the channels of a growing acquisition, those that were named and further ones.

        Raises
        ------
        ValueError
            If the acquisition does not grow, or a channel that was named would get another name.
        """
        sizes = self.acquisition.sizes.model_copy(update={"c": max(len(names), self.acquisition.sizes.c)})
        more = self.acquisition.model_copy(update={"sizes": sizes, "channels": tuple(names)})
        together = self.acquisition.joined(more)
        if together is None:
            raise ValueError(
                f"the channels {', '.join(names)} do not add to {', '.join(self.acquisition.channels) or 'none'} of a "
                "growing acquisition; announce it as growing, and keep the names that were given"
            )
        self.acquisition = together
        self._delivery.greet(_hello(self.session, together))

    def drain(self, timeout: float = 60.0) -> None:
        """Wait until every plane is acknowledged.

        Parameters
        ----------
        timeout
            Seconds to wait while nothing is acknowledged: a long queue may take longer, a dead network may not.

        Raises
        ------
        TimeoutError
            If nothing was acknowledged for so long; the publisher goes on trying.
        PublishError
            If the session cannot go on, or a plane cannot be delivered.
        """
        self._wait(lambda: not self._outbox.pending, timeout)
        self._raise_failures()

    def close(self, timeout: float = 60.0) -> None:
        """Deliver every plane and end the session; once more is harmless.

        Parameters
        ----------
        timeout
            As in `drain`.

        Raises
        ------
        TimeoutError
            If nothing was acknowledged for so long. Planes that are left are then in files, named by the message,
            and a publisher that is given the same session delivers them.
        PublishError
            If the session could not go on, or a plane could not be delivered.
        """
        self._end("finished", timeout)
        self._raise_failures()

    def abort(self, timeout: float = 5.0) -> None:
        """Deliver what goes within ``timeout``, as in `close`, and end the session as aborted.

        Planes that are left stay in files; a warning is logged.
        """
        try:
            self._end("aborted", timeout)
        except (PublishError, TimeoutError) as error:
            log.warning("%s", error)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()

    @property
    def connected(self) -> bool:
        """Whether the listener knows the session and was heard lately."""
        return self._delivery.connected

    @property
    def trouble(self) -> str | None:
        """Why planes are not taken now, and what to do: a full disk, keys that do not fit; None if they are.

        The publisher keeps them and goes on trying.
        """
        return self._delivery.refusal or self._delivery.trouble

    @property
    def failures(self) -> list[PlaneFailure]:
        """The planes that cannot be delivered."""
        return list(self._delivery.failures)

    @property
    def ended(self) -> Ended | None:
        """What the listener said of the session when it ended; None before."""
        return self._delivery.ended

    @property
    def published(self) -> int:
        """How many planes were handed over."""
        return self._outbox.published

    @property
    def sent(self) -> int:
        """How many planes went out at least once."""
        return self._outbox.sent

    @property
    def acknowledged(self) -> int:
        """How many planes the listener has on disk."""
        return self._outbox.acknowledged

    @property
    def bytes_acknowledged(self) -> int:
        """How many bytes of pixels the listener has on disk."""
        return self._outbox.acknowledged * self.acquisition.plane_bytes

    @property
    def pending(self) -> int:
        """How many planes are not acknowledged yet."""
        return self._outbox.pending

    @property
    def spilled(self) -> int:
        """How many planes lie in files."""
        return self._outbox.spilled

    def _copy(self, index: PlaneIndex, pixels: np.ndarray) -> memoryview:
        acquisition = self.acquisition
        if not acquisition.admits(index):
            raise ValueError(acquisition.outside(index))
        shape = acquisition.sizes.shape[3:]
        if pixels.shape != shape or pixels.dtype.newbyteorder("<") != acquisition.numpy_dtype:
            raise ValueError(
                f"the plane is {pixels.shape} {pixels.dtype}, but {shape} {acquisition.dtype} was announced; "
                "announce what the camera gives, or convert the plane"
            )
        frame = self._outbox.blank()
        np.frombuffer(frame, acquisition.numpy_dtype).reshape(shape)[...] = pixels
        return frame

    def _wait_for_room(self, patience: float | None) -> None:
        until = None if patience is None else time.monotonic() + patience
        while self._outbox.full():
            left = 1.0 if until is None else min(1.0, until - time.monotonic())
            if left <= 0:
                raise OutboxFullError(
                    f"{self._outbox.pending} planes fill the memory of the publisher: the network and the spill disk "
                    "are too slow for the camera; give it more memory or a faster spill disk"
                )
            self._changed.wait(left)
            self._check_open()

    def _check_open(self) -> None:
        if self._delivery.error is not None:
            raise self._delivery.error
        if self._closed or self._closing:
            raise PublishError("the publisher is closed; open another one for another acquisition")

    def _raise_failures(self) -> None:
        if self.failures:
            first = self.failures[0]
            raise PublishError(
                f"{len(self.failures)} planes could not be delivered, the first of them {first.plane}: {first.message}",
                first.code,
            )

    def _wait(self, done: Callable[[], bool], timeout: float) -> None:
        """Wait for ``done`` as long as planes leave at least every ``timeout`` seconds."""
        with self._changed:
            pending, deadline = self._outbox.pending, time.monotonic() + timeout
            while self._delivery.error is None and not done():
                if self._outbox.pending < pending:
                    pending, deadline = self._outbox.pending, time.monotonic() + timeout
                if not self._changed.wait(max(0.0, deadline - time.monotonic())) and time.monotonic() >= deadline:
                    advice = self.trouble or "see that the listener runs there and can be reached"
                    raise TimeoutError(
                        f"{self._address} acknowledged nothing for {timeout:g} s, {pending} planes of session "
                        f"{self.session} are pending; {advice}"
                    )
            if self._delivery.error is not None:
                raise self._delivery.error

    def _end(self, reason: Literal["finished", "aborted"], timeout: float) -> None:
        if self._closed:
            return
        self._closing = True
        self._delivery.end(reason)
        failure: BaseException | None = None
        try:
            self._wait(lambda: self._delivery.ended is not None, timeout)
        except BaseException as error:
            failure = error
        self._closed = True
        self._delivery.stop()
        try:
            kept = self._outbox.keep(reason)
        except OSError as error:
            raise PublishError(f"{self._outbox.pending} planes are lost: {error}, after {failure}") from failure
        if failure is None:
            return
        if kept is not None:
            where = (
                f"{self._outbox.pending} planes are kept in {kept}; "
                f"`otf-stream deliver {kept.parent} --to {self._address}` sends them when it can be reached"
            )
            if isinstance(failure, TimeoutError):
                raise TimeoutError(f"{failure}. {where}")
            if isinstance(failure, PublishError):
                raise PublishError(f"{failure}. {where}", failure.code)
            log.warning("%s", where)  # as after Ctrl-C, which says nothing of itself
        raise failure


def deliver(leftover: Leftover, address: str, *, wait_s: float = 60.0) -> int:
    """Deliver the planes that an earlier publisher left in files, and end their session.

    Parameters
    ----------
    leftover
        As `otf_stream.acquire.leftovers.find_leftovers` gives it.
    address
        Of the listener.
    wait_s
        Seconds to wait while nothing is acknowledged.

    Returns
    -------
    int
        How many planes were delivered.

    Raises
    ------
    PublishError
        If the listener refuses them.
    TimeoutError
        If it cannot be reached; the planes stay where they are.
    """
    publisher = Publisher(address, leftover.acquisition, session=leftover.session, spill=leftover.folder.parent)
    publisher._end(leftover.ended or "aborted", wait_s)
    publisher._raise_failures()
    return publisher.acknowledged


def _hello(session: str, acquisition: Acquisition) -> Hello:
    if acquisition.sizes.planes > MAX_PLANES:
        raise ValueError(
            f"{acquisition.sizes.planes} planes are more than the {MAX_PLANES} of one session; "
            "split the acquisition into several"
        )
    hello = Hello(session=session, acquisition=acquisition)
    try:
        encode(hello)
    except ProtocolError as error:
        raise ValueError(error.message) from error
    return hello
