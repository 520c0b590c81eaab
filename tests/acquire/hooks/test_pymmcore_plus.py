"""A real core, a real socket, a real store."""

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import mm_test_adapters
import numpy as np
import pytest
import useq
from listeners import running
from pymmcore_plus.experimental.unicore import UniMMCore

from otf_stream.acquire.hooks.pymmcore_plus import streaming
from otf_stream.acquire.hooks.pymmcore_plus_events import describe
from otf_stream.acquire.listener import Listener
from otf_stream.store.finding import find_sessions
from otf_stream.store.session import SessionStore
from simulators.core import acquire_stack, unload, virtual_microscope
from simulators.scenes import Stack, View

PLANES = np.random.default_rng(0).integers(0, 4000, (5, 64, 64)).astype(np.uint16)
STACK = useq.MDASequence(z_plan=useq.ZAbsolutePositions(absolute=[0, 0.8, 1.6, 2.4, 3.2]))


@pytest.fixture
def core() -> Iterator[UniMMCore]:
    core = virtual_microscope(Stack(PLANES, z_step_um=0.8, pixel_um=0.2))
    yield core
    unload(core)


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[Listener]:
    with running(tmp_path) as listener:
        yield listener


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
        core.defineConfig("Channel", name, "Filter", "State", "0")
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
    with (
        running(tmp_path, max_plane_bytes=64) as small,
        streaming(core, small.address, name="refused") as stream,
    ):
        core.mda.run(STACK)
    assert frames == [0, 1, 2, 3, 4]
    assert any("refuses" in failure for failure in stream.failures)


def test_leaving_the_block_amid_a_sequence(core: UniMMCore, listener: Listener, tmp_path: Path) -> None:
    two_frames, left = threading.Event(), threading.Event()

    def hold(event: useq.MDAEvent) -> None:
        if event.index["z"] == 2:
            two_frames.set()
            left.wait(1)  # nobody can disconnect from a signal that is being emitted: the block is left after this

    core.mda.events.eventStarted.connect(hold)
    with streaming(core, listener.address, name="left"):
        running = core.run_mda(STACK)
        assert two_frames.wait(30)
    left.set()
    running.join(30)
    store = SessionStore.open(tmp_path / "left.ome.zarr")
    assert store.journal.planes_of((0, 0)) == [0, 1]
    assert store.journal.closed == "aborted"
    store.close()


@pytest.mark.parametrize(
    ("sequence", "said"),
    [
        (useq.MDASequence(channels=["DAPI"]), "z_plan"),
        (useq.MDASequence(z_plan=useq.ZAbsolutePositions(absolute=[0, 1, 3])), "even steps"),
    ],
)
def test_sequences_that_are_no_stack(core: UniMMCore, sequence: useq.MDASequence, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        describe(core, sequence, name="x")


def test_what_cannot_be_streamed_is_acquired_all_the_same(core: UniMMCore, listener: Listener, tmp_path: Path) -> None:
    frames: list[int] = []
    core.mda.events.frameReady.connect(lambda image, event: frames.append(1))
    with streaming(core, listener.address, name="x") as stream:
        core.mda.run(useq.MDASequence(time_plan=useq.TIntervalLoops(interval=0, loops=3)))
    assert len(frames) == 3
    assert not list(tmp_path.glob("*.ome.zarr"))
    (failure,) = stream.failures
    assert "give it a z_plan" in failure
    assert stream.lost == 3


@pytest.mark.parametrize(("wrong", "said"), [({"name": "Größe"}, "without accents"), ({"modality": "MRI"}, "confocal")])
def test_what_acquisitions_cannot_be_is_told_before_the_experiment(
    core: UniMMCore, wrong: dict[str, str], said: str
) -> None:
    with pytest.raises(ValueError, match=said), streaming(core, "tcp://127.0.0.1:8421", **({"name": "x"} | wrong)):  # type: ignore[arg-type]
        pass


def test_an_address_that_is_none(core: UniMMCore) -> None:
    with pytest.raises(ValueError, match="tcp://HOST:PORT"), streaming(core, "restoration-pc", name="x"):
        pass


def test_a_stack_from_the_top(core: UniMMCore) -> None:
    sequence = useq.MDASequence(z_plan=useq.ZRangeAround(range=3, step=0.5, go_up=False))
    assert describe(core, sequence, name="x")[0, 0].voxel_size.z == pytest.approx(0.5)


def test_an_unknown_pixel_size(core: UniMMCore) -> None:
    core.deletePixelSizeConfig("phantom")
    with pytest.raises(ValueError, match="pixel_size_um"):
        describe(core, STACK, name="x")
    assert describe(core, STACK, name="x", pixel_size_um=0.1)[0, 0].voxel_size.lateral == 0.1


@pytest.fixture
def demo_core() -> Iterator[UniMMCore]:
    """Micro-Manager's demonstration configuration, all of its devices compiled, with a small camera."""
    core = UniMMCore()
    core.setDeviceAdapterSearchPaths([mm_test_adapters.device_adapter_path()])
    core.loadSystemConfiguration("MMConfig_demo.cfg")
    core.setProperty("Camera", "OnCameraCCDXSize", "64")
    core.setProperty("Camera", "OnCameraCCDYSize", "48")
    core.setProperty("Camera", "PixelType", "16bit")
    core.setProperty("Camera", "Mode", "Noise")  # no two frames are alike
    core.setExposure(1)
    yield core
    unload(core)


def captured(core: UniMMCore) -> dict[tuple[int, ...], np.ndarray]:
    """Keep what the camera gives, by (p, g, t, c, z)."""
    frames: dict[tuple[int, ...], np.ndarray] = {}

    def keep(image: np.ndarray, event: useq.MDAEvent) -> None:
        frames[tuple(event.index.get(axis, 0) for axis in "pgtcz")] = image.copy()

    core.mda.events.frameReady.connect(keep)
    return frames


def check_all(folder: Path, frames: dict[tuple[int, ...], np.ndarray], stores: dict[tuple[int, int], str]) -> None:
    """Every frame is in the store of its place, at its index, and nothing else is."""
    assert {path.name for path in folder.glob("*.ome.zarr")} == {f"{name}.ome.zarr" for name in stores.values()}
    for place, name in stores.items():
        store = SessionStore.open(folder / f"{name}.ome.zarr")
        of_place = {index[2:]: frame for index, frame in frames.items() if index[:2] == place}
        assert store.journal.durable().keys() == of_place.keys()
        for index, frame in of_place.items():
            np.testing.assert_array_equal(store.read_plane(index), frame)
        assert store.journal.closed == "finished"
        (ended,) = (event.detail for event in store.journal.events() if event.kind == "ended")
        assert ended["missing_count"] == 0
        store.close()


def test_time_points_channels_and_positions(demo_core: UniMMCore, listener: Listener, tmp_path: Path) -> None:
    frames = captured(demo_core)
    sequence = useq.MDASequence(
        axis_order="tpzc",  # channels interleaved
        time_plan=useq.TIntervalLoops(interval=0.1, loops=2),
        stage_positions=[(0, 0, 10), (100, 50, 20)],
        channels=["DAPI", "FITC", "Cy5"],
        z_plan=useq.ZRangeAround(range=19, step=1),
    )
    with streaming(demo_core, listener.address, name="plate") as stream:
        demo_core.mda.run(sequence)
    assert (len(frames), stream.acknowledged, stream.lost, stream.failures) == (240, 240, 0, [])
    check_all(tmp_path, frames, {(0, 0): "plate_p0", (1, 0): "plate_p1"})
    store = SessionStore.open(tmp_path / "plate_p1.ome.zarr")
    assert store.acquisition.sizes.shape == (2, 3, 20, 48, 64)
    assert store.acquisition.channels == ("DAPI", "FITC", "Cy5")
    assert (store.acquisition.interval_s, store.acquisition.stage_um) == (0.1, (100, 50))
    store.close()


def test_channels_of_their_own_planes_and_a_grid(demo_core: UniMMCore, listener: Listener, tmp_path: Path) -> None:
    frames = captured(demo_core)
    sequence = useq.MDASequence(
        axis_order="tpgcz",
        time_plan=useq.TIntervalLoops(interval=0, loops=3),
        stage_positions=[useq.Position(x=0, y=0, z=0, sequence=useq.MDASequence(grid_plan={"rows": 1, "columns": 2})),
                         (9, 9, 0)],
        channels=[
            useq.Channel(config="DAPI"),
            useq.Channel(config="FITC", do_stack=False),
            useq.Channel(config="Cy5", acquire_every=2, z_offset=0.5),
        ],
        z_plan=useq.ZRangeAround(range=4, step=1),
        autofocus_plan=useq.AxesBasedAF(axes=("p",)),
    )  # fmt: skip
    with streaming(demo_core, listener.address, name="tiles") as stream:
        demo_core.mda.run(sequence)
    assert stream.failures == []
    check_all(tmp_path, frames, {(0, 0): "tiles_p0_g0", (0, 1): "tiles_p0_g1", (1, 0): "tiles_p1_g0"})
    store = SessionStore.open(tmp_path / "tiles_p0_g1.ome.zarr")
    assert (store.acquisition.z_ranges, store.acquisition.every) == (((0, 5), (2, 3), (0, 5)), (1, 1, 2))
    assert store.acquisition.stacks() == [(0, 0), (0, 2), (1, 0), (2, 0), (2, 2)]
    store.close()


def test_hardware_triggered(demo_core: UniMMCore, listener: Listener, tmp_path: Path) -> None:
    frames = captured(demo_core)
    demo_core.setProperty("Z", "UseSequences", "Yes")
    demo_core.mda.engine.use_hardware_sequencing = True
    bursts: list[int] = []
    demo_core.events.sequenceAcquisitionStarted.connect(lambda *said: bursts.append(1))
    with streaming(demo_core, listener.address, name="burst") as stream:
        # At its usual pace this camera loses frames on a busy machine.
        channels = [useq.Channel(config=config, exposure=40) for config in ("DAPI", "FITC")]
        demo_core.mda.run(useq.MDASequence(channels=channels, z_plan=useq.ZRangeAround(range=9, step=1)))
    assert bursts  # the camera ran by itself
    assert (len(frames), stream.failures) == (20, [])
    check_all(tmp_path, frames, {(0, 0): "burst"})


class Losing(Stack):
    """A scene of which the camera loses the third plane."""

    def expose(self, view: View) -> np.ndarray | None:
        return None if round(view.z_um / self.z_step_um) == 2 else super().expose(view)


@pytest.fixture
def losing() -> Iterator[UniMMCore]:
    core = virtual_microscope(Losing(PLANES, z_step_um=0.8, pixel_um=0.2), triggered=True)
    yield core
    unload(core)


def test_a_frame_that_is_lost_in_a_burst(losing: UniMMCore, listener: Listener, tmp_path: Path) -> None:
    with streaming(losing, listener.address, name="numbered", frame_counter="Trigger") as stream:
        losing.mda.run(STACK)
        losing.mda.run(list(STACK))
    assert (stream.acknowledged, stream.lost, stream.failures) == (8, 0, [])
    stores = {store.session: store for store in map(SessionStore.open, find_sessions(tmp_path))}
    for session in stream.sessions:
        assert stores[session].journal.planes_of((0, 0)) == [0, 1, 3, 4]
        assert all(np.array_equal(stores[session].read_plane((0, 0, z)), PLANES[z]) for z in (0, 1, 3, 4))
        stores[session].close()


def test_a_frame_that_is_lost_in_a_burst_without_numbers_is_told(losing: UniMMCore, listener: Listener) -> None:
    with streaming(losing, listener.address, name="counted") as stream:
        losing.mda.run(STACK)
    assert (stream.acknowledged, stream.lost) == (4, 0)
    (failure,) = stream.failures
    assert "a burst of 5 frames brought 4" in failure
    assert "give frame_counter=" in failure


@pytest.mark.parametrize("wrong", ["Number", "TimeReceivedByCore"])
def test_numbers_that_the_camera_does_not_give(wrong: str, losing: UniMMCore, listener: Listener) -> None:
    with streaming(losing, listener.address, name="x", frame_counter=wrong) as stream:
        losing.mda.run(STACK)
    assert (stream.acknowledged, stream.lost) == (4, 0)
    no_number, lost = stream.failures
    assert f"no number '{wrong}'" in no_number
    assert "Trigger=0" in no_number
    assert "a burst of 5 frames brought 4" in lost


def test_a_number_that_counts_what_arrived_is_refused(core: UniMMCore) -> None:
    with (
        pytest.raises(ValueError, match="counts the frames that arrived"),
        streaming(core, "tcp://127.0.0.1:9", name="x", frame_counter="ImageNumber"),
    ):
        pass


UNPLANNED = useq.MDASequence(
    axis_order="tpcz",
    time_plan=useq.TIntervalLoops(interval=0, loops=2),
    stage_positions=[(0, 0, 10), (100, 50, 20)],
    channels=["DAPI", "FITC"],
    z_plan=useq.ZRangeAround(range=4, step=0.5),
)


def unplanned(*without: str, sequence: useq.MDASequence = UNPLANNED) -> Iterator[useq.MDAEvent]:
    """The events of a sequence as a script would make them one by one, without some axes of their index."""
    for event in sequence:
        index = {str(axis): i for axis, i in event.index.items() if axis not in without}
        yield event.replace(index=index, sequence=None)


@pytest.mark.parametrize("as_list", [False, True])
def test_events_without_a_sequence(as_list: bool, demo_core: UniMMCore, listener: Listener, tmp_path: Path) -> None:
    frames = captured(demo_core)
    with streaming(demo_core, listener.address, name="free", modality="confocal") as stream:
        demo_core.run_mda(list(unplanned()) if as_list else unplanned()).join()
    assert (len(frames), stream.acknowledged, stream.lost, stream.failures) == (72, 72, 0, [])
    check_all(tmp_path, frames, {(0, 0): "free_p0", (1, 0): "free_p1"})
    for position in range(2):
        store = SessionStore.open(tmp_path / f"free_p{position}.ome.zarr")
        announced = store.acquisition
        assert announced.growing
        assert announced.sizes.shape == (2, 2, 9, 48, 64)
        assert announced.channels == ("DAPI", "FITC")
        assert (announced.voxel_size.z, announced.voxel_size.lateral) == (0.5, 1.0)
        assert announced.stage_um == ((0, 0), (100, 50))[position]
        assert announced.modality == "confocal"
        store.close()


def test_events_without_an_index(demo_core: UniMMCore, listener: Listener, tmp_path: Path) -> None:
    frames: list[np.ndarray] = []
    demo_core.mda.events.frameReady.connect(lambda image, event: frames.append(image.copy()))
    with streaming(demo_core, listener.address, name="free") as stream:
        demo_core.mda.run(unplanned(*"tpcz"))
    assert (len(frames), stream.acknowledged, stream.failures) == (72, 72, [])
    at = {tuple(event.index[axis] for axis in "ptcz"): frame for event, frame in zip(UNPLANNED, frames, strict=True)}
    for position in range(2):
        store = SessionStore.open(tmp_path / f"free_p{position}.ome.zarr")
        assert store.acquisition.sizes.shape == (2, 2, 9, 48, 64)
        assert store.acquisition.channels == ("DAPI", "FITC")
        for t, c, z in np.ndindex(2, 2, 9):
            np.testing.assert_array_equal(store.read_plane((t, c, z)), at[position, t, c, z])
        store.close()


def test_channels_that_come_late(demo_core: UniMMCore, listener: Listener, tmp_path: Path) -> None:
    frames = captured(demo_core)

    def events() -> Iterator[useq.MDAEvent]:
        for t, channels in enumerate((["FITC"], ["FITC", "DAPI"], ["FITC", "DAPI", "FITC"])):
            for z in range(5):
                for c, channel in enumerate(channels):
                    yield useq.MDAEvent(index={"t": t, "c": c, "z": z}, channel=channel, z_pos=10 - 0.3 * z)

    with streaming(demo_core, listener.address, name="late") as stream:
        demo_core.mda.run(events())
    assert (stream.lost, stream.failures) == (0, [])
    check_all(tmp_path, frames, {(0, 0): "late"})
    store = SessionStore.open(tmp_path / "late.ome.zarr")
    assert store.acquisition.sizes.shape == (3, 3, 5, 48, 64)
    assert store.acquisition.channels == ("FITC", "DAPI", "FITC")
    assert store.acquisition.voxel_size.z == pytest.approx(0.3)
    store.close()


def test_events_that_are_cancelled_and_a_generator_that_fails(
    core: UniMMCore, listener: Listener, tmp_path: Path
) -> None:
    def events(name: str) -> Iterator[useq.MDAEvent]:
        for z in range(5):
            if z == 3 and name == "fails":
                raise RuntimeError("no cell found")
            if z == 3:
                core.mda.cancel()
            yield useq.MDAEvent(index={"z": z}, z_pos=0.8 * z)

    for name in ("cancelled", "fails"):
        with streaming(core, listener.address, name=name) as stream:
            if name == "fails":
                with pytest.raises(RuntimeError, match="no cell found"):
                    core.mda.run(events(name))
            else:
                core.mda.run(events(name))
        assert stream.lost == 0
        store = SessionStore.open(tmp_path / f"{name}.ome.zarr")
        assert store.journal.planes_of((0, 0)) == [0, 1, 2]
        assert all(np.array_equal(store.read_plane((0, 0, z)), PLANES[z]) for z in range(3))
        assert store.journal.closed == "aborted"
        store.close()


def test_the_z_step_of_a_drive_that_no_event_moves(core: UniMMCore, listener: Listener, tmp_path: Path) -> None:
    frames = captured(core)
    events = [useq.MDAEvent(index={"z": z}, properties=[("Filter", "State", "0")]) for z in range(4)]
    with streaming(core, listener.address, name="unknown") as stream:
        core.mda.run(events)
    assert stream.lost == 4
    assert ["give z_step_um" in failure for failure in stream.failures] == [True]
    with streaming(core, listener.address, name="known", z_step_um=0.4) as stream:
        core.mda.run(events)
    assert (stream.lost, stream.acknowledged) == (0, 4)
    check_all(tmp_path, frames, {(0, 0): "known"})
    store = SessionStore.open(tmp_path / "known.ome.zarr")
    assert store.acquisition.voxel_size.z == 0.4
    store.close()


def test_events_that_no_session_can_take(core: UniMMCore, listener: Listener, tmp_path: Path) -> None:
    single = [useq.MDAEvent(index={"t": t}) for t in range(3)]
    turned = [useq.MDAEvent(index={"z": z, "angle": 1}, z_pos=z) for z in range(3)]
    beside = [useq.MDAEvent(z_pos=z) for z in (0, 1, 2, 2.5)]
    for events, words, lost in [(single, "run a useq.MDASequence", 3), (turned, "'angle'", 3), (beside, "2.5 µm", 1)]:
        with streaming(core, listener.address, name="x") as stream:
            core.mda.run(events)
        assert stream.lost == lost
        assert [words in failure for failure in stream.failures] == [True]
    assert [path.name for path in tmp_path.glob("*.ome.zarr")] == ["x.ome.zarr"]


def test_frames_know_when_they_were_taken(core: UniMMCore, listener: Listener, tmp_path: Path) -> None:
    before = time.time()
    with streaming(core, listener.address, name="timed"):
        core.mda.run(STACK)
    after = time.time()
    store = SessionStore.open(tmp_path / "timed.ome.zarr")
    taken = [store.journal.taken((0, 0, z)) for z in range(5)]
    assert taken == sorted(taken)
    assert before <= taken[0] <= taken[-1] <= after
    store.close()


def test_colour_is_refused(demo_core: UniMMCore) -> None:
    demo_core.setProperty("Camera", "PixelType", "32bitRGB")
    with pytest.raises(ValueError, match="8 or 16 bits"):
        describe(demo_core, STACK, name="x")


def test_importing_the_hook_brings_no_heavy_modules() -> None:
    code = (
        "import sys, otf_stream.acquire.hooks.pymmcore_plus\n"
        "print(*sorted({'torch', 'zarr', 'pymmcore_plus', 'useq', 'otf_stream.store'} & set(sys.modules)))"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert said.stdout.strip() == ""
