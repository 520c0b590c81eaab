"""Watches a folder for acquisitions that other programs save in it, and streams each while it grows.

The folder is polled: that works on network drives, too, where notifications do not. What is found is told apart by
its files: a folder with an NDTiff index, plane files of one series, or a TIFF file by itself, in the folder or up to
three levels below it. What lies there at the start is left alone until it changes.
"""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from otf_stream.acquire.hooks.stream import Stream
from otf_stream.acquire.watch.names import PlaneName, parse_name, stem_of
from otf_stream.acquire.watch.ndtiff import INDEX, GrowingNDTiff
from otf_stream.acquire.watch.plane import Growing, Stat, stat
from otf_stream.acquire.watch.planes import GrowingPlanes
from otf_stream.acquire.watch.recording import Given, Recording, Watched
from otf_stream.acquire.watch.tiff import GrowingTiff
from otf_stream.store.formats.source import name_after

log = logging.getLogger(__name__)

_DEPTH = 3  # levels of folders below the one that is watched
_GENERIC = ("", "img", "image", "plane", "slice", "stack")  # beginnings of names that name nothing
_POSITION = re.compile(r"^(default|pos.*)$", re.IGNORECASE)  # Micro-Manager's folder for each position

Key = tuple[Path, str]
"""Folder, and what is common to the names of the files."""


@dataclass
class _Group:
    """The files of one acquisition."""

    kind: str
    files: dict[Path, PlaneName | None] = field(default_factory=dict)
    stats: dict[Path, Stat] = field(default_factory=dict)
    asleep: bool = False
    recording: Recording | None = None
    changed: float = 0.0
    ended: bool = False


class FolderWatch:
    """Streams the acquisitions that are saved in a folder.

    Parameters
    ----------
    folder
        Need not be there yet.
    address
        Of the listener, ``tcp://HOST:PORT``.
    given
        About every acquisition.
    quiet_s
        An acquisition has ended when nothing of it changed for so long.
    existing
        Whether to stream what lies there already and does not grow.
    spill
        Folder for planes that cannot be delivered.
    wait_s
        Seconds to wait at the end while nothing is acknowledged.

    Raises
    ------
    ValueError
        If the address is none.
    """

    def __init__(
        self,
        folder: Path,
        address: str,
        given: Given = Given(),  # noqa: B008  frozen
        *,
        quiet_s: float = 30.0,
        existing: bool = False,
        spill: Path | None = None,
        wait_s: float = 60.0,
    ) -> None:
        Stream(address)  # refuses what is no address
        self._folder = folder
        self._address = address
        self._given = given
        self.quiet_s = quiet_s
        self._spill = spill
        self._wait_s = wait_s
        self._groups: dict[Key, _Group] = {}
        self._scan()
        for group in self._groups.values():
            group.asleep = not existing

    @property
    def rests(self) -> bool:
        """Whether an acquisition has ended and no other goes on; what is no stack counts for nothing."""
        groups = [group for group in self._groups.values() if not group.asleep]
        told = [group.recording.state for group in groups if group.recording is not None]
        return all(group.ended for group in groups) and any(state != "skipped" for state in told)

    def watched(self) -> list[Watched]:
        """Say what has come of each acquisition so far, in the order in which they were found."""
        return [group.recording.watched() for group in self._groups.values() if group.recording is not None]

    def look(self) -> None:
        """Look at the folder once, and hand over what is new."""
        changed = self._scan()
        for key, group in list(self._groups.items()):
            if key in changed:
                group.asleep = False
                group.changed = time.monotonic()
            if group.asleep or (group.ended and key not in changed):
                continue
            self._look_at(key, group)

    def close(self, *, aborted: bool) -> None:
        """End what is still going on, and wait until all is delivered."""
        for group in self._groups.values():
            if group.recording is not None and not group.ended:
                group.recording.end(aborted=aborted)
                group.ended = True
        for group in self._groups.values():
            if group.recording is not None:
                group.recording.wait()

    def _look_at(self, key: Key, group: _Group) -> None:
        recording = group.recording
        if recording is None:
            recording = group.recording = self._recording(key, group)
            group.changed = time.monotonic()
        if recording.look():
            group.changed = time.monotonic()
            group.ended = False
        if group.ended or (recording.busy and recording.state == "streaming"):
            return
        if time.monotonic() - group.changed > self.quiet_s:
            recording.end(aborted=False)
            group.ended = True

    def _recording(self, key: Key, group: _Group) -> Recording:
        folder, _ = key
        stream = Stream(self._address, spill=self._spill, wait_s=self._wait_s)
        reader: Growing
        if group.kind == "ndtiff":
            reader = GrowingNDTiff(folder)
        elif group.kind == "planes":
            reader = GrowingPlanes(folder, lambda: [(p, n) for p, n in group.files.items() if n is not None])
        else:
            reader = GrowingTiff(next(iter(group.files)))
        return Recording(self._given.name or self._name(key, group), reader, stream, self._given)

    def _name(self, key: Key, group: _Group) -> str:
        """Name an acquisition after its file, its folder, or what its files in the watched folder have in common."""
        folder, series = key
        if group.kind == "tiff":
            path = next(iter(group.files))
            return re.sub(r"_MMStack.*$", "", name_after(path))
        common = re.match(r"[A-Za-z0-9 _.+-]*?(?=[-_. ]*[A-Za-z]*#)", series)
        if folder == self._folder and common and common[0].lower() not in _GENERIC:
            return name_after(Path(common[0]))
        if folder.name == "Full resolution" or (_POSITION.match(folder.name) and folder != self._folder):
            folder = folder.parent
        return name_after(folder)

    def _scan(self) -> set[Key]:
        """Note which files there are; return the acquisitions of which any has changed."""
        changed: set[Key] = set()
        for folder, names in _folders(self._folder, _DEPTH):
            for key, kind, path, name in self._sorted_out(folder, names):
                now = stat(path)
                if now is None:
                    continue
                group = self._groups.setdefault(key, _Group(kind))
                group.files.setdefault(path, name)
                if group.stats.get(path) != now:
                    group.stats[path] = now
                    changed.add(key)
        return changed

    def _sorted_out(self, folder: Path, names: list[str]) -> Iterator[tuple[Key, str, Path, PlaneName | None]]:
        """Tell to which acquisition each file of a folder belongs, and of what kind that is."""
        if INDEX in names or any("NDTiffStack" in name for name in names):
            for name in names:
                if name == INDEX or stem_of(name) is not None:
                    yield (folder, ""), "ndtiff", folder / name, None
            return
        parsed = {name: parse_name(name) for name in names}
        running: dict[str, list[str]] = {}
        for name, plane in parsed.items():
            if plane is not None and not plane.certain:
                running.setdefault(plane.series, []).append(name)
        counted = {series for series, files in running.items() if self._counts_planes((folder, series), files)}
        for name in names:
            if stem_of(name) is None:
                continue
            plane = parsed[name]
            if plane is not None and (plane.certain or plane.series in counted):
                yield (folder, plane.series), "planes", folder / name, plane
            else:
                yield (folder, name), "tiff", folder / name, None

    def _counts_planes(self, key: Key, names: list[str]) -> bool:
        """Whether a running number counts planes: there are two files, and the first has one page for good."""
        if key in self._groups:
            return True
        if len(names) < 2:
            return False
        folder, _ = key
        files = [self._groups.get((folder, name)) for name in names]
        known = [group for group in files if group is not None]
        first = files[0]
        if first is None or first.stats.get(folder / names[0]) != stat(folder / names[0]):
            return False
        if any(group.recording is not None and group.recording.watched().sessions for group in known):
            return False
        reader = GrowingTiff(folder / names[0])
        if len(list(reader.look(last=True))) != 1 or reader.faults:
            return False
        for name in names:
            self._groups.pop((folder, name), None)
        self._groups[key] = _Group("planes", asleep=all(group.asleep for group in known))
        return True


def _folders(folder: Path, depth: int) -> Iterator[tuple[Path, list[str]]]:
    """Give folders and the names of the files in them."""
    try:
        with os.scandir(folder) as entries:
            found = [(entry.name, entry.is_dir()) for entry in entries if not entry.name.startswith(".")]
    except OSError:  # not there yet, or on a drive that is away
        return
    yield folder, sorted(name for name, is_folder in found if not is_folder)
    if depth:
        for name in sorted(name for name, is_folder in found if is_folder):
            if not name.endswith(".zarr") and not name.startswith("Downsampled"):
                yield from _folders(folder / name, depth - 1)
