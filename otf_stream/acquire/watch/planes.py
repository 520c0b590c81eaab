"""The planes of a folder with one TIFF file for each, known by their names.

A file counts as whole when its one page is there, with all of its pixels, and neither its size nor its time of change
has moved since the last look. If it changes after that, it is given again only with other pixels. Names count from 0
or 1, running numbers from anywhere: the first look decides.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from isal.isal_zlib import crc32

from otf_stream.acquire.hooks.growing import Plane
from otf_stream.acquire.watch.names import PlaneName
from otf_stream.acquire.watch.plane import Stat, Told, stat
from otf_stream.acquire.watch.tiff import GrowingTiff
from otf_stream.store.formats.source import UNKNOWN, Spacing, micrometres


class GrowingPlanes:
    """Plane files of one series in a folder; see `plane.Growing`.

    Parameters
    ----------
    folder
        In which they are.
    files
        Returns those that are there now, with what their names tell.
    """

    def __init__(self, folder: Path, files: Callable[[], Iterable[tuple[Path, PlaneName]]]) -> None:
        self.path = folder
        self.faults: list[str] = []
        self._files = files
        self._seen: dict[Path, Stat] = {}
        self._done: dict[Path, Stat] = {}
        self._given: dict[Path, int] = {}  # checksums of the pixels
        self._first: tuple[int, int, int] | None = None
        self._told: Told | None = None

    def told(self) -> Told:
        """Return what the metadata tell so far."""
        told = self._told or Told(UNKNOWN)
        z, y, x = (a or b for a, b in zip(told.spacing, _beside(self.path), strict=True))
        return replace(told, sizes=(1, 1, 1), channels=(), spacing=(z, y, x))

    def look(self, *, last: bool = False) -> Iterator[Plane]:
        """Give the planes that have become whole since the last look."""
        whole: list[tuple[Path, PlaneName, Plane]] = []
        for path, name in sorted(self._files(), key=lambda item: item[0].name):
            now = stat(path)
            if now is None or self._done.get(path) == now:
                continue
            still, self._seen[path] = self._seen.get(path) == now, now
            if not still and not last:
                continue
            reader = GrowingTiff(path)
            planes = list(reader.look(last=True))
            if reader.pages > 1:
                reader.faults.append(f"{path} has {reader.pages} pages; in a folder of planes keep one for each file")
                planes = []
            if planes and not reader.faults:
                self._told = self._told or reader.told()
                self._done[path] = now
                if self._changed(path, planes[0]):
                    whole.append((path, name, planes[0]))
            elif last or reader.pages > 1:
                self.faults += [fault for fault in reader.faults if fault not in self.faults]
                self._done[path] = now
        if whole and self._first is None:
            self._first = _first([name for _, name, _ in whole])
        for path, name, plane in whole:
            yield self._placed(path, name, plane)

    def _changed(self, path: Path, plane: Plane) -> bool:
        """Whether a file has other pixels than were given: some writers append to a file that is whole."""
        try:
            checksum = crc32(plane.read().tobytes())
        except Exception:  # who takes the plane is told
            return True
        before, self._given[path] = self._given.get(path), checksum
        return before != checksum

    def _placed(self, path: Path, name: PlaneName, plane: Plane) -> Plane:
        t, c, z = self._first or (0, 0, 0)
        channel = name.channel - c if isinstance(name.channel, int) else name.channel
        return replace(plane, t=name.t - t, channel=channel, z=name.z - z, position=name.position, tile=name.tile)


def _first(names: list[PlaneName]) -> tuple[int, int, int]:
    """Return the numbers of the first time point, channel and plane."""
    channels = [name.channel for name in names if isinstance(name.channel, int)]
    z = min(name.z for name in names)
    return (
        min(name.t for name in names),
        1 if channels and min(channels) == 1 else 0,
        z if not names[0].certain else 1 if z == 1 else 0,
    )


def _beside(folder: Path) -> Spacing:
    """Read the voxel size from the text files that Micro-Manager and pymmcore-plus put beside the planes."""
    text = "".join(_text(folder / name) for name in ("metadata.txt", "_frame_metadata.json"))
    pixel = _found(r'"(?:PixelSizeUm|PixelSize_um|pixel_size_um)"\s*:\s*([0-9.eE+-]+)', text)
    step = _found(r'"(?:z-step_um)"\s*:\s*([0-9.eE+-]+)', text)
    if step is None:
        try:
            plan = json.loads(_text(folder / "_useq_MDASequence.json"))["z_plan"]
            step = micrometres(plan.get("step"), "um")
        except (ValueError, KeyError, TypeError, AttributeError):
            step = None
    return step, pixel, pixel


def _found(pattern: str, text: str) -> float | None:
    found = re.search(pattern, text)
    return micrometres(found[1], "um") if found else None


def _text(path: Path) -> str:
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            return file.read(1 << 20)
    except OSError:
        return ""
