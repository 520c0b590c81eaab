"""The connections of a listener: how many there may be, and how much one may send that cannot be read yet.

ZeroMQ bounds the frames of a message, but neither the number of frames nor that of connections. A message that never
ends is kept in memory, unseen by the program; connections that say nothing use up the files that a process may open,
and with them the stores. So a thread follows the connections by ZeroMQ's own account of them, asks the system what each
has received, and cuts the one that goes too far. All others stay, and a sender that was cut by mistake connects again.

It holds each connection open a moment longer than ZeroMQ, with a handle of its own: what it asks and cuts is never
another one that has got the number since, and when a connection ends it can tell which end ended it. ZeroMQ ends those
whose frames are too large, or none of its own, and says no more of it than of one that hangs up.

A key counts when a connection is made, and ZeroMQ never asks again. Whose key is revoked is therefore cut here.

Nothing of this is needed by senders that keep to the protocol: their credit is less than what is allowed here.
"""

from __future__ import annotations

import logging
import os
import socket
import stat
import struct
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import reduce
from operator import or_

import zmq
from zmq.utils.monitor import recv_monitor_message

from otf_stream.acquire.counters import Counters

log = logging.getLogger(__name__)

TOO_MANY = "too-many-connections"
TOO_MUCH = "too-much-unread"
NO_HANDSHAKE = "no-handshake"
BROKEN_OFF = "broken-off"
REVOKED = "revoked"
"""Why connections were cut, beside the codes of refused messages."""

_STRANGERS = {zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL, zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL}
_NOT_LET_IN = _STRANGERS | {zmq.EVENT_HANDSHAKE_FAILED_AUTH}
_EVENTS = reduce(or_, _NOT_LET_IN, zmq.EVENT_ACCEPTED | zmq.EVENT_DISCONNECTED)
_INTERNET = (socket.AF_INET, socket.AF_INET6)
_LOOK_MS = 50
_KEYS_S = 1.0  # between looks at the keys that are authorised
_FRAME_BYTES = 50  # at most, what the transport adds to a frame: its length, and what encryption adds
# Where Linux's struct tcp_info keeps tcpi_bytes_received, a __u64.
_RECEIVED = 128


@dataclass
class _Connection:
    """An accepted connection: who is at its other end and with which key, a handle, and how many bytes were read."""

    peer: tuple[str, int]
    link: socket.socket
    read: int = 0
    key: str | None = None  # known from its messages

    def cut(self) -> None:
        """End it; ZeroMQ finds out."""
        with suppress(OSError):
            self.link.shutdown(socket.SHUT_RDWR)
        self.link.close()

    def ended_there(self) -> bool:
        """Whether the other end has hung up, and nothing that it said before is left."""
        try:
            return not self.link.recv(1, socket.MSG_PEEK)  # ZeroMQ has made it one that does not block
        except BlockingIOError:
            return False
        except OSError:
            return True

    def received(self) -> int:
        """Return how many bytes it has received since it was accepted; 0 where the system does not tell."""
        if sys.platform != "linux":
            return 0
        with suppress(OSError, struct.error):
            told = self.link.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _RECEIVED + 8)
            return int(struct.unpack_from("Q", told, _RECEIVED)[0])
        return 0


class Connections:
    """Watches the connections of a bound socket, in a thread of its own, until it is closed.

    Parameters
    ----------
    router
        Bound or about to be; it belongs to the thread that makes this.
    most
        The most connections at the same time; one more is cut.
    unread
        The most bytes that all connections together may hold back; past it, the one that holds back most is cut.
        Only Linux tells, elsewhere there is no such bound.
    counters
        Count what was cut, by reason.
    authorised
        Tells the public keys that may be connected with; None where no keys are asked for.
    """

    def __init__(
        self,
        router: zmq.Socket[bytes],
        *,
        most: int,
        unread: int,
        counters: Counters,
        authorised: Callable[[], Collection[str]] | None = None,
    ) -> None:
        self._authorised, self._looked = authorised, time.monotonic()
        self._router, self._most, self._unread, self._counters = router, most, unread, counters
        self._connections: dict[int, _Connection] = {}
        self._early: Counter[int] = Counter()  # read of connections that the thread has not heard of yet
        self._lock = threading.Lock()
        self._not_let_in = False  # the connection of which ZeroMQ tells next that it has ended
        self._closing = threading.Event()
        self._monitor = router.get_monitor_socket(_EVENTS)
        self._thread = threading.Thread(target=self._watch, name="connections", daemon=True)
        self._thread.start()

    def __len__(self) -> int:
        """How many connections there are."""
        return len(self._connections)

    def read(self, frames: Sequence[zmq.Frame]) -> None:
        """Take note of a message that was read; any thread may."""
        if not frames:
            return
        size = sum(len(frame) + _FRAME_BYTES for frame in frames)
        with self._lock, suppress(zmq.ZMQError, TypeError):  # a frame that tells no connection
            descriptor = int(frames[0].get(zmq.SRCFD))
            if connection := self._connections.get(descriptor):
                connection.read += size
                if self._authorised:  # with each message: one that was read late may be of who had the number before
                    connection.key = str(frames[0].get("User-Id"))
            else:
                self._early[descriptor] += size

    def close(self) -> None:
        """End the thread; for the thread that made this, before the socket is closed. Once more is harmless."""
        if not self._closing.is_set():
            self._closing.set()
            self._thread.join()
            self._router.disable_monitor()
            for connection in self._connections.values():
                connection.link.close()

    def _watch(self) -> None:
        while not self._closing.is_set():
            try:
                if self._monitor.poll(_LOOK_MS):
                    event = recv_monitor_message(self._monitor)
                    self._handle(zmq.Event(event["event"]), int(event["value"]))
                self._cut_the_worst()
                self._cut_the_revoked()
            except Exception:  # without it the listener goes on
                log.exception("cannot follow the connections")

    def _handle(self, event: zmq.Event, descriptor: int) -> None:
        if event == zmq.EVENT_ACCEPTED:
            connection = _accepted(descriptor)
            if connection is not None:
                with self._lock:
                    connection.read = self._early.pop(descriptor, 0)
                    before = self._connections.pop(descriptor, None)
                    self._connections[descriptor] = connection
                if before is not None:  # the news that it ended did not come
                    before.link.close()
                if len(self._connections) > self._most:
                    self._cut(descriptor, TOO_MANY, f"there are {self._most} connections already")
        elif event in _NOT_LET_IN:
            self._not_let_in = True
            if event in _STRANGERS:
                self._counters.refuse(NO_HANDSHAKE, "a connection ended before it had said who it is")
        else:
            self._forget(descriptor)
            self._not_let_in = False

    def _forget(self, descriptor: int) -> None:
        with self._lock:
            connection = self._connections.pop(descriptor, None)
            self._early.pop(descriptor, None)
        if connection is None:
            return
        if not self._not_let_in and not connection.ended_there():
            self._counters.refuse(
                BROKEN_OFF,
                "the connection from {}:{} is broken off: a frame was larger than is taken, or was no frame".format(
                    *connection.peer
                ),
            )
        connection.link.close()

    def _cut_the_worst(self) -> None:
        with self._lock:
            known = [(fd, each, each.read) for fd, each in self._connections.items()]
        unread = {fd: connection.received() - read for fd, connection, read in known}
        with self._lock:  # what the transport adds is put high, and must not add up to room for more over the hours
            for fd, connection, _ in known:
                connection.read += min(unread[fd], 0)
        held_back = sum(size for size in unread.values() if size > 0)
        if held_back > self._unread:
            worst = max(unread, key=lambda fd: unread[fd])
            self._cut(worst, TOO_MUCH, f"{held_back} bytes cannot be read yet, {unread[worst]} of them from there")

    def _cut_the_revoked(self) -> None:
        if self._authorised is None or time.monotonic() < self._looked + _KEYS_S:
            return
        self._looked = time.monotonic()
        authorised = self._authorised()
        with self._lock:
            revoked = [fd for fd, each in self._connections.items() if each.key and each.key not in authorised]
        for descriptor in revoked:
            self._cut(descriptor, REVOKED, "its key is not authorised any more")

    def _cut(self, descriptor: int, reason: str, said: str) -> None:
        with self._lock:
            connection = self._connections.pop(descriptor, None)
        if connection is not None:
            self._counters.refuse(reason, "the connection from {}:{} is cut, {}".format(*connection.peer, said))
            connection.cut()


def _accepted(descriptor: int) -> _Connection | None:
    """Return a connection with a handle of its own; None where it has ended."""
    # ZeroMQ tells of a connection a moment later: by now the number may be that of a file, or of another socket. A file
    # must not even be duplicated, since closing any handle of a journal gives up the locks that SQLite has on it.
    with suppress(OSError):
        if sys.platform != "win32" and not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
            return None
        # Not `socket.socket.dup`: that lets ZeroMQ's own socket block for a moment, and with it all of ZeroMQ.
        link = socket.socket(fileno=socket.dup(descriptor))
        with suppress(OSError):
            if link.family in _INTERNET:
                host, port = link.getpeername()[:2]
                return _Connection((str(host), int(port)), link)
        link.close()
    return None
