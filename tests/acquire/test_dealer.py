"""A sender whose connection is answered with what no listener says, as on a line that alters what it carries."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from otf_stream.acquire.dealer import Dealer
from otf_stream.acquire.protocol import Ping, encode
from otf_stream.acquire.publisher import Publisher
from otf_stream.acquisition import Acquisition, PlaneIndex

Pixels = Callable[[PlaneIndex], np.ndarray]

# In ZeroMQ's own protocol (ZMTP 3.1): a greeting, and the command by which a ROUTER presents itself.
GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x01" + b"NULL".ljust(20, b"\0") + bytes(32)
READY = b"\x04\x1c\x05READY\x0bSocket-Type\x00\x00\x00\x06ROUTER"


@contextmanager
def sending(tmp_path: Path, acquisition: Acquisition, pixels: Pixels) -> Iterator[tuple[Publisher, str, socket.socket]]:
    """Give a publisher with a plane to send, where it sends it, and its connection there, which nobody answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"tcp://127.0.0.1:{server.getsockname()[1]}"
        publisher = Publisher(address, acquisition, spill=tmp_path / "spill")
        publisher.publish(pixels((0, 0, 0)), z=0)
        server.settimeout(30)
        link, _ = server.accept()
        with link:
            yield publisher, address, link


@pytest.mark.parametrize(
    "answer",
    [
        GREETING + READY.replace(b"ROUTER", b"ROUTEX"),
        GREETING + READY + b"\x02" + b"\x7f" * 8,
    ],
    ids=["an altered socket type", "an altered length"],
)
def test_a_connection_that_was_answered_with_garbage_is_made_anew(
    tmp_path: Path, listening: Callable[..., Any], acquisition: Acquisition, pixels: Pixels, answer: bytes
) -> None:
    with sending(tmp_path, acquisition, pixels) as (publisher, address, link), suppress(OSError):
        link.sendall(answer)
        link.settimeout(1)
        while link.recv(1000):  # until it hangs up, or waits for more
            pass
    with listening(tmp_path / "data", address):
        publisher.close(60)
    assert publisher.acknowledged == 1


def test_a_connection_on_which_nothing_is_answered_is_made_anew(
    tmp_path: Path,
    listening: Callable[..., Any],
    acquisition: Acquisition,
    pixels: Pixels,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("otf_stream.acquire.dealer._UNANSWERED", 0.5)
    with sending(tmp_path, acquisition, pixels) as (publisher, address, link), suppress(ConnectionError):
        link.sendall(GREETING + READY)
        link.settimeout(30)
        while link.recv(1000):  # until it hangs up
            pass
    with listening(tmp_path / "data", address):
        publisher.close(60)
    assert publisher.acknowledged == 1


def test_a_connection_on_which_nothing_is_asked_stays(
    tmp_path: Path, listening: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("otf_stream.acquire.dealer._UNANSWERED", 0.2)
    with listening(tmp_path / "data") as listener:
        dealer = Dealer(listener.address)
        try:
            until = time.monotonic() + 1
            while time.monotonic() < until or not dealer.ready():
                assert not dealer.look()
                time.sleep(0.01)
            assert dealer.send([encode(Ping(session="0" * 32))])
            while dealer.receive() is None:
                time.sleep(0.01)
            until = time.monotonic() + 0.5
            while time.monotonic() < until:
                assert not dealer.look()  # it was answered
            assert dealer.send([encode(Ping(session="0" * 32)), bytes(2 * 10**6)])  # takes as long as 2 s to get there
            until = time.monotonic() + 0.5
            while time.monotonic() < until:
                assert not dealer.look()
        finally:
            dealer.close()
