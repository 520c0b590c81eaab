"""Each fault of a bad network really happens, on real sockets."""

from __future__ import annotations

import random
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import zmq
from waiting import until

from otf_stream.acquire.listener import Listener
from otf_stream.acquire.publisher import Publisher
from otf_stream.acquisition import Acquisition, Sizes, VoxelSize
from otf_stream.store.session import SessionStore
from simulators.network import Cut, MessageFaults, MessageProxy, StreamFaults, StreamProxy, flipped

LONG = bytes(range(256)) * 400
NEVER_ENDING = 1e6


@contextmanager
def echoing() -> Iterator[tuple[str, list[bytes]]]:
    """A server that keeps what each connection brought, and sends it back."""
    server = socket.create_server(("127.0.0.1", 0))
    brought: list[bytes] = []

    def serve() -> None:
        while True:
            try:
                connection = server.accept()[0]
            except OSError:
                return
            brought.append(b"")
            with connection:
                try:
                    while data := connection.recv(1 << 16):
                        brought[-1] += data
                        connection.sendall(data)
                except OSError:
                    pass

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield f"tcp://127.0.0.1:{server.getsockname()[1]}", brought
    finally:
        server.shutdown(socket.SHUT_RDWR)
        server.close()
        thread.join(30)
        assert not thread.is_alive()


def connected(proxy: StreamProxy) -> socket.socket:
    host, _, port = proxy.address.removeprefix("tcp://").rpartition(":")
    return socket.create_connection((host, int(port)), timeout=60)


def read(connection: socket.socket, wanted: int) -> bytes:
    """Read so many bytes, or those that come before the connection is broken off."""
    data = b""
    try:
        while len(data) < wanted and (more := connection.recv(1 << 16)):
            data += more
    except ConnectionError:
        pass
    return data


def asked(proxy: StreamProxy) -> bytes:
    """Connect and say hello; return the answer, or nothing where the connection is broken off."""
    try:
        with connected(proxy) as near:
            near.sendall(b"hello")
            return read(near, 5)
    except ConnectionError:
        return b""


def test_bytes_pass_as_they_are_where_nothing_is_wrong() -> None:
    with (
        echoing() as (address, brought),
        StreamProxy(address, StreamFaults(delay_s=0.01)) as proxy,
        connected(proxy) as near,
    ):
        near.sendall(LONG)
        assert read(near, len(LONG)) == LONG
        assert brought == [LONG]
        assert proxy.counts["delayed"] > 0
        assert (proxy.counts["connected"], proxy.counts["flipped"], proxy.counts["cut"]) == (1, 0, 0)


def test_bits_of_bytes_are_flipped_by_the_seed_however_the_bytes_come() -> None:
    def altered(seed: int) -> bytes:
        with echoing() as (address, brought), StreamProxy(address, StreamFaults(flips=1e-3), seed=seed) as proxy:
            with connected(proxy) as near:
                near.sendall(LONG)
                assert len(read(near, len(LONG))) == len(LONG)
            return brought[0]

    first = altered(1)
    differing = [(a ^ b).bit_count() for a, b in zip(first, LONG, strict=True) if a != b]
    assert 50 < len(differing) < 200  # of about 100
    assert set(differing) == {1}
    assert altered(1) == first
    assert altered(2) != first


def test_bits_of_answers_are_flipped_apart_from_those_of_requests() -> None:
    with (
        echoing() as (address, brought),
        StreamProxy(address, StreamFaults(flips_back=1e-3)) as proxy,
        connected(proxy) as near,
    ):
        near.sendall(LONG)
        answer = read(near, len(LONG))
        assert brought == [LONG]
        assert sum(a != b for a, b in zip(answer, LONG, strict=True)) == proxy.counts["flipped"] > 50


def test_a_cut_breaks_off_in_the_middle_and_refuses_until_it_is_over() -> None:
    cut = Cut(at_s=0.0, seconds=2.0)
    with echoing() as (address, brought), StreamProxy(address, StreamFaults(cuts=(cut,))) as proxy:
        with connected(proxy) as near:
            near.sendall(LONG)
            assert read(near, len(LONG)) != LONG
        assert len(b"".join(brought)) < len(LONG)
        assert proxy.counts["truncated"] in (1, 2)  # what came back of it, too
        # Whoever connects now is turned away; after the cut, all is well.
        assert asked(proxy) == b""
        until(lambda: asked(proxy) == b"hello")
        assert proxy.counts["refused"] > 0
        assert proxy.counts["cut"] == 1


def test_after_a_stall_all_that_waited_passes() -> None:
    cut = Cut(at_s=0.0, seconds=0.5, kind="stall")
    with (
        echoing() as (address, brought),
        StreamProxy(address, StreamFaults(cuts=(cut,))) as proxy,
        connected(proxy) as near,
    ):
        near.sendall(LONG)
        assert read(near, len(LONG)) == LONG
        assert brought == [LONG]
        assert proxy.counts["cut"] == 1


def test_a_stalled_connection_does_not_keep_the_proxy_from_ending() -> None:
    cut = Cut(at_s=0.0, seconds=NEVER_ENDING, kind="stall")
    with (
        echoing() as (address, brought),
        StreamProxy(address, StreamFaults(cuts=(cut,))) as proxy,
        connected(proxy) as near,
    ):
        near.sendall(LONG)
        until(lambda: proxy.counts["cut"])
    assert b"".join(brought) == b""


def test_nobody_listens() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{unused.getsockname()[1]}"
        with StreamProxy(address, StreamFaults()) as proxy:
            assert asked(proxy) == b""


@contextmanager
def messages(faults: MessageFaults) -> Iterator[tuple[MessageProxy, zmq.Socket[bytes], zmq.Socket[bytes]]]:
    """A proxy between a sender and a receiver of messages."""
    context = zmq.Context()
    try:
        listener, sender = context.socket(zmq.ROUTER), context.socket(zmq.DEALER)
        for end in (listener, sender):
            end.setsockopt(zmq.RCVTIMEO, 60_000)
        listener.bind("tcp://127.0.0.1:*")
        with MessageProxy(listener.getsockopt_string(zmq.LAST_ENDPOINT), faults, seed=3) as proxy:
            sender.connect(proxy.address)
            yield proxy, sender, listener
    finally:
        context.destroy(linger=0)


def through(faults: MessageFaults, count: int, counted: Callable[[MessageProxy], int]) -> list[list[bytes]]:
    """Send numbered messages of two frames; return those that came, as many as ``counted`` says."""
    with messages(faults) as (proxy, sender, listener):
        for number in range(count):
            sender.send_multipart([b"header %03d" % number, bytes(100)])
        came: list[list[bytes]] = []

        def all_came() -> bool:
            while listener.poll(0):
                came.append(listener.recv_multipart()[1:])
            return proxy.counts["seen"] == count and len(came) == counted(proxy)

        until(all_came)
        return came


def numbers(came: list[list[bytes]]) -> list[int]:
    return [int(header.split()[1]) for header, _ in came]


def test_messages_pass_in_both_directions_where_nothing_is_wrong() -> None:
    assert numbers(through(MessageFaults(), 20, lambda proxy: 20)) == list(range(20))
    with messages(MessageFaults()) as (_, sender, listener):
        sender.send(b"hello")
        peer, said = listener.recv_multipart()
        assert said == b"hello"
        listener.send_multipart([peer, b"welcome"])
        assert sender.recv() == b"welcome"


def test_messages_are_lost_and_come_twice() -> None:
    faults = MessageFaults(drop=0.3, duplicate=0.3)
    came = numbers(through(faults, 100, lambda proxy: 100 - proxy.counts["dropped"] + proxy.counts["duplicated"]))
    assert 10 < 100 - len(set(came)) < 60
    assert len(came) - len(set(came)) > 5
    assert came == sorted(came)


@pytest.mark.parametrize("faults", [MessageFaults(reorder=0.3), MessageFaults(delay=0.3, delay_s=0.3)])
def test_messages_overtake_each_other(faults: MessageFaults) -> None:
    came = numbers(through(faults, 50, lambda proxy: 50))
    assert came != list(range(50))
    assert sorted(came) == list(range(50))


def test_messages_are_altered() -> None:
    came = through(MessageFaults(truncate=0.2, flip_header=0.2, flip_pixels=0.2), 100, lambda proxy: 100)
    short = [frames for frames in came if len(frames[0]) < 10 or len(frames[1]) < 100]
    assert 5 < len(short) < 50
    assert any(len(header) == 10 and header != b"header %03d" % number for number, (header, _) in enumerate(came))
    assert any(len(pixels) == 100 and pixels != bytes(100) for _, pixels in came)


def test_during_a_cut_all_messages_are_lost() -> None:
    assert through(MessageFaults(cuts=(Cut(0.0, NEVER_ENDING),)), 20, lambda proxy: 0) == []


def test_one_bit_is_flipped() -> None:
    data = flipped(bytes(10), [3, 7], random.Random(0))  # noqa: S311
    assert [byte.bit_count() for byte in data] == [0, 0, 0, 1, 0, 0, 0, 1, 0, 0]


def test_the_listener_sees_each_publisher_as_itself(listener: Listener, tmp_path: Path) -> None:
    acquisition = Acquisition(
        name="cells", sizes=Sizes(z=6, y=8, x=8), dtype="uint16", voxel_size=VoxelSize(z=0.5, y=0.1, x=0.1)
    )
    with MessageProxy(listener.address, MessageFaults(duplicate=0.3, reorder=0.3)) as proxy:
        publishers = [Publisher(proxy.address, acquisition, spill=tmp_path / str(n)) for n in range(2)]
        for z in range(6):
            for number, publisher in enumerate(publishers):
                publisher.publish(np.full((8, 8), 10 * number + z, np.uint16), z=z)
        for publisher in publishers:
            publisher.close()
            assert publisher.ended is not None
            assert publisher.ended.missing_count == 0
    found = [SessionStore.open(path) for path in sorted((tmp_path / "data").glob("*.ome.zarr"))]
    assert sorted(int(store.read_plane((0, 0, 5))[0, 0]) for store in found) == [5, 15]
    for store in found:
        store.close()
