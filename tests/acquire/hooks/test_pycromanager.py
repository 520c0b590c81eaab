"""A real pycromanager acquisition with its Python engine, a real socket, a real store."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mm_test_adapters
import numpy as np
import pytest
from ndstorage import Dataset
from pycromanager import Acquisition, Core, multi_d_acquisition_events, start_headless, stop_headless

from otf_stream.acquire.hooks.pycromanager import streaming
from otf_stream.acquire.leftovers import find_leftovers
from otf_stream.acquire.listener import Listener
from otf_stream.store.session import SessionStore, find_sessions

# The Python engine opens files and sockets that it never closes.
pytestmark = [pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
              pytest.mark.filterwarnings("ignore::DeprecationWarning"),
              pytest.mark.filterwarnings("ignore::ResourceWarning")]  # fmt: skip

Frames = dict[tuple[Any, ...], np.ndarray]


@pytest.fixture(scope="module")
def core() -> Iterator[Any]:
    adapters = mm_test_adapters.device_adapter_path()
    start_headless(
        mm_app_path=str(adapters), config_file=str(Path(adapters) / "MMConfig_demo.cfg"), python_backend=True
    )
    core = Core()
    core.set_property("Camera", "OnCameraCCDXSize", "64")
    core.set_property("Camera", "OnCameraCCDYSize", "48")
    core.set_property("Camera", "PixelType", "16bit")
    core.set_property("Camera", "Mode", "Noise")  # no two frames are alike
    core.set_exposure(1)
    yield core
    stop_headless()


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[Listener]:
    stop = threading.Event()
    with Listener(tmp_path / "data", "tcp://127.0.0.1:*", disk_reserve=0) as listener:
        thread = threading.Thread(target=listener.run, args=(stop,))
        thread.start()
        yield listener
        stop.set()
        thread.join(30)


@contextmanager
def acquiring(folder: Path, **hooks: Any) -> Iterator[Any]:
    """Acquire with pycromanager, and close the files that it leaves open."""
    acquisition = Acquisition(directory=str(folder), name="a", show_display=False, **hooks)
    try:
        with acquisition:
            yield acquisition
    finally:
        acquisition.get_dataset().close()


def key(axes: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(axes.get(axis, 0) for axis in ("position", "time", "channel", "z"))


def seen_by(stream: Any, frames: Frames) -> Callable[..., Any]:
    """Keep what the camera gave, in the user's own function, then stream it."""

    def process(image: np.ndarray, metadata: dict[str, Any]) -> Any:
        frames[key(metadata["Axes"])] = image.copy()
        return stream.process(image, metadata)

    return process


def check(folder: Path, frames: Frames, channels: list[str], ended: str = "finished") -> None:
    """Every frame is in the store of its position, at its index, and nothing else is."""
    positions = sorted({index[0] for index in frames})
    stores = {store.acquisition.name: store for store in map(SessionStore.open, find_sessions(folder))}
    assert stores.keys() == ({f"cells_p{p}" for p in positions} if len(positions) > 1 else {"cells"})
    for p in positions:
        store = stores[f"cells_p{p}" if len(positions) > 1 else "cells"]
        here = {(t, channels.index(c) if c else 0, z): f for (at, t, c, z), f in frames.items() if at == p}
        assert store.journal.durable().keys() == here.keys()
        for index, frame in here.items():
            np.testing.assert_array_equal(store.read_plane(index), frame)
        assert store.journal.closed == ended
    for store in stores.values():
        store.close()


CHANNELS = ["DAPI", "FITC", "Cy5"]
EVENTS = multi_d_acquisition_events(
    num_time_points=2,
    z_start=0,
    z_end=19,
    z_step=1,
    channel_group="Channel",
    channels=CHANNELS,
    xy_positions=[(0, 0), (100, 50)],
    order="tpzc",
)
STACK = multi_d_acquisition_events(z_start=0, z_end=9, z_step=0.5)


def test_frames_on_their_way_to_the_disk(core: Any, listener: Listener, tmp_path: Path) -> None:
    frames: Frames = {}
    with (
        streaming(listener.address, name="cells", events=EVENTS, modality="confocal") as stream,
        acquiring(tmp_path, image_process_fn=seen_by(stream, frames)) as acq,
    ):
        acq.acquire(EVENTS)
    assert (len(frames), stream.acknowledged, stream.lost, stream.failures) == (240, 240, 0, [])
    check(tmp_path / "data", frames, CHANNELS)
    store = SessionStore.open(tmp_path / "data" / "cells_p1.ome.zarr")
    assert store.acquisition.sizes.shape == (2, 3, 20, 48, 64)
    assert (store.acquisition.channels, store.acquisition.modality) == (("DAPI", "FITC", "Cy5"), "confocal")
    assert store.acquisition.voxel_size.z == 1
    store.close()


def test_frames_from_the_disk(core: Any, listener: Listener, tmp_path: Path) -> None:
    with (
        streaming(listener.address, name="cells", events=EVENTS) as stream,
        acquiring(tmp_path, image_saved_fn=stream.saved) as acq,
    ):
        acq.acquire(EVENTS)
    assert (stream.acknowledged, stream.lost, stream.failures) == (240, 0, [])
    dataset = Dataset(str(tmp_path / "a_1"))
    frames = {key(axes): dataset.read_image(**axes) for axes in dataset.get_image_coordinates_list()}
    dataset.close()
    assert len(frames) == 240
    check(tmp_path / "data", frames, CHANNELS)


def test_of_unknown_length(core: Any, listener: Listener, tmp_path: Path) -> None:
    frames: Frames = {}
    events = multi_d_acquisition_events(
        num_time_points=2, z_start=0, z_end=4, z_step=0.5, channel_group="Channel", channels=["DAPI", "FITC"]
    )
    with (
        streaming(listener.address, name="cells") as stream,
        acquiring(tmp_path, image_process_fn=seen_by(stream, frames)) as acq,
    ):
        acq.acquire(event for event in events)
    assert (len(frames), stream.lost, stream.failures) == (36, 0, [])
    check(tmp_path / "data", frames, ["DAPI", "FITC"])
    store = SessionStore.open(tmp_path / "data" / "cells.ome.zarr")
    assert store.acquisition.growing
    assert store.acquisition.voxel_size.z == 0.5
    assert store.acquisition.sizes.shape == (2, 2, 9, 48, 64)
    store.close()


def test_an_abort(core: Any, listener: Listener, tmp_path: Path) -> None:
    frames: Frames = {}
    some = threading.Event()

    def notice(axes: dict[str, Any], dataset: Any) -> None:
        stream.saved(axes, dataset)
        frames[key(axes)] = np.array(dataset.read_image(**axes))
        if len(frames) > 4:
            some.set()

    slow = [{**event, "exposure": 50} for event in STACK]
    with (
        streaming(listener.address, name="cells", events=slow) as stream,
        acquiring(tmp_path, image_saved_fn=notice) as acq,
    ):
        acq.acquire(slow)
        assert some.wait(60)
        acq.abort()
    core.set_exposure(1)
    assert 4 < len(frames) < len(STACK)
    check(tmp_path / "data", frames, [], "aborted")


def test_an_exception_in_the_script(core: Any, listener: Listener, tmp_path: Path) -> None:
    frames: Frames = {}

    def script() -> None:
        with streaming(listener.address, name="cells", events=STACK) as stream:
            kept = seen_by(stream, frames)
            with acquiring(tmp_path, image_process_fn=kept) as acq:
                acq.acquire(STACK)
            raise RuntimeError("a mistake of the user's")

    with pytest.raises(RuntimeError, match="a mistake"):
        script()
    assert len(frames) == len(STACK)
    check(tmp_path / "data", frames, [], "aborted")


def test_nobody_listens(core: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "spill"))
    (tmp_path / "spill").mkdir()
    with (
        streaming("tcp://127.0.0.1:9", name="cells", events=STACK, wait_s=0.5) as stream,
        acquiring(tmp_path, image_process_fn=stream.process) as acq,
    ):
        acq.acquire(STACK)
    assert any("otf-stream deliver" in said for said in stream.failures)
    (leftover,) = find_leftovers(tmp_path / "spill")
    assert (leftover.planes, leftover.ended) == (len(STACK), "finished")
