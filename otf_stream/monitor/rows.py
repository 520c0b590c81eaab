"""The rows of an axial slice of a stack that is coming in: each plane is a row, and is read once.

Planes never change once they are there, so a slice that is shown again and again while its stack grows only needs what
has come since: and that the system still has in memory. To read every plane again would take the disk from those that
are coming in. A plane that was damaged and came again is another file, and is read again.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np


class Rows:
    """Rows of one slice, zero where there is nothing yet; for any number of threads.

    Parameters
    ----------
    shape
        ``(planes, pixels)``.
    dtype
        Of the pixels.
    """

    def __init__(self, shape: tuple[int, int], dtype: np.dtype) -> None:
        self._pixels = np.zeros(shape, dtype)
        self._read = [0] * shape[0]  # when the file was written that a row is of
        self._lock = threading.Lock()

    @property
    def nbytes(self) -> int:
        """How large they are."""
        return self._pixels.nbytes

    def read(self, files: Sequence[Path], row: Callable[[Path], np.ndarray]) -> np.ndarray:
        """Return all rows, of which those are read that have changed.

        Parameters
        ----------
        files
            For each row, where its plane is once it has come.
        row
            Reads the row of a plane; raises `OSError` or `ValueError` if it is not there after all.

        Returns
        -------
        np.ndarray
            A copy.
        """
        with self._lock:
            for index, file in enumerate(files):
                try:
                    written = file.stat().st_mtime_ns
                    found = row(file) if written != self._read[index] else None
                except (OSError, ValueError):  # it has not come, or has gone
                    written, found = 0, None
                if written != self._read[index]:
                    self._pixels[index] = 0 if found is None else found
                    self._read[index] = written
            return self._pixels.copy()
