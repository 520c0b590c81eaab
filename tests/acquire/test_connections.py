"""Connections that break no rule of any single message, and would still bring a listener down."""

from __future__ import annotations

import os
import socket
import sqlite3
import struct
import subprocess
import sys
import uuid
from collections.abc import Callable
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from otf_stream.acquire.connections import BROKEN_OFF, NO_HANDSHAKE, TOO_MANY, TOO_MUCH, _accepted
from otf_stream.acquire.listener import Listener
from otf_stream.acquire.publisher import Publisher
from otf_stream.acquisition import Acquisition, PlaneIndex

Pixels = Callable[[PlaneIndex], np.ndarray]
Until = Callable[[Callable[[], object]], None]


def plain(listener: Listener) -> socket.socket:
    """A connection that says nothing."""
    host, port = listener.address.removeprefix("tcp://").split(":")
    return socket.create_connection((host, int(port)), timeout=10)


def greeted(listener: Listener) -> socket.socket:
    """A connection that has said, in ZeroMQ's own protocol (ZMTP 3.0), that a DEALER is at its other end."""
    link = plain(listener)
    link.sendall(b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"NULL".ljust(20, b"\0") + bytes(32))
    ready = b"\x05READY" + b"".join(
        bytes([len(name)]) + name + struct.pack(">I", len(value)) + value
        for name, value in ((b"Socket-Type", b"DEALER"), (b"Identity", b""))
    )
    link.sendall(b"\x04" + bytes([len(ready)]) + ready)
    while b"READY" not in (said := link.recv(1000)):
        assert said, "the listener hung up"
    return link


def a_frame_of_many(size: int) -> bytes:
    """A frame after which another one of the same message comes."""
    return b"\x03" + struct.pack(">Q", size) + bytes(size)


def stream(listener: Listener, acquisition: Acquisition, pixels: Pixels) -> None:
    """A whole acquisition goes through."""
    one = acquisition.model_copy(update={"name": f"cells {uuid.uuid4().hex[:8]}"})
    with Publisher(listener.address, one) as publisher:
        for z in range(acquisition.sizes.z):
            publisher.publish(pixels((0, 0, z)), z=z)
    assert publisher.acknowledged == acquisition.sizes.z


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells what a connection has received")
def test_a_message_that_never_ends_costs_its_sender_the_connection_and_nobody_else(
    tmp_path: Path, listening: Callable[..., Any], acquisition: Acquisition, pixels: Pixels, until: Until
) -> None:
    frame = a_frame_of_many(1 << 20)
    with listening(tmp_path, memory=4 << 20, max_plane_bytes=2 << 20) as listener:
        resident = psutil.Process().memory_info().rss
        with greeted(listener) as bad, Publisher(listener.address, acquisition) as publisher:
            publisher.publish(pixels((0, 0, 0)), z=0)
            publisher.drain()
            with suppress(OSError):  # it is cut while it sends
                for _ in range(2000):
                    bad.sendall(frame)
            until(lambda: listener.counters.refused[TOO_MUCH] == 1)
            publisher.publish(pixels((0, 0, 1)), z=1)
            publisher.drain()
            assert publisher.connected
        assert psutil.Process().memory_info().rss - resident < 1 << 30
        stream(listener, acquisition, pixels)
        assert listener.counters.refused == {TOO_MUCH: 1}


def test_a_sender_that_keeps_to_its_credit_is_not_cut_however_much_it_sends(
    tmp_path: Path, listening: Callable[..., Any], acquisition: Acquisition
) -> None:
    large = acquisition.model_copy(
        update={"sizes": acquisition.sizes.model_copy(update={"t": 30, "y": 256, "x": 512}), "channels": ()}
    )
    plane = np.random.default_rng(0).integers(0, 65536, (256, 512)).astype("uint16")
    with listening(tmp_path, memory=1 << 20, max_plane_bytes=1 << 18) as listener:
        with Publisher(listener.address, large, memory=16 << 20) as publisher:
            for t in range(30):
                for z in range(5):
                    publisher.publish(plane, t=t, z=z)
        assert publisher.acknowledged == 150
        assert listener.counters.received == 150
        assert not listener.counters.refused


def test_one_connection_too_many_is_cut_and_there_is_room_again_when_others_go(
    tmp_path: Path, listening: Callable[..., Any], acquisition: Acquisition, pixels: Pixels, until: Until
) -> None:
    with listening(tmp_path, max_connections=5) as listener, ExitStack() as open_links:
        links = [open_links.enter_context(plain(listener)) for _ in range(20)]
        until(lambda: listener.counters.refused[TOO_MANY] == 15)
        ended = 0
        for link in links[5:]:
            with suppress(ConnectionError):
                while link.recv(1000):  # ZeroMQ's greeting may come before
                    pass
            ended += 1
        assert ended == 15
        for link in links:
            link.close()
        stream(listener, acquisition, pixels)


def test_what_hangs_up_or_speaks_something_else_is_counted(
    tmp_path: Path, listening: Callable[..., Any], acquisition: Acquisition, pixels: Pixels, until: Until
) -> None:
    with listening(tmp_path) as listener:
        for said in (b"", b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"XYZ".ljust(52, b"\0")):
            with plain(listener) as link:
                link.sendall(said)
        until(lambda: listener.counters.refused[NO_HANDSHAKE] == 2)
        stream(listener, acquisition, pixels)


def test_a_frame_that_is_too_large_is_counted_and_who_hangs_up_is_not(
    tmp_path: Path, listening: Callable[..., Any], acquisition: Acquisition, pixels: Pixels, until: Until
) -> None:
    with listening(tmp_path, max_plane_bytes=2 << 20) as listener:
        with greeted(listener) as link:
            until(lambda: len(listener._connections))  # what ends before it is heard of cannot be told apart
            link.sendall(b"\x02" + struct.pack(">Q", (2 << 20) + 1) + bytes(100))
            with suppress(ConnectionError):
                assert not link.recv(1000)
        until(lambda: listener.counters.refused[BROKEN_OFF] == 1)
        until(lambda: not len(listener._connections))
        for _ in range(3):
            with greeted(listener):
                until(lambda: len(listener._connections))
            until(lambda: not len(listener._connections))
        stream(listener, acquisition, pixels)
        until(lambda: not len(listener._connections))
        assert +listener.counters.refused == {BROKEN_OFF: 1}


@pytest.mark.skipif(sys.platform == "win32", reason="Windows does not tell whether a socket blocks")
def test_following_a_connection_lets_no_socket_of_zeromq_block(
    tmp_path: Path, listening: Callable[..., Any], until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one thread of ZeroMQ that serves all connections would wait for one of them."""
    changed: list[object] = []
    with listening(tmp_path) as listener, monkeypatch.context() as patch, plain(listener):
        for name in ("setblocking", "settimeout"):
            patch.setattr(socket.socket, name, lambda _, value: changed.append(value))
        until(lambda: len(listener._connections))
        (followed,) = listener._connections._connections.values()
        until(lambda: not os.get_blocking(followed.link.fileno()))  # ZeroMQ says so once it has taken the connection
    assert not changed


@pytest.mark.skipif(sys.platform != "linux", reason="counts open files as Linux tells them")
def test_no_handle_is_left_of_connections_that_ended(
    tmp_path: Path, listening: Callable[..., Any], acquisition: Acquisition, pixels: Pixels, until: Until
) -> None:
    with listening(tmp_path, max_connections=5) as listener:
        stream(listener, acquisition, pixels)
        until(lambda: not len(listener._connections))
        before = psutil.Process().num_fds()
        for _ in range(3):
            links = [plain(listener) for _ in range(10)]
            until(lambda: listener.counters.refused[TOO_MANY] % 5 == 0 and len(listener._connections) == 5)
            for link in links:
                link.close()
            until(lambda: not len(listener._connections))
        stream(listener, acquisition, pixels)
        until(lambda: not len(listener._connections))
        until(lambda: psutil.Process().num_fds() <= before)


def test_a_descriptor_that_is_something_else_by_now_is_no_connection() -> None:
    near, far = socket.socketpair()  # what any thread of the process may have opened since ZeroMQ accepted
    with near, far:
        assert _accepted(near.fileno()) is None
        near.sendall(b"still open")
        assert far.recv(10) == b"still open"


@pytest.mark.skipif(sys.platform == "win32", reason="there a file is no descriptor of a socket")
def test_a_descriptor_that_is_a_journal_by_now_keeps_its_locks(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    with closing(sqlite3.connect(path, isolation_level=None)) as journal:
        journal.execute("CREATE TABLE planes (z)")
        (descriptor,) = [file.fd for file in psutil.Process().open_files() if file.path == str(path.resolve())]
        journal.execute("BEGIN EXCLUSIVE")
        assert _accepted(descriptor) is None
        asking = "import sqlite3, sys; sqlite3.connect(sys.argv[1], timeout=0).execute('BEGIN EXCLUSIVE')"
        other = subprocess.run([sys.executable, "-c", asking, path], capture_output=True, text=True, check=False)
        assert "database is locked" in other.stderr
