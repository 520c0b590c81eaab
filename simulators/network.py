"""A bad network between publishers and a listener: two proxies on loopback, which do to what passes what they are told.

A `StreamProxy` passes bytes on, as cables and switches do: it cuts connections, in the middle of a frame too, lets
nothing through for a while, delays, and flips bits. A `MessageProxy` passes messages on, and does what no TCP
connection does but what a protocol must stand all the same: it loses, repeats, holds up, reorders, truncates and alters
single messages, in both directions.

Everything that is drawn comes from a seed; at which message it strikes depends on the moment, too. `counts` tells what
was done.
"""

from __future__ import annotations

import heapq
import itertools
import random
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Literal, Self

import zmq

_Send = Callable[[list[bytes]], object]

_LOOK_S = 0.05  # between looks whether to stop
_CHUNK = 1 << 16
_MIDST_S = 0.3  # that a cut waits for something to break off in the middle of
_SWAPPED_S = 0.2  # that a message waits at the most for the one that overtakes it


@dataclass(frozen=True)
class Cut:
    """Some time without a network.

    Parameters
    ----------
    at_s
        When it begins, in seconds after the first bytes passed.
    seconds
        How long it lasts.
    kind
        ``break``: connections are broken off, in the middle of what is on its way, and further ones are refused.
        ``stall``: nothing passes, and all that waited does afterwards. Messages are lost in both.
    """

    at_s: float
    seconds: float
    kind: Literal["break", "stall"] = "break"

    def covers(self, passed: float) -> bool:
        """Whether the network is cut so many seconds after the first bytes."""
        return self.at_s <= passed < self.at_s + self.seconds


@dataclass(frozen=True)
class StreamFaults:
    """What a `StreamProxy` does.

    Parameters
    ----------
    cuts
        When nothing passes.
    delay_s
        The most that each portion of bytes is held up.
    flips, flips_back
        Which share of the bytes is altered, one bit of each: of those towards the target, and of those that come back,
        which are far fewer where planes are sent.
    """

    cuts: tuple[Cut, ...] = ()
    delay_s: float = 0.0
    flips: float = 0.0
    flips_back: float = 0.0


@dataclass(frozen=True)
class MessageFaults:
    """What a `MessageProxy` does to messages; probabilities are of each of them.

    Parameters
    ----------
    cuts
        When all messages are lost.
    drop, duplicate, reorder, truncate
        Probability to be lost, to come twice, to come after the next one, and to lose the end of one of its frames.
    delay, delay_s
        Probability to be held up, and how long at the most.
    flip_header, flip_pixels
        Probability that a bit of the header, or of the pixels, is flipped.
    """

    cuts: tuple[Cut, ...] = ()
    drop: float = 0.0
    duplicate: float = 0.0
    reorder: float = 0.0
    truncate: float = 0.0
    delay: float = 0.0
    delay_s: float = 0.0
    flip_header: float = 0.0
    flip_pixels: float = 0.0


def flipped(data: bytes, positions: Sequence[int], dice: random.Random) -> bytes:
    """Return ``data`` with one bit flipped at each of the positions."""
    altered = bytearray(data)
    for position in positions:
        altered[position] ^= 1 << dice.randrange(8)
    return bytes(altered)


class _Proxy:
    """What both proxies are: a thread that passes on, a clock that starts with the first bytes, and counts."""

    def __init__(self, cuts: Sequence[Cut]) -> None:
        self.counts: Counter[str] = Counter()
        self.begun = threading.Event()
        """Set once the first bytes have passed, from which cuts are counted."""
        self._cuts = cuts
        self._begun: float | None = None
        self._stop = threading.Event()
        self._counting = threading.Lock()
        self._cut_before: Cut | None = None

    def _count(self, what: str, by: int = 1) -> None:
        with self._counting:
            self.counts[what] += by

    def _start_clock(self) -> None:
        if self._begun is None:
            self._begun = time.monotonic()
            self.begun.set()

    def _cut(self) -> Cut | None:
        """Return the cut that there is now."""
        if self._begun is None:
            return None
        passed = time.monotonic() - self._begun
        cut = next((cut for cut in self._cuts if cut.covers(passed)), None)
        with self._counting:
            if cut is not None and cut is not self._cut_before:
                self.counts["cut"] += 1
            self._cut_before = cut
        return cut

    def _age(self, cut: Cut) -> float:
        """Seconds since a cut began."""
        return time.monotonic() - (self._begun or 0.0) - cut.at_s


class StreamProxy(_Proxy):
    """A TCP proxy; use it as a context manager.

    Parameters
    ----------
    target
        Where it passes connections on to, ``tcp://HOST:PORT``.
    faults
        What it does.
    seed
        Of all that is drawn.

    Attributes
    ----------
    address
        Where it is reached.
    counts
        What it did: ``connected``, ``cut``, ``refused``, ``truncated``, ``delayed``, ``flipped``.
    """

    def __init__(self, target: str, faults: StreamFaults, *, seed: int = 0) -> None:
        super().__init__(faults.cuts)
        host, _, port = target.removeprefix("tcp://").rpartition(":")
        self._target = (host, int(port))
        self._faults = faults
        self._seed = seed
        self._server = socket.create_server(("127.0.0.1", 0))
        self._server.settimeout(_LOOK_S)
        self.address = f"tcp://127.0.0.1:{self._server.getsockname()[1]}"
        self._threads = [threading.Thread(target=self._accept, name="proxy", daemon=True)]
        self._threads[0].start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        for thread in self._threads:  # the first of them starts the others
            thread.join()
        self._server.close()

    def _accept(self) -> None:
        for number in itertools.count():
            near = self._next_connection()
            if near is None:
                return
            if (cut := self._cut()) and cut.kind == "break":
                self._count("refused")
                _break_off(near)
                continue
            try:
                far = socket.create_connection(self._target, timeout=5)
            except OSError:  # nobody listens there
                _break_off(near)
                continue
            self._count("connected")
            self._threads.append(threading.Thread(target=self._pass_on, args=(near, far, number), daemon=True))
            self._threads[-1].start()

    def _next_connection(self) -> socket.socket | None:
        while not self._stop.is_set():
            with suppress(TimeoutError):
                return self._server.accept()[0]
        return None

    def _pass_on(self, near: socket.socket, far: socket.socket, number: int) -> None:
        """Pass bytes on in both directions until one end has gone."""
        over = threading.Event()
        ways = (("out", near, far, self._faults.flips), ("back", far, near, self._faults.flips_back))
        directions = [
            threading.Thread(
                target=self._pump, args=(source, sink, _Flipping(flips, self._dice(number, way)), over), daemon=True
            )
            for way, source, sink, flips in ways
        ]
        for direction in directions:
            direction.start()
        for direction in directions:
            direction.join()
        _break_off(near)
        _break_off(far)

    def _dice(self, connection: int, way: str) -> random.Random:
        return random.Random(f"{self._seed} {connection} {way}")  # noqa: S311 - no secret

    def _pump(self, source: socket.socket, sink: socket.socket, flipping: _Flipping, over: threading.Event) -> None:
        source.settimeout(_LOOK_S)
        dice = flipping.dice
        try:
            while not (over.is_set() or self._stop.is_set()):
                try:
                    data = source.recv(_CHUNK)
                except TimeoutError:
                    data = None
                if data == b"":
                    return
                if data:
                    self._start_clock()
                    data, altered = flipping.of(data)
                    self._count("flipped", altered)
                    if self._faults.delay_s:
                        self._count("delayed")
                        self._stop.wait(dice.uniform(0, self._faults.delay_s))
                while (cut := self._cut()) and cut.kind == "stall":
                    if over.is_set() or self._stop.wait(_LOOK_S):
                        return
                if cut:
                    if not data and self._age(cut) < _MIDST_S:
                        continue
                    if data:
                        self._count("truncated")
                        sink.sendall(data[: dice.randrange(len(data))])
                    return
                if data:
                    sink.sendall(data)
        except OSError:
            return  # one end has gone
        finally:
            over.set()


class _Flipping:
    """Flips bits of a stream of bytes, the same ones however the stream is portioned."""

    def __init__(self, share: float, dice: random.Random) -> None:
        self.dice = dice
        self._share = share
        self._places = random.Random(dice.random())  # noqa: S311 - no secret
        self._gap = self._drawn_gap()

    def of(self, data: bytes) -> tuple[bytes, int]:
        """Return the next portion of the stream, and how many bits of it were flipped."""
        positions: list[int] = []
        while self._gap < len(data):
            positions.append(self._gap)
            self._gap += 1 + self._drawn_gap()
        self._gap -= len(data)
        return flipped(data, positions, self._places), len(positions)

    def _drawn_gap(self) -> int:
        """Draw how many bytes pass before the next one that is altered."""
        return int(self._places.expovariate(self._share)) if self._share else 1 << 62


def _break_off(connection: socket.socket) -> None:
    """Close a connection as a crash does: the other end is told by a reset, and what is in buffers is lost."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


class _Message:
    """A message on its way; it goes once, whoever says so first."""

    def __init__(self, frames: list[bytes], send: _Send) -> None:
        self._frames = frames
        self._send: _Send | None = send

    def go(self) -> None:
        send, self._send = self._send, None
        if send is not None:
            send(self._frames)


class MessageProxy(_Proxy):
    """A proxy for the messages of the wire protocol; use it as a context manager.

    The listener sees each publisher as a peer of its own.

    Parameters
    ----------
    target
        Where it passes messages on to, ``tcp://HOST:PORT``.
    faults
        What it does, in both directions.
    seed
        Of all that is drawn.

    Attributes
    ----------
    address
        Where it is reached.
    counts
        What it did: ``seen``, ``cut``, ``lost in a cut``, ``dropped``, ``duplicated``, ``reordered``, ``truncated``,
        ``delayed``, ``header flipped``, ``pixels flipped``.
    """

    def __init__(self, target: str, faults: MessageFaults, *, seed: int = 0) -> None:
        super().__init__(faults.cuts)
        self._target = target
        self._faults = faults
        self._dice = random.Random(seed)  # noqa: S311 - no secret
        self._held: list[tuple[float, int, _Message]] = []
        self._numbers = itertools.count()
        self._swapped: dict[tuple[bytes, str], _Message] = {}
        self._context = zmq.Context()
        self._front = self._context.socket(zmq.ROUTER)
        self._front.bind("tcp://127.0.0.1:*")
        self.address = self._front.getsockopt_string(zmq.LAST_ENDPOINT)
        self._thread = threading.Thread(target=self._run, name="proxy", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        backs: dict[bytes, zmq.Socket[bytes]] = {}
        poller = zmq.Poller()
        poller.register(self._front, zmq.POLLIN)
        try:
            while not self._stop.is_set():
                ready = dict(poller.poll(int(1000 * min(_LOOK_S, self._due_in()))))
                if self._front in ready:
                    peer, *frames = self._front.recv_multipart()
                    if peer not in backs:
                        backs[peer] = self._connected()
                        poller.register(backs[peer], zmq.POLLIN)
                    self._pass_on((peer, "out"), frames, backs[peer].send_multipart)
                for peer, back in backs.items():
                    if back in ready:
                        self._pass_on((peer, "back"), back.recv_multipart(), self._answer(peer))
                while self._held and self._due_in() == 0:
                    heapq.heappop(self._held)[-1].go()
        finally:
            self._context.destroy(linger=0)

    def _due_in(self) -> float:
        """Seconds until a message that is held up goes on its way."""
        return max(self._held[0][0] - time.monotonic(), 0.0) if self._held else float("inf")

    def _connected(self) -> zmq.Socket[bytes]:
        back = self._context.socket(zmq.DEALER)
        back.connect(self._target)
        return back

    def _answer(self, peer: bytes) -> _Send:
        return lambda frames: self._front.send_multipart([peer, *frames])

    def _pass_on(self, way: tuple[bytes, str], frames: list[bytes], send: _Send) -> None:
        """Do to a message what chance wants, and send it, its copies, or nothing, now or later."""
        self._start_clock()
        self._count("seen")
        overtaken = self._swapped.pop(way, None)
        if self._cut():
            self._count("lost in a cut")
        elif not self._happens(self._faults.drop, "dropped"):
            for _ in range(2 if self._happens(self._faults.duplicate, "duplicated") else 1):
                self._send_or_hold(way, _Message(self._altered(frames), send))
        if overtaken:
            overtaken.go()

    def _send_or_hold(self, way: tuple[bytes, str], message: _Message) -> None:
        if self._happens(self._faults.reorder, "reordered"):
            self._swapped[way] = message
            self._hold(message, _SWAPPED_S)
        elif self._happens(self._faults.delay, "delayed"):
            self._hold(message, self._dice.uniform(0, self._faults.delay_s))
        else:
            message.go()

    def _hold(self, message: _Message, seconds: float) -> None:
        heapq.heappush(self._held, (time.monotonic() + seconds, next(self._numbers), message))

    def _altered(self, frames: list[bytes]) -> list[bytes]:
        faults, dice = self._faults, self._dice
        header, *rest = frames
        if header and self._happens(faults.flip_header, "header flipped"):
            header = flipped(header, [dice.randrange(len(header))], dice)
        if rest and rest[0] and self._happens(faults.flip_pixels, "pixels flipped"):
            rest = [flipped(rest[0], [dice.randrange(len(rest[0]))], dice), *rest[1:]]
        altered = [header, *rest]
        if self._happens(faults.truncate, "truncated"):
            which = dice.randrange(len(altered))
            altered[which] = altered[which][: dice.randrange(max(len(altered[which]), 1))]
        return altered

    def _happens(self, probability: float, what: str) -> bool:
        happens = self._dice.random() < probability
        if happens:
            self._count(what)
        return happens
