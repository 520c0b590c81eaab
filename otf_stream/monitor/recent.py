"""What was made lately, so that ten browsers that follow one acquisition have it made once."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

T = TypeVar("T")


class Recent(Generic[T]):
    """Keeps things, the latest, as far as there is room; for any number of threads.

    Parameters
    ----------
    most_bytes
        Of all of them.
    """

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes, self._bytes = most_bytes, 0
        self._kept: OrderedDict[Hashable, tuple[T, int]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable) -> T | None:
        """Return a thing if it is still there."""
        with self._lock:
            if key not in self._kept:
                return None
            self._kept.move_to_end(key)
            return self._kept[key][0]

    def keep(self, key: Hashable, thing: T, size: int) -> T:
        """Keep a thing of so many bytes, and let go of the oldest past the bound; return what is there under its key.

        That is what another thread has made, where it was faster.
        """
        with self._lock:
            thing, size = self._kept.setdefault(key, (thing, size))
            self._bytes = sum(size for _, size in self._kept.values())
            while self._bytes > self._most_bytes:
                _, (_, gone) = self._kept.popitem(last=False)
                self._bytes -= gone
        return thing
