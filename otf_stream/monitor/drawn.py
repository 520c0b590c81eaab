"""Slices that were drawn lately, so that ten browsers that follow one acquisition have each of them drawn once."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass

MOST_BYTES = 32 << 20


@dataclass(frozen=True)
class Drawn:
    """A picture, and the headers of the answer that it is."""

    png: bytes
    headers: dict[str, str]


class RecentlyDrawn:
    """Keeps pictures, the latest, as far as there is room; for any number of threads.

    Parameters
    ----------
    most_bytes
        Of all pictures.
    """

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self._most_bytes, self._bytes = most_bytes, 0
        self._kept: OrderedDict[Hashable, Drawn] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable) -> Drawn | None:
        """Return a picture if it is still there."""
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
            return self._kept.get(key)

    def keep(self, key: Hashable, drawn: Drawn) -> None:
        """Keep a picture, and let go of the oldest past the bound."""
        with self._lock:
            if key not in self._kept:
                self._kept[key] = drawn
                self._bytes += len(drawn.png)
            while self._bytes > self._most_bytes:
                _, gone = self._kept.popitem(last=False)
                self._bytes -= len(gone.png)
