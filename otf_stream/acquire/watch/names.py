"""What the name of a file with one plane tells: time, channel, z and position.

Known are names of letters and numbers (``img_channel000_position000_time000000000_z000``, ``stack_t003_c1_z0012``, as
`pymmcore-plus`, too, writes them), those of Micro-Manager 1.4 (``img_000000000_DAPI_000``), and a bare running number.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_AXES = {
    "z": "z", "slice": "z", "zslice": "z", "plane": "z",
    "t": "t", "time": "t", "timepoint": "t", "tp": "t",
    "c": "c", "ch": "c", "channel": "c", "w": "c",
    "p": "p", "pos": "p", "position": "p", "xy": "p",
    "g": "g", "tile": "g",
}  # fmt: skip
_TOKEN = re.compile(
    rf"(?<![A-Za-z])({'|'.join(sorted(_AXES, key=len, reverse=True))})[-_=]?(\d+)(?![A-Za-z0-9])", re.IGNORECASE
)
_OLD = re.compile(r"^(.*?)_?(\d{9})_(.+)_(\d{3,})$")
_ENDING = re.compile(r"(\.ome)?\.tiff?$", re.IGNORECASE)


@dataclass(frozen=True)
class PlaneName:
    """What a file's name tells.

    Parameters
    ----------
    series
        What is common to the names of one acquisition.
    t, z
        Numbers as they are in the name, 0 where there is none.
    channel
        Its number or name.
    position, tile
        None where the name does not tell.
    certain
        Whether the name alone tells that the file is one plane of a stack; a running number might also count stacks.
    """

    series: str
    z: int
    t: int = 0
    channel: int | str = 0
    position: int | None = None
    tile: int | None = None
    certain: bool = True


def stem_of(name: str) -> str | None:
    """Return the name of a TIFF file without its ending; None if it is none, or hidden or temporary."""
    if name.startswith((".", "~")) or not _ENDING.search(name):
        return None
    return _ENDING.sub("", name)


def parse_name(name: str) -> PlaneName | None:
    """Read the name of a TIFF file; None if it does not look like that of one plane."""
    stem = stem_of(name)
    if stem is None:
        return None
    found: dict[str, int] = {}
    series = stem
    for token in reversed(list(_TOKEN.finditer(stem))):
        axis = _AXES[token[1].lower()]
        if axis not in found:
            found[axis] = int(token[2])
            series = f"{series[: token.start(2)]}#{series[token.end(2) :]}"
    if "z" in found:
        # A count of all images, as pymmcore-plus puts in front, tells nothing more.
        series = re.sub(r"(^|-)\d{5}_(?=[tpcgz]#)", r"\1#_", series)
        return PlaneName(series, found["z"], found.get("t", 0), found.get("c", 0), found.get("p"), found.get("g"))
    old = _OLD.match(stem)
    if old:
        return PlaneName(f"{old[1]}_#_#_#", int(old[4]), int(old[2]), old[3])
    if found:
        return None
    running = re.search(r"(\d+)(?=\D*$)", stem)
    if running is None:
        return None
    return PlaneName(f"{stem[: running.start()]}#{stem[running.end() :]}", int(running[1]), certain=False)
