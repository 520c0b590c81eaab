"""What a listener tells of itself: a small file in the data folder, written anew every second.

The counters of a listener concern messages and connections, most of which belong to no session and so to no journal.
Whoever watches a service reads this file, as often as they like, and the listener waits for nobody.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

FILE = "listener.json"
MOST = 100
"""Sessions that are told of, those that were heard of last."""
_OLD = 10.0  # seconds after which nobody writes it any more


@dataclass(frozen=True)
class OpenStatus:
    """An open session, as its listener knows it.

    Parameters
    ----------
    received
        Plane messages that came since the listener opened it, duplicates included.
    duplicates
        Those of planes that were durable already.
    silent_s
        Seconds since its sender was heard.
    """

    received: int
    duplicates: int
    silent_s: float


@dataclass(frozen=True)
class ListenerStatus:
    """A listener at one moment.

    Parameters
    ----------
    at
        When, in UNIX seconds.
    address
        Where it listens.
    connections
        How many there are.
    sessions
        How many sessions are open.
    disk_free, disk_reserve
        Bytes that are free on the disk, and bytes that are to stay so.
    holding
        Whether planes are held back at their senders because the disk has no room.
    counters
        What came since it started, as `Counters.as_dict` gives it.
    pid
        Of its process; 0 where it does not say.
    queue_bytes
        Bytes of pixels that came and are not durable yet.
    open
        Open sessions by their id, at most `MOST`.
    """

    at: float
    address: str
    connections: int
    sessions: int
    disk_free: int
    disk_reserve: int
    holding: bool
    counters: dict[str, Any] = field(default_factory=dict)
    pid: int = 0
    queue_bytes: int = 0
    open: dict[str, OpenStatus] = field(default_factory=dict)

    @property
    def current(self) -> bool:
        """Whether the listener is at work."""
        return self.is_current(time.time())

    def is_current(self, now: float) -> bool:
        """Whether that was so at ``now``, in UNIX seconds."""
        return now - self.at < _OLD


def write_status(folder: Path, status: ListenerStatus) -> None:
    """Write the status into a data folder, as `write_told` does."""
    write_told(folder / FILE, status)


def write_told(file: Path, status: DataclassInstance) -> None:
    """Write what a process tells of itself as JSON; readers see all of it or that of before.

    Raises
    ------
    OSError
        If it cannot be written.
    """
    partial = file.with_name(file.name + ".partial")
    partial.write_text(json.dumps(asdict(status)), encoding="utf-8")
    partial.replace(file)


def read_status(folder: Path) -> ListenerStatus | None:
    """Read what the listener of a data folder said last; None if it never did."""
    try:
        told: dict[str, Any] = json.loads((folder / FILE).read_bytes())
        opened = {session: OpenStatus(**figures) for session, figures in told.pop("open", {}).items()}
        return ListenerStatus(**told, open=opened)
    except (OSError, ValueError, TypeError, AttributeError):
        return None
