"""A listener and raw clients, which can send what a publisher never would."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import uuid
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest
import zmq

from otf_stream.acquire.listener import Listener, ListenError
from otf_stream.acquire.process import run_listener
from otf_stream.acquire.protocol import (
    Ack,
    End,
    Ended,
    Error,
    Hello,
    Message,
    Ping,
    Plane,
    Pong,
    Welcome,
    decode,
    encode,
)
from otf_stream.acquisition import Acquisition, PlaneIndex
from otf_stream.bench.chaos.raw import frame, greeted
from otf_stream.store.session import SessionStore, delete_session

Pixels = Callable[[PlaneIndex], np.ndarray]


class Client:
    """A raw sender."""

    def __init__(self, address: str) -> None:
        self.context = zmq.Context()
        self.socket = self.context.socket(zmq.DEALER)
        self.socket.connect(address)
        self.session = uuid.uuid4().hex

    def send(self, *frames: Message | bytes) -> None:
        self.socket.send_multipart([frame if isinstance(frame, bytes) else encode(frame) for frame in frames])

    def receive(self) -> Message:
        assert self.socket.poll(30_000), "no answer"
        return decode(self.socket.recv_multipart()[0])

    def ask(self, *frames: Message | bytes) -> Message:
        self.send(*frames)
        return self.receive()

    def greet(self, acquisition: Acquisition) -> Message:
        return self.ask(Hello(session=self.session, acquisition=acquisition))

    def header(self, index: PlaneIndex, pixels: np.ndarray, **wrong: Any) -> Plane:
        t, c, z = index
        fields = {"session": self.session, "t": t, "c": c, "z": z, "crc": zlib.crc32(pixels)}
        return Plane(**(fields | wrong))

    def plane(self, index: PlaneIndex, pixels: np.ndarray, **wrong: Any) -> Message:
        return self.ask(self.header(index, pixels, **wrong), pixels.tobytes())

    def end(self, planes: int = 0) -> Message:
        return self.ask(End(session=self.session, reason="finished", planes=planes))


@pytest.fixture
def listener(tmp_path: Path, listening: Callable[..., Any]) -> Iterator[Listener]:
    with listening(tmp_path / "data") as listener:
        yield listener


@pytest.fixture
def connect() -> Iterator[Callable[[str], Client]]:
    clients: list[Client] = []

    def client(address: str) -> Client:
        clients.append(Client(address))
        return clients[-1]

    yield client
    for client_ in clients:
        client_.context.destroy(linger=0)


@pytest.fixture
def client(listener: Listener, connect: Callable[[str], Client]) -> Client:
    return connect(listener.address)


def store_of(tmp_path: Path, name: str = "cells") -> SessionStore:
    return SessionStore.open(tmp_path / "data" / f"{name}.ome.zarr")


def check_good_plane(client: Client, tmp_path: Path, pixels: Pixels, index: PlaneIndex = (0, 0, 0)) -> None:
    """A good plane is acknowledged, and is on disk as it was sent."""
    answer = client.plane(index, pixels(index))
    assert isinstance(answer, Ack)
    assert answer.planes == (index,)
    store = store_of(tmp_path)
    np.testing.assert_array_equal(store.read_plane(index), pixels(index))
    store.close()


def test_a_session_from_greeting_to_end(
    client: Client,
    tmp_path: Path,
    acquisition: Acquisition,
    indices: list[PlaneIndex],
    pixels: Pixels,
    listener: Listener,
) -> None:
    welcome = client.greet(acquisition)
    assert isinstance(welcome, Welcome)
    assert (welcome.store, welcome.durable) == ("cells.ome.zarr", ())
    assert welcome.credit >= 2
    for index in reversed(indices[:-1]):
        client.send(client.header(index, pixels(index)), pixels(index).tobytes())
    ended = client.ask(End(session=client.session, reason="finished", planes=19))
    acknowledged: list[PlaneIndex] = []
    while isinstance(ended, Ack):
        acknowledged += ended.planes
        ended = client.receive()
    assert sorted(acknowledged) == indices[:-1]
    assert isinstance(ended, Ended)
    assert (ended.durable, ended.missing_count, ended.missing) == (19, 1, (indices[-1],))
    assert client.end(19) == ended, "to end is idempotent"

    store = store_of(tmp_path)
    for index in indices[:-1]:
        np.testing.assert_array_equal(store.read_plane(index), pixels(index))
    assert store.journal.closed == "finished"
    events = {event.kind: event.detail for event in store.journal.events()}
    assert list(events) == ["opened", "ended"]
    assert events["ended"]["missing"] == [list(indices[-1])]
    store.close()
    assert (listener.counters.received, listener.counters.durable) == (19, 19)
    assert listener.counters.bytes == 19 * acquisition.plane_bytes


def test_what_is_durable_is_told_again_and_acknowledged_again(
    client: Client, tmp_path: Path, acquisition: Acquisition, pixels: Pixels, listener: Listener
) -> None:
    client.greet(acquisition)
    for z in (0, 1, 3):
        check_good_plane(client, tmp_path, pixels, (1, 0, z))
    check_good_plane(client, tmp_path, pixels, (1, 0, 3))
    welcome = client.greet(acquisition)
    assert isinstance(welcome, Welcome)
    assert welcome.durable == ((1, 0, 0, 2), (1, 0, 3, 4))
    assert listener.counters.duplicates == 1
    client.end()
    check_good_plane(client, tmp_path, pixels, (1, 0, 3))
    answer = client.plane((0, 0, 0), pixels((0, 0, 0)))
    assert isinstance(answer, Error)
    assert (answer.code, answer.fatal) == ("session-closed", True)


@pytest.mark.parametrize(
    ("header", "frames", "code", "says"),
    [
        ({"z": 5}, None, "out-of-range", "5 planes"),
        ({"t": 2**32 - 1}, None, "out-of-range", "2 time points"),
        ({"crc": 1}, None, "bad-checksum", "0x00000001"),
        ({}, [b""], "bad-shape", "has 0 bytes"),
        ({}, [bytes(479)], "bad-shape", "480"),
        ({}, [bytes(481)], "bad-shape", "480"),
        ({}, [], "garbled", "2 frames, but 1"),
        ({}, [bytes(480), b""], "garbled", "2 frames, but 3"),
        ({"session": "f" * 32}, None, "unknown-session", "hello"),
        ({"session": "../etc"}, None, "malformed", "session"),
        ({"z": -1}, None, "malformed", "z = -1"),
        ({"z": "1"}, None, "malformed", "z = '1'"),
        ({"v": 3}, None, "unsupported-version", "version 2"),
        ({"type": "pong"}, None, "malformed", "pong"),
        ({"type": "?"}, None, "malformed", "type '?'"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_wrong_plane_is_refused_and_the_next_one_taken(
    client: Client,
    listener: Listener,
    tmp_path: Path,
    acquisition: Acquisition,
    pixels: Pixels,
    header: dict[str, Any],
    frames: list[bytes] | None,
    code: str,
    says: str,
) -> None:
    client.greet(acquisition)
    good = pixels((0, 0, 1))
    packed = msgpack.packb(msgpack.unpackb(encode(client.header((0, 0, 1), good))[:-4]) | header)
    error = client.ask(
        packed + zlib.crc32(packed).to_bytes(4, "little"), *([good.tobytes()] if frames is None else frames)
    )
    assert isinstance(error, Error)
    assert error.code == code
    assert says in error.message
    of_plane = code in ("out-of-range", "bad-checksum", "bad-shape")
    assert (error.plane is not None) == of_plane
    assert listener.counters.refused == {code: 1}
    check_good_plane(client, tmp_path, pixels)
    if of_plane:
        store = store_of(tmp_path)
        (refused,) = (event.detail for event in store.journal.events() if event.kind == "refused")
        assert refused["code"] == code
        store.close()


@pytest.mark.parametrize("garbage", [b"", b"\x00", b"\xc1" * 100, b"\x91" * 10_000, bytes(2 << 20)], ids=len)
def test_garbage_is_answered_and_survived(
    client: Client, tmp_path: Path, acquisition: Acquisition, pixels: Pixels, garbage: bytes
) -> None:
    error = client.ask(garbage, b"", b"more")
    assert isinstance(error, Error)
    assert error.code == "garbled"
    client.greet(acquisition)
    check_good_plane(client, tmp_path, pixels)


def test_what_is_not_zeromq_is_survived(
    client: Client, listener: Listener, tmp_path: Path, acquisition: Acquisition, pixels: Pixels
) -> None:
    host, port = listener.address.removeprefix("tcp://").split(":")
    for _ in range(3):
        with socket.create_connection((host, int(port)), timeout=10) as raw:
            raw.sendall(b"GET / HTTP/1.1\r\n\r\n" + os.urandom(10_000))
    client.greet(acquisition)
    check_good_plane(client, tmp_path, pixels)


def test_too_large_a_frame_cuts_the_connection_alone(
    tmp_path: Path,
    listening: Callable[..., Any],
    connect: Callable[[str], Client],
    acquisition: Acquisition,
    pixels: Pixels,
) -> None:
    with listening(tmp_path / "data", max_plane_bytes=1 << 20) as listener:
        client, bad = connect(listener.address), connect(listener.address)
        bad.send(encode(Ping(session=bad.session)), bytes(3 << 20))
        assert isinstance(client.greet(acquisition), Welcome)
        check_good_plane(client, tmp_path, pixels)
        assert not bad.socket.poll(200)


def test_the_same_plane_with_other_pixels_is_a_conflict(
    client: Client, tmp_path: Path, acquisition: Acquisition, pixels: Pixels
) -> None:
    client.greet(acquisition)
    check_good_plane(client, tmp_path, pixels)
    error = client.plane((0, 0, 0), pixels((0, 0, 1)))
    assert isinstance(error, Error)
    assert (error.code, error.plane, error.fatal) == ("conflict", (0, 0, 0), False)
    check_good_plane(client, tmp_path, pixels)


def test_a_plane_that_comes_again_while_the_first_is_on_its_way_to_the_disk(
    client: Client, tmp_path: Path, acquisition: Acquisition, pixels: Pixels, listener: Listener
) -> None:
    client.greet(acquisition)
    index = (0, 0, 0)
    good, other = pixels(index), pixels((0, 0, 1))
    for plane in (good, good, other, good):
        client.send(client.header(index, plane), plane.tobytes())
    client.send(client.header(index, good), other.tobytes())
    answers = [client.receive() for _ in range(5)]
    assert [answer.planes for answer in answers if isinstance(answer, Ack)] == [(index,)] * 3
    assert [answer.code for answer in answers if isinstance(answer, Error)] == ["conflict", "bad-checksum"]
    assert (listener.counters.durable, listener.counters.duplicates) == (1, 2)
    check_good_plane(client, tmp_path, pixels)


def test_greetings_that_cannot_be_met(
    tmp_path: Path, listening: Callable[..., Any], connect: Callable[[str], Client], acquisition: Acquisition
) -> None:
    def error(answer: Message) -> tuple[str, bool]:
        assert isinstance(answer, Error)
        return answer.code, answer.fatal

    with listening(tmp_path / "data", max_plane_bytes=1000, max_sessions=1) as listener:
        client = connect(listener.address)
        sizes = acquisition.sizes
        wide = acquisition.model_copy(update={"sizes": sizes.model_copy(update={"x": 50})})
        long = acquisition.model_copy(update={"sizes": sizes.model_copy(update={"z": 999_999, "t": 999_999})})
        assert error(client.greet(wide)) == ("too-large", True)
        assert error(client.greet(long)) == ("too-large", True)
        listener._room.reserve = 2 * shutil.disk_usage(tmp_path).total
        assert error(client.greet(wide)) == ("too-large", True)  # waiting for room would be of no use
        listener._room.reserve = 0
        assert isinstance(client.greet(acquisition), Welcome)
        assert error(client.greet(acquisition.model_copy(update={"name": "other"}))) == ("session-mismatch", True)
        second = connect(listener.address)
        assert error(second.greet(acquisition)) == ("too-many-sessions", False)
        client.end()
        assert isinstance(second.greet(acquisition), Welcome)


def test_a_name_that_is_taken_gets_a_number(
    listener: Listener, connect: Callable[[str], Client], tmp_path: Path, acquisition: Acquisition, pixels: Pixels
) -> None:
    (tmp_path / "data" / "cells_2.ome.zarr").mkdir()
    (tmp_path / "data" / "cells_3.ome.zarr").symlink_to(tmp_path / "elsewhere")
    clients = [connect(listener.address) for _ in range(3)]
    stores = [client.greet(acquisition) for client in clients]
    assert [store.store for store in stores if isinstance(store, Welcome)] == [
        "cells.ome.zarr",
        "cells_4.ome.zarr",
        "cells_5.ome.zarr",
    ]
    assert not (tmp_path / "elsewhere").exists()
    check_good_plane(clients[0], tmp_path, pixels)
    assert isinstance(clients[1].plane((0, 0, 0), pixels((0, 0, 1))), Ack)
    store = store_of(tmp_path, "cells_4")
    np.testing.assert_array_equal(store.read_plane((0, 0, 0)), pixels((0, 0, 1)))
    store.close()


@pytest.mark.parametrize(
    ("name", "store"),
    [
        ("NUL", "_NUL.ome.zarr"),
        ("com1.tif", "_com1.tif.ome.zarr"),
        ("aux .x", "_aux .x.ome.zarr"),
        ("console", "console.ome.zarr"),
        ("com10", "com10.ome.zarr"),
    ],
)
def test_no_store_is_called_as_a_device_of_windows(
    client: Client, listener: Listener, acquisition: Acquisition, name: str, store: str
) -> None:
    welcome = client.greet(acquisition.model_copy(update={"name": name}))
    assert isinstance(welcome, Welcome)
    assert welcome.store == store


def test_a_session_whose_store_was_deleted_gets_nothing_of_another_that_has_its_name(
    client: Client,
    listener: Listener,
    connect: Callable[[str], Client],
    tmp_path: Path,
    acquisition: Acquisition,
    pixels: Pixels,
) -> None:
    client.greet(acquisition)
    client.end()
    delete_session(tmp_path / "data" / "cells.ome.zarr")
    second = connect(listener.address)
    assert isinstance(second.greet(acquisition), Welcome)
    for answer in (client.plane((0, 0, 1), pixels((0, 0, 1))), client.end(1)):
        assert isinstance(answer, Error)
        assert answer.code == "unknown-session"
    check_good_plane(second, tmp_path, pixels)
    assert isinstance(second.end(1), Ended)
    store = store_of(tmp_path)
    assert list(store.journal.durable()) == [(0, 0, 0)]
    store.close()


@pytest.mark.skipif(sys.platform == "win32", reason="there an open store cannot be deleted")
@pytest.mark.parametrize("taken", [False, True], ids=["gone", "its name taken"])
def test_planes_for_a_store_that_was_deleted_while_it_was_open_are_not_acknowledged(
    taken: bool,
    client: Client,
    listener: Listener,
    connect: Callable[[str], Client],
    tmp_path: Path,
    acquisition: Acquisition,
    pixels: Pixels,
) -> None:
    client.greet(acquisition)
    client.plane((0, 0, 2), pixels((0, 0, 2)))
    delete_session(tmp_path / "data" / "cells.ome.zarr")
    if taken:
        second = connect(listener.address)
        assert isinstance(second.greet(acquisition), Welcome)
        check_good_plane(second, tmp_path, pixels)
    answer = client.plane((0, 0, 0), pixels((0, 0, 1)))
    assert isinstance(answer, Error)
    assert answer.code == "unknown-session"
    welcome = client.greet(acquisition)  # as its sender does then
    assert isinstance(welcome, Welcome)
    assert welcome.durable == ()
    assert welcome.store != "cells.ome.zarr"
    answer = client.plane((0, 0, 0), pixels((0, 0, 1)))
    assert isinstance(answer, Ack)
    if taken:
        store = store_of(tmp_path)
        assert np.array_equal(store.read_plane((0, 0, 0)), pixels((0, 0, 0)))
        store.close()


def test_a_restarted_listener_knows_its_sessions(
    tmp_path: Path,
    listening: Callable[..., Any],
    connect: Callable[[str], Client],
    acquisition: Acquisition,
    pixels: Pixels,
) -> None:
    with listening(tmp_path / "data") as listener:
        first = connect(listener.address)
        first.greet(acquisition)
        check_good_plane(first, tmp_path, pixels)
    with listening(tmp_path / "data") as listener:
        client = connect(listener.address)
        client.session = first.session
        for message in (
            client.ask(Ping(session=client.session)),
            client.plane((0, 0, 1), pixels((0, 0, 1))),
            client.end(),
        ):
            assert isinstance(message, Error)
            assert message.code == "unknown-session"
        welcome = client.greet(acquisition)
        assert isinstance(welcome, Welcome)
        assert (welcome.store, welcome.durable) == ("cells.ome.zarr", ((0, 0, 0, 1),))
        assert isinstance(client.ask(Ping(session=client.session)), Pong)
        check_good_plane(client, tmp_path, pixels, (0, 0, 1))


def test_a_journal_that_cannot_be_read_stops_nobody(
    tmp_path: Path,
    listening: Callable[..., Any],
    connect: Callable[[str], Client],
    acquisition: Acquisition,
    pixels: Pixels,
) -> None:
    with listening(tmp_path / "data") as listener:
        first = connect(listener.address)
        first.greet(acquisition)
    (tmp_path / "data" / "cells.journal.sqlite").write_bytes(b"damaged" * 1000)
    with listening(tmp_path / "data") as listener:
        client = connect(listener.address)
        client.session = first.session
        welcome = client.greet(acquisition)
        assert isinstance(welcome, Welcome)
        assert welcome.store == "cells_2.ome.zarr"
        assert isinstance(client.plane((0, 0, 0), pixels((0, 0, 0))), Ack)


def test_silence_closes_a_session_and_its_late_planes_still_land(
    tmp_path: Path,
    listening: Callable[..., Any],
    connect: Callable[[str], Client],
    acquisition: Acquisition,
    pixels: Pixels,
    until: Callable[..., None],
) -> None:
    with listening(tmp_path / "data", silence=0.5) as listener:
        client = connect(listener.address)
        client.greet(acquisition)
        check_good_plane(client, tmp_path, pixels)
        store = store_of(tmp_path)
        until(lambda: store.journal.closed)
        assert store.journal.closed == "silence"
        assert (store.journal.state((0, 0)), store.journal.state((1, 1))) == ("arrived", "failed")
        error = client.plane((0, 0, 1), pixels((0, 0, 1)))
        assert isinstance(error, Error)
        assert error.code == "unknown-session"
        assert isinstance(client.greet(acquisition), Welcome)
        assert store.journal.closed is None
        check_good_plane(client, tmp_path, pixels, (0, 0, 1))
        assert isinstance(client.end(2), Ended)
        assert store.journal.closed == "finished"
        store.close()


def test_a_sender_that_was_lost_with_the_listener_is_closed_too(
    tmp_path: Path,
    listening: Callable[..., Any],
    connect: Callable[[str], Client],
    acquisition: Acquisition,
    until: Callable[..., None],
) -> None:
    with listening(tmp_path / "data") as listener:
        connect(listener.address).greet(acquisition)
    with listening(tmp_path / "data", silence=0.3):
        store = store_of(tmp_path)
        until(lambda: store.journal.closed == "silence")
        store.close()


def test_a_disk_that_is_nearly_full_turns_planes_away_until_there_is_room(
    tmp_path: Path,
    listening: Callable[..., Any],
    connect: Callable[[str], Client],
    acquisition: Acquisition,
    pixels: Pixels,
) -> None:
    def refused(answer: Message) -> None:
        assert isinstance(answer, Error)
        assert (answer.code, answer.fatal, answer.plane) == ("no-space", False, None)

    with listening(tmp_path / "data") as listener:
        client = connect(listener.address)
        client.greet(acquisition)
        listener._room.reserve = 2 * shutil.disk_usage(tmp_path).total
        refused(client.plane((0, 0, 0), pixels((0, 0, 0))))
        refused(client.greet(acquisition))
        refused(connect(listener.address).greet(acquisition))
        refused(client.end(1))
        listener._room.reserve = 0
        refused(client.end(1))
        assert isinstance(client.greet(acquisition), Welcome)
        check_good_plane(client, tmp_path, pixels)
        assert isinstance(client.end(1), Ended)
        assert listener.counters.refused["no-space"] == 5


def test_a_failing_disk_turns_planes_away_until_it_works(
    listener: Listener, client: Client, tmp_path: Path, acquisition: Acquisition, pixels: Pixels
) -> None:
    client.greet(acquisition)
    check_good_plane(client, tmp_path, pixels)
    raw = tmp_path / "data" / "cells.ome.zarr" / "raw" / "0" / "c"
    shutil.move(raw, tmp_path / "c")
    raw.write_text("in the way")
    error = client.plane((0, 0, 1), pixels((0, 0, 1)))
    assert isinstance(error, Error)
    assert (error.code, error.fatal, error.plane) == ("internal", False, None)
    raw.unlink()
    shutil.move(tmp_path / "c", raw)
    client.greet(acquisition)
    check_good_plane(client, tmp_path, pixels, (0, 0, 1))


def test_a_failing_disk_is_told_once_though_many_planes_are_in_flight(
    client: Client, tmp_path: Path, acquisition: Acquisition, pixels: Pixels
) -> None:
    client.greet(acquisition)
    raw = tmp_path / "data" / "cells.ome.zarr" / "raw" / "0" / "c"
    raw.write_text("in the way")
    for z in range(5):
        client.send(client.header((0, 0, z), pixels((0, 0, z))), pixels((0, 0, z)).tobytes())
    client.send(Hello(session=client.session, acquisition=acquisition))
    error, welcome = client.receive(), client.receive()
    assert isinstance(error, Error)
    assert error.code == "internal"
    assert isinstance(welcome, Welcome)
    assert welcome.durable == ()
    error = client.plane((0, 0, 1), pixels((0, 0, 1)))
    assert isinstance(error, Error), "who has greeted again is told again"
    raw.unlink()
    client.greet(acquisition)
    check_good_plane(client, tmp_path, pixels)


def test_credit_is_shared_and_never_below_two(
    tmp_path: Path, listening: Callable[..., Any], connect: Callable[[str], Client], acquisition: Acquisition
) -> None:
    with listening(tmp_path / "data", memory=5 * acquisition.plane_bytes) as listener:
        clients = [connect(listener.address) for _ in range(3)]
        welcomes = [client.greet(acquisition) for client in clients]
        assert [welcome.credit for welcome in welcomes if isinstance(welcome, Welcome)] == [5, 2, 2]
        clients[1].end()
        clients[2].end()
        pong = clients[0].ask(Ping(session=clients[0].session))
        assert isinstance(pong, Pong)
        assert pong.credit == 5


def test_an_address_that_is_taken_is_refused(listener: Listener, tmp_path: Path) -> None:
    with pytest.raises(ListenError, match="port"):
        Listener(tmp_path / "other", listener.address)
    with pytest.raises(ListenError, match="tcp://HOST:PORT"):
        Listener(tmp_path / "other", "nonsense")


def test_no_session_has_more_planes_than_the_listener_takes(
    tmp_path: Path,
    listening: Callable[..., Any],
    connect: Callable[[str], Client],
    acquisition: Acquisition,
    pixels: Pixels,
) -> None:
    least = acquisition.sizes.model_copy(update={"t": 1, "c": 1, "z": 1})
    growing = acquisition.model_copy(update={"growing": True, "sizes": least, "channels": ()})
    with listening(tmp_path / "data", max_planes=6) as listener:
        refused = connect(listener.address).greet(acquisition)
        assert isinstance(refused, Error)
        assert refused.code == "too-large"
        assert "20 planes are more than the 6" in refused.message
        client = connect(listener.address)
        client.greet(growing)
        check_good_plane(client, tmp_path, pixels, (0, 0, 5))
        answer = client.plane((0, 0, 6), pixels((0, 0, 6)))
        assert isinstance(answer, Error)
        assert (answer.code, answer.plane) == ("out-of-range", (0, 0, 6))
        assert "more than the 6 planes" in answer.message
        long = growing.model_copy(update={"sizes": least.model_copy(update={"t": 6})})
        answer = client.greet(long)  # six times as many as there are
        assert isinstance(answer, Error)
        assert answer.code == "too-large"


def test_planes_on_their_way_to_the_disk_count_for_how_far_an_acquisition_grows(
    client: Client, tmp_path: Path, acquisition: Acquisition, pixels: Pixels
) -> None:
    least = acquisition.sizes.model_copy(update={"t": 1, "c": 1, "z": 1})
    client.greet(acquisition.model_copy(update={"growing": True, "sizes": least, "channels": ()}))
    # Each alone would be admitted; the listener could not even count what all of them span.
    far: list[PlaneIndex] = [(999_999, 0, 0), (0, 999, 0), (0, 0, 999_999)]
    for index in far:
        client.send(client.header(index, pixels((0, 0, 0))), pixels((0, 0, 0)).tobytes())
    answers = [client.receive() for _ in far]
    assert sorted(answer.type for answer in answers) == ["ack", "error", "error"]
    assert {answer.code for answer in answers if isinstance(answer, Error)} == {"out-of-range"}
    check_good_plane(client, tmp_path, pixels)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_runs_as_a_process_until_it_is_told_to_stop(
    tmp_path: Path, connect: Callable[[str], Client], acquisition: Acquisition, pixels: Pixels, number: int
) -> None:
    processes = multiprocessing.get_context("spawn")
    ours, theirs = processes.Pipe(duplex=False)
    process = processes.Process(
        target=run_listener,
        args=(tmp_path / "data", "tcp://127.0.0.1:*"),
        kwargs={"ready": theirs, "disk_reserve": 0},
    )
    process.start()
    theirs.close()
    with ours:
        assert ours.poll(60)
        client = connect(ours.recv_bytes().decode())
    client.greet(acquisition)
    check_good_plane(client, tmp_path, pixels)
    assert process.pid is not None
    os.kill(process.pid, number)
    process.join(30)
    assert process.exitcode == 0
    process.close()


def test_says_why_it_cannot_start(listener: Listener, tmp_path: Path) -> None:
    code = (
        "import sys, pathlib; from otf_stream.acquire.process import run_listener;"
        "run_listener(pathlib.Path(sys.argv[1]), sys.argv[2])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "other"), listener.address],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert f"cannot listen at {listener.address}" in done.stderr
    assert "Traceback" not in done.stderr


def test_listens_without_torch() -> None:
    code = (
        "import sys, json, otf_stream.acquire.listener;"
        "print(json.dumps([m for m in ('torch', 'scipy') if m in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert json.loads(done.stdout) == []


def test_leaves_no_threads_behind(tmp_path: Path, listening: Callable[..., Any]) -> None:
    before = set(threading.enumerate())
    for number in range(5):
        with listening(tmp_path / str(number)):
            pass
    assert set(threading.enumerate()) <= before


_BUSY_AT_FIRST = """
import sys, threading
from pathlib import Path
from otf_stream.acquire.listener import Listener
with Listener(Path(sys.argv[1]), "tcp://127.0.0.1:*") as listener:
    print(listener.address, flush=True)
    sys.stdin.readline()
    enough = threading.Event()
    threading.Timer(1, enough.set).start()
    listener.run(enough)
    print(listener.counters.as_dict(), flush=True)
"""


def test_a_sender_that_goes_while_nobody_reads_does_not_end_the_listener(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _BUSY_AT_FIRST, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin
        assert process.stdout
        with greeted(process.stdout.readline().strip()) as connection:
            sign = frame(encode(Ping(session=uuid.uuid4().hex)), more=False)
            heartbeat = b"\x04\x0b\x04PING\0\0%04d"  # of ZeroMQ's own; the four digits come back
            connection.sendall(b"".join(sign + heartbeat % number for number in range(100)))
            answers = b""
            with suppress(TimeoutError):  # a ZeroMQ that stops to read does not answer
                while b"0099" not in answers and (some := connection.recv(1000)):  # a reset loses what is still unread
                    answers += some
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # a reset, no farewell
        time.sleep(0.5)
        said, _ = process.communicate("go on\n", timeout=60)
    assert process.returncode == 0
    assert "'unknown-session': 100" in said
