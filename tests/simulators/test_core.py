"""A real Micro-Manager core and its engine, with a plain stack as the scene."""

import os
import subprocess
import sys
from collections.abc import Iterator

import mm_test_adapters
import numpy as np
import pytest
import useq
from pymmcore_plus.experimental.unicore import UniMMCore

from simulators.core import acquire_stack, unload, virtual_microscope
from simulators.scenes import Frame, Stack, View

PLANES = np.random.default_rng(0).integers(0, 4000, (5, 32, 48)).astype(np.uint16)
STACK = Stack(PLANES, z_step_um=0.8, pixel_um=0.2, channels=("DAPI", "FITC"))


class Seen:
    """A scene that remembers from where it was looked at, and may fail to give a frame."""

    def __init__(self, *, failing: tuple[int, ...] = ()) -> None:
        self.shape, self.dtype, self.pixel_um, self.channels = (8, 8), np.dtype(np.uint16), 0.2, ("DAPI", "FITC")
        self.views: list[View] = []
        self._failing = failing

    def expose(self, view: View) -> Frame | None:
        self.views.append(view)
        number = len(self.views) - 1
        return None if number in self._failing else np.full(self.shape, number, np.uint16)


@pytest.fixture(params=[False, True], ids=["stepped", "triggered"])
def triggered(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture
def core() -> Iterator[UniMMCore]:
    core = virtual_microscope(STACK)
    yield core
    unload(core)


def frames_of(core: UniMMCore) -> list[tuple[dict[str, int], np.ndarray]]:
    frames: list[tuple[dict[str, int], np.ndarray]] = []
    core.mda.events.frameReady.connect(lambda image, event: frames.append((dict(event.index), image.copy())))
    return frames


def test_the_engine_sees_the_planes_in_order(triggered: bool) -> None:
    core = virtual_microscope(STACK, triggered=triggered)
    frames = frames_of(core)
    bursts: list[int] = []
    core.events.sequenceAcquisitionStarted.connect(lambda *said: bursts.append(1))
    acquire_stack(core, planes=5, z_step_um=0.8)
    unload(core)
    assert [index["z"] for index, _ in frames] == [0, 1, 2, 3, 4]
    assert all(np.array_equal(image, PLANES[index["z"]]) for index, image in frames)
    assert len(bursts) == triggered


def test_every_frame_is_taken_where_the_sequence_says(triggered: bool) -> None:
    scene = Seen()
    core = virtual_microscope(scene, triggered=triggered)
    frames = frames_of(core)
    acquire_stack(
        core, planes=3, z_step_um=0.5, channels=scene.channels, positions_um=[(0, 0), (40, -7)], time_points=2
    )
    unload(core)
    places, heights = [(0, 0), (40, -7)], [0, 0.5, 1]
    expected = [View(*xy, z, c) for _ in range(2) for xy in places for c in range(2) for z in heights]
    assert scene.views == expected
    for number, (index, image) in enumerate(frames):
        view = View(*places[index["p"]], heights[index["z"]], index["c"])
        assert view == expected[number]
        assert (image == number).all()
    assert len(frames) == 24


def test_a_frame_that_is_not_delivered_is_passed_over() -> None:
    scene = Seen(failing=(2,))
    core = virtual_microscope(scene)
    frames = frames_of(core)
    acquire_stack(core, planes=5, z_step_um=0.5)
    unload(core)
    assert [(index["z"], image[0, 0]) for index, image in frames] == [(0, 0), (1, 1), (3, 3), (4, 4)]


def test_a_frame_that_is_lost_in_a_burst_shifts_those_after_it() -> None:
    # The engine knows no better; the camera's metadata does.
    scene = Seen(failing=(2,))
    core = virtual_microscope(scene, triggered=True)
    frames = frames_of(core)
    triggers: list[str] = []
    core.mda.events.frameReady.connect(
        lambda image, event, metadata: triggers.append(metadata["camera_metadata"]["Trigger"])
    )
    acquire_stack(core, planes=5, z_step_um=0.5)
    assert [(index["z"], image[0, 0]) for index, image in frames] == [(0, 0), (1, 1), (2, 3), (3, 4)]
    assert triggers == ["0", "1", "3", "4"]
    assert [view.z_um for view in scene.views] == [0, 0.5, 1, 1.5, 2]
    acquire_stack(core, planes=5, z_step_um=0.5)  # The next one is whole again.
    assert len(frames) == 9
    unload(core)


def test_the_core_knows_its_devices(core: UniMMCore) -> None:
    assert (core.getImageHeight(), core.getImageWidth()) == (32, 48)
    assert core.getBytesPerPixel() == 2
    assert core.getPixelSizeUm() == pytest.approx(0.2)
    assert set(core.getAvailableConfigs("Channel")) == {"DAPI", "FITC"}
    assert core.getCurrentConfig("Channel") == "DAPI"
    core.setConfig("Channel", "FITC")
    assert (core.getStateLabel("Filter"), core.getState("Filter")) == ("FITC", 1)


def test_eight_bits() -> None:
    core = virtual_microscope(Stack(PLANES.astype(np.uint8), z_step_um=0.8, pixel_um=0.2))
    assert core.getBytesPerPixel() == 1
    assert np.array_equal(core.snap(), PLANES[0].astype(np.uint8))
    unload(core)


def test_the_camera_looks_where_the_stage_is(core: UniMMCore) -> None:
    core.setPosition(2.4)
    assert np.array_equal(core.snap(), PLANES[3])
    core.setPosition(-5)
    assert np.array_equal(core.snap(), PLANES[0])


def test_an_origin_moves_the_numbers_and_not_the_stages() -> None:
    scene = Seen()
    core = virtual_microscope(scene)
    core.setPosition(2.0)
    core.setOrigin()
    core.setXYPosition(10, 20)
    core.setOriginXY()
    assert (core.getPosition(), core.getXYPosition()) == (0, (0, 0))
    core.setRelativePosition(0.5)
    core.setRelativeXYPosition(1, 2)
    core.snap()
    core.home("Z")
    core.home("XY")
    core.snap()
    unload(core)
    assert scene.views == [View(11, 22, 2.5, 0), View(0, 0, 0, 0)]


def test_a_part_of_the_sensor(core: UniMMCore) -> None:
    core.setROI(5, 6, 10, 20)
    assert np.array_equal(core.snap(), PLANES[0, 6:26, 5:15])
    core.clearROI()
    assert core.snap().shape == (32, 48)
    with pytest.raises(ValueError, match="within the sensor of 48 x 32"):
        core.setROI(40, 0, 10, 20)


def test_live_mode() -> None:
    scene = Seen()
    core = virtual_microscope(scene)
    core.setExposure(1)
    core.startContinuousSequenceAcquisition()
    while core.getRemainingImageCount() < 3:
        pass
    core.stopSequenceAcquisition()
    assert [core.popNextImage()[0, 0] for _ in range(3)] == [0, 1, 2]
    unload(core)


def test_a_range_of_planes_about_a_position() -> None:
    scene = Seen()
    core = virtual_microscope(scene)
    core.mda.run(useq.MDASequence(stage_positions=[(0, 0, 4), (9, 0, 8)], z_plan=useq.ZRangeAround(range=2, step=1)))
    unload(core)
    assert [view.z_um for view in scene.views] == [3, 4, 5, 7, 8, 9]


def test_planes_come_at_the_camera_rate_or_slower(triggered: bool) -> None:
    core = virtual_microscope(STACK, triggered=triggered)
    times: list[float] = []
    core.mda.events.frameReady.connect(lambda image, event, metadata: times.append(metadata["runner_time_ms"]))
    acquire_stack(core, planes=5, z_step_um=0.8, planes_per_second=50)
    unload(core)
    assert times[-1] - times[0] >= 3 * 20


@pytest.mark.parametrize("planes", [PLANES[0], PLANES.astype(np.float32)])
def test_a_stack_that_cannot_be_shown(planes: np.ndarray) -> None:
    with pytest.raises(ValueError, match="uint8 or uint16"):
        Stack(planes, z_step_um=1, pixel_um=0.2)


def test_a_rate_that_cannot_be(core: UniMMCore) -> None:
    with pytest.raises(ValueError, match="above 0"):
        acquire_stack(core, planes=5, z_step_um=0.8, planes_per_second=0)


# Without `unload`, half of such scripts are aborted.
SCRIPT = """
from pymmcore_plus import CMMCorePlus

from simulators.core import unload

core = CMMCorePlus()
core.loadSystemConfiguration("MMConfig_demo.cfg")
unload(core)
"""


def test_scripts_may_end_with_unloading() -> None:
    environment = {**os.environ, "MICROMANAGER_PATH": str(mm_test_adapters.device_adapter_path())}
    for _ in range(4):
        done = subprocess.run([sys.executable, "-c", SCRIPT], check=False, env=environment, capture_output=True)
        assert done.returncode == 0, done.stderr
