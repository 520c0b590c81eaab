from __future__ import annotations

import gc
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from listeners import running

from otf_stream.acquire.hooks.stream import Stream, place_name
from otf_stream.acquire.leftovers import find_leftovers
from otf_stream.acquire.listener import Listener
from otf_stream.acquire.publisher import Publisher
from otf_stream.acquisition import Acquisition, Sizes, VoxelSize
from otf_stream.store.session import SessionStore

NOBODY = "tcp://127.0.0.1:9"
PLANNED = Acquisition(
    name="cells", sizes=Sizes(c=2, z=4, y=6, x=8), dtype="uint16", voxel_size=VoxelSize(z=1, y=0.2, x=0.2)
)
GROWING = PLANNED.model_copy(
    update={"growing": True, "channels": ("DAPI",), "sizes": PLANNED.sizes.model_copy(update={"c": 1, "z": 1})}
)
FRAMES = np.random.default_rng(0).integers(0, 60000, (2, 2, 4, 6, 8)).astype(np.uint16)  # place, c, z, y, x


def test_places_are_sessions_of_their_own(listener: Listener, stored: Callable[[str], SessionStore]) -> None:
    stream = Stream(listener.address)
    places = [(0, 0), (1, 0)]
    for place in places:
        name = place_name("cells", place, places)
        stream.open(place, PLANNED.model_copy(update={"name": name}), places=2)
    for c in range(2):
        for z in range(4):
            for p, place in enumerate(places):
                stream.frame(place, FRAMES[p, c, z], c=c, z=z, taken=1000.0 + z)
    stream.close()
    stream.wait()
    assert (stream.published, stream.sent, stream.acknowledged) == (16, 16, 16)
    assert (stream.lost, stream.repeated, stream.failures) == (0, 0, [])
    for p in range(2):
        store = stored(f"cells_p{p}")
        assert store.session == stream.sessions[p]
        for c in range(2):
            for z in range(4):
                np.testing.assert_array_equal(store.read_plane((0, c, z)), FRAMES[p, c, z])
                assert store.journal.taken((0, c, z)) == 1000.0 + z
        assert store.journal.closed == "finished"


def test_an_acquisition_grows_and_its_channels_are_named_as_they_appear(
    listener: Listener, stored: Callable[[str], SessionStore]
) -> None:
    stream = Stream(listener.address)
    stream.open((0, 0), GROWING)
    for t in range(3):
        names = ("DAPI", "GFP", "Cy5")[: t + 1]
        for c in range(t + 1):
            stream.name_channels((0, 0), names)
            for z in range(t + 2):
                stream.frame((0, 0), FRAMES[0, c % 2, z] + t, t=t, c=c, z=z)
    stream.close()
    stream.wait()
    assert stream.failures == []
    store = stored("cells")
    assert store.acquisition.sizes.shape == (3, 3, 4, 6, 8)
    assert store.acquisition.channels == ("DAPI", "GFP", "Cy5")
    assert len(store.journal.durable()) == 2 + 6 + 12
    np.testing.assert_array_equal(store.read_plane((2, 1, 3)), FRAMES[0, 1, 3] + 2)


def test_frames_that_come_twice_are_counted(listener: Listener, stored: Callable[[str], SessionStore]) -> None:
    stream = Stream(listener.address)
    stream.open((0, 0), PLANNED)
    stream.frame((0, 0), FRAMES[0, 0, 0])
    stream.frame((0, 0), FRAMES[0, 0, 0])  # the same again is no news
    stream.frame((0, 0), FRAMES[0, 0, 1])
    stream.close()
    stream.wait()
    assert (stream.published, stream.repeated, stream.lost, stream.failures) == (1, 1, 0, [])
    np.testing.assert_array_equal(stored("cells").read_plane((0, 0, 0)), FRAMES[0, 0, 0])


def publishers(stream: Stream) -> list[Publisher]:
    """Return what is in memory of the publishers of a stream."""
    gc.collect()
    return [found for found in gc.get_objects() if type(found) is Publisher and found.session in stream.sessions]


def test_publishers_are_let_go_once_all_is_delivered(listener: Listener) -> None:
    stream = Stream(listener.address)
    for acquisition in range(1, 4):
        stream.open((0, 0), PLANNED)
        for z in range(4):
            stream.frame((0, 0), FRAMES[0, 0, z], z=z)
        assert len(publishers(stream)) == 1
        stream.close()
        stream.wait()
        assert publishers(stream) == []
        assert (stream.published, stream.sent, stream.acknowledged) == (4 * acquisition,) * 3


def test_publishers_that_fail_are_let_go_too(tmp_path: Path) -> None:
    stream = Stream(NOBODY, spill=tmp_path, wait_s=0.1)
    stream.open((0, 0), PLANNED)
    stream.frame((0, 0), FRAMES[0, 0, 0])
    stream.close()
    stream.wait()
    assert publishers(stream) == []
    assert (stream.published, stream.acknowledged, len(stream.failures)) == (1, 0, 1)


def test_nothing_is_raised_into_the_acquisition(tmp_path: Path) -> None:
    stream = Stream(NOBODY, spill=tmp_path, wait_s=0.2)
    stream.frame((0, 0), FRAMES[0, 0, 0])
    stream.open((0, 0), PLANNED)
    stream.frame((0, 0), FRAMES[0, 0, 0].astype(np.float32))
    stream.frame((0, 0), FRAMES[0, 0, 0], z=9)
    stream.frame((0, 0), FRAMES[0, 0, 0])
    stream.close()
    stream.frame((0, 0), FRAMES[0, 0, 0])
    stream.wait()
    assert (stream.lost, stream.published) == (4, 1)
    assert [said for said in stream.failures if "otf-stream deliver" in said]
    (leftover,) = find_leftovers(tmp_path)
    assert leftover.planes == 1


def test_a_full_memory_loses_frames_rather_than_hang(tmp_path: Path) -> None:
    (tmp_path / "spill").write_text("a file, so that no folder can be made")
    stream = Stream(NOBODY, memory=1, spill=tmp_path / "spill", wait_s=0.1)
    stream.open((0, 0), PLANNED)
    for c in range(2):
        for z in range(4):
            stream.frame((0, 0), FRAMES[0, c, z], c=c, z=z)
    stream.close()
    stream.wait()
    assert (stream.published, stream.lost) == (4, 4)
    assert any("fill the memory" in said for said in stream.failures)


@pytest.mark.parametrize("address", ["restoration-pc", "tcp://host", "ipc:///tmp/x", "tcp://host:port"])
def test_an_address_that_is_none_is_refused_at_once(address: str) -> None:
    with pytest.raises(ValueError, match="tcp://HOST:PORT"):
        Stream(address)


def test_a_listener_that_starts_later_gets_everything(tmp_path: Path) -> None:
    stream = Stream("tcp://127.0.0.1:18431", spill=tmp_path / "spill")
    stream.open((0, 0), PLANNED)
    for z in range(4):
        stream.frame((0, 0), FRAMES[0, 0, z], z=z)
    stream.close()
    time.sleep(0.5)
    with running(tmp_path / "data", "tcp://127.0.0.1:18431"):
        stream.wait()
    assert (stream.acknowledged, stream.failures) == (4, [])


def test_names_of_places() -> None:
    assert place_name("x", (0, 0), [(0, 0)]) == "x"
    assert place_name("x", (1, 0), [(0, 0), (1, 0)]) == "x_p1"
    assert place_name("x", (0, 3), [(0, 0), (0, 3)]) == "x_p0_g3"
