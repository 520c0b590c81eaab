"""The listener's end of the wire: lands each plane in its session's store, and only then acknowledges it.

One thread and one loop: take what has come, hand planes over to be landed, acknowledge those that have. ZeroMQ's own
thread keeps receiving meanwhile, and the threads of `Landing` write. There is no state besides the stores on disk, so
the listener may be killed at any moment.

Memory is bounded by what it is granted: what is being landed takes at most half of it, and the credit of all senders
together is no more than it.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import zmq

from otf_stream.acquire.connections import Connections
from otf_stream.acquire.counters import Counters
from otf_stream.acquire.door import Door
from otf_stream.acquire.inspection import Inspection
from otf_stream.acquire.keys import KeyFolder, KeysError
from otf_stream.acquire.landing import Landing
from otf_stream.acquire.open_session import SILENCE, OpenSession
from otf_stream.acquire.protocol import (
    MAX_HEADER_BYTES,
    MAX_ITEMS,
    MAX_MISSING,
    MAX_RUNS,
    NOBODY,
    Ack,
    End,
    Ended,
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
    error_message,
)
from otf_stream.acquire.room import Room, storage_error
from otf_stream.acquire.sessions import Sessions
from otf_stream.acquire.status import MOST, ListenerStatus, OpenStatus, write_status
from otf_stream.acquisition import MAX_PLANES, PlaneIndex
from otf_stream.config import Sync
from otf_stream.heap import release_memory
from otf_stream.store.session import StoreGoneError

log = logging.getLogger(__name__)

_POLL_MS = 100
_ROUND_MESSAGES = 1_000
_MAX_CREDIT = 1_000
# Messages that ZeroMQ holds ready for each sender: more than one that keeps to its credit can have under way, so that
# ZeroMQ reads on whatever the disk does. Where it has to stop, and the sender goes, libzmq 4.3.5 ends this process at
# the next heartbeat that is due or lies unread (stream_engine_base.cpp: `!_io_error`). So ZeroMQ's are not used here.
_QUEUE = 4 * _MAX_CREDIT
_STATUS_S = 1.0  # between two accounts of itself
_HANDSHAKE_MS = 10_000  # a connection that has not said by then what it is goes away
_VANISHED_S = 20  # after which a connection goes away whose other end the system cannot reach
_OF_ONE_PLANE = {ErrorCode.OUT_OF_RANGE, ErrorCode.BAD_SHAPE, ErrorCode.BAD_CHECKSUM, ErrorCode.CONFLICT}


class ListenError(RuntimeError):
    """The listener cannot listen at its address."""


class Listener:
    """Receives the planes of any number of senders; use it as a context manager.

    It listens from the moment it is made, and answers while it runs.

    Parameters
    ----------
    data_folder
        Where the session stores go, as ``NAME.ome.zarr``; created if it is missing.
    address
        ``tcp://HOST:PORT``; ``*`` as port takes a free one.
    memory
        Bytes of planes on the way to disk, at least two planes for each sender.
    disk_reserve
        Planes are held back at their senders while fewer bytes than this are free on the disk.
    max_plane_bytes
        The largest plane to take; the connection of a sender of larger messages is cut.
    max_planes
        The most planes of a session.
    max_sessions
        The most sessions at the same time.
    max_connections
        The most connections at the same time.
    silence
        Seconds after which a session that is not heard of is closed.
    sync, sync_interval
        When planes are made safe from power cuts, as `otf_stream.config.ServiceConfig` says.
    keys
        The pair of this machine, and who may connect. Where not given, there is no encryption, and whoever reaches the
        address may write planes.

    Attributes
    ----------
    address
        Where it listens, with the real port.
    counters
        What came so far.

    Raises
    ------
    ListenError
        If the address cannot be listened at, or this machine has no pair of keys.
    OSError
        If the data folder cannot be created.
    """

    def __init__(
        self,
        data_folder: Path,
        address: str = "tcp://127.0.0.1:8421",
        *,
        memory: int = 128 << 20,
        disk_reserve: int = 2 * 10**9,
        max_plane_bytes: int = 256 << 20,
        max_planes: int = MAX_PLANES,
        max_sessions: int = 256,
        max_connections: int = 512,
        silence: float = 120.0,
        sync: Sync = "group",
        sync_interval: float = 1.0,
        keys: KeyFolder | None = None,
    ) -> None:
        self.counters = Counters()
        self._told = float("-inf")
        self._has_freed = False
        self._memory = memory
        self._room = Room(data_folder, disk_reserve)
        self._silence = silence
        data_folder.mkdir(parents=True, exist_ok=True)
        self._sessions = Sessions(
            data_folder,
            max_sessions=max_sessions,
            max_plane_bytes=max_plane_bytes,
            max_planes=max_planes,
            deferred=sync == "interval",
        )
        self._inspection = Inspection(self._sessions.unfinished)
        self._landing = Landing(memory // 2, sync=sync, interval=sync_interval)
        self._context = zmq.Context()
        self._socket = _router(self._context, max(max_plane_bytes, MAX_HEADER_BYTES))
        self._connections = Connections(
            self._socket,
            most=max_connections,
            # Credit lets all senders together have the memory, or two planes each, under way.
            unread=memory + 2 * max_plane_bytes,
            counters=self.counters,
            authorised=None if keys is None else lambda: keys.authorised().values(),
        )
        self._door: Door | None = None
        try:
            if keys is not None:
                self._door = Door(self._socket, keys, self.counters)
            self._socket.bind(address)
        except KeysError as error:
            self.close()
            raise ListenError(str(error)) from error
        except zmq.ZMQError as error:
            self.close()
            raise ListenError(
                f"cannot listen at {address} ({error}); give tcp://HOST:PORT with an address of this machine "
                "and a port that is free"
            ) from error
        self.address = self._socket.getsockopt_string(zmq.LAST_ENDPOINT)

    def run(self, stop: threading.Event) -> None:
        """Receive planes until ``stop`` is set."""
        while not stop.is_set():
            for peer, frames in self._receive():
                self._handle(peer, frames)
                self._acknowledge()
            self._acknowledge()
            self._close_silent()
            self._take_out_damaged()
            if time.monotonic() >= self._told + _STATUS_S:
                self._told = time.monotonic()
                self._tell_status()
                self._give_memory_back()

    def close(self) -> None:
        """Stop listening, once planes have landed and the last answers are out; once more is harmless."""
        self._inspection.close()
        self._settle()
        self._landing.close()
        self._connections.close()
        if self._door is not None:
            self._door.close()
        self._context.destroy(linger=1000)
        self._sessions.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _receive(self) -> Iterator[tuple[bytes, list[zmq.Frame]]]:
        """Wait a little for messages, or planes that land, and give the messages: their sender and their frames."""
        poller = zmq.Poller()
        poller.register(self._landing.ear, zmq.POLLIN)
        if not self._landing.full:
            poller.register(self._socket, zmq.POLLIN)
        poller.poll(_POLL_MS)
        for _ in range(_ROUND_MESSAGES):
            if self._landing.full:
                return
            try:
                peer, *frames = self._socket.recv_multipart(zmq.NOBLOCK, copy=False)
            except zmq.Again:
                return
            self._connections.read(frames)
            yield peer.bytes, frames

    def _handle(self, peer: bytes, frames: list[zmq.Frame]) -> None:
        """Answer one message, or keep its plane for the next group. Nothing that is sent may stop the listener."""
        message: Message | None = None
        try:
            message = _decoded(frames)
            match message:
                case Plane():
                    self._take(peer, message, frames[1].buffer)
                case Hello():
                    self._greet(peer, message)
                case Ping() if message.session == NOBODY:
                    unknown = ProtocolError(ErrorCode.UNKNOWN_SESSION, "no session has this name; the listener is here")
                    self._send(peer, error_message(unknown, session=message.session, plane=None))
                case Ping():
                    session = self._sessions.find(message.session)
                    self._send(peer, Pong(session=message.session, credit=self._credit(session)))
                case End():
                    self._end(peer, message)
                case _:
                    raise ProtocolError(
                        ErrorCode.MALFORMED, f"a listener sends {message.type} messages and takes none; send hello"
                    )
        except ProtocolError as error:
            self._refuse(peer, error, message)
        except Exception as error:
            refusal = storage_error(error)
            if refusal.code is ErrorCode.INTERNAL:  # a full disk is no fault of this program
                log.exception("cannot handle a message")
            self._refuse(peer, refusal, message)

    def _take(self, peer: bytes, message: Plane, pixels: memoryview) -> None:
        self.counters.received += 1
        session = self._sessions.find(message.session)
        session.received += 1
        if self._landing.holds(message.session, message.index):
            self._settle()  # It came twice; whether it is the same is known when the first one has landed.
        if session.is_durable(message, pixels):
            self.counters.duplicates += 1
            session.duplicates += 1
            self._send_ack(peer, session, [message.index])
            return
        try:
            self._room.check(self._landing.held_bytes + pixels.nbytes)
        except ProtocolError as error:
            self._turn_away(peer, session, error)
        else:
            self._landing.put(session.store, message, pixels, peer)

    def _settle(self) -> None:
        """Wait until every plane that came is on disk or refused, and tell the senders."""
        self._landing.settle()
        self._acknowledge()

    def _acknowledge(self) -> None:
        """Tell the senders of the planes that have landed."""
        durable: dict[tuple[str, bytes], list[PlaneIndex]] = {}
        for landed in self._landing.landed():
            message, peer = landed.message, landed.peer
            session = self._sessions.peek(message.session)
            if session is None:  # Nobody is left to tell.
                continue
            match landed.error:
                case None:
                    session.ledger.record(message.index, message.crc)
                    durable.setdefault((message.session, peer), []).append(message.index)
                    self.counters.durable += 1
                    self.counters.bytes += session.acquisition.plane_bytes
                case ProtocolError() as error:
                    self._refuse(peer, error, message)
                case StoreGoneError() as error:
                    self._release(session)  # its sender greets anew, and gets a new store
                    self._refuse(peer, ProtocolError(ErrorCode.UNKNOWN_SESSION, str(error)), message)
                case error:
                    self._turn_away(peer, session, storage_error(error))
        for (name, peer), planes in durable.items():
            if session := self._sessions.peek(name):
                self._send_ack(peer, session, planes)

    def _send_ack(self, peer: bytes, session: OpenSession, planes: list[PlaneIndex]) -> None:
        for first in range(0, len(planes), MAX_ITEMS):
            some = tuple(planes[first : first + MAX_ITEMS])
            self._send(peer, Ack(session=session.store.session, planes=some, credit=self._credit(session)))

    def _turn_away(self, peer: bytes, session: OpenSession, error: ProtocolError) -> None:
        """Refuse a plane because of the disk; a sender is told once until it greets again, as it then will."""
        session.held = True
        if peer not in session.told:
            session.told.add(peer)
            self._refuse(peer, error, Ping(session=session.store.session))

    def _greet(self, peer: bytes, hello: Hello) -> None:
        # All that the sender sent before is on disk or was refused when it reads the welcome.
        self._settle()
        if known := self._sessions.peek(hello.session):
            known.heard = time.monotonic()
        self._sessions.check(hello.acquisition)  # before the room: no disk will ever have room for what is too large
        self._room.check(hello.acquisition.plane_bytes)
        session = self._sessions.greet(hello)
        session.told.discard(peer)
        self._send(
            peer,
            Welcome(
                session=hello.session,
                store=session.store.path.name,
                credit=self._credit(session),
                durable=tuple(session.ledger.runs(MAX_RUNS)),
            ),
        )

    def _end(self, peer: bytes, end: End) -> None:
        self._settle()
        session = self._sessions.find(end.session)
        if session.held and session.ledger.count < end.planes:
            raise ProtocolError(
                ErrorCode.NO_SPACE,
                f"{session.ledger.count} of {end.planes} planes are on disk, and some were turned away; "
                "greet again and send those that were not acknowledged",
            )
        if session.takes_planes:
            session.store.flush()
            session.close(end.reason, published=end.planes)
        self._send(
            peer,
            Ended(
                session=end.session,
                durable=session.ledger.count,
                missing_count=session.ledger.missing_count,
                missing=tuple(session.ledger.missing(MAX_MISSING)),
            ),
        )
        self._release(session)

    def _close_silent(self) -> None:
        for session in self._sessions.silent(self._silence):
            try:
                self._settle()
                if session.closed is None:
                    session.close(SILENCE)
                self._release(session)
            except Exception:
                log.exception("cannot close %s, whose sender is silent", session.store.path.name)
                session.heard = time.monotonic()

    def _release(self, session: OpenSession) -> None:
        self._sessions.release(session)
        self._has_freed = True

    def _take_out_damaged(self) -> None:
        for inspected in self._inspection.found():
            if inspected.damaged:
                try:
                    self._sessions.lose(inspected.session, inspected.damaged)
                except Exception:
                    log.exception("cannot take damaged planes out of session %s now", inspected.session)
                    self._inspection.again(inspected)

    def _give_memory_back(self) -> None:
        """Give back what sessions that are over have left, unless planes are on their way, which may take it again."""
        if self._has_freed and not self._landing.held_bytes:
            self._has_freed = False
            release_memory()

    def _tell_status(self) -> None:
        sessions = self._sessions.active
        with suppress(OSError):  # a disk without room for this, or that is gone, has none for planes either
            free = self._room.free
            status = ListenerStatus(
                at=time.time(),
                address=self.address,
                connections=len(self._connections),
                sessions=len(sessions),
                disk_free=free,
                disk_reserve=self._room.reserve,
                holding=free < self._room.reserve or any(session.held for session in sessions),
                counters=self.counters.as_dict(),
                pid=os.getpid(),
                queue_bytes=self._landing.held_bytes,
                open=_told_of(sessions),
            )
            write_status(self._room.folder, status)

    def _refuse(self, peer: bytes, error: ProtocolError, message: Message | None) -> None:
        self.counters.refuse(error.code.value, error.message)
        name = getattr(message, "session", None)
        plane = message.index if isinstance(message, Plane) and error.code in _OF_ONE_PLANE else None
        if session := self._sessions.peek(name or ""):
            session.note_refused(error, plane)
        self._send(peer, error_message(error, session=name, plane=plane))

    def _credit(self, session: OpenSession) -> int:
        sharing = max(1, sum(other.greeted and other.closed is None for other in self._sessions.active))
        return min(max(2, self._memory // sharing // session.acquisition.plane_bytes), _MAX_CREDIT)

    def _send(self, peer: bytes, message: Message) -> None:
        # To a sender that has gone, ZeroMQ drops it.
        self._socket.send_multipart([peer, encode(message)], zmq.NOBLOCK)


def _decoded(frames: Sequence[zmq.Frame]) -> Message:
    """Return the message in ``frames``, which has as many of them as it should.

    Raises
    ------
    ProtocolError
        As `decode`; ``garbled`` if there are too few or too many frames.
    """
    message = decode(frames[0].buffer if frames else b"")
    wanted = 2 if isinstance(message, Plane) else 1
    if len(frames) != wanted:
        raise ProtocolError(
            ErrorCode.GARBLED,
            f"a {message.type} message has {wanted} frames, but {len(frames)} came; greet again and send what was not "
            "acknowledged",
        )
    return message


def _told_of(sessions: Sequence[OpenSession]) -> dict[str, OpenStatus]:
    """Tell what is not in the journals, of those sessions that were heard of last."""
    now = time.monotonic()
    latest = sorted(sessions, key=lambda session: session.heard, reverse=True)[:MOST]
    return {
        session.store.session: OpenStatus(session.received, session.duplicates, round(now - session.heard, 1))
        for session in latest
    }


def _router(context: zmq.Context[zmq.Socket[bytes]], max_message: int) -> zmq.Socket[bytes]:
    router = context.socket(zmq.ROUTER)
    router.setsockopt(zmq.RCVHWM, _QUEUE)
    router.setsockopt(zmq.MAXMSGSIZE, max_message)
    router.setsockopt(zmq.HANDSHAKE_IVL, _HANDSHAKE_MS)
    # The system finds out that a sender has vanished: by asking, and by answers to it that are not received.
    router.setsockopt(zmq.TCP_KEEPALIVE, 1)
    router.setsockopt(zmq.TCP_KEEPALIVE_IDLE, _VANISHED_S // 2)
    router.setsockopt(zmq.TCP_KEEPALIVE_INTVL, _VANISHED_S // 4)
    router.setsockopt(zmq.TCP_KEEPALIVE_CNT, 2)
    router.setsockopt(zmq.TCP_MAXRT, _VANISHED_S * 1000)
    return router
