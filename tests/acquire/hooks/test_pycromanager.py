"""The Python engine of pycromanager on a real core, a real socket, a real store."""

from __future__ import annotations

import gc
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mm_test_adapters
import numpy as np
import pytest
from ndstorage import Dataset
from pycromanager import Acquisition, Core, multi_d_acquisition_events, start_headless, stop_headless

from otf_stream.acquire.hooks.pycromanager import AcquisitionStream, streaming
from otf_stream.acquire.leftovers import find_leftovers
from otf_stream.acquire.listener import Listener
from otf_stream.store.finding import find_sessions
from otf_stream.store.session import SessionStore

# ndstorage leaves the closing of the file that it wrote to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")

NOBODY = "tcp://127.0.0.1:9"
CHANNELS = ["DAPI", "FITC", "Cy5"]


def stack(**settings: Any) -> list[dict[str, Any]]:
    return multi_d_acquisition_events(z_start=0, z_end=4, z_step=1, **settings)


@pytest.fixture(scope="module", autouse=True)
def core() -> Iterator[Any]:
    # Once: pycromanager's Python engine keeps its first core, and cannot be started again in the same process.
    folder = mm_test_adapters.device_adapter_path()
    start_headless(mm_app_path=folder, config_file=str(Path(folder, "MMConfig_demo.cfg")), python_backend=True)
    core = Core()
    core.set_roi(0, 0, 64, 48)
    core.set_exposure(1)
    core.set_property("Camera", "Mode", "Noise")  # so that no two frames are the same
    yield core
    stop_headless()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()  # here, and not in somebody else's test


@pytest.fixture
def acquire(tmp_path: Path) -> Callable[..., Any]:
    """Run a whole acquisition that is saved as NDTiff, and return its dataset.

    Opened anew: the one that was written along with it may read zeros.
    """

    def run(events: Any, **hooks: Any) -> Any:
        with Acquisition(directory=str(tmp_path / "ndtiff"), name="source", **hooks) as acq:
            acq.acquire(events)
        acq.get_dataset().close()
        return Dataset(acq.get_dataset().path)

    return run


def hooked(stream: AcquisitionStream, hook: str) -> dict[str, Any]:
    return {"image_process_fn": stream.process} if hook == "process" else {"image_saved_fn": stream.saved}


@pytest.mark.parametrize("hook", ["process", "saved"])
def test_every_plane_lies_where_it_belongs(
    hook: str, acquire: Callable[..., Any], listener: Listener, stored: Callable[[str], SessionStore]
) -> None:
    events = multi_d_acquisition_events(
        num_time_points=2,
        time_interval_s=0.01,
        z_start=-5,
        z_end=14,
        z_step=1,
        channel_group="Channel",
        channels=CHANNELS,
        xy_positions=[(0, 0), (100, 50)],
        order="tpzc",
    )
    assert len(events) == 2 * 3 * 20 * 2
    before = time.time()
    with streaming(listener.address, name="embryo", events=events, modality="confocal") as stream:
        dataset = acquire(events, **hooked(stream, hook))
    after = time.time()
    assert (stream.published, stream.acknowledged, stream.lost, stream.repeated) == (240, 240, 0, 0)
    assert stream.failures == []
    frames: set[bytes] = set()
    for position in range(2):
        store = stored(f"embryo_p{position}")
        announced = store.acquisition
        assert announced.sizes.shape == (2, 3, 20, 48, 64)
        assert announced.channel_names == tuple(CHANNELS)
        assert (announced.voxel_size.z, announced.voxel_size.lateral) == (1.0, 1.0)
        assert (announced.modality, announced.interval_s, announced.growing) == ("confocal", 0.01, False)
        assert announced.stage_um == ((0, 0), (100, 50))[position]
        assert store.session == stream.sessions[position]
        assert store.journal.closed == "finished"
        for t in range(2):
            for c, channel in enumerate(CHANNELS):
                for z in range(20):
                    source = dataset.read_image(time=t, position=position, channel=channel, z=z)
                    assert np.array_equal(store.read_plane((t, c, z)), source)
                    assert before < (store.journal.taken((t, c, z)) or 0) < after
                    frames.add(source.tobytes())
    assert len(frames) == 240  # A plane at another's place would be seen.
    dataset.close()


@pytest.mark.parametrize("hook", ["process", "saved"])
def test_of_unknown_length(
    hook: str, acquire: Callable[..., Any], listener: Listener, stored: Callable[[str], SessionStore]
) -> None:
    events = multi_d_acquisition_events(
        num_time_points=3,
        z_start=0,
        z_end=4,
        z_step=0.5,
        channel_group="Channel",
        channels=CHANNELS,
        xy_positions=[(0, 0), (100, 50)],
    )

    def shifted() -> Iterator[dict[str, Any]]:
        for event in events:
            axes = event["axes"]
            yield event | {"axes": axes | {"time": axes["time"] + 7, "z": axes["z"] - 4}}

    with streaming(listener.address, name="long") as stream:
        dataset = acquire(shifted(), **hooked(stream, hook))
    assert (stream.acknowledged, stream.lost, stream.failures) == (2 * 3 * 3 * 9, 0, [])
    for position in range(2):
        store = stored(f"long_p{position}")
        assert store.acquisition.growing
        assert store.acquisition.sizes.shape == (3, 3, 9, 48, 64)
        assert store.acquisition.channel_names == tuple(CHANNELS)
        assert store.acquisition.voxel_size.z == 0.5
        assert store.acquisition.stage_um == ((0, 0), (100, 50))[position]
        assert store.journal.closed == "finished"
        for t in range(3):
            for c, channel in enumerate(CHANNELS):
                for z in range(9):
                    source = dataset.read_image(time=t + 7, position=position, channel=channel, z=z - 4)
                    assert np.array_equal(store.read_plane((t, c, z)), source)
    dataset.close()


def test_one_place_has_the_plain_name(
    acquire: Callable[..., Any], listener: Listener, stored: Callable[[str], SessionStore]
) -> None:
    with streaming(listener.address, name="descending", pixel_size_um=0.5, z_step_um=2.0) as stream:
        dataset = acquire((e for e in reversed(stack())), image_process_fn=stream.process)
    store = stored("descending")
    assert store.acquisition.voxel_size.z == 2.0
    assert store.acquisition.voxel_size.lateral == 0.5
    assert all(np.array_equal(store.read_plane((0, 0, z)), dataset.read_image(z=z)) for z in range(5))
    dataset.close()


def test_saved_in_memory(core: Any, listener: Listener, stored: Callable[[str], SessionStore]) -> None:
    with (
        streaming(listener.address, name="memory", events=stack()) as stream,
        Acquisition(name="source", image_saved_fn=stream.saved) as acq,
    ):
        acq.acquire(stack())
    assert (stream.published, stream.failures) == (5, [])
    store, source = stored("memory"), acq.get_dataset()
    assert all(np.array_equal(store.read_plane((0, 0, z)), source.read_image(z=z)) for z in range(5))


def test_a_grid(acquire: Callable[..., Any], listener: Listener, stored: Callable[[str], SessionStore]) -> None:
    events = [
        event | {"axes": event["axes"] | {"row": row, "column": column, "position": "A1"}}
        for row in range(2)
        for column in range(2)
        for event in stack()
    ]
    with streaming(listener.address, name="grid", events=events) as stream:
        dataset = acquire(events, image_process_fn=stream.process)
    for g, (row, column) in enumerate([(0, 0), (0, 1), (1, 0), (1, 1)]):
        source = dataset.read_image(position="A1", row=row, column=column, z=3)
        assert np.array_equal(stored(f"grid_p0_g{g}").read_plane((0, 0, 3)), source)
    dataset.close()


@pytest.mark.parametrize("hook", ["process", "saved"])
def test_eight_bits_and_a_camera_that_runs_through(
    hook: str, core: Any, acquire: Callable[..., Any], listener: Listener, stored: Callable[[str], SessionStore]
) -> None:
    # Without heights nothing moves between the events, so that pycromanager takes them as one sequence.
    events = [{"axes": {"z": z}} for z in range(5)]
    core.set_property("Camera", "PixelType", "8bit")
    try:
        with streaming(listener.address, name="bytes", events=events, z_step_um=0.5) as stream:
            dataset = acquire(events, **hooked(stream, hook))
    finally:
        core.set_property("Camera", "PixelType", "16bit")
    store = stored("bytes")
    assert store.acquisition.dtype == "uint8"
    assert all(np.array_equal(store.read_plane((0, 0, z)), dataset.read_image(z=z)) for z in range(5))
    dataset.close()


def test_a_function_of_ones_own_beside_the_stream(
    acquire: Callable[..., Any], listener: Listener, stored: Callable[[str], SessionStore]
) -> None:
    with streaming(listener.address, name="raw", events=stack()) as stream:

        def invert(image: np.ndarray, metadata: dict[str, Any]) -> tuple[np.ndarray, dict[str, Any]]:
            stream.process(image, metadata)
            np.subtract(65535, image, out=image)  # The stream has its copy.
            return image, metadata

        dataset = acquire(stack(), image_process_fn=invert)
    store = stored("raw")
    assert all(np.array_equal(store.read_plane((0, 0, z)), 65535 - dataset.read_image(z=z)) for z in range(5))
    dataset.close()


def abort_after(frames: int, acq: list[Acquisition], stream: AcquisitionStream) -> Callable[..., Any]:
    def process(image: np.ndarray, metadata: dict[str, Any]) -> Any:
        result = stream.process(image, metadata)
        if metadata["Axes"]["z"] == frames - 1:
            acq[0].abort()
        return result

    return process


def test_an_abort(tmp_path: Path, listener: Listener, stored: Callable[[str], SessionStore]) -> None:
    events = stack(num_time_points=40)
    acq: list[Acquisition] = []
    with streaming(listener.address, name="cut short", events=events) as stream:
        hooks = {"image_process_fn": abort_after(3, acq, stream)}
        with Acquisition(directory=str(tmp_path / "ndtiff"), name="source", **hooks) as running:
            acq.append(running)
            running.acquire(events)
    store = stored("cut short")
    assert store.journal.planes_of((0, 0))[:3] == [0, 1, 2]
    assert stream.acknowledged == stream.published < 200
    assert store.journal.closed == "aborted"


def test_an_abort_of_unknown_length(tmp_path: Path, listener: Listener, stored: Callable[[str], SessionStore]) -> None:
    acq: list[Acquisition] = []
    with streaming(listener.address, name="cut short") as stream:
        hooks = {"image_process_fn": abort_after(3, acq, stream)}
        with stream.watch(Acquisition(directory=str(tmp_path / "ndtiff"), name="source", **hooks)) as running:
            acq.append(running)
            running.acquire(event for event in stack(num_time_points=40))
    assert stored("cut short").journal.closed == "aborted"
    assert stream.acknowledged == stream.published < 200


@pytest.mark.parametrize("known", [True, False])
def test_a_hook_that_raises(
    known: bool, tmp_path: Path, listener: Listener, stored: Callable[[str], SessionStore]
) -> None:
    def fail(event: dict[str, Any]) -> dict[str, Any]:
        if event["axes"]["z"] == 3:
            raise RuntimeError("the stage is stuck")
        return event

    # pycromanager prints this, and says nothing of it at the end.
    with streaming(listener.address, name="failed", events=stack() if known else None) as stream:
        hooks = {"image_process_fn": stream.process, "pre_hardware_hook_fn": fail}
        with stream.watch(Acquisition(directory=str(tmp_path / "ndtiff"), name="source", **hooks)) as acq:
            acq.acquire(stack())
    store = stored("failed")
    assert store.journal.planes_of((0, 0)) == [0, 1, 2]
    assert store.journal.closed == "aborted"


def test_a_process_function_that_raises(
    acquire: Callable[..., Any], listener: Listener, stored: Callable[[str], SessionStore]
) -> None:
    def fail(image: np.ndarray, metadata: dict[str, Any]) -> Any:
        if metadata["Axes"]["z"] == 2:
            raise RuntimeError("no cells found")
        return stream.process(image, metadata)

    with (
        pytest.raises(Exception, match="no cells found"),
        streaming(listener.address, name="failed", events=stack()) as stream,
    ):
        acquire(stack(), image_process_fn=fail)
    store = stored("failed")
    assert store.journal.planes_of((0, 0))[:2] == [0, 1]
    assert store.journal.closed == "aborted"


def test_a_script_that_raises(tmp_path: Path, listener: Listener, stored: Callable[[str], SessionStore]) -> None:
    def script() -> None:
        with (
            streaming(listener.address, name="failed", events=stack()) as stream,
            Acquisition(directory=str(tmp_path / "ndtiff"), name="source", image_process_fn=stream.process) as acq,
        ):
            acq.acquire(stack())
            raise RuntimeError("a typing error")

    with pytest.raises(RuntimeError, match="a typing error"):
        script()
    store = stored("failed")
    assert store.journal.planes_of((0, 0)) == [0, 1, 2, 3, 4]  # pycromanager ends what was begun.
    assert store.journal.closed == "aborted"


def test_nobody_listens(core: object, acquire: Callable[..., Any], tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    with streaming(NOBODY, name="lonely", events=stack(), wait_s=0.5) as stream:
        dataset = acquire(stack(), image_process_fn=stream.process)
    assert len(dataset.get_image_coordinates_list()) == 5
    assert (stream.published, stream.acknowledged) == (5, 0)
    assert any("acknowledged nothing" in failure for failure in stream.failures)
    (left,) = find_leftovers(tmp_path / "temporary")
    assert left.session == stream.sessions[0]
    dataset.close()


def said(stream: AcquisitionStream, words: str, lost: int) -> bool:
    return [words in failure for failure in stream.failures] == [True] and stream.lost == lost


def test_what_cannot_be_streamed_is_acquired_all_the_same(
    core: Any, acquire: Callable[..., Any], listener: Listener, tmp_path: Path
) -> None:
    single = [{"axes": {"time": t}} for t in range(3)]
    uneven = [{"axes": {"z": i}, "z": z} for i, z in enumerate((0, 1, 3))]
    flat = [{"axes": {"z": z}} for z in range(3)]
    turned = [{"axes": {"z": z, "angle": 90}, "z": z} for z in range(3)]
    for events, known, words, lost in [
        (single, True, "less than 2 z positions", 0),
        (uneven, True, "even steps", 0),
        (single, False, "give z_step_um", 3),
        (flat, False, "give z_step_um", 3),
        (turned, False, "'angle'", 3),
    ]:
        with streaming(listener.address, name="x", events=events if known else None) as stream:
            dataset = acquire(events, image_process_fn=stream.process)
        assert len(dataset.get_image_coordinates_list()) == 3
        dataset.close()
        assert said(stream, words, lost)
    assert find_sessions(tmp_path / "data") == []


def test_an_unknown_pixel_size(core: Any, acquire: Callable[..., Any], listener: Listener) -> None:
    preset = core.get_current_pixel_size_config()
    core.set_pixel_size_um(preset, 0)
    try:
        with streaming(listener.address, name="x", events=stack()) as stream:
            acquire(stack(), image_process_fn=stream.process).close()
    finally:
        core.set_pixel_size_um(preset, 1.0)
    assert said(stream, "pixel_size_um", 5)


def test_z_below_what_was_sent(
    acquire: Callable[..., Any], listener: Listener, stored: Callable[[str], SessionStore]
) -> None:
    events = [{"axes": {"z": z}, "z": z} for z in (-1, 0, 1, -2)]
    with streaming(listener.address, name="x") as stream:
        acquire(events, image_process_fn=stream.process).close()
    assert said(stream, "give its events as events=", 1)
    assert stored("x").journal.planes_of((0, 0)) == [0, 1, 2]


def test_colour_is_refused(listener: Listener) -> None:
    # As the Java engine gives it; the Python one has no colour.
    with streaming(listener.address, name="x", events=stack()) as stream:
        for event in stack():
            image = np.zeros((48, 64, 3), np.uint8)
            metadata = {"Axes": event["axes"], "PixelSize_um": 1.0, "PixelType": "RGB32"}
            given = stream.process(image, metadata)
            assert given[0] is image
            assert given[1] is metadata
    assert said(stream, "choose grey values", 5)


def test_frames_after_the_end(listener: Listener, stored: Callable[[str], SessionStore]) -> None:
    with streaming(listener.address, name="x", events=stack()) as stream:
        pass
    stream.process(np.zeros((4, 4), np.uint8), {"Axes": {"z": 0}})
    assert said(stream, "after the block", 1)


def test_no_frame_that_was_held_is_left_behind(
    acquire: Callable[..., Any], listener: Listener, stored: Callable[[str], SessionStore]
) -> None:
    # Only the fourth has a channel, and so a neighbour along z, that came before.
    taken = [(0, "A"), (1, "B"), (-1, "C"), (1, "A")]
    events = [{"axes": {"z": z, "channel": channel}, "z": 0.5 * z} for z, channel in taken]
    with streaming(listener.address, name="x") as stream:
        acquire(events, image_process_fn=stream.process).close()
    assert (stream.published, stream.lost, stream.failures) == (4, 0, [])
    store = stored("x")
    assert store.acquisition.voxel_size.z == 0.5
    assert [store.journal.planes_of((0, c)) for c in range(3)] == [[1, 2], [2], [0]]


def test_planes_that_come_twice(
    acquire: Callable[..., Any], listener: Listener, stored: Callable[[str], SessionStore]
) -> None:
    with streaming(listener.address, name="x", events=stack()) as stream:
        first = acquire(stack(), image_process_fn=stream.process)
        acquire(stack(), image_process_fn=stream.process).close()
    assert (stream.published, stream.repeated, stream.failures) == (5, 5, [])
    assert np.array_equal(stored("x").read_plane((0, 0, 2)), first.read_image(z=2))
    first.close()


def test_importing_the_hook_brings_no_heavy_modules() -> None:
    code = (
        "import sys, otf_stream.acquire.hooks.pycromanager\n"
        "print(*sorted({'torch', 'zarr', 'pycromanager', 'ndstorage', 'otf_stream.store'} & set(sys.modules)))"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert answer.stdout.strip() == ""
