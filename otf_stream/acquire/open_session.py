"""A session that planes may come for: what it takes, and what its journal is told.

Nothing here needs to survive the listener. What is kept besides the store is what would take a look at the journal for
each plane, and what concerns the connection alone.
"""

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from isal.isal_zlib import crc32

from otf_stream.acquire.ledger import Ledger
from otf_stream.acquire.protocol import ErrorCode, Plane, ProtocolError
from otf_stream.acquisition import MAX_PLANES, Acquisition, PlaneIndex
from otf_stream.store.session import SessionStore

log = logging.getLogger(__name__)

SILENCE = "silence"
"""Why a session was closed whose sender did not close it."""
_MAX_NOTED = 100


@dataclass
class OpenSession:
    """A session that planes may come for.

    Parameters
    ----------
    store
        Where its planes go.
    ledger
        Which of them are durable.
    closed
        Why no plane is expected any more, if so.
    greeted
        Whether its sender greeted this listener.
    heard
        When its sender was last heard, on the monotonic clock.
    held
        Whether planes were turned away since the greeting, because the disk was full or failed.
    told
        Who was told so, and has not greeted since.
    max_planes
        The most planes that it may grow to.
    farthest
        The largest index along each axis of planes that were let in since it was opened here.
    received
        Plane messages that came since it was opened here, resent ones and duplicates included.
    duplicates
        Those of planes that were durable already.
    """

    store: SessionStore
    ledger: Ledger
    closed: str | None
    greeted: bool = False
    heard: float = field(default_factory=time.monotonic)
    held: bool = False
    told: set[bytes] = field(default_factory=set)
    max_planes: int = MAX_PLANES
    farthest: PlaneIndex = (0, 0, 0)
    received: int = 0
    duplicates: int = 0
    noted: int = 0

    @property
    def acquisition(self) -> Acquisition:
        """What was announced."""
        return self.store.acquisition

    @property
    def takes_planes(self) -> bool:
        """Whether planes that are not durable are taken."""
        return self.closed in (None, SILENCE)

    def is_durable(self, message: Plane, pixels: memoryview) -> bool:
        """Whether a plane that came is on disk already; if not, it is one to be written.

        The checksum of a plane that is to be written is not looked at yet: `check_pixels` takes its time.

        Raises
        ------
        ProtocolError
            ``out-of-range`` or ``bad-shape``; ``bad-checksum`` or ``conflict`` if a plane of this name is on disk;
            ``session-closed`` if none is and none is taken any more.
        """
        acquisition = self.acquisition
        # What is on its way to the disk counts too: each of two planes may be admitted, and both together not.
        t, c, z = (max(lengths) for lengths in zip(self.farthest, message.index, strict=True))
        if not acquisition.admits((t, c, z)):
            raise ProtocolError(ErrorCode.OUT_OF_RANGE, acquisition.outside(message.index))
        if not acquisition.holds(message.index) and acquisition.extended((t, c, z)).sizes.planes > self.max_planes:
            raise ProtocolError(
                ErrorCode.OUT_OF_RANGE,
                f"with plane {message.index} the acquisition would have more than the {self.max_planes} planes that "
                "this listener takes; split it into several",
            )
        if pixels.nbytes != acquisition.plane_bytes:
            raise ProtocolError(
                ErrorCode.BAD_SHAPE,
                f"the pixel frame of plane {message.index} has {pixels.nbytes} bytes, but {acquisition.sizes.y} × "
                f"{acquisition.sizes.x} {acquisition.dtype} pixels have {acquisition.plane_bytes}; send whole planes",
            )
        durable = self.ledger.crc(message.index)
        if durable is None:
            if not self.takes_planes:
                raise ProtocolError(
                    ErrorCode.SESSION_CLOSED,
                    f"session {message.session} was closed ({self.closed}) before plane {message.index} came; "
                    "use a new session",
                )
            self.farthest = (t, c, z)
            return False
        check_pixels(message, pixels)
        if durable != message.crc:
            raise ProtocolError(
                ErrorCode.CONFLICT,
                f"plane {message.index} came before with other pixels (checksum {durable:#010x}, now "
                f"{message.crc:#010x}), which are kept; give every plane its own index",
            )
        return True

    def close(self, reason: str, **detail: object) -> None:
        """Record that no further plane is expected."""
        if self.closed is None:
            self.store.journal.close_arrivals(reason)
            self.closed = reason
        missing = [list(plane) for plane in self.ledger.missing(_MAX_NOTED)]
        self.store.journal.note(
            "ended",
            reason=reason,
            received=self.received,
            duplicates=self.duplicates,
            durable=self.ledger.count,
            missing_count=self.ledger.missing_count,
            missing=missing,
            **detail,
        )

    def lose(self, planes: Sequence[PlaneIndex]) -> None:
        """Take planes out that are not on disk as they came; they are taken if they come again."""
        log.error("%d planes of %s are damaged on the disk, the first of them %s: they count as missing",
                  len(planes), self.store.path.name, planes[0])  # fmt: skip
        self.store.journal.forget_planes(planes)
        for plane in planes:
            self.ledger.forget(plane)
        self.note("damaged", planes=[list(plane) for plane in planes[:_MAX_NOTED]], count=len(planes))

    def reopen(self) -> None:
        """Expect planes again: the sender that had fallen silent is back."""
        self.store.journal.reopen_arrivals()
        self.closed = None

    def note_refused(self, error: ProtocolError, plane: PlaneIndex | None) -> None:
        """Note in the journal that something was refused; a flood only at its beginning."""
        self.noted += 1
        if self.noted <= _MAX_NOTED:
            self.note("refused", code=str(error.code), message=error.message, plane=plane)

    def note(self, kind: str, **detail: object) -> None:
        """Note an event; a disk too full for it is no reason to stop."""
        try:
            self.store.journal.note(kind, **detail)
        except (OSError, sqlite3.Error) as error:
            log.warning("cannot note %s in the journal of %s: %s", kind, self.store.path.name, error)


def check_pixels(message: Plane, pixels: memoryview) -> None:
    """Check that the pixels of a plane came as they were sent; any thread may.

    Raises
    ------
    ProtocolError
        ``bad-checksum``.
    """
    crc = crc32(pixels)
    if crc != message.crc:
        raise ProtocolError(
            ErrorCode.BAD_CHECKSUM,
            f"the pixels of plane {message.index} have the checksum {crc:#010x}, but the header says "
            f"{message.crc:#010x}; send the plane again",
        )
