"""Part 5: the disk is full for a while; what was acknowledged is there, and once there is room all goes on.

The data folder of a whole service is a small file system of its own, which really runs full: a ballast leaves room for
some of the planes, or for all of them and some of the volume, and is deleted at a random moment. Everything of a run
takes place in a process that alone sees that file system, so that nothing of it is left behind.
"""

from __future__ import annotations

import functools
import json
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from uuid import UUID

from otf_stream.bench.chaos.camera import Camera
from otf_stream.bench.chaos.checks import is_over, plane_problems, restored_problems
from otf_stream.bench.chaos.part import Part, Runs, failed, numbered, of_kind, spread, table
from otf_stream.bench.chaos.sample import Sample
from otf_stream.bench.chaos.served import Served, until
from otf_stream.bench.results import Result

_DISK = 32 << 20
_RESERVE = {"reserve kept": 4 << 20, "no reserve": 0}
_PLANES, _SIDE = 24, 128
_PER_SECOND = (5.0, 50.0)
_REMOVED_S = (1.0, 10.0)  # when the ballast goes, after the first plane
_RAW = 2 * _PLANES * _SIDE * _SIDE
_AMPLE = 64 << 20
_SHARE = 5  # there is one run of each kind for so many that are asked for
_PATIENCE_S = 150.0
_RUN_S = 400.0

# Ways to a file system of one's own, the one that asks for least first.
_WAYS = {
    "a user namespace": ["unshare", "--user", "--map-root-user", "--mount"],
    "a mount namespace, as root": ["unshare", "--mount"],
}
_MOUNT = 'mount -t tmpfs -o "size=$1" none "$2" && shift 2 && exec "$@"'


@functools.cache
def way() -> str | None:
    """Return how a small file system is mounted here; None where the system lets nobody do so."""
    if shutil.which("unshare"):
        for name, command in _WAYS.items():
            tried = [*command, "mount", "-t", "tmpfs", "none", "/mnt"]
            if subprocess.run(tried, check=False, capture_output=True).returncode == 0:  # noqa: S603 - ours
                return name
    return None


@dataclass(frozen=True)
class Case:
    """What is drawn for a run: what is sent, how fast, and for how many bytes there is room until the ballast goes."""

    sample: Sample
    per_second: float
    memory: int
    room: int
    removed_s: float

    @classmethod
    def draw(cls, kind: str, seed: int, number: int) -> Case:
        """Draw the case of a run; the same whenever it is drawn."""
        dice = random.Random(f"{seed} {kind} {number}")  # noqa: S311 - no secret
        return cls(
            Sample(f"disk_{number}", UUID(int=dice.getrandbits(128)).hex, dice.getrandbits(32), _PLANES, _SIDE),
            dice.uniform(*_PER_SECOND),
            dice.choice((0, _AMPLE)),
            # In most runs for some planes; else for them, the journal and a part of the volume, which is larger.
            int(_RAW * (dice.uniform(0.05, 1) if dice.random() < 0.7 else dice.uniform(1.2, 4))),
            dice.uniform(*_REMOVED_S),
        )


@contextmanager
def disk(runs: int, seed: int) -> Iterator[Runs]:
    """Give runs on a disk that is full for a while, with a reserve that the service keeps, and without."""
    kinds = {kind: partial(_run, kind, seed) for kind in _RESERVE}
    yield numbered("disk", kinds, -(-runs // _SHARE), seed)


def _run(kind: str, seed: int, number: int) -> Result:
    how = way()
    if how is None:
        return {"problems": [], "not_run": "this system lets nobody mount a file system"}
    with tempfile.TemporaryDirectory(prefix="otf_stream-disk-") as folder:
        program = [sys.executable, "-m", __name__, kind, str(seed), str(number), folder]
        command = [*_WAYS[how], "sh", "-c", _MOUNT, "sh", str(_DISK), folder, *program]
        with subprocess.Popen(  # noqa: S603 - ours
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            try:
                said, errors = process.communicate(timeout=_RUN_S)
            except BaseException as error:
                process.terminate()  # it stops its service
                with suppress(subprocess.TimeoutExpired):
                    process.wait(60)
                process.kill()
                if not isinstance(error, subprocess.TimeoutExpired):
                    raise
                return {"problems": [f"it was not over after {_RUN_S:g} s"], "mounted": how}
    if process.returncode:
        return {"problems": [errors.strip().rpartition("\n")[2] or f"code {process.returncode}"], "mounted": how}
    found: Result = json.loads(said.strip().rpartition("\n")[2])
    return found | {"mounted": how}


def _fill(kind: str, case: Case, folder: Path) -> Result:
    """Let a service run on a disk that fills, and make room: what happens on the small disk."""
    reserve = _RESERVE[kind]
    served = Served(budget_s=10, tail_s=2, method="interpolate", data=folder / "data", disk_reserve_gb=reserve / 1e9)
    problems: list[str] = []
    try:
        found = _filled(served, case, folder, reserve)
        problems = found["problems"] + served.problems()
    except BaseException:
        served.suspect = True
        raise
    finally:
        served.suspect = served.suspect or bool(problems)
        problems += served.stop()
    return found | {"problems": problems} | ({"evidence": str(served.folder)} if served.suspect else {})


def _filled(served: Served, case: Case, folder: Path, reserve: int) -> Result:
    sample, data, ballast = case.sample, served.data, folder / "ballast"
    ballast.write_bytes(bytes(max(0, shutil.disk_usage(folder).free - reserve - case.room)))
    camera = Camera(
        served.address, sample, per_second=case.per_second, folder=served.folder / sample.name, memory=case.memory
    )
    try:
        until(lambda: camera.told("published") or camera.process.poll(), "the first plane is published", pause=0.002)
        first, full = time.monotonic(), None
        while time.monotonic() < first + case.removed_s:
            if full is None and shutil.disk_usage(folder).free < reserve + 2 * _SIDE * _SIDE:
                full = time.monotonic()
            time.sleep(0.01)
        promised, published = set(camera.told("acknowledged")), len(camera.told("published"))
        ballast.unlink()
        freed = time.monotonic()
        problems = camera.problems()
        until(lambda: is_over(sample.session, data), "the session is over", seconds=_PATIENCE_S, pause=0.05)
        recovered = time.monotonic() - freed
    finally:
        camera.kill()
    missing = promised - set(camera.told("acknowledged"))
    return {
        "planes": sample.planes,
        "room": case.room,
        "full_s": None if full is None else round(freed - full, 2),
        "acknowledged": len(promised),
        "held": published - len(promised),
        "recovered_s": round(recovered, 2),
        "problems": [
            *problems,
            *(f"the acknowledgement of plane {z} was lost" for z in missing),
            *plane_problems(data, sample, range(sample.planes)),
            *restored_problems(data, sample, closed=("finished",)),
        ],
    }


def section(results: Sequence[Result]) -> str:
    """Say what came of full disks."""
    rows = []
    for kind, those in of_kind(results).items():
        there = [result for result in those if "room" in result]
        full = [result for result in there if result["full_s"] is not None]
        rows.append(
            (
                kind,
                len(there) or "not run",
                len(full),
                spread(full, "full_s"),
                sum(result["acknowledged"] for result in there),
                sum(result["held"] for result in there),
                spread(there, "recovered_s"),
                len(failed(those)),
            )
        )
    head = (
        "",
        "runs",
        "the disk was full in",
        "for (median, longest)",
        "planes acknowledged before there was room",
        "planes held then",
        "restored after there was room (median, worst)",
        "failures",
    )
    ways = ", ".join(sorted({result["mounted"] for result in results if "mounted" in result}))
    reasons = "; ".join(sorted({result["not_run"] for result in results if "not_run" in result}))
    said = f"Mounted in {ways}." if ways else f"Not run: {reasons}."
    return f"""The data folder of a whole service is a file system (tmpfs) of {_DISK >> 20} MiB. A ballast leaves room
for a part of {_PLANES} planes of {_SIDE}² pixels, or for all of them and a part of the volume, and is deleted at a
random moment, {_REMOVED_S[0]:g} to {_REMOVED_S[1]:g} s after the first plane. The service keeps
{_RESERVE["reserve kept"] >> 20} MiB free, or nothing, so that writing planes, journal and volume fails in the
midst. {said}

{table(head, rows)}

Asserted in each run: what was acknowledged stays so; every plane is in the journal and on the disk, bit for bit; the
publisher is told that nothing is missing; the session is closed and the stack restored completely; nothing failed for
good and no traceback is in the log. *Restored after there was room* includes the time for which planes still came, and
the pauses after which publisher and worker look again.
"""


def main() -> None:
    """Do one run: the body of the process that sees the small disk."""
    kind, seed, number, folder = sys.argv[1:]
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.stdout.write(json.dumps(_fill(kind, Case.draw(kind, int(seed), int(number)), Path(folder))) + "\n")


DISK = Part("disk", "Full disks", disk, 2, section)

if __name__ == "__main__":
    main()
