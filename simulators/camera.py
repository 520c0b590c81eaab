"""A virtual microscope on a real Micro-Manager core.

Everything that a microscope's PC runs is real: the core, its demonstration stage and shutter (compiled device
adapters), and pymmcore-plus's acquisition engine. Only the camera is ours, a Python device whose pixels are the
planes of a simulated stack, chosen by where the stage stands. What is streamed from this microscope has therefore
taken the path that a real camera's frames take.
"""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable, Mapping

import mm_test_adapters
import numpy as np
import useq
from numpy.typing import DTypeLike, NDArray
from pymmcore_plus import CMMCorePlus, FocusDirection
from pymmcore_plus.experimental.unicore import SimpleCameraDevice, UniMMCore

_RESOLUTION = "phantom"


class PhantomCamera(SimpleCameraDevice):
    """A camera that sees the plane nearest to the stage's position, once every exposure time.

    Parameters
    ----------
    planes
        ``(z, y, x)``, uint8 or uint16.
    z_step_um
        Distance of neighbouring planes; the first lies at 0.
    position_um
        Returns where the stage stands.
    """

    def __init__(self, planes: NDArray[np.integer], z_step_um: float, position_um: Callable[[], float]) -> None:
        super().__init__()
        self._planes = planes
        self._z_step_um = z_step_um
        self._position_um = position_um
        self._exposure_ms = 0.0
        self._due = 0.0

    def get_exposure(self) -> float:
        """Return the exposure time in milliseconds."""
        return self._exposure_ms

    def set_exposure(self, exposure: float) -> None:
        """Set the exposure time in milliseconds."""
        self._exposure_ms = exposure

    def sensor_shape(self) -> tuple[int, int]:
        """Return ``(height, width)``."""
        return self._planes.shape[1], self._planes.shape[2]

    def dtype(self) -> DTypeLike:
        """Return the pixel type."""
        return self._planes.dtype

    def snap(self, buffer: NDArray[np.integer]) -> Mapping[str, object]:
        """Expose, and fill ``buffer`` with the plane in focus."""
        # Frames fall due at a steady rate, so that what the engine does between them does not add up.
        self._due = max(self._due + self._exposure_ms / 1000, time.monotonic())
        plane = round(self._position_um() / self._z_step_um)
        buffer[:] = self._planes[min(max(plane, 0), len(self._planes) - 1)]
        time.sleep(max(0.0, self._due - time.monotonic()))
        return {}


def virtual_microscope(planes: NDArray[np.integer], *, z_step_um: float, pixel_size_um: float) -> UniMMCore:
    """Set up a core whose camera looks at a stack.

    Parameters
    ----------
    planes
        ``(z, y, x)``, uint8 or uint16, as `simulators.microscope.image` gives them.
    z_step_um
        Distance of neighbouring planes; the first lies at stage position 0.
    pixel_size_um
        Lateral pixel size, known to the core.

    Returns
    -------
    UniMMCore
        Ready to run a sequence; ``core.unloadAllDevices()`` when done with it.

    Raises
    ------
    ValueError
        If ``planes`` is no stack of uint8 or uint16, or the stack is deeper than the stage's travel.
    """
    if planes.ndim != 3 or planes.dtype not in (np.uint8, np.uint16):
        raise ValueError(f"planes must be (z, y, x) of uint8 or uint16, got {planes.dtype} {planes.shape}")
    core = UniMMCore()
    core.setDeviceAdapterSearchPaths([mm_test_adapters.device_adapter_path()])
    for label, adapter in (("Z", "DStage"), ("Shutter", "DShutter")):
        core.loadDevice(label, "DemoCamera", adapter)
        core.initializeDevice(label)
    core.setShutterDevice("Shutter")
    core.setFocusDevice("Z")
    core.setFocusDirection("Z", FocusDirection.TowardSample)
    depth, travel = (len(planes) - 1) * z_step_um, float(core.getPropertyUpperLimit("Z", "Position") or 300)
    if depth > travel:
        raise ValueError(f"the stack is {depth:g} µm deep, but the stage travels {travel:g} µm; use fewer planes")

    stage = weakref.proxy(core)  # The core owns the camera.
    core.loadPyDevice("Camera", PhantomCamera(planes, z_step_um, lambda: stage.getPosition("Z")))
    core.initializeDevice("Camera")
    core.setCameraDevice("Camera")
    core.definePixelSizeConfig(_RESOLUTION)
    core.setPixelSizeUm(_RESOLUTION, pixel_size_um)
    core.setPixelSizeConfig(_RESOLUTION)
    return core


def acquire_stack(core: CMMCorePlus, *, planes: int, z_step_um: float, planes_per_second: float | None = None) -> None:
    """Run a z-stack from stage position 0 with the engine of pymmcore-plus, and wait for its end.

    Parameters
    ----------
    core
        As from `virtual_microscope`.
    planes
        How many.
    z_step_um
        From plane to plane.
    planes_per_second
        The camera's rate; as fast as the engine goes if None.

    Raises
    ------
    ValueError
        If the rate is not above 0.
    """
    if planes_per_second is not None and planes_per_second <= 0:
        raise ValueError(f"planes_per_second is {planes_per_second}, but must be above 0")
    core.setExposure(0.0 if planes_per_second is None else 1000 / planes_per_second)
    core.mda.run(useq.MDASequence(z_plan=useq.ZAbsolutePositions(absolute=[k * z_step_um for k in range(planes)])))
