"""The sender's socket: encrypted where a key is trusted at the other end, and renewed when it is refused or silent.

libzmq gives a connection up for good once its handshake was refused, or when what comes is not what ZeroMQ says, as on
a line that alters it; it says so only to the socket's monitor. Keys may be authorised, trusted or revoked while planes
wait, so this listens to the monitor, tells what is wrong and what to do, and tries again with a new socket and with the
keys that there are then.

A cable that was pulled is found out by silence only. Whatever is sent is answered, so that a connection on which no
answer comes is renewed too. ZeroMQ has heartbeats for that, but libzmq 4.3.5 ends the process of a listener that gets
one over a connection which broke before it was read.

A machine that trusts a listener's key at an address never connects there without it: who answers in its place gets
nothing to read.
"""

from __future__ import annotations

import logging
import shlex
import struct
import time
from collections.abc import Sequence
from pathlib import Path

import zmq

from otf_stream.acquire.keys import KeyFolder, KeysError, Pair, default_folder, host_of

log = logging.getLogger(__name__)

_AGAIN = 2.0  # seconds after which a refused connection is tried again
_UNANSWERED = 10.0  # seconds without an answer to what was sent, after which the connection is made anew
_SLOWEST = 1e6  # bytes/s of a network on which that takes longer
_HANDSHAKE_MS = 10_000
_UNAUTHORISED = zmq.EVENT_HANDSHAKE_FAILED_AUTH
_FORSAKEN = 1.0  # seconds after a disconnection in which libzmq would have announced to try again
_TRYING = zmq.EVENT_CONNECT_RETRIED | zmq.EVENT_CONNECT_DELAYED | zmq.EVENT_CONNECTED | zmq.EVENT_HANDSHAKE_SUCCEEDED
_FAILED = _UNAUTHORISED | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL


class Dealer:
    """Connects to a listener; except for making it, for one thread.

    Parameters
    ----------
    address
        Of the listener, ``tcp://HOST:PORT``.
    keys
        Folder of the keys; the user's if not given.

    Attributes
    ----------
    refusal
        Why the connection is refused, and what to do; None if it is not.

    Raises
    ------
    ValueError
        If the address, or the keys for it, cannot be used.
    """

    def __init__(self, address: str, keys: Path | None = None) -> None:
        self.refusal: str | None = None
        self._address = address
        self._keys = _folder(keys)
        self._pair: Pair | None = None
        self._again = 0.0
        self._lost_at: float | None = None
        self._asked_at: float | None = None  # when the first message was sent since the last answer
        self._patience = _UNANSWERED
        self._socket: zmq.Socket[bytes] | None = None
        self._monitor: zmq.Socket[bytes] | None = None
        self._context = zmq.Context()
        try:
            self._connect()
        except KeysError:
            self.close()
            raise
        except zmq.ZMQError as error:
            self.close()
            raise ValueError(f"cannot connect to {address!r} ({error}); give tcp://HOST:PORT") from error

    @property
    def sockets(self) -> list[zmq.Socket[bytes]]:
        """What to wait for until there is something to receive, or to `look` at."""
        return [socket for socket in (self._socket, self._monitor) if socket is not None]

    def send(self, frames: Sequence[bytes | memoryview], *, copy: bool = True) -> bool:
        """Send a message without waiting; return whether there is a connection that took it."""
        if self._socket is None:
            return False
        try:
            self._socket.send_multipart(frames, zmq.NOBLOCK, copy=copy)
        except zmq.Again:
            return False
        if self._asked_at is None:
            self._asked_at, self._patience = time.monotonic(), _UNANSWERED
        size = sum(frame.nbytes if isinstance(frame, memoryview) else len(frame) for frame in frames)
        self._patience = max(self._patience, _UNANSWERED + size / _SLOWEST)
        return True

    def ready(self) -> bool:
        """Tell whether there is a connection that takes a message."""
        return self._socket is not None and bool(self._socket.poll(0, zmq.POLLOUT))

    def receive(self) -> list[bytes] | None:
        """Return the next message that has come; None if there is none."""
        if self._socket is None:
            return None
        try:
            message = self._socket.recv_multipart(zmq.NOBLOCK)
        except zmq.Again:
            return None
        self._asked_at = None
        return message

    def look(self) -> bool:
        """Look how the connection is doing; return whether it had to be given up: nothing under way arrives."""
        while self._monitor is not None and self._monitor.poll(0):
            event = _event(self._monitor.recv_multipart())
            if event & _FAILED:
                self._refused(self._reason(event))
                return True
            if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
                self.refusal = None
            if event == zmq.EVENT_DISCONNECTED:
                self._lost_at, self._asked_at = time.monotonic(), None
            elif event & _TRYING:
                self._lost_at = None
        if _longer_ago(self._lost_at, _FORSAKEN):
            log.warning("the connection to %s broke and is not tried again: it is made anew", self._address)
            self._hang_up()
            return True
        if _longer_ago(self._asked_at, self._patience):
            log.warning("%s has not answered for %.0f s: the connection is made anew", self._address, self._patience)
            self._hang_up()
            return True
        if self._socket is None and time.monotonic() >= self._again:
            try:
                self._connect()
            except (KeysError, zmq.ZMQError) as error:
                self._refused(str(error))
        return False

    def close(self) -> None:
        """Close the socket, whatever has not been sent."""
        self._hang_up()
        self._context.destroy(linger=0)

    def _connect(self) -> None:
        trusted = self._keys and self._keys.listener_at(self._address)
        self._pair = self._keys.own() if self._keys and trusted else None
        self._socket = dealer = self._context.socket(zmq.DEALER)
        if self._pair and trusted:
            dealer.curve_publickey, dealer.curve_secretkey = self._pair.public.encode(), self._pair.secret.encode()
            dealer.curve_serverkey = trusted.encode()
        dealer.setsockopt(zmq.LINGER, 0)
        # Without a connection, messages must not queue up: greetings would pile up, and planes are in the outbox.
        dealer.setsockopt(zmq.IMMEDIATE, 1)
        dealer.setsockopt(zmq.RECONNECT_IVL, 100)
        dealer.setsockopt(zmq.RECONNECT_IVL_MAX, 2000)
        dealer.setsockopt(zmq.HANDSHAKE_IVL, _HANDSHAKE_MS)
        dealer.setsockopt(zmq.MAXMSGSIZE, 1 << 20)
        self._monitor = dealer.get_monitor_socket(_FAILED | _TRYING | zmq.EVENT_DISCONNECTED)
        dealer.connect(self._address)

    def _refused(self, why: str) -> None:
        self._hang_up()
        self._again = time.monotonic() + _AGAIN
        if why != self.refusal:
            log.warning("%s; planes are kept until it is mended", why)
        self.refusal = why

    def _hang_up(self) -> None:
        if self._socket is not None:
            if self._monitor is not None:
                self._socket.disable_monitor()
                self._monitor.close(linger=0)
            self._socket.close(linger=0)
        self._socket = self._monitor = self._lost_at = self._asked_at = None

    def _reason(self, event: int) -> str:
        """Say what a failed handshake means. Where ends do not match, either may find out first: the events differ."""
        host, there = host_of(self._address), "on its machine"
        if event == _UNAUTHORISED and self._pair:
            key = shlex.quote(self._pair.public)
            return (
                f"the listener at {self._address} does not let this machine in; `otf-stream keys authorise NAME {key}` "
                f"{there} does"
            )
        if self._pair and self._keys:
            return (
                f"the listener at {self._address} has not the key that is trusted there, or takes none; if "
                f"`otf-stream keys show` {there} tells another, {self._keys.command('forget', host)} and trust that"
            )
        trust = self._keys.command("trust", host, "KEY") if self._keys else f"`otf-stream keys trust {host} KEY`"
        return (
            f"the connection to {self._address} ended while it was made: no listener answers (its port is 8421 by "
            f"default, and 8420 that of its page), or it asks for keys; {trust} trusts the key that `otf-stream keys "
            f"show` prints {there}"
        )


def _longer_ago(when: float | None, seconds: float) -> bool:
    return when is not None and time.monotonic() - when > seconds


def _event(told: list[bytes]) -> int:
    """Return which event a monitor tells of; what pyzmq has for that imports asyncio, and takes its time."""
    (event,) = struct.unpack_from("=H", told[0])
    return int(event)


def _folder(keys: Path | None) -> KeyFolder | None:
    """Return the key folder; None for a user who has no place for one, and so no keys."""
    try:
        return KeyFolder(keys or default_folder())
    except KeysError:
        return None
