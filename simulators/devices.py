"""The devices of the virtual microscope, as Micro-Manager sees them: camera, z stage, XY stage, filter wheel, shutter.

They are Python devices of pymmcore-plus's ``unicore``. The camera asks the others where they stand and exposes the
scene from there, once every exposure time. A z stage that is wired to the camera's trigger steps on with every
exposure; the acquisition engine then takes a stack as one burst, as it does on most fast microscopes.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import count

import numpy as np
from numpy.typing import DTypeLike, NDArray
from pymmcore_plus import FocusDirection
from pymmcore_plus.experimental.unicore import CameraDevice, ShutterDevice, StageDevice, StateDevice, XYStageDevice

from simulators.scenes import Scene, View

_LONGEST_BURST = 10_000  # planes that a z stage can be programmed with


class ZStage(StageDevice):
    """A z stage that is where it is told to be at once.

    Parameters
    ----------
    triggered
        Whether it can be programmed to step on with every exposure of the camera.
    """

    def __init__(self, *, triggered: bool) -> None:
        super().__init__()
        self.z_um = 0.0  # from where it was switched on, wherever its origin is set
        self._origin_um = 0.0
        self._triggered = triggered
        self._direction = FocusDirection.TowardSample
        self._programme: tuple[float, ...] = ()
        self._ahead: deque[float] = deque()

    def get_position_um(self) -> float:
        """Return the position in µm from the origin."""
        return self.z_um - self._origin_um

    def set_position_um(self, val: float) -> None:
        """Move."""
        self.z_um = val + self._origin_um
        self.core.events.stagePositionChanged.emit(self.get_label(), val)

    def get_focus_direction(self) -> FocusDirection:
        """Return which way is towards the sample."""
        return self._direction

    def set_focus_direction(self, sign: int) -> None:
        """Set which way is towards the sample."""
        self._direction = FocusDirection(sign)

    def home(self) -> None:
        """Move to where it was switched on."""
        self.set_position_um(-self._origin_um)

    def stop(self) -> None:
        """Do nothing: it never is on its way."""

    def set_origin(self) -> None:
        """Call the present position 0."""
        self._origin_um = self.z_um

    def get_sequence_max_length(self) -> int:
        """Return how many positions it can be programmed with; 0 if it is not triggered."""
        return _LONGEST_BURST if self._triggered else 0

    def send_sequence(self, sequence: tuple[float, ...]) -> None:
        """Programme the positions of a burst."""
        self._programme = sequence

    def start_sequence(self) -> None:
        """Move to the first position of the programme, and wait for triggers."""
        self._ahead = deque(self._programme)
        self.trigger()

    def stop_sequence(self) -> None:
        """Heed triggers no longer."""
        self._ahead.clear()

    def trigger(self) -> None:
        """Step on in a programme that runs; stay at its end."""
        if self._ahead:
            self.z_um = self._ahead.popleft() + self._origin_um


class XYStage(XYStageDevice):
    """An XY stage that is where it is told to be at once. It moves the view: a larger x shows what lay to the right."""

    def __init__(self) -> None:
        super().__init__()
        self.xy_um = (0.0, 0.0)  # from where it was switched on
        self._origin_um = (0.0, 0.0)

    def get_position_um(self) -> tuple[float, float]:
        """Return the position in µm from the origin."""
        return self.xy_um[0] - self._origin_um[0], self.xy_um[1] - self._origin_um[1]

    def set_position_um(self, x: float, y: float) -> None:
        """Move."""
        self.xy_um = (x + self._origin_um[0], y + self._origin_um[1])
        self.core.events.XYStagePositionChanged.emit(self.get_label(), x, y)

    def home(self) -> None:
        """Move to where it was switched on."""
        self.set_position_um(-self._origin_um[0], -self._origin_um[1])

    def stop(self) -> None:
        """Do nothing: it never is on its way."""

    def set_origin_x(self) -> None:
        """Call the present x 0."""
        self._origin_um = (self.xy_um[0], self._origin_um[1])

    def set_origin_y(self) -> None:
        """Call the present y 0."""
        self._origin_um = (self._origin_um[0], self.xy_um[1])


class FilterWheel(StateDevice):
    """A filter wheel with a label for each channel."""

    def __init__(self, labels: Sequence[str]) -> None:
        self._state = 0
        super().__init__(dict(enumerate(labels)))

    def get_state(self) -> int:
        """Return which filter is in the light."""
        return self._state

    def set_state(self, position: int) -> None:
        """Turn."""
        self._state = int(position)


class Shutter(ShutterDevice):
    """A shutter, which the engine opens for each exposure. The camera sees the scene with any shutter."""

    def __init__(self) -> None:
        super().__init__()
        self._open = False

    def get_open(self) -> bool:
        """Return whether it is open."""
        return self._open

    def set_open(self, open: bool) -> None:
        """Open or close."""
        self._open = bool(open)


class SceneCamera(CameraDevice):
    """A camera that exposes a scene from where the other devices stand, once every exposure time.

    A frame that it fails to deliver is an error where a single one was asked for: the engine passes over that plane,
    and goes on. In a burst the frame simply does not come. The engine tells the frames of a burst apart by their order
    alone, so those that follow a lost one are taken for the plane before theirs, and the last one for missing; that is
    so with real cameras too. What the camera knows is in the frame's metadata: ``Trigger``, counted from 0.

    Parameters
    ----------
    scene
        What it sees.
    view
        Returns where the microscope looks.
    trigger
        Called after every exposure.
    """

    def __init__(self, scene: Scene, view: Callable[[], View], trigger: Callable[[], None]) -> None:
        self._scene = scene
        self._view = view
        self._trigger = trigger
        self._exposure_ms = 0.0
        self._due = 0.0
        self._roi: tuple[int, int, int, int] | None = None
        super().__init__()

    def get_exposure(self) -> float:
        """Return the exposure time in milliseconds."""
        return self._exposure_ms

    def set_exposure(self, exposure: float) -> None:
        """Set the exposure time in milliseconds."""
        self._exposure_ms = exposure

    def dtype(self) -> DTypeLike:
        """Return the pixel type."""
        return self._scene.dtype

    def shape(self) -> tuple[int, int]:
        """Return ``(height, width)`` of the region that is read out."""
        _, _, width, height = self.get_roi()
        return height, width

    def get_roi(self) -> tuple[int, int, int, int]:
        """Return the region that is read out: ``(x, y, width, height)``."""
        rows, columns = self._scene.shape
        return self._roi or (0, 0, columns, rows)

    def set_roi(self, x: int, y: int, width: int, height: int) -> None:
        """Read out a part of the sensor.

        Raises
        ------
        ValueError
            If it does not lie within the sensor.
        """
        rows, columns = self._scene.shape
        if min(x, y) < 0 or min(width, height) < 1 or x + width > columns or y + height > rows:
            raise ValueError(
                f"the region x {x}, y {y}, width {width}, height {height} does not lie within the sensor of "
                f"{columns} x {rows} pixels; choose a smaller one"
            )
        self._roi = (x, y, width, height)

    def clear_roi(self) -> None:
        """Read out the whole sensor."""
        self._roi = None

    def start_sequence(
        self, n: int | None, get_buffer: Callable[[Sequence[int], DTypeLike], NDArray[np.integer]]
    ) -> Iterator[Mapping[str, object]]:
        """Expose ``n`` times, or until stopped if None; fill a buffer and yield its metadata for each frame.

        Raises
        ------
        RuntimeError
            If a single frame is asked for and not delivered.
        """
        for number in count() if n is None else range(n):
            # Frames fall due at a steady rate, so that what the engine does between them does not add up.
            self._due = max(self._due + self._exposure_ms / 1000, time.monotonic())
            frame = self._scene.expose(self._view())
            time.sleep(max(0.0, self._due - time.monotonic()))
            self._trigger()
            if frame is None:
                if n == 1:
                    raise RuntimeError("the camera delivered no frame")
                continue
            x, y, width, height = self.get_roi()
            get_buffer((height, width), self.dtype())[:] = frame[y : y + height, x : x + width]
            yield {"Trigger": str(number)}
