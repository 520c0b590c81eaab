"""What intruders do, each a function that attacks a running listener and returns what it should not have been able to do.

None of them raises the load to where nobody could stand it: what is tried is whether a rule can be got round, and
whether others have to wait while somebody tries.
"""

from __future__ import annotations

import os
import pickle
import random
import socket
import threading
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

import msgpack
import numpy as np
import zmq

from otf_stream.acquire.connections import NO_HANDSHAKE, TOO_MANY, TOO_MUCH
from otf_stream.acquire.door import UNAUTHORISED
from otf_stream.acquire.keys import KeyFolder, Pair
from otf_stream.acquire.protocol import MAX_ITEMS, VERSION, End, Ended, Hello, Plane, Welcome, encode
from otf_stream.acquisition import Acquisition
from otf_stream.bench.chaos.checks import stores_of
from otf_stream.bench.chaos.oddities import header, sealed
from otf_stream.bench.chaos.raw import NULL_GREETING, Answers, Dealer, frame, greeted, is_cut, link
from otf_stream.bench.chaos.sample import Sample

Messages = list[tuple[bytes, ...]]

CROWD = 100
_LARGEST_PLANE = 1 << 20
_MEMORY = 8 << 20
_SESSIONS, _CONNECTIONS = 16, 20
_PAUSE_S = 0.5
_PATIENCE_S = 12.0  # the listener cuts a connection without a handshake after 10


@dataclass
class Scene:
    """Where an attack takes place.

    Parameters
    ----------
    address
        Of the listener.
    data
        Its data folder.
    outside
        The folder around it, where nothing may appear.
    dice
        For whatever is drawn.
    here, microscope
        The listener's keys, and those of a microscope that it lets in; None where it asks for none.
    briefly
        Do less of what takes time.
    may_leave
        Sessions of the attack that are good ones by all rules, and so have stores.
    """

    address: str
    data: Path
    outside: Path
    dice: random.Random
    here: KeyFolder | None
    microscope: KeyFolder | None
    briefly: bool = False
    may_leave: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.last = self.sample("last")  # greets after each exchange
        self.may_leave.add(self.last.session)

    @property
    def seconds(self) -> float:
        """How long an attack lasts that does the same again and again."""
        return 0.5 if self.briefly else 2.0

    def session(self) -> str:
        """Draw the id of a session."""
        return UUID(int=self.dice.getrandbits(128)).hex

    def sample(self, name: str, planes: int = 6) -> Sample:
        """Draw a small stack."""
        return Sample(name, self.session(), self.dice.getrandbits(32), planes, 32)

    def exchange(self, messages: Sequence[tuple[bytes, ...]]) -> Answers:
        """Send messages as somebody who is let in, and return what came back."""
        with Dealer(self.address) as dealer:
            return dealer.exchange(messages, Hello(session=self.last.session, acquisition=self.last.acquisition))


@dataclass(frozen=True)
class Attack:
    """An attack.

    Parameters
    ----------
    do
        Does it, and returns problems.
    counted
        As what the listener counts it, at least once each.
    secured
        Whether the listener asks for keys.
    settings
        Of the listener.
    """

    do: Callable[[Scene], list[str]]
    counted: tuple[str, ...] = ()
    secured: bool = False
    settings: Mapping[str, Any] = field(default_factory=dict)


def _hello(session: str, acquisition: Acquisition) -> tuple[bytes, ...]:
    return (encode(Hello(session=session, acquisition=acquisition)),)


def _plane(session: str, z: int, pixels: bytes, t: int = 0) -> tuple[bytes, ...]:
    return encode(Plane(session=session, t=t, c=0, z=z, crc=zlib.crc32(pixels))), pixels


def _end(session: str, planes: int) -> tuple[bytes, ...]:
    return (encode(End(session=session, reason="finished", planes=planes)),)


def _whole(sample: Sample, stop: int) -> Messages:
    """Return a session of the first planes of a sample."""
    planes = [_plane(sample.session, z, plane.tobytes()) for z, plane in enumerate(sample.stack()[:stop])]
    return [_hello(sample.session, sample.acquisition), *planes, _end(sample.session, stop)]


def _knock(scene: Scene, pair: Pair | None, trusted: str | None) -> list[str]:
    """Connect again and again with some keys, and send a whole session each time."""
    ended = time.monotonic() + scene.seconds
    messages = _whole(scene.sample("knocking"), 6)
    while time.monotonic() < ended:
        with Dealer(scene.address, pair=pair, trusted=trusted) as dealer:
            for message in messages:
                dealer.send(*message)
            if (answer := dealer.receive(100)) is not None:
                return [f"somebody without the right keys was answered: {answer.type}"]
    return []


def _drawn_pair() -> Pair:
    public, secret = zmq.curve_keypair()
    return Pair(public.decode(), secret.decode())


def _listener_key(scene: Scene) -> str:
    return scene.here.own().public if scene.here else ""


def _no_key(scene: Scene) -> list[str]:
    return _knock(scene, None, None)


def _wrong_key(scene: Scene) -> list[str]:
    return _knock(scene, _drawn_pair(), _listener_key(scene))


def _other_listener(scene: Scene) -> list[str]:
    return _knock(scene, scene.microscope.own() if scene.microscope else None, _drawn_pair().public)


def _revoked_key(scene: Scene) -> list[str]:
    """Come in with a key that is revoked then, and come back."""
    if scene.here is None:
        return ["the listener has no keys"]
    pair, sample = _drawn_pair(), scene.sample("before")
    scene.here.authorise("old", pair.public)
    scene.may_leave.add(sample.session)
    with Dealer(scene.address, pair=pair, trusted=_listener_key(scene)) as dealer:
        dealer.send(*_hello(sample.session, sample.acquisition))
        if not isinstance(answer := dealer.receive(), Welcome):
            return [f"an authorised key was answered {answer!r}"]
    scene.here.revoke("old")
    return _knock(scene, pair, _listener_key(scene))


def _recorded(scene: Scene) -> list[str]:
    """Send once more, byte for byte, what an authorised microscope sent over its encrypted connection."""
    sample = scene.sample("recorded")
    scene.may_leave.add(sample.session)
    with _Recorder(scene.address) as recorder:
        pair = scene.microscope.own() if scene.microscope else None
        with Dealer(recorder.address, pair=pair, trusted=_listener_key(scene)) as dealer:
            dealer.exchange(_whole(sample, 6)[:-1], Hello(session=sample.session, acquisition=sample.acquisition))
    ended, found = time.monotonic() + scene.seconds, []
    while time.monotonic() < ended:
        with link(scene.address) as connection:
            with suppress(OSError):
                connection.sendall(bytes(recorder.heard))
            if not is_cut(connection):
                found.append("a recorded connection was not cut")
    return found


class _Recorder:
    """Stands between one sender and the listener, and writes down what the sender says."""

    def __init__(self, address: str) -> None:
        self.heard = bytearray()
        self._server = socket.create_server(("127.0.0.1", 0))
        self.address = f"tcp://127.0.0.1:{self._server.getsockname()[1]}"
        self._to = link(address)
        self._threads = [threading.Thread(target=self._pass_on, daemon=True)]
        self._threads[0].start()

    def _pass_on(self) -> None:
        sender, _ = self._server.accept()
        back = threading.Thread(target=self._copy, args=(self._to, sender, None), daemon=True)
        back.start()
        self._copy(sender, self._to, self.heard)
        back.join()
        sender.close()

    def _copy(self, source: socket.socket, target: socket.socket, heard: bytearray | None) -> None:
        with suppress(OSError):
            while said := source.recv(1 << 16):
                if heard is not None:
                    heard += said
                target.sendall(said)
            target.shutdown(socket.SHUT_RDWR)

    def __enter__(self) -> _Recorder:
        return self

    def __exit__(self, *_: object) -> None:
        self._threads[0].join()
        self._to.close()
        self._server.close()


def _replay(scene: Scene) -> list[str]:
    """Send an old session again, as it was, with other pixels, with further planes and as another acquisition."""
    sample, stop = scene.sample("old", 8), 6
    scene.may_leave.add(sample.session)
    messages = _whole(sample, stop)
    scene.exchange(messages)
    before = _files(scene.data, sample.session)
    again = scene.exchange(messages)
    found = [] if again.errors == [] and again.acknowledged == stop else [f"the same again: {again.errors}"]
    tries: dict[str, Messages] = {
        "conflict": [_plane(sample.session, z, bytes([7]) * 2 * 32 * 32) for z in range(stop)],
        "session-closed": [_plane(sample.session, z, bytes(2 * 32 * 32)) for z in (6, 7)],
        "out-of-range": [_plane(sample.session, 2**31, bytes(2 * 32 * 32))],
        "session-mismatch": [_hello(sample.session, scene.sample("other").acquisition)],
    }
    for code, tried in tries.items():
        if (errors := scene.exchange(tried).errors) != [code] * len(tried):
            found.append(f"{errors} rather than {code}")
    return found if _files(scene.data, sample.session) == before else [*found, "an old session's planes were altered"]


def _files(data: Path, session: str) -> dict[str, bytes]:
    (store,) = stores_of(session, data)
    return {str(path): path.read_bytes() for path in store.rglob("*") if path.is_file()}


def _paths(scene: Scene) -> list[str]:
    """Announce names that lead elsewhere, or that only look as if."""
    elsewhere = str(scene.outside / "elsewhere")
    bad = ["../x", elsewhere, "..", ".", "", "a/b", "a\\b", "..\\x", "C:\\x", "\\\\host\\x", "a\0b", "\0", "a\n", "~/x"]
    bad += ["x" * 101, "x" * 10_000, "a/" * 40 + "b", " x", ".hidden", "-rf", "%2e%2e%2fx", "$(id)", "файл", "x\u202ey"]
    sample = scene.sample("x")
    told = sample.acquisition.model_dump(mode="json", exclude_none=True)
    fields = {"v": VERSION, "type": "hello", "session": sample.session}
    messages: Messages = [(header(fields | {"acquisition": told | {"name": name}}),) for name in bad]
    messages += [(header(fields | {"session": name, "acquisition": told}),) for name in ("../" * 10 + "xx", elsewhere)]
    errors = scene.exchange(messages).errors
    found = [] if errors == ["malformed"] * len(messages) else [f"{len(messages)} bad names, and {errors}"]
    # Devices of Windows, which are names like others elsewhere: what comes of them lies in the data folder.
    for name in ("CON", "nul.txt", "x..", "a.ome.zarr", "a.journal.sqlite"):
        good = scene.sample(name)
        scene.may_leave.add(good.session)
        scene.exchange(_whole(good, 2))
        if [path.parent for path in stores_of(good.session, scene.data)] != [scene.data]:
            found.append(f"a session called {name} has no store in the data folder")
    return found


def _huge(scene: Scene) -> list[str]:
    """Announce ten million planes in many sessions, and end them; let others grow to the same in a few planes."""
    found = []
    shapes = ({"t": 10, "z": 1_000_000}, {"t": 1_000_000, "c": 10}, {"c": 1_000_000, "z": 10}, {"t": 1000, "z": 10_000})
    base = scene.sample("huge", 1).acquisition
    one = base.sizes.model_copy(update={"y": 1, "x": 1})
    sessions = [scene.session() for _ in range(2 * _SESSIONS)]
    scene.may_leave.update(sessions)
    greetings: Messages = []
    for number, session in enumerate(sessions):
        sizes = one.model_copy(update=shapes[number % len(shapes)])
        greetings.append(_hello(session, base.model_copy(update={"sizes": sizes})))
    scene.exchange([])  # opens the session that marks the end of an exchange, before there is no room for it
    opened = scene.exchange(greetings)
    welcomed = [answer.session for answer in opened.messages if isinstance(answer, Welcome)]
    if opened.count != len(sessions) or set(opened.errors) != {"too-many-sessions"}:
        found.append(f"{len(sessions)} sessions were answered {opened.errors}")
    ended = scene.exchange([_end(session, 0) for session in welcomed])
    missing = [answer.missing_count for answer in ended.messages if isinstance(answer, Ended)]
    if missing != [10_000_000] * len(welcomed):
        found.append(f"planes are missing: {missing}")
    growing = base.model_copy(update={"growing": True, "sizes": one})
    for _ in range(4):
        session = scene.session()
        scene.may_leave.add(session)
        far = [_plane(session, z, b"\1\0", t) for t, z in ((999_999, 0), (0, 9), (0, 10))]
        answers = scene.exchange([_hello(session, growing), *far, _end(session, 2)])
        if (answers.errors, answers.acknowledged) != (["out-of-range"], 2):
            found.append(f"planes far away: {answers.errors}")
    too_many = base.model_copy(update={"sizes": one.model_copy(update={"t": 1_000_000, "c": 1_000_000})})
    if (errors := scene.exchange([_hello(scene.session(), too_many)]).errors) != ["too-large"]:
        found.append(f"too many planes: {errors}")
    return found


def _bombs(scene: Scene) -> list[str]:
    """Send headers that are deep, huge, or announce more than comes."""
    deep = [sealed(opening * depth) for opening in (b"\x91", b"\x81\xa1v") for depth in (600, 5_000, 300_000)]
    wide = [sealed(msgpack.packb([0] * (MAX_ITEMS + 1))), sealed(msgpack.packb({str(i): i for i in range(50_000)}))]
    listed = [[[[0] * 100] * 100] * 90]  # a million integers in lists that are each short enough
    nested = header({"v": VERSION, "type": "ack", "session": "0" * 32, "planes": listed, "credit": 1})
    claimed = [sealed(bytes([kind]) + b"\xff" * 4) for kind in (0xDD, 0xDF, 0xDB, 0xC6, 0xC9)]
    messages: Messages = [(bomb,) for bomb in [*deep, *wide, nested, *claimed]] * (1 if scene.briefly else 10)
    errors = scene.exchange(messages).errors
    bad = set(errors) - {"malformed", "too-large", "garbled"}
    return [f"{errors}"] if bad or len(errors) != len(messages) else []


def _endless(scene: Scene) -> list[str]:
    """Send messages that never end, over several connections."""
    found = []
    content = frame(scene.dice.randbytes(1 << 20), more=True)
    for _ in range(1 if scene.briefly else 3):
        with greeted(scene.address) as connection:
            try:
                for _ in range(2000):
                    connection.sendall(content)
                found.append("2 GB of a message that never ends were taken")
            except OSError:  # cut
                pass
    return found


def _crowd(scene: Scene) -> list[str]:
    """Open more connections than there may be."""
    with ExitStack() as stack:
        connections = [stack.enter_context(link(scene.address)) for _ in range(CROWD)]
        time.sleep(scene.seconds)
        for connection in connections:
            connection.settimeout(0.01)
        there = sum(not is_cut(connection) for connection in connections)
    return [f"{there} of {CROWD} connections were let in"] if there > _CONNECTIONS else []


def _loris(scene: Scene) -> list[str]:
    """Say a byte now and then, or stop in the middle of the handshake, or of the first message, a hundred times."""
    found = []
    with ExitStack() as stack:
        slow, waiting = ([stack.enter_context(link(scene.address)) for _ in range(CROWD * 2 // 5)] for _ in range(2))
        within = [stack.enter_context(greeted(scene.address)) for _ in range(CROWD // 5)]
        for connection in waiting:
            connection.sendall(NULL_GREETING[: scene.dice.randint(1, len(NULL_GREETING))])
        message = frame(bytes(1000), more=False)
        begun, sent = time.monotonic(), 0
        while time.monotonic() < begun + (scene.seconds if scene.briefly else _PATIENCE_S):
            for connection in slow:
                with suppress(OSError):
                    connection.sendall(NULL_GREETING[sent : sent + 1])
            for connection in within:
                with suppress(OSError):
                    connection.sendall(message[sent : sent + 1])
            sent += 1
            time.sleep(_PAUSE_S)
        if not scene.briefly:
            for connection in [*slow, *waiting]:
                connection.settimeout(1)
            there = sum(not is_cut(connection) for connection in [*slow, *waiting])
            found = [f"{there} connections without a handshake were not cut"] if there else []
    return found


def _oversized(scene: Scene) -> list[str]:
    """Send frames above the limit, and announce some that are far above it."""
    found = []
    for announced in (_LARGEST_PLANE + 1, 1 << 40, (1 << 63) - 1):
        with greeted(scene.address) as connection:
            with suppress(OSError):
                connection.sendall(frame(bytes(1000), more=False, announced=announced))
            if not is_cut(connection):
                found.append(f"a frame of {announced} bytes was not refused")
    with Dealer(scene.address) as dealer:
        dealer.send(scene.dice.randbytes(_LARGEST_PLANE + 1))
        if (answer := dealer.receive(500)) is not None:
            found.append(f"a frame above the limit was answered: {answer.type}")
    return found


class _Pickled:
    """Runs a command in whoever unpickles it."""

    def __init__(self, command: str) -> None:
        self._command = command

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (self._command,)


def _pickles(scene: Scene) -> list[str]:
    """Send pickles in place of headers and of pixels."""
    sample = scene.sample("pickles", 1)
    scene.may_leave.add(sample.session)
    bad = [pickle.dumps(_Pickled(f"touch {scene.outside / 'pickled'}"), protocol) for protocol in range(6)]
    arrays = [pickle.dumps({"v": VERSION, "type": "hello", "session": np.zeros(3)})]
    messages: Messages = [(pickled,) for pickled in [*bad, *arrays]] + [(sealed(pickled),) for pickled in [*bad, *arrays]]
    messages += [_plane(sample.session, 0, pickled) for pickled in bad]
    errors = scene.exchange([_hello(sample.session, sample.acquisition), *messages]).errors
    found = [] if len(errors) == len(messages) else [f"{len(messages)} pickles, and {errors}"]
    return [*found, "a pickle was run"] if (scene.outside / "pickled").exists() else found


ATTACKS: dict[str, Attack] = {
    "no key": Attack(_no_key, (NO_HANDSHAKE,), secured=True),
    "wrong key": Attack(_wrong_key, (UNAUTHORISED,), secured=True),
    "key of another listener": Attack(_other_listener, (NO_HANDSHAKE,), secured=True),
    "revoked key": Attack(_revoked_key, (UNAUTHORISED,), secured=True),
    "recorded connection": Attack(_recorded, (NO_HANDSHAKE,), secured=True),
    "replayed session": Attack(_replay, ("conflict", "session-closed", "session-mismatch", "out-of-range")),
    "path-like names": Attack(_paths, ("malformed",)),
    "huge shapes": Attack(_huge, ("too-many-sessions", "too-large", "out-of-range"), settings={"max_sessions": _SESSIONS}),
    "header bombs": Attack(_bombs, ("malformed",)),
    "endless message": Attack(_endless, (TOO_MUCH,), settings={"memory": _MEMORY, "max_plane_bytes": _LARGEST_PLANE}),
    "too many connections": Attack(_crowd, (TOO_MANY,), settings={"max_connections": _CONNECTIONS}),
    "slow senders": Attack(_loris, (NO_HANDSHAKE,)),
    "frames above the limit": Attack(_oversized, settings={"max_plane_bytes": _LARGEST_PLANE}),
    "pickles": Attack(_pickles, ("malformed", "garbled", "bad-shape")),
}
"""Every kind of attack."""
