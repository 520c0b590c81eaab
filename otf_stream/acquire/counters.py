"""What a listener counts: every plane and every refusal, so that an operator sees at a glance what goes wrong.

Whoever floods a listener must not flood its log as well: of each kind of refusal, the first, the tenth, the hundredth …
is logged.
"""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

log = logging.getLogger(__name__)


@dataclass
class Counters:
    """What came since the listener started.

    Parameters
    ----------
    received, durable, duplicates
        Planes.
    bytes
        Of the pixels of durable planes.
    refused
        Messages, by the code of the protocol, and connections, by why they were cut or not let in.
    """

    received: int = 0
    durable: int = 0
    duplicates: int = 0
    bytes: int = 0
    refused: Counter[str] = field(default_factory=Counter)

    def refuse(self, reason: str, said: object) -> None:
        """Count a refusal, and log what is ``said`` of it if not many were before."""
        self.refused[reason] += 1
        if str(self.refused[reason]).rstrip("0") == "1":
            log.warning("refused, number %d for %s: %s", self.refused[reason], reason, said)

    def as_dict(self) -> dict[str, Any]:
        """Return the figures, for JSON."""
        return {
            "received": self.received,
            "durable": self.durable,
            "duplicates": self.duplicates,
            "bytes": self.bytes,
            "refused": dict(self.refused),
        }
