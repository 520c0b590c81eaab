"""Memory for the planes to come, ready before the camera needs it.

The first write to a page of new memory costs several times the copy itself, because the system has to find and clear
the page. So publishers' threads map memory ahead of the camera, and take back what delivered planes leave. All
publishers of a process share what is idle: an acquisition at a hundred positions has a hundred of them.
"""

from __future__ import annotations

import threading
from weakref import WeakValueDictionary

import numpy as np

_AHEAD = 4  # planes that are kept ready: a thread that writes a plane to a slow disk prepares nothing meanwhile
_IDLE = 128 << 20  # bytes beyond which idle memory goes back to the system


class Blanks:
    """Memory for planes of one size; get the one that is shared from `of`. Any thread may use it.

    Parameters
    ----------
    plane_bytes
        Size of a plane.
    """

    def __init__(self, plane_bytes: int) -> None:
        self._plane_bytes = plane_bytes
        self._most = max(_AHEAD, _IDLE // plane_bytes)
        self._lock = threading.Lock()
        self._idle: list[memoryview] = []

    @classmethod
    def of(cls, plane_bytes: int) -> Blanks:
        """Return the one of this process for planes of that size; it lives as long as somebody keeps it."""
        with _lock:
            blanks = _shared.get(plane_bytes)
            if blanks is None:
                blanks = _shared[plane_bytes] = cls(plane_bytes)
            return blanks

    def take(self) -> memoryview:
        """Return memory for a plane, mapped if there is some."""
        with self._lock:
            if self._idle:
                return self._idle.pop()
        return self._fresh()

    def give(self, used: memoryview, room: int) -> None:
        """Take memory back that nobody reads or writes any more, if idle memory then fits into ``room`` bytes."""
        with self._lock:
            if self._fits(room, self._most):
                self._idle.append(used)

    def prepare(self, room: int) -> bool:
        """Map memory for one plane if too few are ready, and they fit into ``room`` bytes; return whether it was."""
        with self._lock:
            if not self._fits(room, _AHEAD):
                return False
        mapped = self._fresh()
        np.frombuffer(mapped, np.uint8).fill(0)  # without the interpreter's lock: the camera's thread goes on
        with self._lock:
            self._idle.append(mapped)
        return True

    def _fits(self, room: int, most: int) -> bool:
        return len(self._idle) < most and (len(self._idle) + 1) * self._plane_bytes <= room

    def _fresh(self) -> memoryview:
        # NumPy asks for huge pages where the system has them: there are fewer to find.
        return np.empty(self._plane_bytes, np.uint8).data


_lock = threading.Lock()
_shared: WeakValueDictionary[int, Blanks] = WeakValueDictionary()
