"""The session stores of a data folder, which is looked at again and again.

A folder may have thousands of them after some months, and each look asks all: what a store says of itself is read anew
only if its file has changed.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

from otf_stream.store.journal import journal_path
from otf_stream.store.session import SUFFIX, session_attributes


class SessionFinder:
    """Finds the session stores of a folder.

    Parameters
    ----------
    data
        The folder.
    """

    def __init__(self, data: Path) -> None:
        self._data = data
        self._known: dict[Path, tuple[int, dict[str, Any]]] = {}

    def find(self) -> dict[Path, dict[str, Any]]:
        """Return what each store that has a journal says of itself, see `session_attributes`; the oldest first.

        Raises
        ------
        OSError
            If the folder cannot be read.
        """
        found = {}
        for path in self._data.glob(f"*{SUFFIX}"):
            with suppress(OSError):  # somebody may move it while it is looked at
                stamp = (path / "zarr.json").stat().st_mtime_ns
                known = self._known.get(path)
                if known and known[0] == stamp:
                    found[path] = known
                elif attributes := session_attributes(path):
                    found[path] = stamp, attributes
        self._known = found
        there = [path for path in found if journal_path(path).is_file()]
        return {path: found[path][1] for path in sorted(there, key=lambda one: (found[one][1]["created"], one.name))}


def find_sessions(data: Path) -> list[Path]:
    """Paths of the session stores in a folder, oldest first."""
    return list(SessionFinder(data).find())
