"""A listener that asks for keys, real publishers that have them or not, and others who just try."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zmq

from otf_stream.acquire import dealer
from otf_stream.acquire.keys import KeyFolder, KeysError
from otf_stream.acquire.listener import Listener, ListenError
from otf_stream.acquire.protocol import Hello, encode
from otf_stream.acquire.publisher import Publisher
from otf_stream.acquisition import Acquisition, PlaneIndex, Sizes
from otf_stream.store.session import SessionStore

Pixels = Callable[[PlaneIndex], np.ndarray]
Listening = Callable[..., Any]
Until = Callable[[Callable[[], object]], None]


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Publishers that are refused soon try again."""
    monkeypatch.setattr(dealer, "_AGAIN", 0.3)


@pytest.fixture
def here(tmp_path: Path) -> KeyFolder:
    """The keys of the machine that listens."""
    keys = KeyFolder(tmp_path / "here")
    keys.make()
    return keys


@pytest.fixture
def microscope(tmp_path: Path, here: KeyFolder) -> KeyFolder:
    """The keys of a microscope's PC: authorised, and with trust in the listener."""
    keys = KeyFolder(tmp_path / "microscope")
    here.authorise("confocal", keys.make().public)
    keys.trust("127.0.0.1", here.own().public)
    return keys


@pytest.fixture
def secured(tmp_path: Path, here: KeyFolder, listening: Listening) -> Iterator[Listener]:
    with listening(tmp_path / "data", keys=here) as listener:
        yield listener


@contextmanager
def publishing(
    listener: Listener, acquisition: Acquisition, keys: KeyFolder, spill: Path, **settings: Any
) -> Iterator[Publisher]:
    """A publisher whose planes need not arrive."""
    publisher = Publisher(listener.address, acquisition, keys=keys.folder, spill=spill, **settings)
    try:
        yield publisher
    finally:
        publisher.abort(0)


def stored(data_folder: Path) -> dict[str, list[PlaneIndex]]:
    """The planes of each session that are on disk."""
    planes = {}
    for path in data_folder.glob("*.ome.zarr"):
        store = SessionStore.open(path)
        planes[path.name] = list(store.journal.durable())
        store.close()
    return planes


def check_nothing_came(listener: Listener, data_folder: Path) -> None:
    assert listener.counters.received == 0
    assert stored(data_folder) == {}


def test_an_authorised_microscope_streams(
    tmp_path: Path,
    here: KeyFolder,
    microscope: KeyFolder,
    listening: Listening,
    acquisition: Acquisition,
    indices: list[PlaneIndex],
    pixels: Pixels,
) -> None:
    # So little memory that all of it could not be under way: what is encrypted is measured as what is not.
    with listening(tmp_path / "data", keys=here, memory=2000, max_plane_bytes=1000) as listener:
        with Publisher(listener.address, acquisition, keys=microscope.folder) as publisher:
            for t, c, z in indices:
                publisher.publish(pixels((t, c, z)), t=t, c=c, z=z)
        assert publisher.ended is not None
        assert publisher.ended.missing_count == 0
        assert not +listener.counters.refused
    store = SessionStore.open(tmp_path / "data" / "cells.ome.zarr")
    for index in indices:
        np.testing.assert_array_equal(store.read_plane(index), pixels(index))
    store.close()


def test_without_a_key_nobody_gets_in(
    tmp_path: Path,
    secured: Listener,
    acquisition: Acquisition,
    pixels: Pixels,
    until: Until,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with publishing(secured, acquisition, KeyFolder(tmp_path / "none"), tmp_path / "spill") as publisher:
        publisher.publish(pixels((0, 0, 0)), z=0)
        until(lambda: secured.counters.refused["no-handshake"] >= 2)
        with pytest.raises(TimeoutError, match=r"asks for keys.*`otf-stream keys trust 127\.0\.0\.1"):
            publisher.drain(0.5)
        assert not publisher.connected
    told = [record for record in caplog.records if record.name == "otf_stream.acquire.dealer"]
    assert len(told) == 1
    assert "keys trust" in told[0].message
    check_nothing_came(secured, tmp_path / "data")


def test_a_key_that_is_not_authorised_is_refused_until_it_is(
    tmp_path: Path,
    here: KeyFolder,
    secured: Listener,
    acquisition: Acquisition,
    pixels: Pixels,
    until: Until,
    caplog: pytest.LogCaptureFixture,
) -> None:
    keys = KeyFolder(tmp_path / "stranger")
    public = keys.make().public
    keys.trust("127.0.0.1", here.own().public)
    with Publisher(secured.address, acquisition, keys=keys.folder) as publisher:
        publisher.publish(pixels((0, 0, 0)), z=0)
        until(lambda: secured.counters.refused["unauthorised"] >= 2)
        with pytest.raises(TimeoutError, match="does not let this machine in") as caught:
            publisher.drain(0.5)
        # The machines' owners can copy this, from either end.
        assert f"otf-stream keys authorise NAME {public}" in str(caught.value)
        assert f"otf-stream keys authorise NAME {public}" in caplog.text
        assert "127.0.0.1" in caplog.text
        check_nothing_came(secured, tmp_path / "data")
        here.authorise("stranger", public)
        publisher.drain(30)
    assert stored(tmp_path / "data") == {"cells.ome.zarr": [(0, 0, 0)]}
    assert secured.counters.refused["no-handshake"] == 0


def test_a_listener_with_another_key_gets_nothing(
    tmp_path: Path, here: KeyFolder, secured: Listener, acquisition: Acquisition, pixels: Pixels, until: Until
) -> None:
    keys = KeyFolder(tmp_path / "microscope")
    here.authorise("confocal", keys.make().public)
    keys.trust("127.0.0.1", zmq.curve_keypair()[0].decode())
    with publishing(secured, acquisition, keys, tmp_path / "spill") as publisher:
        publisher.publish(pixels((0, 0, 0)), z=0)
        until(lambda: secured.counters.refused["no-handshake"] >= 2)
        with pytest.raises(TimeoutError, match="has not the key that is trusted there"):
            publisher.drain(0.5)
        check_nothing_came(secured, tmp_path / "data")
        # What is mended while the planes wait counts, too.
        keys.forget("127.0.0.1")
        keys.trust("127.0.0.1", here.own().public)
        publisher.drain(30)
    assert stored(tmp_path / "data") == {"cells.ome.zarr": [(0, 0, 0)]}


def test_who_trusts_a_listener_sends_nothing_in_the_open(
    tmp_path: Path, microscope: KeyFolder, listening: Listening, acquisition: Acquisition, pixels: Pixels, until: Until
) -> None:
    with listening(tmp_path / "data") as listener:
        with publishing(listener, acquisition, microscope, tmp_path / "spill") as publisher:
            publisher.publish(pixels((0, 0, 0)), z=0)
            until(lambda: publisher._delivery.refusal)
            with pytest.raises(TimeoutError, match=r"or takes none.*`otf-stream keys forget 127"):
                publisher.drain(0.5)
        check_nothing_came(listener, tmp_path / "data")


def test_trust_in_a_listener_counts_while_planes_wait(
    tmp_path: Path, here: KeyFolder, secured: Listener, acquisition: Acquisition, pixels: Pixels, until: Until
) -> None:
    keys = KeyFolder(tmp_path / "late")
    with Publisher(secured.address, acquisition, keys=keys.folder) as publisher:
        publisher.publish(pixels((0, 0, 0)), z=0)
        until(lambda: publisher._delivery.refusal)
        keys.trust("127.0.0.1", here.own().public)
        until(lambda: "no key" in (publisher._delivery.refusal or ""))
        here.authorise("late", keys.make().public)
        publisher.drain(30)
        assert publisher._delivery.refusal is None
    assert stored(tmp_path / "data") == {"cells.ome.zarr": [(0, 0, 0)]}


def test_a_revoked_key_ends_the_connection_and_opens_no_other(
    tmp_path: Path,
    here: KeyFolder,
    microscope: KeyFolder,
    secured: Listener,
    acquisition: Acquisition,
    pixels: Pixels,
    until: Until,
) -> None:
    with publishing(secured, acquisition, microscope, tmp_path / "first") as first:
        first.publish(pixels((0, 0, 0)), z=0)
        first.drain(30)
        public = here.authorised()["confocal"]
        here.revoke("confocal")
        until(lambda: secured.counters.refused["revoked"] >= 1)
        first.publish(pixels((0, 0, 1)), z=1)
        until(lambda: secured.counters.refused["unauthorised"] >= 1)
        with pytest.raises(TimeoutError, match="does not let this machine in"):
            first.drain(0.5)
        assert stored(tmp_path / "data") == {"cells.ome.zarr": [(0, 0, 0)]}
        here.authorise("confocal", public)  # nothing that it has kept is lost
        first.drain(30)
    assert secured.counters.refused["revoked"] == 1
    assert stored(tmp_path / "data") == {"cells.ome.zarr": [(0, 0, 0), (0, 0, 1)]}


def test_others_do_not_notice_those_who_hammer_at_the_door(
    tmp_path: Path, here: KeyFolder, microscope: KeyFolder, secured: Listener, acquisition: Acquisition, until: Until
) -> None:
    stop = threading.Event()
    own = here.own().public.encode()
    greeting = encode(Hello(session="0" * 32, acquisition=acquisition))

    def knock(trusted: bytes | None) -> None:
        with zmq.Context() as context:
            while not stop.is_set():
                with context.socket(zmq.DEALER) as dealer:
                    dealer.setsockopt(zmq.LINGER, 0)
                    if trusted:
                        dealer.curve_publickey, dealer.curve_secretkey = zmq.curve_keypair()
                        dealer.curve_serverkey = trusted
                    dealer.connect(secured.address)
                    with suppress(zmq.Again):  # refused already, and for good
                        dealer.send(greeting, zmq.NOBLOCK)
                    time.sleep(0.02)

    def shout() -> None:
        while not stop.is_set():
            with socket.create_connection(("127.0.0.1", int(secured.address.rpartition(":")[2])), timeout=5) as link:
                link.sendall(b"GET / HTTP/1.0\r\n\r\n" * 10)
                time.sleep(0.02)

    knocking = [
        threading.Thread(target=shout),
        *(threading.Thread(target=knock, args=(key,)) for key in (None, own, zmq.curve_keypair()[0])),
    ]
    for thread in knocking:
        thread.start()
    try:
        many = acquisition.model_copy(update={"sizes": Sizes(z=200, y=64, x=64), "channels": (), "name": "good"})
        frame = np.random.default_rng(0).integers(0, 65536, (64, 64)).astype(np.uint16)
        until(lambda: secured.counters.refused["unauthorised"] and secured.counters.refused["no-handshake"])
        with Publisher(secured.address, many, keys=microscope.folder) as publisher:
            for z in range(200):
                publisher.publish(frame, z=z)
                time.sleep(0.01)
        assert publisher.ended is not None
        assert publisher.ended.missing_count == 0
        until(lambda: min(secured.counters.refused[reason] for reason in ("unauthorised", "no-handshake")) > 20)
    finally:
        stop.set()
        for thread in knocking:
            thread.join()
    assert stored(tmp_path / "data") == {"good.ome.zarr": [(0, 0, z) for z in range(200)]}


def in_the_open(version: str, message: bytes) -> list[bytes]:
    """What a dealer of some version of ZeroMQ's protocol sends without security, piece by piece, and then a message."""
    frame = bytes([2, *len(message).to_bytes(8, "big")]) + message
    signature = b"\xff" + bytes(7) + b"\x01\x7f"
    ready = b"\x05READY\x0bSocket-Type\x00\x00\x00\x06DEALER\x08Identity" + bytes(4)
    return {
        "1.0": [b"\x01\x00", bytes([0xFF, *(len(message) + 1).to_bytes(8, "big"), 0]) + message],
        "2.0": [signature, b"\x01\x05", b"\x00\x00", frame],
        "3.0": [signature, b"\x03\x00" + b"NULL".ljust(20, b"\0") + bytes(32), bytes([4, len(ready)]) + ready, frame],
    }[version]


@pytest.mark.parametrize("version", ["1.0", "2.0", "3.0"])
def test_no_older_or_open_protocol_of_zeromq_is_a_way_in(
    version: str, tmp_path: Path, here: KeyFolder, listening: Listening, acquisition: Acquisition, until: Until
) -> None:
    hello = encode(Hello(session="0" * 32, acquisition=acquisition))
    for keys in (None, here):
        data = tmp_path / ("open" if keys is None else "secured")
        with listening(data, keys=keys) as listener:
            port, answer = int(listener.address.rpartition(":")[2]), b""
            with socket.create_connection(("127.0.0.1", port), timeout=30) as link, suppress(ConnectionError):
                for piece in in_the_open(version, hello):
                    link.sendall(piece)
                    time.sleep(0.2)
                while b"welcome" not in answer and (more := link.recv(1000)):
                    answer += more
            if keys is None:
                assert b"welcome" in answer  # so that the other answer tells something
                continue
            assert b"welcome" not in answer
            if version == "3.0":  # libzmq cuts the older ones and tells nobody
                until(lambda listener=listener: listener.counters.refused["no-handshake"])  # type: ignore[misc]
        assert stored(data) == {}


def test_while_nobody_answers_for_keys_nobody_gets_in(
    tmp_path: Path, microscope: KeyFolder, secured: Listener, acquisition: Acquisition, pixels: Pixels
) -> None:
    assert secured._door is not None
    secured._door.close()
    with publishing(secured, acquisition, microscope, tmp_path / "spill") as publisher:
        publisher.publish(pixels((0, 0, 0)), z=0)
        with pytest.raises(TimeoutError):
            publisher.drain(1)
    check_nothing_came(secured, tmp_path / "data")


def test_a_fault_in_one_answer_is_not_the_end_of_answers(
    tmp_path: Path,
    here: KeyFolder,
    microscope: KeyFolder,
    secured: Listener,
    acquisition: Acquisition,
    pixels: Pixels,
    until: Until,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def failing() -> dict[str, str]:
        raise OSError("the disk is gone")

    with monkeypatch.context() as patch:
        patch.setattr(here, "authorised", failing)
        publisher = Publisher(secured.address, acquisition, keys=microscope.folder)
        publisher.publish(pixels((0, 0, 0)), z=0)
        until(lambda: "cannot tell whether 127.0.0.1 may connect" in caplog.text)
        assert secured.counters.received == 0
    publisher.close(30)
    assert stored(tmp_path / "data") == {"cells.ome.zarr": [(0, 0, 0)]}


def test_a_listener_without_a_pair_does_not_listen(tmp_path: Path) -> None:
    with pytest.raises(ListenError, match=r"no key in .*otf-stream keys make"):
        Listener(tmp_path / "data", "tcp://127.0.0.1:*", keys=KeyFolder(tmp_path / "none"))


def test_trust_without_a_pair_is_told_at_once(tmp_path: Path, acquisition: Acquisition) -> None:
    keys = KeyFolder(tmp_path / "keys")
    keys.trust("127.0.0.1", zmq.curve_keypair()[0].decode())
    with pytest.raises(KeysError, match="no key in"):
        Publisher("tcp://127.0.0.1:9", acquisition, keys=keys.folder)
