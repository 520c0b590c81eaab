import numpy as np
import pytest

from simulators.camera import acquire_stack, virtual_microscope

PLANES = np.random.default_rng(0).integers(0, 4000, (5, 32, 48)).astype(np.uint16)


def test_the_engine_sees_the_planes_in_order() -> None:
    core = virtual_microscope(PLANES, z_step_um=0.8, pixel_size_um=0.2)
    seen = []
    core.mda.events.frameReady.connect(lambda image, event, metadata: seen.append((event.index["z"], image.copy())))
    acquire_stack(core, planes=5, z_step_um=0.8)
    core.unloadAllDevices()
    assert [z for z, _ in seen] == [0, 1, 2, 3, 4]
    assert all(np.array_equal(image, PLANES[z]) for z, image in seen)


def test_the_core_knows_its_camera() -> None:
    core = virtual_microscope(PLANES.astype(np.uint8), z_step_um=0.8, pixel_size_um=0.2)
    assert (core.getImageHeight(), core.getImageWidth()) == (32, 48)
    assert core.getBytesPerPixel() == 1
    assert core.getPixelSizeUm() == pytest.approx(0.2)
    assert core.getDeviceLibrary("Z") == "DemoCamera"
    core.unloadAllDevices()


def test_the_camera_looks_where_the_stage_is() -> None:
    core = virtual_microscope(PLANES, z_step_um=0.8, pixel_size_um=0.2)
    core.setPosition(2.4)
    assert np.array_equal(core.snap(), PLANES[3])
    core.setPosition(-5)
    assert np.array_equal(core.snap(), PLANES[0])
    core.unloadAllDevices()


def test_planes_come_at_the_camera_rate_or_slower() -> None:
    core = virtual_microscope(PLANES, z_step_um=0.8, pixel_size_um=0.2)
    times = []
    core.mda.events.frameReady.connect(lambda image, event, metadata: times.append(metadata["runner_time_ms"]))
    acquire_stack(core, planes=5, z_step_um=0.8, planes_per_second=50)
    core.unloadAllDevices()
    assert times[-1] - times[0] >= 3 * 20


@pytest.mark.parametrize("planes", [PLANES[0], PLANES.astype(np.float32)])
def test_a_stack_that_cannot_be_shown(planes: np.ndarray) -> None:
    with pytest.raises(ValueError, match="uint8 or uint16"):
        virtual_microscope(planes, z_step_um=1, pixel_size_um=0.2)


def test_a_stack_too_deep_for_the_stage() -> None:
    with pytest.raises(ValueError, match="travels"):
        virtual_microscope(PLANES, z_step_um=500, pixel_size_um=0.2)


def test_a_rate_that_cannot_be() -> None:
    core = virtual_microscope(PLANES, z_step_um=0.8, pixel_size_um=0.2)
    with pytest.raises(ValueError, match="above 0"):
        acquire_stack(core, planes=5, z_step_um=0.8, planes_per_second=0)
    core.unloadAllDevices()
