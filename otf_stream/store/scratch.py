"""Planes that are put aside while a stack is worked on, and need not fit in memory.

They lie in a file without a name beside the session's arrays, which the system removes when the process ends, however
it ends. The system keeps of it in memory what there is room for. Nothing is synchronised: what is lost is computed
anew.
"""

from __future__ import annotations

import tempfile
import weakref
from collections.abc import Sequence
from pathlib import Path

import numpy as np

_PIXEL = np.dtype(np.float32)


class PlaneScratch:
    """Planes of one size, put aside one by one, of which windows are read.

    Parameters
    ----------
    folder
        Where there is room for them.
    height, width
        Of a plane, in pixels.
    """

    def __init__(self, folder: Path, height: int, width: int) -> None:
        self._shape = height, width
        self._file = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115 - closed with its last user
        weakref.finalize(self, self._file.close)
        self._places: dict[int, int] = {}

    def put(self, z: int, plane: np.ndarray) -> None:
        """Put plane ``z`` aside, ``(y, x)`` float32; it replaces an earlier one.

        Raises
        ------
        OSError
            If the disk is full or fails. The plane is not kept, and may be put again.
        """
        if plane.shape != self._shape or plane.dtype != _PIXEL:
            raise ValueError(f"the plane is {plane.shape} {plane.dtype}, but {self._shape} {_PIXEL} is put aside here")
        place = self._places.get(z, len(self._places))
        pixels = np.ascontiguousarray(plane).data.cast("B")
        self._file.seek(place * len(pixels))
        while pixels:
            pixels = pixels[self._file.write(pixels) :]
        self._places[z] = place

    def read(self, planes: Sequence[int], y: slice, x: slice) -> np.ndarray:
        """Read a window of planes that were put aside.

        Returns
        -------
        np.ndarray
            ``(len(planes), y, x)``, float32.

        Raises
        ------
        KeyError
            If a plane was not put aside.
        """
        # One plane is mapped at a time: what is mapped counts as memory of the process.
        return np.stack([self._mapped(self._places[z])[y, x].copy() for z in planes])

    def _mapped(self, place: int) -> np.ndarray:
        height, width = self._shape
        offset = place * height * width * _PIXEL.itemsize
        return np.memmap(self._file, _PIXEL, mode="r", offset=offset, shape=self._shape)
