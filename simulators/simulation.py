"""A virtual microscope that streams to a running service: what ``otf-stream simulate`` runs.

It takes the way of a script for Micro-Manager: a core, a sequence, and the hook of pymmcore-plus around it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import tifffile

from otf_stream.acquire.hooks.pymmcore_plus import streaming
from otf_stream.acquire.hooks.stream import Stream, place_name
from otf_stream.acquisition import Acquisition, Sizes, VoxelSize
from simulators.core import acquire_stack, unload, virtual_microscope
from simulators.specimen import Setup, Specimen

Progress = Callable[[str, int, int], object]
"""Is told a stage, and how much of how much of it is done."""


@dataclass(frozen=True)
class SimulationSummary:
    """What a simulated microscope did.

    Parameters
    ----------
    sessions
        Id of each session, by its name; one for each position.
    exposed, dropped
        Planes that were exposed, and those of them that the camera lost.
    sent, durable
        Planes that went out, and that the service has on disk.
    seconds
        From the start of the acquisition until all was delivered.
    failures
        What went wrong with the stream.
    truth
        Files of the truth.
    """

    sessions: dict[str, str]
    exposed: int
    dropped: int
    sent: int
    durable: int
    seconds: float
    failures: list[str]
    truth: list[Path]

    def as_dict(self) -> dict[str, Any]:
        """Return it for JSON."""
        return asdict(self) | {"truth": [str(path) for path in self.truth]}

    def as_text(self) -> str:
        """Return it for a human."""
        lines = [
            f"planes    exposed {self.exposed}  dropped by the camera {self.dropped}  sent {self.sent}  "
            f"durable {self.durable}  in {self.seconds:.1f} s",
            *(f"session   {name}: {session}" for name, session in self.sessions.items()),
            *(f"truth     {path}" for path in self.truth),
        ]
        return "\n".join(lines)


def simulate(
    setup: Setup,
    address: str,
    *,
    name: str,
    time_points: int = 1,
    interval_s: float = 0.0,
    planes_per_second: float | None = None,
    truth: Path | None = None,
    progress: Progress = lambda stage, done, total: None,
) -> SimulationSummary:
    """Draw samples, acquire them on a Micro-Manager core, and stream the frames.

    Parameters
    ----------
    setup
        The instrument and its samples; each gets the room that it drifts through, up to half a field of view.
    address
        Of the listener, ``tcp://HOST:PORT``.
    name
        Of the acquisition; with several positions ``NAME_p0``, ``NAME_p1`` …
    time_points, interval_s, planes_per_second
        As in `simulators.core.acquire_stack`.
    truth
        Folder for the truth of each position and channel, and of each time point if the sample drifts; made if it is
        not there.
    progress
        Is told what goes on.

    Returns
    -------
    SimulationSummary

    Raises
    ------
    ValueError
        If the acquisition cannot be, before anything is drawn.
    FileExistsError
        If a file of the truth is there already.
    """
    drift = abs(setup.faults.drift_um) * (time_points - 1) / setup.instrument.pixel_um
    setup = replace(setup, room=max(setup.room, min(math.ceil(drift), setup.side // 2)))
    Stream(address)  # What cannot be is refused here, and not when samples are drawn and on the stage.
    names = _names(setup, name, time_points)
    files = _truth_files(truth, setup, names, time_points) if truth else {}
    samples = setup.positions * setup.channels
    specimen = Specimen(setup, progress=lambda ready: progress("samples", ready, samples))
    for number, (path, which) in enumerate(files.items()):
        tifffile.imwrite(path, specimen.truth(*which), photometric="minisblack")
        progress("truth", number + 1, len(files))

    planes = time_points * samples * setup.planes
    core = virtual_microscope(specimen)

    def show(*frame: object) -> None:
        progress("planes", specimen.exposed, planes)

    core.mda.events.frameReady.connect(show)
    begun = time.monotonic()
    try:
        with streaming(core, address, name=name, modality=setup.modality) as stream:
            acquire_stack(
                core,
                planes=setup.planes,
                z_step_um=setup.instrument.z_step_um,
                channels=setup.channel_names,
                positions_um=setup.positions_um,
                time_points=time_points,
                interval_s=interval_s,
                planes_per_second=planes_per_second,
            )
            show()
    finally:
        unload(core)
    return SimulationSummary(
        sessions=dict(zip(names, stream.sessions, strict=False)),  # one that could not be opened is a failure
        exposed=specimen.exposed,
        dropped=specimen.dropped,
        sent=stream.sent,
        durable=stream.acknowledged,
        seconds=time.monotonic() - begun,
        failures=stream.failures,
        truth=list(files),
    )


def _names(setup: Setup, name: str, time_points: int) -> list[str]:
    """Return the name of each position's session, if there can be such a session."""
    places = [(position, 0) for position in range(setup.positions)]
    instrument = setup.instrument
    return [
        Acquisition(
            name=place_name(name, place, places),
            sizes=Sizes(t=time_points, c=setup.channels, z=setup.planes, y=setup.side, x=setup.side),
            dtype="uint16",
            voxel_size=VoxelSize(z=instrument.z_step_um, y=instrument.pixel_um, x=instrument.pixel_um),
        ).name
        for place in places
    ]


def _truth_files(folder: Path, setup: Setup, names: list[str], time_points: int) -> dict[Path, tuple[int, int, int]]:
    """Return the files of the truth, each with its position, channel and time point; make their folder."""
    files = {}
    moving = setup.faults.drift_um != 0 and time_points > 1
    for position, name in enumerate(names):
        for channel, label in enumerate(setup.channel_names):
            for t in range(time_points if moving else 1):
                parts = [name, *([label] if setup.channels > 1 else []), *([f"t{t}"] if moving else [])]
                files[folder / f"{'_'.join(parts)}.tif"] = (position, channel, t)
    for path in files:
        if path.exists():
            raise FileExistsError(17, "the file exists; give another folder for the truth, or another name", str(path))
    folder.mkdir(parents=True, exist_ok=True)
    return files
