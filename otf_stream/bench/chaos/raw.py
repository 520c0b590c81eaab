"""Clients without a publisher's manners: they speak ZeroMQ, or only TCP, and send whatever they are told to."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.context import SpawnProcess
from pathlib import Path

import psutil
import zmq

from otf_stream.acquire.keys import Pair
from otf_stream.acquire.protocol import Ack, Error, Hello, Message, Welcome, decode, encode
from otf_stream.acquire.status import ListenerStatus, read_status
from otf_stream.bench.chaos.served import until

_PATIENCE_MS = 120_000
_REFUSED_MS = 500  # a connection that takes nothing for so long will take nothing at all
_PREAMBLE = b"\xff" + bytes(8) + b"\x7f\x03\x00"
NULL_GREETING = _PREAMBLE + b"NULL".ljust(20, b"\0") + bytes(32)
"""What opens a connection of ZeroMQ's own protocol (ZMTP 3.0) without encryption."""


@dataclass
class Answers:
    """What a listener answered.

    Parameters
    ----------
    messages
        All answers.
    """

    messages: list[Message] = field(default_factory=list)

    @property
    def count(self) -> int:
        """How many messages were answered; one `Ack` answers several planes."""
        return sum(len(each.planes) if isinstance(each, Ack) else 1 for each in self.messages)

    @property
    def acknowledged(self) -> int:
        """How many planes were acknowledged."""
        return sum(len(each.planes) for each in self.messages if isinstance(each, Ack))

    @property
    def errors(self) -> list[str]:
        """The codes of all errors."""
        return [str(each.code) for each in self.messages if isinstance(each, Error)]


class Dealer:
    """A connection that takes any frames; use it as a context manager.

    Parameters
    ----------
    address
        Of the listener.
    pair, trusted
        Its own keys and the listener's, for an encrypted connection.
    """

    def __init__(self, address: str, *, pair: Pair | None = None, trusted: str | None = None) -> None:
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.setsockopt(zmq.SNDHWM, 0)
        self._socket.setsockopt(zmq.SNDTIMEO, _REFUSED_MS)
        if pair and trusted:
            self._socket.curve_publickey, self._socket.curve_secretkey = pair.public.encode(), pair.secret.encode()
            self._socket.curve_serverkey = trusted.encode()
        self._socket.connect(address)

    def send(self, *frames: bytes) -> None:
        """Send one message; whether it arrives is not told."""
        with suppress(zmq.Again):  # ZeroMQ has given the connection up: it was refused for good
            self._socket.send_multipart(frames)

    def receive(self, milliseconds: int = _PATIENCE_MS) -> Message | None:
        """Return the next answer; None if there is none for so long."""
        if not self._socket.poll(milliseconds):
            return None
        return decode(self._socket.recv_multipart()[0])

    def exchange(self, messages: Sequence[Sequence[bytes]], last: Hello) -> Answers:
        """Send messages, and return what came back.

        Parameters
        ----------
        messages
            Frames of each.
        last
            Sent after them, of a session that no message belongs to. Whatever a listener has to say to the others it
            says before it welcomes this one, so that what is not answered by then is not answered at all.

        Raises
        ------
        TimeoutError
            If the last one is not welcomed.
        """
        answers = Answers()
        for message in messages:
            self.send(*message)
        self.send(encode(last))
        while (answer := self.receive()) is not None:
            if isinstance(answer, Welcome) and answer.session == last.session:
                return answers
            answers.messages.append(answer)
        raise TimeoutError(f"{answers.count} of {len(messages)} messages were answered, and then nothing came")

    def close(self) -> None:
        """Hang up."""
        self._context.destroy(linger=0)

    def __enter__(self) -> Dealer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def link(address: str) -> socket.socket:
    """Return a TCP connection that has said nothing yet."""
    host, port = address.removeprefix("tcp://").split(":")
    return socket.create_connection((host, int(port)), timeout=30)


@contextmanager
def greeted(address: str) -> Iterator[socket.socket]:
    """Give a TCP connection that has introduced itself as a DEALER."""
    with link(address) as connection:
        connection.sendall(NULL_GREETING)
        named = ((b"Socket-Type", b"DEALER"), (b"Identity", b""))
        ready = b"\x05READY" + b"".join(
            bytes([len(name)]) + name + struct.pack(">I", len(value)) + value for name, value in named
        )
        connection.sendall(b"\x04" + bytes([len(ready)]) + ready)
        while b"READY" not in (said := connection.recv(1000)):
            if not said:
                raise ConnectionError("the listener hung up at once")
        yield connection


def frame(content: bytes, *, more: bool, announced: int | None = None) -> bytes:
    """Return a frame as ZeroMQ sends it, with the length of its content or another one."""
    size = len(content) if announced is None else announced
    return (b"\x03" if more else b"\x02") + struct.pack(">Q", size) + content


def is_cut(connection: socket.socket) -> bool:
    """Whether the other end hung up; waits for that as long as the connection's timeout says."""
    try:
        while connection.recv(1 << 16):
            pass
    except TimeoutError:
        return False
    except OSError:
        pass
    return True


class Watched:
    """A listener's process and what it says of itself.

    Parameters
    ----------
    data
        Its data folder.
    log
        Its log.
    process
        Its process.
    """

    suspect = False
    """Whether something went wrong with it; then its files are kept."""

    def __init__(self, data: Path, log: Path, process: SpawnProcess) -> None:
        self.data, self._log, self._process = data, log, process

    @property
    def resident_mb(self) -> float:
        """Its resident memory."""
        return float(psutil.Process(self._process.pid).memory_info().rss) / 1e6

    def status(self) -> ListenerStatus:
        """Return what it says of itself from now on."""
        now = time.time()
        found: list[ListenerStatus] = []

        def told() -> bool:
            found[:] = [status for status in (read_status(self.data),) if status is not None and status.at > now]
            return bool(found)

        until(told, "the listener tells of itself", seconds=60)
        return found[0]

    def problems(self) -> list[str]:
        """Return what is wrong with it."""
        if not self._process.is_alive():
            return [f"the listener ended with code {self._process.exitcode}"]
        said = [line for line in self._log.read_text("utf-8", "replace").splitlines() if line]
        bad = [line for line in said if line.startswith(("Traceback", "ERROR", "CRITICAL"))]
        return [f"the listener logged: {bad[0]} … {said[-1]}"] if bad else []
