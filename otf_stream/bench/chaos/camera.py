"""A microscope in a process of its own, which can be killed, and which writes down what it was promised.

Each line of its log is one of ``published Z``, ``acknowledged Z`` and ``ended MISSING``, and is written, unbuffered,
before anything else happens: when the process is killed, the log has every promise that reached it.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from otf_stream.acquire.publisher import Publisher
from otf_stream.acquisition import PlaneIndex
from otf_stream.bench.chaos.sample import Sample

_PATIENCE_S = 90.0  # without an acknowledgement


class Camera:
    """The process, seen from outside.

    Parameters
    ----------
    address
        Of the listener.
    sample
        What it sends.
    per_second
        Planes that it takes each second.
    folder
        Where it spills planes and writes its log; once more for a script that is run again.
    memory
        Bytes of planes in memory.
    """

    def __init__(self, address: str, sample: Sample, *, per_second: float, folder: Path, memory: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.log, self.spill, self.errors = folder / "log", folder / "spill", folder / "errors"
        command = [sys.executable, "-m", __name__, address, sample.as_json(), str(folder), str(per_second), str(memory)]
        with self.errors.open("ab") as errors:
            self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=errors)  # noqa: S603 - ours

    def told(self, what: str) -> list[int]:
        """Return the numbers of all lines of one kind, so far."""
        lines = self.log.read_text("ascii").split("\n")[:-1] if self.log.exists() else []  # the last may be cut short
        return [int(line.split()[1]) for line in lines if line.startswith(f"{what} ")]

    def kill(self) -> None:
        """Kill it, as the kernel does when memory runs out."""
        self.process.kill()
        self.process.wait()

    def problems(self) -> list[str]:
        """Wait for its end; return what is wrong with it."""
        try:
            code = self.process.wait(2 * _PATIENCE_S)
        except subprocess.TimeoutExpired:
            self.kill()
            return ["the publisher did not end"]
        found = [] if code == 0 else [f"the publisher ended with code {code}: {self._last_words()}"]
        return found if self.told("ended")[-1:] == [0] else [*found, f"the publisher was told of {self.told('ended')}"]

    def _last_words(self) -> str:
        return self.errors.read_text("utf-8", "replace").strip().rpartition("\n")[2]


def witness(publisher: Publisher, note: Callable[[str, int], None]) -> None:
    """Note each plane that is acknowledged, before the publisher forgets it."""
    outbox = publisher._outbox  # nothing else tells of single planes
    forget = outbox.acknowledge

    def acknowledge(index: PlaneIndex) -> bool:
        note("acknowledged", index[2])
        return forget(index)

    outbox.acknowledge = acknowledge  # type: ignore[method-assign]


def main() -> None:
    """Send a stack: what a script does."""
    parser = argparse.ArgumentParser()
    for name, kind in (
        ("address", str),
        ("sample", Sample.from_json),
        ("folder", Path),
        ("rate", float),
        ("memory", int),
    ):
        parser.add_argument(name, type=kind)
    given = parser.parse_args()
    sample: Sample = given.sample
    stack = sample.stack()
    log = os.open(given.folder / "log", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def note(what: str, number: int) -> None:
        os.write(log, f"{what} {number}\n".encode())

    with Publisher(
        given.address, sample.acquisition, session=sample.session, memory=given.memory, spill=given.folder / "spill"
    ) as publisher:
        witness(publisher, note)
        begun = time.monotonic()
        for z, plane in enumerate(stack):
            time.sleep(max(0.0, begun + z / given.rate - time.monotonic()))
            publisher.publish(plane, z=z)
            note("published", z)
        publisher.close(_PATIENCE_S)
    if publisher.ended is not None:
        note("ended", publisher.ended.missing_count)


if __name__ == "__main__":
    main()
