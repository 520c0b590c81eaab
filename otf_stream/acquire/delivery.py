"""The thread that sends planes and hears of their arrival: a small state machine around one socket.

There is one way out of every trouble: greet again. The greeting is idempotent, the listener handles it after all that
was sent before it, and so whatever is still in flight when the welcome comes was lost, and waits for its turn
again. A restarted listener, a broken connection, a full disk and a lost acknowledgement all end there.
"""

from __future__ import annotations

import logging
import socket
import threading
import time
from bisect import bisect_right
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Literal

import zmq

from otf_stream.acquire.dealer import Dealer
from otf_stream.acquire.outbox import LostPlaneError, Outbox
from otf_stream.acquire.protocol import (
    Ack,
    End,
    Ended,
    Error,
    ErrorCode,
    Hello,
    Message,
    Ping,
    Plane,
    Pong,
    ProtocolError,
    Welcome,
    decode,
    encode,
)
from otf_stream.acquisition import PlaneIndex

log = logging.getLogger(__name__)

_CONNECTING = 0.1  # seconds between looks whether the connection is up
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 10.0  # seconds between greetings that nobody answers
_STALL = 3.0  # seconds without an acknowledgement before greeting again
_PING = 1.0  # seconds of silence before a sign of life
_SILENT = 3.0  # seconds without any answer after which whoever waits is told
_GONE = 5.0  # seconds without an answer after which nobody counts as connected
_ATTEMPTS = 5  # how often a plane may arrive altered before there is a pause
_ALTERED = {ErrorCode.BAD_CHECKSUM, ErrorCode.BAD_SHAPE}  # on the way, since the camera's planes have the right shape


class PublishError(RuntimeError):
    """Planes cannot be delivered; the message says why and where they are.

    Parameters
    ----------
    message
        For a human.
    code
        What the listener answered, if it did.
    """

    def __init__(self, message: str, code: ErrorCode | None = None) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class PlaneFailure:
    """A plane that cannot be delivered, and why."""

    plane: PlaneIndex
    code: ErrorCode
    message: str


class Delivery:
    """Delivers what is in an outbox; its thread runs until `stop`.

    Parameters
    ----------
    address
        Of the listener.
    hello
        The greeting, with the session and its acquisition.
    outbox
        Where the planes are; its condition is notified of everything that happens here.
    keys
        Folder of the keys; the user's if not given.

    Attributes
    ----------
    error
        Why the session cannot go on.
    trouble
        Why the listener takes no planes now, if it said so; it passes.
    failures
        The planes that cannot be delivered.
    ended
        What the listener said of the session when it ended.

    Raises
    ------
    ValueError
        If the address, or the keys for it, cannot be used.
    """

    def __init__(self, address: str, hello: Hello, outbox: Outbox, keys: Path | None = None) -> None:
        self.error: PublishError | None = None
        self.trouble: str | None = None
        self.failures: list[PlaneFailure] = []
        self.ended: Ended | None = None
        self._address = address
        self._session = hello.session
        self._hello = hello
        self._outbox = outbox
        self._changed = outbox.changed
        self._closing: Literal["finished", "aborted"] | None = None
        self._stop = threading.Event()
        self._welcomed = self._news = False
        self._credit = 0
        self._pause = _FIRST_PAUSE
        self._greet_at = self._end_at = self._sent_at = self._progress_at = 0.0
        self._heard_at = float("-inf")
        self._tell_silence_at = time.monotonic() + _SILENT
        self._dealer = Dealer(address, keys)
        # ZeroMQ's sockets belong to one thread; a pair of plain ones wakes it from another, under Windows too. Who
        # sends lets the interpreter's lock go, and may wait 5 ms for it: not the camera's thread, but one of its own.
        self._bell, self._ear = socket.socketpair()
        self._bell.setblocking(False)
        self._ear.setblocking(False)
        self._rings = SimpleQueue[bool]()
        self._ringer = threading.Thread(target=self._ring_the_bell, name="publisher's bell", daemon=True)
        self._thread = threading.Thread(target=self._run, name="publisher", daemon=True)
        self._ringer.start()
        self._thread.start()

    @property
    def connected(self) -> bool:
        """Whether the listener knows the session and was heard lately."""
        return self._welcomed and time.monotonic() - self._heard_at < _GONE

    @property
    def refusal(self) -> str | None:
        """Why the connection is refused, and what to do; None if it is not."""
        return self._dealer.refusal

    def greet(self, hello: Hello) -> None:
        """Tell the listener what is new of the acquisition."""
        self._hello, self._news = hello, True
        self.ring()

    def ring(self) -> None:
        """Wake the thread: there is something to do. Takes the caller no time."""
        self._rings.put(True)

    def end(self, reason: Literal["finished", "aborted"]) -> None:
        """Let the session end once every plane is delivered; `ended` tells when it has."""
        self._closing = reason
        self.ring()

    def stop(self) -> None:
        """End the thread and close its sockets."""
        self._stop.set()
        self._rings.put(False)
        self._ringer.join()
        self._thread.join()
        self._bell.close()
        self._ear.close()

    def _ring_the_bell(self) -> None:
        goes_on = True
        while goes_on:
            goes_on = self._rings.get()
            with suppress(OSError):  # The thread is awake already, or gone.
                self._bell.send(b"!")

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                if self._dealer.look():
                    self._greet_again(0.0)
                pause = self._step(time.monotonic())
                zmq.select([self._ear, *self._dealer.sockets], [], [], pause)
                self._listen()
        except Exception as error:
            log.exception("the publisher stops")
            self._fail(PublishError(f"the publisher stopped: {error!r}", ErrorCode.INTERNAL))
        finally:
            self._dealer.close()

    def _step(self, now: float) -> float:
        """Do what is due; return the seconds until something else is, if nothing happens before."""
        if self.error is not None or self.ended is not None:
            return 1.0
        prepared = self._closing is None and self._outbox.prepare()
        busy = self._outbox.spill() or prepared
        if self._news:
            self._news = False
            self._greet_again(0.0)
        if not self._welcomed:
            if now >= self._greet_at:
                self._greet(now)
            if now >= self._tell_silence_at:
                self._tell_silence()
            return 0.0 if busy else max(0.0, self._greet_at - now)
        if self._outbox.in_flight and now - self._progress_at > _STALL:
            self._greet_again(0.0)
            return 0.0
        most = min(self._credit, self._outbox.most_in_flight)
        while self._outbox.in_flight < most and self._send_plane(now):
            pass
        if self._closing and not self._outbox.pending and now >= self._end_at:
            self._end_at = now + _STALL
            self._send(End(session=self._session, reason=self._closing, planes=self._outbox.published))
        if now - self._sent_at >= _PING:
            self._send(Ping(session=self._session))
            self._sent_at = now  # A connection that is down must not be asked without pause.
        return 0.0 if busy else _PING / 4

    def _tell_silence(self) -> None:
        self._tell_silence_at = float("inf")
        if self._heard_at < 0 and not self._dealer.refusal:
            log.warning("nothing answers at %s yet; planes are kept until `otf-stream serve` does", self._address)

    def _greet(self, now: float) -> None:
        if self._send(self._hello):
            self._greet_at = now + self._pause
            self._pause = min(2 * self._pause, _LONGEST_PAUSE)
        else:
            self._greet_at = now + _CONNECTING

    def _greet_again(self, pause: float) -> None:
        self._welcomed = False
        self._greet_at = time.monotonic() + pause

    def _send_plane(self, now: float) -> bool:
        """Send the next plane; return whether that went."""
        if not self._dealer.ready():
            return False
        if not self._outbox.in_flight:
            self._progress_at = now
        try:
            held = self._outbox.take()
        except LostPlaneError as error:
            self._give_up(PlaneFailure(error.index, ErrorCode.INTERNAL, str(error)))
            return True
        if held is None:
            return False
        t, c, z = held.index
        header = Plane(session=self._session, t=t, c=c, z=z, crc=held.checksum(), taken=held.taken)
        if self._send(header, held.pixels):
            return True
        self._outbox.again(held.index)
        return False

    def _send(self, message: Message, pixels: memoryview | bytes | None = None) -> bool:
        """Send without waiting; return whether there is a connection that took it."""
        frames = [encode(message)] if pixels is None else [encode(message), pixels]
        if not self._dealer.send(frames, copy=pixels is None):
            return False
        self._sent_at = time.monotonic()
        return True

    def _listen(self) -> None:
        """Handle every answer that has come."""
        try:
            while self._ear.recv(4096):
                pass
        except BlockingIOError:
            pass
        while frames := self._dealer.receive():
            try:
                self._handle(decode(frames[0]))
            except ProtocolError as error:
                if error.code is ErrorCode.UNSUPPORTED_VERSION:
                    self._fail(PublishError(f"{self._address} speaks another protocol: {error.message}", error.code))
                else:
                    log.warning("%s sent something else than an answer: %s", self._address, error)

    def _handle(self, message: Message) -> None:
        if getattr(message, "session", None) not in (None, self._session):
            return
        self._heard_at = time.monotonic()
        match message:
            case Welcome() if not self._welcomed:
                self._welcome(message)
            case Ack():
                self.trouble = None
                self._credit, self._pause, self._progress_at = message.credit, _FIRST_PAUSE, self._heard_at
                for index in message.planes:
                    self._outbox.acknowledge(index)
            case Pong():
                self._credit = message.credit
            case Ended() if self._closing:
                with self._changed:
                    self.ended = message
                    self._changed.notify_all()
            case Error():
                self._trouble(message)

    def _welcome(self, message: Welcome) -> None:
        self._welcomed, self._credit = True, message.credit
        self._progress_at, self._end_at = self._heard_at, 0.0
        # What was in flight is durable or was lost. Only these are looked for in the list: other planes of
        # this publisher were never sent, so what is durable under their index came from elsewhere, and the
        # listener has to compare it.
        for index in self._outbox.on_the_way():
            if _holds(message, index):
                self._outbox.acknowledge(index)
        self._outbox.all_again()

    def _trouble(self, error: Error) -> None:
        if error.fatal:
            self._fail(PublishError(f"{self._address} refuses the session: {error.message}", error.code))
        elif error.code in (ErrorCode.UNKNOWN_SESSION, ErrorCode.GARBLED):
            if self._welcomed:
                self._greet_again(0.0)
        elif error.plane is None:
            # No space, too many sessions, a failing disk: these pass.
            log.warning("%s takes no planes now: %s", self._address, error.message)
            self.trouble = error.message
            self._greet_again(self._pause)
            self._pause = min(2 * self._pause, _LONGEST_PAUSE)
        elif error.code in _ALTERED and self._outbox.is_intact(error.plane):
            if self._outbox.attempts(error.plane) % _ATTEMPTS == 0 and self._welcomed:
                log.warning("plane %s was altered on its way %d times: the network is bad", error.plane, _ATTEMPTS)
                self._greet_again(self._pause)
                self._pause = min(2 * self._pause, _LONGEST_PAUSE)
            self._outbox.again(error.plane)
        else:
            self._give_up(PlaneFailure(error.plane, error.code, error.message))

    def _give_up(self, failure: PlaneFailure) -> None:
        log.error("plane %s cannot be delivered: %s", failure.plane, failure.message)
        self.failures.append(failure)
        self._outbox.drop(failure.plane)

    def _fail(self, error: PublishError) -> None:
        with self._changed:
            self.error = self.error or error
            self._changed.notify_all()


def _holds(welcome: Welcome, index: PlaneIndex) -> bool:
    # The runs come in ascending order: only the last one that starts at or before the plane can hold it.
    at = bisect_right(welcome.durable, (*index, 1 << 32)) - 1
    if at < 0:
        return False
    t, c, z0, z1 = welcome.durable[at]
    return index[:2] == (t, c) and z0 <= index[2] < z1
