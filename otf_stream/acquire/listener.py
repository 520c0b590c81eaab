"""The listener's end of the wire: lands each plane in its session's store, and only then acknowledges it.

One thread and one loop: take what has come, up to a bound; check all of it; make it durable in one group, which
costs about as much as a single plane; acknowledge. ZeroMQ's own thread keeps receiving meanwhile. There is no queue and
no state besides the stores on disk, so the listener may be killed at any moment.

Memory is bounded by what it is granted: a round takes at most half of it, and the credit of all senders together
is no more than it.
"""

from __future__ import annotations

import errno
import logging
import multiprocessing
import shutil
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import FrameType, TracebackType
from typing import Self

import zmq

from otf_stream.acquire.protocol import (
    MAX_HEADER_BYTES,
    MAX_MISSING,
    MAX_RUNS,
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
from otf_stream.acquire.sessions import SILENCE, Arrived, OpenSession, Sessions
from otf_stream.acquisition import PlaneIndex

log = logging.getLogger(__name__)

_POLL_MS = 100
_ROUND_MESSAGES = 1_000
_MAX_CREDIT = 1_000
_QUEUE = 8  # messages that ZeroMQ holds ready for each sender; the rest waits in the sender
_OF_ONE_PLANE = {ErrorCode.OUT_OF_RANGE, ErrorCode.BAD_SHAPE, ErrorCode.BAD_CHECKSUM, ErrorCode.CONFLICT}
_DISK_FULL = {errno.ENOSPC, errno.EDQUOT}


class ListenError(RuntimeError):
    """The listener cannot listen at its address."""


@dataclass
class Counters:
    """What came since the listener started; planes, except for ``bytes`` and ``refused`` (messages by code)."""

    received: int = 0
    durable: int = 0
    duplicates: int = 0
    bytes: int = 0
    refused: Counter[str] = field(default_factory=Counter)


class Listener:
    """Receives the planes of any number of senders; use it as a context manager.

    It listens from the moment it is made, and answers while it runs.

    Parameters
    ----------
    data_folder
        Where the session stores go, as ``NAME.ome.zarr``; created if it is missing.
    address
        ``tcp://HOST:PORT``; ``*`` as port takes a free one. Whoever reaches it may write planes, so leave it to
        networks that are trusted.
    memory
        Bytes of planes on the way to disk, at least two planes for each sender.
    disk_reserve
        Planes are held back at their senders while fewer bytes than this are free on the disk.
    max_plane_bytes
        The largest plane to take; the connection of a sender of larger messages is cut.
    max_sessions
        The most sessions at the same time.
    silence
        Seconds after which a session that is not heard of is closed.

    Attributes
    ----------
    address
        Where it listens, with the real port.
    counters
        What came so far.

    Raises
    ------
    ListenError
        If the address cannot be listened at.
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
        max_sessions: int = 256,
        silence: float = 120.0,
    ) -> None:
        self.counters = Counters()
        self._folder = data_folder
        self._memory = memory
        self._disk_reserve = disk_reserve
        self._silence = silence
        data_folder.mkdir(parents=True, exist_ok=True)
        self._sessions = Sessions(data_folder, max_sessions=max_sessions, max_plane_bytes=max_plane_bytes)
        self._context = zmq.Context()
        try:
            self._socket = _bind(self._context, address, max(max_plane_bytes, MAX_HEADER_BYTES))
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
            self._commit()
            self._close_silent()

    def close(self) -> None:
        """Stop listening, once the last answers are out, and close the stores; once more is harmless."""
        self._context.destroy(linger=1000)
        self._sessions.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _receive(self) -> Iterator[tuple[bytes, list[zmq.Frame]]]:
        """Wait a little for messages, and give those that have come: their sender and their frames."""
        taken = 0
        if not self._socket.poll(_POLL_MS):
            return
        for _ in range(_ROUND_MESSAGES):
            try:
                peer, *frames = self._socket.recv_multipart(zmq.NOBLOCK, copy=False)
            except zmq.Again:
                return
            yield peer.bytes, frames
            taken += sum(len(frame) for frame in frames)
            if taken >= self._memory // 2:
                return

    def _handle(self, peer: bytes, frames: list[zmq.Frame]) -> None:
        """Answer one message, or keep its plane for the next group. Nothing that is sent may stop the listener."""
        message: Message | None = None
        try:
            message = decode(frames[0].buffer)
            wanted = 2 if isinstance(message, Plane) else 1
            if len(frames) != wanted:
                raise ProtocolError(
                    ErrorCode.MALFORMED, f"a {message.type} message has {wanted} frames, but {len(frames)} came"
                )
            match message:
                case Plane():
                    self._take(peer, message, frames[1].buffer)
                case Hello():
                    self._greet(peer, message)
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
            log.exception("cannot handle a message")
            self._refuse(peer, _storage_error(error), message)

    def _take(self, peer: bytes, message: Plane, pixels: memoryview) -> None:
        self.counters.received += 1
        session = self._sessions.find(message.session)
        session.received += 1
        session.check(message, pixels)
        durable = session.ledger.crc(message.index)
        waiting = session.group.get(message.index)
        crc = waiting.crc if waiting else durable
        if crc is not None and crc != message.crc:
            raise ProtocolError(
                ErrorCode.CONFLICT,
                f"plane {message.index} came before with other pixels (checksum {crc:#010x}, now {message.crc:#010x}), "
                "which are kept; give every plane its own index",
            )
        if durable is not None:
            self.counters.duplicates += 1
            session.durable.setdefault(peer, []).append(message.index)
        elif not session.takes_planes:
            raise ProtocolError(
                ErrorCode.SESSION_CLOSED,
                f"session {message.session} was closed ({session.closed}) before plane {message.index} came; "
                "use a new session",
            )
        elif waiting:
            self.counters.duplicates += 1
            waiting.peers.add(peer)
        else:
            session.group[message.index] = Arrived(pixels, message.crc, message.taken, {peer})

    def _commit(self) -> None:
        """Make every plane that was taken durable, then acknowledge it."""
        for session in self._sessions.active:
            group, session.group = session.group, {}
            if group:
                self._write(session, group)
            durable, session.durable = session.durable, {}
            for peer, planes in durable.items():
                ack = Ack(session=session.store.session, planes=tuple(planes), credit=self._credit(session))
                self._send(peer, ack)

    def _write(self, session: OpenSession, group: dict[PlaneIndex, Arrived]) -> None:
        size = len(group) * session.acquisition.plane_bytes
        try:
            self._check_space(size)
            session.store.write_planes(
                [(plane, arrived.pixels, arrived.crc) for plane, arrived in group.items()],
                {plane: arrived.taken for plane, arrived in group.items() if arrived.taken is not None},
            )
        except Exception as error:
            session.held = True
            refused = error if isinstance(error, ProtocolError) else _storage_error(error)
            for peer in set().union(*(arrived.peers for arrived in group.values())):
                self._refuse(peer, refused, Ping(session=session.store.session))
            return
        for plane, arrived in group.items():
            session.ledger.record(plane, arrived.crc)
            for peer in arrived.peers:
                session.durable.setdefault(peer, []).append(plane)
        self.counters.durable += len(group)
        self.counters.bytes += size

    def _greet(self, peer: bytes, hello: Hello) -> None:
        # All that the sender sent before is on disk or was refused when it reads the welcome.
        self._commit()
        if known := self._sessions.peek(hello.session):
            known.heard = time.monotonic()
        self._check_space(hello.acquisition.plane_bytes)
        session = self._sessions.greet(hello)
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
        self._commit()
        session = self._sessions.find(end.session)
        if session.held and session.ledger.count < end.planes:
            raise ProtocolError(
                ErrorCode.NO_SPACE,
                f"{session.ledger.count} of {end.planes} planes are on disk, and some were turned away; "
                "greet again and send those that were not acknowledged",
            )
        if session.takes_planes:
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
        self._sessions.release(session)

    def _close_silent(self) -> None:
        for session in self._sessions.silent(self._silence):
            try:
                if session.closed is None:
                    session.close(SILENCE)
                self._sessions.release(session)
            except Exception:
                log.exception("cannot close %s, whose sender is silent", session.store.path.name)
                session.heard = time.monotonic()

    def _refuse(self, peer: bytes, error: ProtocolError, message: Message | None) -> None:
        self.counters.refused[error.code.value] += 1
        name = getattr(message, "session", None)
        plane = message.index if isinstance(message, Plane) and error.code in _OF_ONE_PLANE else None
        if session := self._sessions.peek(name or ""):
            session.note_refused(error, plane)
        else:
            log.warning("refused a message: %s", error)
        self._send(peer, error_message(error, session=name, plane=plane))

    def _check_space(self, size: int) -> None:
        free = shutil.disk_usage(self._folder).free
        if free < self._disk_reserve + size:
            raise ProtocolError(
                ErrorCode.NO_SPACE,
                f"{free / 1e9:.2f} GB are free on the disk of {self._folder}, and {self._disk_reserve / 1e9:.2f} GB "
                "are to stay so; make room, the planes are taken then",
            )

    def _credit(self, session: OpenSession) -> int:
        sharing = max(1, sum(other.greeted and other.closed is None for other in self._sessions.active))
        return min(max(2, self._memory // sharing // session.acquisition.plane_bytes), _MAX_CREDIT)

    def _send(self, peer: bytes, message: Message) -> None:
        # To a sender that has gone, ZeroMQ drops it.
        self._socket.send_multipart([peer, encode(message)], zmq.NOBLOCK)


def run_listener(
    data_folder: Path,
    address: str,
    *,
    ready: Connection | None = None,
    disk_reserve: int = 2 * 10**9,
    silence: float = 120.0,
) -> None:
    """Run a listener as the main function of a process, until SIGTERM, SIGINT or the death of the parent process.

    Parameters
    ----------
    data_folder, address, disk_reserve, silence
        As for `Listener`.
    ready
        Where to send the address, with the real port, once it listens; closed after.

    Raises
    ------
    SystemExit
        With the reason, if it cannot listen.
    """
    stop = threading.Event()

    def end(number: int, frame: FrameType | None) -> None:
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    if parent := multiprocessing.parent_process():
        threading.Thread(target=_stop_after, args=(parent, stop), name="parent", daemon=True).start()
    try:
        listener = Listener(data_folder, address, disk_reserve=disk_reserve, silence=silence)
    except (ListenError, OSError) as error:
        raise SystemExit(str(error)) from error
    with listener:
        if ready is not None:
            ready.send(listener.address)
            ready.close()
        listener.run(stop)


def _stop_after(parent: BaseProcess, stop: threading.Event) -> None:
    """Stop with the parent process: left alone, this one would keep the port from the next service."""
    parent.join()
    stop.set()


def _bind(context: zmq.Context[zmq.Socket[bytes]], address: str, max_message: int) -> zmq.Socket[bytes]:
    router = context.socket(zmq.ROUTER)
    router.setsockopt(zmq.RCVHWM, _QUEUE)
    router.setsockopt(zmq.MAXMSGSIZE, max_message)
    # Connections of senders that vanished go away.
    router.setsockopt(zmq.HEARTBEAT_IVL, 5000)
    router.setsockopt(zmq.HEARTBEAT_TIMEOUT, 20000)
    router.bind(address)
    return router


def _storage_error(error: Exception) -> ProtocolError:
    if isinstance(error, OSError) and error.errno in _DISK_FULL:
        return ProtocolError(ErrorCode.NO_SPACE, f"the disk is full ({error}); make room, the planes are taken then")
    log.error("cannot store: %r", error)
    return ProtocolError(ErrorCode.INTERNAL, f"the listener failed ({error!r}); its log says more, it tries again")
