"""A virtual microscope on a real Micro-Manager core.

The core and pymmcore-plus's acquisition engine are those that a microscope's PC runs; only the devices are ours. What
is streamed from this microscope has therefore taken the path that a real camera's frames take, and any script for
Micro-Manager runs on it.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

import useq
from pymmcore_plus import CMMCorePlus
from pymmcore_plus.experimental.unicore import Device, UniMMCore

from simulators.devices import FilterWheel, SceneCamera, Shutter, XYStage, ZStage
from simulators.scenes import Scene, View

_RESOLUTION = "phantom"


def virtual_microscope(scene: Scene, *, triggered: bool = False) -> UniMMCore:
    """Set up a core whose camera looks at a scene.

    Its devices are ``Camera``, ``Z``, ``XY``, ``Filter`` and ``Shutter``; the config group ``Channel`` has a preset for
    each of the scene's channels, and the first one is set.

    Parameters
    ----------
    scene
        What is on the stage.
    triggered
        Whether the z stage steps on with every exposure: the engine then takes each stack as one burst.

    Returns
    -------
    UniMMCore
        Ready to run a sequence; :func:`unload` it when done with it.
    """
    core = UniMMCore()
    z, xy, wheel = ZStage(triggered=triggered), XYStage(), FilterWheel(scene.channels)
    camera = SceneCamera(scene, lambda: View(*xy.xy_um, z.z_um, wheel.get_state()), z.trigger)
    devices: dict[str, Device] = {"Z": z, "XY": xy, "Filter": wheel, "Shutter": Shutter(), "Camera": camera}
    for label, device in devices.items():
        core.loadPyDevice(label, device)
        core.initializeDevice(label)
    core.setShutterDevice("Shutter")  # Without one, the engine fails at the end of an exposure.
    core.setFocusDevice("Z")
    core.setXYStageDevice("XY")
    core.setCameraDevice("Camera")
    for channel in scene.channels:
        core.defineConfig("Channel", channel, "Filter", "Label", channel)
    core.setConfig("Channel", scene.channels[0])
    core.definePixelSizeConfig(_RESOLUTION)
    core.setPixelSizeUm(_RESOLUTION, scene.pixel_um)
    core.setPixelSizeConfig(_RESOLUTION)
    return core


def unload(core: CMMCorePlus) -> None:
    """Unload the devices of a core that is not used any more, whose events nobody hears from now on.

    A thread of the core tells its events, and unloading has many. If the interpreter ends while that thread calls into
    Python, the process is aborted (``FATAL: exception not rethrown``), which befell up to half of all scripts whose
    last line is ``core.unloadAllDevices()``.
    """
    super(CMMCorePlus, core).registerCallback(None)
    core.unloadAllDevices()


def acquire_stack(
    core: CMMCorePlus,
    *,
    planes: int,
    z_step_um: float,
    channels: Sequence[str] = (),
    positions_um: Sequence[tuple[float, float]] = (),
    time_points: int = 1,
    interval_s: float = 0.0,
    planes_per_second: float | None = None,
) -> None:
    """Run z-stacks from stage position 0 with the engine of pymmcore-plus, and wait for their end.

    Parameters
    ----------
    core
        As from `virtual_microscope`.
    planes
        How many in each stack.
    z_step_um
        From plane to plane.
    channels
        Presets of the group ``Channel``; the present one if empty.
    positions_um
        Stage positions ``(x, y)``; where the stage stands if empty.
    time_points, interval_s
        How often, and from start to start; without a pause if the stacks take longer.
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
    times = useq.TIntervalLoops(interval=timedelta(seconds=interval_s), loops=time_points) if time_points > 1 else None
    core.mda.run(
        useq.MDASequence(
            axis_order=("t", "p", "c", "z"),
            time_plan=times,
            stage_positions=tuple(useq.Position(x=x, y=y) for x, y in positions_um),
            channels=tuple(useq.Channel(config=channel, exposure=None) for channel in channels),
            z_plan=useq.ZAbsolutePositions(absolute=[k * z_step_um for k in range(planes)]),
        )
    )
