"""Streams a recorded stack as the microscope that recorded it would have.

Planes fall due on a fixed grid of times from the first one, so that a slow disk delays a plane but not the ones
after it. A recording's missing planes are skipped: the listener sees what a camera that dropped frames would show.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import product
from typing import Any

from otf_stream.acquire.publisher import Publisher
from otf_stream.acquisition import PlaneIndex
from otf_stream.store.recordings import Recording


@dataclass(frozen=True)
class ReplaySummary:
    """What was streamed.

    Parameters
    ----------
    name
        Of the acquisition.
    session
        Id of the session.
    planes
        Planes that were streamed, and are durable.
    missing
        Planes that the recording lacks.
    bytes
        Of pixels.
    seconds
        From the first plane to the acknowledgement of the last.
    """

    name: str
    session: str
    planes: int
    missing: int
    bytes: int
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        """Return it for JSON."""
        return asdict(self)

    def as_text(self) -> str:
        """Return it for a human."""
        missing = f", {self.missing} missing in the recording" if self.missing else ""
        return (
            f"{self.name}: {self.planes} planes ({self.bytes / 1e6:.1f} MB) durable in {self.seconds:.1f} s{missing} "
            f"(session {self.session})"
        )


def replay(
    recording: Recording,
    address: str,
    *,
    planes_per_second: float | None = None,
    on_plane: Callable[[PlaneIndex], object] | None = None,
) -> ReplaySummary:
    """Stream a recording and wait until all of it is durable.

    Parameters
    ----------
    recording
        Open; stays open.
    address
        Of the listener, ``tcp://HOST:PORT``.
    planes_per_second
        As fast as it goes, if None.
    on_plane
        Called with each plane, streamed or missing, once it is dealt with.

    Returns
    -------
    ReplaySummary

    Raises
    ------
    ValueError
        If the rate is not above 0, or the address cannot be used.
    otf_stream.acquire.publisher.PublishError
        If the listener refuses the session or planes.
    TimeoutError
        If the listener cannot be reached.
    """
    if planes_per_second is not None and planes_per_second <= 0:
        raise ValueError(f"planes_per_second is {planes_per_second}, but must be above 0")
    acquisition = recording.acquisition
    sizes = acquisition.sizes
    interval = 1 / planes_per_second if planes_per_second else 0.0
    with Publisher(address, acquisition) as publisher:
        start = time.monotonic()
        # Like a microscope: z runs fastest, then the channels.
        for number, plane in enumerate(product(range(sizes.t), range(sizes.c), range(sizes.z))):
            if plane not in recording.missing:
                pixels = recording.plane(plane)
                time.sleep(max(0.0, start + number * interval - time.monotonic()))
                t, c, z = plane
                publisher.publish(pixels, t=t, c=c, z=z)
            if on_plane is not None:
                on_plane(plane)
        publisher.close()
        seconds = time.monotonic() - start
    return ReplaySummary(
        name=acquisition.name,
        session=publisher.session,
        planes=publisher.acknowledged,
        missing=len(recording.missing),
        bytes=publisher.bytes_acknowledged,
        seconds=seconds,
    )
