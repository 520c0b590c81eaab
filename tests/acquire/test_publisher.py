from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import zmq

from otf_stream.acquire import delivery
from otf_stream.acquire.protocol import Hello, Ping, Plane, Welcome, decode, encode
from otf_stream.acquire.publisher import Publisher, PublishError
from otf_stream.acquire.status import ListenerStatus, read_status
from otf_stream.acquisition import Acquisition, PlaneIndex, Sizes
from otf_stream.store.session import SessionStore

Pixels = Callable[[PlaneIndex], np.ndarray]
Listening = Callable[..., Any]
Until = Callable[[Callable[[], object]], None]


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Publishers whom nobody answers soon greet again."""
    monkeypatch.setattr(delivery, "_FIRST_PAUSE", 0.3)


def publish(publisher: Publisher, planes: list[PlaneIndex], pixels: Pixels) -> None:
    for t, c, z in planes:
        publisher.publish(pixels((t, c, z)), t=t, c=c, z=z)


def check(data_folder: Path, planes: list[PlaneIndex], pixels: Pixels, *, closed: str = "finished") -> None:
    """The planes, and no others, are on disk as they were published."""
    (path,) = data_folder.glob("*.ome.zarr")
    store = SessionStore.open(path)
    try:
        assert list(store.journal.durable()) == sorted(planes)
        for plane in planes:
            np.testing.assert_array_equal(store.read_plane(plane), pixels(plane))
        assert store.journal.closed == closed
    finally:
        store.close()


def free_address() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"tcp://127.0.0.1:{probe.getsockname()[1]}"


def test_every_plane_arrives_in_whatever_order_it_is_published(
    tmp_path: Path, listening: Listening, acquisition: Acquisition, indices: list[PlaneIndex], pixels: Pixels
) -> None:
    order = np.random.default_rng(0).permutation(len(indices)).tolist()
    with listening(tmp_path / "data") as listener:
        with Publisher(listener.address, acquisition, spill=tmp_path / "spill") as publisher:
            camera = np.empty(acquisition.sizes.shape[3:], acquisition.dtype)
            for i in order + order[:5]:
                t, c, z = indices[i]
                camera[:] = pixels(indices[i])
                publisher.publish(camera, t=t, c=np.int64(c), z=z)
                camera[:] = 0
            publisher.drain(60)
            assert (publisher.published, publisher.sent, publisher.acknowledged) == (20, 20, 20)
            assert (publisher.pending, publisher.spilled, publisher.failures) == (0, 0, [])
            assert publisher.bytes_acknowledged == 20 * acquisition.plane_bytes
            assert publisher.connected
            assert publisher.ended is None
        assert publisher.ended is not None
        assert (publisher.ended.durable, publisher.ended.missing_count) == (20, 0)
        assert listener.counters.durable == listener.counters.received == 20
    check(tmp_path / "data", indices, pixels)
    assert not list((tmp_path / "spill").glob("*"))


def test_what_does_not_fit_is_refused_at_once(acquisition: Acquisition, pixels: Pixels, tmp_path: Path) -> None:
    publisher = Publisher("tcp://127.0.0.1:9", acquisition, spill=tmp_path)
    good = pixels((0, 0, 0))
    with pytest.raises(ValueError, match=r"\(20, 12\) uint16, but \(12, 20\) uint16"):
        publisher.publish(good.T, z=0)
    with pytest.raises(ValueError, match="float64"):
        publisher.publish(good.astype(float), z=0)
    with pytest.raises(ValueError, match="int16"):
        publisher.publish(good.astype(np.int16), z=0)
    for wrong in ({"z": 5}, {"z": -1}, {"z": 0, "t": 2}, {"z": 0, "c": 2}):
        with pytest.raises(ValueError, match="outside the announced"):
            publisher.publish(good, **wrong)
    with pytest.raises(TypeError):
        publisher.publish(good, z=0.5)  # type: ignore[arg-type]
    assert publisher.published == 0
    publisher.publish(good, z=0)
    publisher.publish(good, z=0)
    with pytest.raises(ValueError, match="published before with other pixels"):
        publisher.publish(pixels((0, 0, 1)), z=0)
    assert publisher.published == publisher.pending == 1
    publisher.abort(0)
    with pytest.raises(PublishError, match="closed"):
        publisher.publish(good, z=1)


def test_planes_are_sent_little_endian_and_contiguous(
    tmp_path: Path, listening: Listening, acquisition: Acquisition, pixels: Pixels
) -> None:
    with listening(tmp_path / "data") as listener, Publisher(listener.address, acquisition) as publisher:
        publisher.publish(pixels((0, 0, 0)).astype(">u2"), z=0)
        publisher.publish(np.repeat(pixels((0, 0, 1)), 2, axis=0)[::2], z=1)
        publisher.publish(np.asfortranarray(pixels((0, 0, 2))), z=2)
    check(tmp_path / "data", [(0, 0, z) for z in range(3)], pixels)


@pytest.mark.parametrize("address", ["nonsense", "tcp://127.0.0.1", "udp-ish://x"])
def test_addresses_that_cannot_be_used_are_refused(address: str, acquisition: Acquisition) -> None:
    with pytest.raises(ValueError, match="tcp://HOST:PORT"):
        Publisher(address, acquisition)


def test_sessions_that_cannot_be_used_are_refused(acquisition: Acquisition) -> None:
    with pytest.raises(ValueError, match="session"):
        Publisher("tcp://127.0.0.1:9", acquisition, session="../etc")
    long = acquisition.model_copy(update={"sizes": Sizes(t=999_999, c=2, z=999_999, y=1, x=1)})
    with pytest.raises(ValueError, match="split the acquisition"):
        Publisher("tcp://127.0.0.1:9", long)


def test_planes_published_before_the_listener_is_there_wait_in_files(
    tmp_path: Path,
    listening: Listening,
    acquisition: Acquisition,
    indices: list[PlaneIndex],
    pixels: Pixels,
    until: Until,
    caplog: pytest.LogCaptureFixture,
) -> None:
    address = free_address()
    with Publisher(address, acquisition, memory=1, spill=tmp_path / "spill") as publisher:
        publish(publisher, indices, pixels)
        until(lambda: publisher.spilled >= 17)
        assert not publisher.connected
        (folder,) = (tmp_path / "spill").iterdir()
        assert len(list(folder.glob("*.plane"))) == publisher.spilled
        with pytest.raises(TimeoutError, match="20 planes of session"):
            publisher.drain(0.2)
        until(lambda: f"nothing answers at {address} yet" in caplog.text)
        with listening(tmp_path / "data", address):
            publisher.close()
    check(tmp_path / "data", indices, pixels)
    assert not folder.exists()


def test_the_camera_waits_only_when_the_spill_disk_fails_too(
    tmp_path: Path,
    listening: Listening,
    acquisition: Acquisition,
    indices: list[PlaneIndex],
    pixels: Pixels,
    until: Until,
) -> None:
    address = free_address()
    (tmp_path / "spill").write_text("a file, so that no folder can be made")
    with Publisher(address, acquisition, memory=1, spill=tmp_path / "spill") as publisher:
        camera = threading.Thread(target=publish, args=(publisher, indices, pixels))
        camera.start()
        until(lambda: publisher.published == 4)
        camera.join(0.3)
        assert camera.is_alive()
        assert (publisher.published, publisher.spilled) == (4, 0)
        with listening(tmp_path / "data", address):
            camera.join(60)
            publisher.close()
    check(tmp_path / "data", indices, pixels)


def test_what_could_not_be_delivered_is_kept_for_the_next_publisher(
    tmp_path: Path, listening: Listening, acquisition: Acquisition, indices: list[PlaneIndex], pixels: Pixels
) -> None:
    publisher = Publisher("tcp://127.0.0.1:9", acquisition, spill=tmp_path / "spill")
    publish(publisher, indices[:7], pixels)
    with pytest.raises(TimeoutError, match="7 planes are kept in") as caught:
        publisher.close(0.2)
    assert f"otf-stream deliver {tmp_path / 'spill'}" in str(caught.value)
    publisher.close()

    with (
        listening(tmp_path / "data") as listener,
        Publisher(listener.address, acquisition, session=publisher.session, spill=tmp_path / "spill") as again,
    ):
        assert (again.pending, again.spilled) == (7, 7)
        publish(again, indices[5:10], pixels)
    assert again.published == 10
    check(tmp_path / "data", indices[:10], pixels)
    assert not list((tmp_path / "spill").iterdir())


def test_a_listener_that_is_restarted_gets_what_it_missed(
    tmp_path: Path, listening: Listening, acquisition: Acquisition, indices: list[PlaneIndex], pixels: Pixels
) -> None:
    address = free_address()
    with Publisher(address, acquisition) as publisher:
        for first in range(0, 20, 5):
            with listening(tmp_path / "data", address):
                publish(publisher, indices[first : first + 4], pixels)
                publisher.drain()
            publish(publisher, indices[first + 4 : first + 5], pixels)
        with listening(tmp_path / "data", address):
            publisher.close()
    check(tmp_path / "data", indices, pixels)


def test_an_exception_aborts_the_session_and_saves_its_planes(
    tmp_path: Path, listening: Listening, acquisition: Acquisition, indices: list[PlaneIndex], pixels: Pixels
) -> None:
    def acquire(address: str) -> None:
        with Publisher(address, acquisition) as publisher:
            publish(publisher, indices[:3], pixels)
            raise RuntimeError("the stage is stuck")

    with listening(tmp_path / "data") as listener, pytest.raises(RuntimeError, match="stuck"):
        acquire(listener.address)
    check(tmp_path / "data", indices[:3], pixels, closed="aborted")


def test_a_session_that_the_listener_refuses_raises_everywhere(
    tmp_path: Path, listening: Listening, acquisition: Acquisition, pixels: Pixels, until: Until
) -> None:
    with listening(tmp_path / "data", max_plane_bytes=100) as listener:
        publisher = Publisher(listener.address, acquisition, spill=tmp_path / "spill")
        publisher.publish(pixels((0, 0, 0)), z=0)
        with pytest.raises(PublishError, match="480 bytes") as caught:
            publisher.drain()
        assert caught.value.code == "too-large"
        with pytest.raises(PublishError, match="480 bytes"):
            publisher.publish(pixels((0, 0, 1)), z=1)
        with pytest.raises(PublishError, match="1 planes are kept in"):
            publisher.close()


def told(data: Path) -> ListenerStatus:
    status = read_status(data)
    assert status is not None
    assert status.current
    return status


def test_planes_are_held_while_the_disk_is_full(
    tmp_path: Path,
    listening: Listening,
    acquisition: Acquisition,
    indices: list[PlaneIndex],
    pixels: Pixels,
    until: Until,
) -> None:
    with listening(tmp_path / "data") as listener, Publisher(listener.address, acquisition) as publisher:
        publish(publisher, indices[:5], pixels)
        publisher.drain()
        listener._room.reserve = 2**60
        publish(publisher, indices[5:], pixels)
        until(lambda: listener.counters.refused["no-space"] >= 2)
        assert (publisher.acknowledged, publisher.failures) == (5, [])
        assert "make room" in (publisher.trouble or "")
        until(lambda: told(tmp_path / "data").holding)
        listener._room.reserve = 0
        publisher.drain()
        assert publisher.trouble is None
        until(lambda: not told(tmp_path / "data").holding)
        until(lambda: told(tmp_path / "data").counters["durable"] == len(indices))
        assert told(tmp_path / "data").counters["refused"] == dict(listener.counters.refused)
    check(tmp_path / "data", indices, pixels)


def test_a_plane_that_is_there_with_other_pixels_is_a_failure(
    tmp_path: Path, listening: Listening, acquisition: Acquisition, pixels: Pixels
) -> None:
    with listening(tmp_path / "data") as listener:
        one = Publisher(listener.address, acquisition)
        two = Publisher(listener.address, acquisition, session=one.session)
        one.publish(pixels((0, 0, 0)), z=0)
        one.drain()
        two.publish(pixels((0, 0, 1)), z=0)
        two.publish(pixels((0, 0, 1)), z=1)
        with pytest.raises(PublishError, match=r"1 planes could not be delivered, .* \(0, 0, 0\)"):
            two.drain()
        (failure,) = two.failures
        assert (failure.plane, failure.code) == ((0, 0, 0), "conflict")
        one.close()
        with pytest.raises(PublishError, match="1 planes"):
            two.close()
    check(tmp_path / "data", [(0, 0, 0), (0, 0, 1)], lambda plane: pixels((0, 0, 1) if plane[2] else plane))


def test_a_spilled_plane_whose_file_is_gone_or_damaged_is_a_failure_of_that_plane(
    tmp_path: Path, listening: Listening, acquisition: Acquisition, indices: list[PlaneIndex], pixels: Pixels
) -> None:
    publisher = Publisher("tcp://127.0.0.1:9", acquisition, spill=tmp_path / "spill")
    publish(publisher, indices[:3], pixels)
    with pytest.raises(TimeoutError):
        publisher.close(0)
    lost, damaged, _ = sorted((tmp_path / "spill").rglob("*.plane"))
    damaged.write_bytes(bytes(acquisition.plane_bytes))
    address = free_address()
    again = Publisher(address, acquisition, session=publisher.session, spill=tmp_path / "spill")
    lost.unlink()
    with listening(tmp_path / "data", address) as listener, pytest.raises(PublishError, match="2 planes could not"):
        again.close()
    said = {failure.plane: failure.message for failure in again.failures}
    assert said.keys() == {(0, 0, 0), (0, 0, 1)}
    assert "No such file" in said[0, 0, 0]
    assert "altered" in said[0, 0, 1]
    assert not listener.counters.refused
    check(tmp_path / "data", [(0, 0, 2)], pixels)


def test_no_more_planes_are_in_flight_than_are_granted_and_what_is_lost_is_sent_again(
    tmp_path: Path, acquisition: Acquisition, pixels: Pixels
) -> None:
    """Against a listener by hand, which grants three planes and acknowledges none."""
    context = zmq.Context()
    router = context.socket(zmq.ROUTER)
    port = router.bind_to_random_port("tcp://127.0.0.1")

    def planes_after_hello(durable: tuple[tuple[int, int, int, int], ...]) -> list[int]:
        """Wait for a greeting, welcome it, and list the planes that come until a ping does."""
        planes: list[int] = []
        welcomed = False
        while router.poll(30_000):
            peer, header, *_ = router.recv_multipart()
            message = decode(header)
            if isinstance(message, Hello):
                router.send_multipart(
                    [peer, encode(Welcome(session=message.session, store="x", credit=3, durable=durable))]
                )
                welcomed = True
            elif isinstance(message, Plane) and welcomed:
                planes.append(message.z)
            elif isinstance(message, Ping) and welcomed:
                return planes
        raise AssertionError("nothing came")

    publisher = Publisher(f"tcp://127.0.0.1:{port}", acquisition, memory=1 << 20, spill=tmp_path)
    try:
        for z in range(5):
            publisher.publish(pixels((0, 0, z)), z=z)
        assert planes_after_hello(()) == [0, 1, 2]
        assert planes_after_hello(((0, 0, 0, 1),)) == [1, 2, 3]
        assert publisher.acknowledged == 1
    finally:
        publisher.abort(0)
        context.destroy(linger=0)


def test_many_short_sessions_leave_nothing_behind(
    tmp_path: Path, listening: Listening, acquisition: Acquisition, pixels: Pixels, until: Callable[..., None]
) -> None:
    process = psutil.Process()
    small = acquisition.model_copy(update={"sizes": acquisition.sizes.model_copy(update={"t": 1})})
    with listening(tmp_path / "data") as listener:

        def one() -> None:
            with Publisher(listener.address, small, spill=tmp_path / "spill") as publisher:
                publisher.publish(pixels((0, 0, 0)), z=0)

        def threads() -> list[str]:
            return [t.name for t in threading.enumerate() if t.name.startswith(("store", "publisher"))]

        one()
        until(lambda: not threads())  # The listener lets go of a session after its answer.
        handles = process.num_fds()
        for _ in range(12):
            one()
        until(lambda: not threads())
        until(lambda: process.num_fds() <= handles)
    assert len(list((tmp_path / "data").glob("*.ome.zarr"))) == 13
