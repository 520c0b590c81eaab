"""Room on the disk that planes land on: asked for before they are written, and what a disk that has none is called.

A disk that is filled to the last byte takes neither the journal's entries nor what restores the planes, so some is kept
back. Planes that find no room wait at their senders.
"""

from __future__ import annotations

import logging
import shutil
from dataclasses import dataclass
from pathlib import Path

from otf_stream.acquire.protocol import ErrorCode, ProtocolError
from otf_stream.store.disk import is_full

log = logging.getLogger(__name__)


@dataclass
class Room:
    """Room on a disk.

    Parameters
    ----------
    folder
        On that disk.
    reserve
        Bytes that are to stay free.
    """

    folder: Path
    reserve: int

    @property
    def free(self) -> int:
        """How many bytes are free."""
        return shutil.disk_usage(self.folder).free

    def check(self, size: int) -> None:
        """Check that ``size`` bytes can be written.

        Raises
        ------
        ProtocolError
            ``no-space``.
        """
        free = self.free
        if free < self.reserve + size:
            raise ProtocolError(
                ErrorCode.NO_SPACE,
                f"{free / 1e9:.2f} GB are free on the disk of {self.folder}, and {self.reserve / 1e9:.2f} GB "
                "are to stay so; make room, the planes are taken then",
            )


def storage_error(error: Exception) -> ProtocolError:
    """Tell a sender that storing failed: ``no-space`` if the disk is full, else ``internal``."""
    if is_full(error):
        return ProtocolError(ErrorCode.NO_SPACE, f"the disk is full ({error}); make room, the planes are taken then")
    log.error("cannot store: %r", error)
    return ProtocolError(ErrorCode.INTERNAL, f"the listener failed ({error!r}); its log says more, it tries again")
