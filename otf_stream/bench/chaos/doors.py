"""Intruders at a door that asks for keys: without one, with a wrong or an old one, or with what they have overheard."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import suppress

import zmq

from otf_stream.acquire.keys import Pair
from otf_stream.acquire.protocol import Hello, Welcome
from otf_stream.bench.chaos.raw import Dealer, is_cut, link
from otf_stream.bench.chaos.scene import Scene, greeting, whole

_REVOKED_S = 3.0  # after which a revoked key must count, for connections that exist


def _knock(scene: Scene, pair: Pair | None, trusted: str | None) -> list[str]:
    """Connect again and again with some keys, and send a whole session each time."""
    ended = time.monotonic() + scene.seconds
    messages = whole(scene.sample("knocking"), 6)
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


def no_key(scene: Scene) -> list[str]:
    """Come without any key."""
    return _knock(scene, None, None)


def wrong_key(scene: Scene) -> list[str]:
    """Come with a key that nobody authorised."""
    return _knock(scene, _drawn_pair(), _listener_key(scene))


def other_listener(scene: Scene) -> list[str]:
    """Come with an authorised key, and trust another listener than that which answers."""
    return _knock(scene, scene.microscope.own() if scene.microscope else None, _drawn_pair().public)


def revoked_key(scene: Scene) -> list[str]:
    """Come in with a key that is revoked then, stay, and come back."""
    if scene.here is None:
        return ["the listener has no keys"]
    pair, sample = _drawn_pair(), scene.sample("before")
    scene.here.authorise("old", pair.public)
    scene.may_leave.add(sample.session)
    with Dealer(scene.address, pair=pair, trusted=_listener_key(scene)) as dealer:
        dealer.send(*greeting(sample.session, sample.acquisition))
        if not isinstance(answer := dealer.receive(), Welcome):
            return [f"an authorised key was answered {answer!r}"]
        scene.here.revoke("old")
        time.sleep(_REVOKED_S)
        dealer.send(*greeting(sample.session, sample.acquisition))
        if dealer.receive(500) is not None:
            return [f"the connection was answered {_REVOKED_S:g} s after its key was revoked"]
    return _knock(scene, pair, _listener_key(scene))


def recorded_connection(scene: Scene) -> list[str]:
    """Send once more, byte for byte, what an authorised microscope sent over its encrypted connection."""
    sample = scene.sample("recorded")
    scene.may_leave.add(sample.session)
    with _Recorder(scene.address) as recorder:
        pair = scene.microscope.own() if scene.microscope else None
        with Dealer(recorder.address, pair=pair, trusted=_listener_key(scene)) as dealer:
            dealer.exchange(whole(sample, 6)[:-1], Hello(session=sample.session, acquisition=sample.acquisition))
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
