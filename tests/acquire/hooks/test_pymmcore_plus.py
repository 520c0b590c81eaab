"""A real core, a real socket, a real store."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import mm_test_adapters
import numpy as np
import pytest
import useq
from pymmcore_plus.experimental.unicore import UniMMCore

from otf_stream.acquire.hooks.pymmcore_plus import Stream, describe, streaming
from otf_stream.acquire.listener import Listener
from otf_stream.acquire.publisher import PublishError
from otf_stream.store.session import SessionStore, find_sessions
from simulators.camera import acquire_stack, virtual_microscope

PLANES = np.random.default_rng(0).integers(0, 4000, (5, 64, 64)).astype(np.uint16)
STACK = useq.MDASequence(z_plan=useq.ZAbsolutePositions(absolute=[0, 0.8, 1.6, 2.4, 3.2]))


@pytest.fixture
def core() -> Iterator[UniMMCore]:
    core = virtual_microscope(PLANES, z_step_um=0.8, pixel_size_um=0.2)
    yield core
    core.unloadAllDevices()


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[Listener]:
    stop = threading.Event()
    with Listener(tmp_path, "tcp://127.0.0.1:*", disk_reserve=0) as listener:
        thread = threading.Thread(target=listener.run, args=(stop,))
        thread.start()
        yield listener
        stop.set()
        thread.join(30)


def test_a_stack_ends_on_the_disk(core: UniMMCore, listener: Listener, tmp_path: Path) -> None:
    with streaming(core, listener.address, name="embryo", modality="confocal") as stream:
        acquire_stack(core, planes=5, z_step_um=0.8)
    store = SessionStore.open(tmp_path / "embryo.ome.zarr")
    assert stream.sessions == [store.session]
    assert store.acquisition.sizes.shape == (1, 1, 5, 64, 64)
    assert store.acquisition.voxel_size.z == pytest.approx(0.8)
    assert store.acquisition.voxel_size.lateral == pytest.approx(0.2)
    assert store.acquisition.modality == "confocal"
    assert all(np.array_equal(store.read_plane((0, 0, z)), PLANES[z]) for z in range(5))
    assert store.journal.closed == "finished"
    store.close()


def test_time_points_and_channels(core: UniMMCore, listener: Listener, tmp_path: Path) -> None:
    for name in ("DAPI", "GFP"):
        core.defineConfig("Channel", name, "Shutter", "State", "1")
    sequence = useq.MDASequence(
        axis_order="tcz",
        time_plan=useq.TIntervalLoops(interval=0, loops=2),
        channels=["DAPI", "GFP"],
        z_plan=useq.ZAbsolutePositions(absolute=[0.8, 1.6, 2.4]),
    )
    with streaming(core, listener.address, name="movie", pixel_size_um=0.3):
        core.mda.run(sequence)
    store = SessionStore.open(tmp_path / "movie.ome.zarr")
    assert store.acquisition.sizes.shape == (2, 2, 3, 64, 64)
    assert store.acquisition.channel_names == ("DAPI", "GFP")
    assert store.acquisition.voxel_size.lateral == 0.3
    for t in range(2):
        for c in range(2):
            assert all(np.array_equal(store.read_plane((t, c, z)), PLANES[z + 1]) for z in range(3))
    store.close()


def test_every_sequence_is_a_session(core: UniMMCore, listener: Listener, tmp_path: Path) -> None:
    with streaming(core, listener.address, name="twice") as stream:
        core.mda.run(STACK)
        core.mda.run(STACK)
    assert len(set(stream.sessions)) == 2
    assert len(list(tmp_path.glob("twice*.ome.zarr"))) == 2
    core.mda.run(STACK)  # No longer streamed.
    assert len(list(tmp_path.glob("*.ome.zarr"))) == 2


def test_a_cancelled_stack_keeps_its_planes(core: UniMMCore, listener: Listener, tmp_path: Path) -> None:
    def cancel(image: np.ndarray, event: useq.MDAEvent) -> None:
        if event.index["z"] == 2:
            core.mda.cancel()

    with streaming(core, listener.address, name="cut short"):
        core.mda.events.frameReady.connect(cancel)
        core.mda.run(STACK)
    store = SessionStore.open(tmp_path / "cut short.ome.zarr")
    assert store.journal.planes_of((0, 0)) == [0, 1, 2]
    assert store.journal.closed == "aborted"
    store.close()


def test_an_acquisition_that_fails_keeps_its_planes(core: UniMMCore, listener: Listener, tmp_path: Path) -> None:
    def fail(event: useq.MDAEvent) -> None:
        if event.index["z"] == 3:
            raise RuntimeError("the stage is stuck")

    core.mda.events.eventStarted.connect(fail)
    with pytest.raises(Exception, match="the stage is stuck"), streaming(core, listener.address, name="failed"):
        core.mda.run(STACK)
    store = SessionStore.open(tmp_path / "failed.ome.zarr")
    assert store.journal.planes_of((0, 0)) == [0, 1, 2]
    assert store.journal.closed == "aborted"
    store.close()


def test_a_camera_that_drops_out_leaves_planes_missing(core: UniMMCore, listener: Listener, tmp_path: Path) -> None:
    def drop(event: useq.MDAEvent) -> None:
        core.setCameraDevice("" if event.index["z"] == 2 else "Camera")

    core.mda.events.eventStarted.connect(drop)
    with streaming(core, listener.address, name="dropped"):
        core.mda.run(STACK)
    store = SessionStore.open(tmp_path / "dropped.ome.zarr")
    assert store.journal.planes_of((0, 0)) == [0, 1, 3, 4]
    assert store.journal.closed == "finished"
    store.close()


def test_an_engine_that_fails_to_say_so_ends_the_session(core: UniMMCore, listener: Listener, tmp_path: Path) -> None:
    def vanish(event: useq.MDAEvent) -> None:
        if event.index["z"] == 3:
            core.setCameraDevice("")  # The engine's clean-up fails without a camera, and no end is announced.

    with streaming(core, listener.address, name="silent") as stream:
        core.mda.events.eventStarted.connect(vanish)
        core.mda.run(STACK)
        core.mda.events.eventStarted.disconnect(vanish)
        core.setCameraDevice("Camera")
        core.mda.run(STACK)
    # Which of the two greets first, and so gets the plain name, is a race.
    stores = {store.session: store for store in map(SessionStore.open, find_sessions(tmp_path))}
    first, second = (stores[session] for session in stream.sessions)
    assert first.journal.closed == "aborted"
    assert first.journal.planes_of((0, 0)) == [0, 1, 2]
    assert second.journal.planes_of((0, 0)) == [0, 1, 2, 3, 4]
    first.close()
    second.close()


def test_a_dead_stream_does_not_stop_the_acquisition(
    core: UniMMCore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames: list[int] = []
    core.mda.events.frameReady.connect(lambda image, event: frames.append(event.index["z"]))
    # A listener that takes no planes of this size refuses the session.
    stop = threading.Event()
    with Listener(tmp_path, "tcp://127.0.0.1:*", disk_reserve=0, max_plane_bytes=64) as small:
        thread = threading.Thread(target=small.run, args=(stop,))
        thread.start()
        try:
            with pytest.raises(PublishError, match="refuses"), streaming(core, small.address, name="refused"):
                core.mda.run(STACK)
        finally:
            stop.set()
            thread.join(30)
    assert frames == [0, 1, 2, 3, 4]


def test_disconnecting_amid_a_sequence(core: UniMMCore, listener: Listener, tmp_path: Path) -> None:
    stream = Stream(core, listener.address, name="left")
    stream.connect()

    def leave(image: np.ndarray, event: useq.MDAEvent) -> None:
        if event.index["z"] == 1:
            stream.disconnect()

    core.mda.events.frameReady.connect(leave)
    core.mda.run(STACK)
    store = SessionStore.open(tmp_path / "left.ome.zarr")
    assert store.journal.planes_of((0, 0)) == [0, 1]
    assert store.journal.closed == "aborted"
    store.close()


@pytest.mark.parametrize(
    ("sequence", "said"),
    [
        (useq.MDASequence(channels=["DAPI"]), "z_plan"),
        (useq.MDASequence(z_plan=useq.ZAbsolutePositions(absolute=[0, 1, 3])), "even steps"),
        (STACK.replace(stage_positions=[(0, 0, 0), (9, 9, 0)]), "one sequence for each position"),
        (STACK.replace(stage_positions=[useq.Position(x=0, sequence=STACK)]), "one sequence for each position"),
    ],
)
def test_sequences_that_are_no_stack(core: UniMMCore, sequence: useq.MDASequence, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        describe(core, sequence, name="x")


def test_a_wrong_sequence_stops_before_its_first_frame(core: UniMMCore, listener: Listener, tmp_path: Path) -> None:
    frames: list[int] = []
    core.mda.events.frameReady.connect(lambda image, event: frames.append(1))
    with pytest.raises(Exception, match="z_plan"), streaming(core, listener.address, name="x"):
        core.mda.run(useq.MDASequence(time_plan=useq.TIntervalLoops(interval=0, loops=3)))
    assert frames == []
    assert list(tmp_path.iterdir()) == []


def test_a_stack_from_the_top(core: UniMMCore) -> None:
    sequence = useq.MDASequence(z_plan=useq.ZRangeAround(range=3, step=0.5, go_up=False))
    assert describe(core, sequence, name="x").voxel_size.z == pytest.approx(0.5)


def test_an_unknown_pixel_size(core: UniMMCore) -> None:
    core.deletePixelSizeConfig("phantom")
    with pytest.raises(ValueError, match="pixel_size_um"):
        describe(core, STACK, name="x")
    assert describe(core, STACK, name="x", pixel_size_um=0.1).voxel_size.lateral == 0.1


def test_the_compiled_demonstration_camera(listener: Listener, tmp_path: Path) -> None:
    core = UniMMCore()
    core.setDeviceAdapterSearchPaths([mm_test_adapters.device_adapter_path()])
    core.loadSystemConfiguration("MMConfig_demo.cfg")
    with streaming(core, listener.address, name="demo", pixel_size_um=1.0):
        core.mda.run(useq.MDASequence(z_plan=useq.ZRangeAround(range=4, step=2)))
    core.setProperty("Camera", "PixelType", "32bitRGB")
    with pytest.raises(ValueError, match="8 or 16 bits"):
        describe(core, STACK, name="x")
    core.unloadAllDevices()
    store = SessionStore.open(tmp_path / "demo.ome.zarr")
    assert store.journal.planes_of((0, 0)) == [0, 1, 2]
    assert store.read_plane((0, 0, 1)).any()
    store.close()


def test_importing_the_hook_brings_no_heavy_modules() -> None:
    code = (
        "import sys, otf_stream.acquire.hooks.pymmcore_plus\n"
        "print(*sorted({'torch', 'zarr', 'pymmcore_plus', 'useq', 'otf_stream.store'} & set(sys.modules)))"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert said.stdout.strip() == ""
