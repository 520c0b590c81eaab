"""Images that are put aside while a stack is worked on, and need not fit in memory: planes, and axial slices.

They lie in a file without a name beside the session's arrays, which the system removes when the process ends, however
it ends. The system keeps of it in memory what there is room for. Nothing is synchronised: what is lost is computed
anew.
"""

from __future__ import annotations

import tempfile
import threading
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike


class Scratch:
    """Images of one size, put aside one by one, of which windows are read; by any thread.

    Parameters
    ----------
    folder
        Where there is room for them.
    height, width
        Of an image, in pixels.
    dtype
        Of a pixel.
    """

    def __init__(self, folder: Path, height: int, width: int, dtype: DTypeLike) -> None:
        self._shape, self._dtype = (height, width), np.dtype(dtype)
        self._file = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115 - closed with its last user
        weakref.finalize(self, self._file.close)
        self._places: dict[int, int] = {}
        self._free: list[int] = []
        self._lock = threading.Lock()  # the file has one position

    def __contains__(self, index: int) -> bool:
        """Whether an image is here."""
        return index in self._places

    def put(self, index: int, image: np.ndarray) -> None:
        """Put image ``index`` aside; it replaces an earlier one.

        Raises
        ------
        OSError
            If the disk is full or fails. The image is not kept, and may be put again.
        """
        if image.shape != self._shape or image.dtype != self._dtype:
            raise ValueError(
                f"the image is {image.shape} {image.dtype}, but {self._shape} {self._dtype} is put aside here"
            )
        pixels = np.ascontiguousarray(image).data.cast("B")
        size = len(pixels)
        with self._lock:
            place = self._places.get(index)
            if place is None:
                place = self._free[-1] if self._free else len(self._places)
            self._file.seek(place * size)
            while pixels:
                pixels = pixels[self._file.write(pixels) :]
            if self._free and self._free[-1] == place:
                self._free.pop()
            self._places[index] = place

    def forget(self, before: int) -> None:
        """Give the places of the images before one to others."""
        with self._lock:
            for index in [index for index in self._places if index < before]:
                self._free.append(self._places.pop(index))

    def read(self, images: Sequence[int], rows: slice = slice(None), columns: slice = slice(None)) -> np.ndarray:
        """Read a window of images that were put aside.

        Returns
        -------
        np.ndarray
            ``(len(images), rows, columns)``.

        Raises
        ------
        KeyError
            If an image was not put aside.
        """
        sides = (len(range(length)[side]) for length, side in zip(self._shape, (rows, columns), strict=True))
        window = np.empty((len(images), *sides), self._dtype)
        for place, index in enumerate(images):  # mapped one at a time: what is mapped counts as memory of the process
            window[place] = self._mapped(self._places[index])[rows, columns]
        return window

    def _mapped(self, place: int) -> np.ndarray[Any, np.dtype[Any]]:
        height, width = self._shape
        offset = place * height * width * self._dtype.itemsize
        return np.memmap(self._file, self._dtype, mode="r", offset=offset, shape=self._shape)
