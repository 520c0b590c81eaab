"""Part 1: a process is killed in the middle of a stack: the listener, the worker, the whole service or the publisher.

No promise may be broken: what was acknowledged is on the disk as it was sent, the session ends, and the volume is
complete. A publisher that is killed takes with it only what it had neither delivered nor spilled: where its script is
run again, that is published anew; where ``otf-stream deliver`` sends what it left in files, the rest is missing, and
told as such.
"""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from uuid import UUID

from otf_stream.acquire.leftovers import PLANE_FILES, spill_folder
from otf_stream.bench.chaos.camera import Camera
from otf_stream.bench.chaos.checks import is_over, plane_problems, restored_problems, stage_of, stores_of
from otf_stream.bench.chaos.part import Part, Runs, failed, numbered, of_kind, spread, table
from otf_stream.bench.chaos.sample import Sample
from otf_stream.bench.chaos.served import Served, Services, until
from otf_stream.bench.results import Result
from otf_stream.config import MethodName
from otf_stream.store.journal import Journal, journal_path

VICTIMS = ("listener", "worker", "service", "publisher")
BUDGET_S, TAIL_S = 10.0, 2.0
_RESTORE = ("worker", "service")  # victims that restore stacks, or take who does with them
_PLANES, _SIDES = (16, 48), (72, 128)
_FEW_PLANES, _SMALL_SIDES = (10, 16), (64, 80)  # that two busy cores can learn from in this time
_LEARNING = 0.5  # of the budget, in which the worker learns from such a stack, however fast the machine is
_WRITING_S = 0.4  # that restoring and writing such a volume take
_RATES = (5.0, 300.0)  # planes a second, drawn evenly on a logarithmic scale
_SLACK_S = 0.3  # after the last plane, in which acknowledgements are on their way
_AMPLE = 64 << 20
_PATIENCE_S = 150.0


@dataclass(frozen=True)
class Case:
    """What is drawn for a run.

    Parameters
    ----------
    sample
        What is sent.
    per_second
        Planes.
    memory
        Of the publisher; 0 is the least that it takes, so that planes go to files.
    share
        When the process is killed: from 0, with the first plane (for the worker, when it begins with the stack), to 1.
    delivers
        Whether planes that a killed publisher left are delivered, rather than its script run again.
    in_writing
        Whether the moment is sought in which the volume is restored and written, which is short.
    """

    sample: Sample
    per_second: float
    memory: int
    share: float
    delivers: bool
    in_writing: bool

    @classmethod
    def draw(cls, victim: str, seed: int, number: int) -> Case:
        """Draw the case of a run; the same whenever it is drawn."""
        dice = random.Random(f"{seed} {victim} {number}")  # noqa: S311 - no secret
        restores = victim in _RESTORE
        delivers = victim == "publisher" and dice.random() < 0.5
        return cls(
            sample=Sample(
                name=f"{victim}_{number}",
                session=UUID(int=dice.getrandbits(128)).hex,
                seed=dice.getrandbits(32),
                planes=dice.randint(*_FEW_PLANES if restores else _PLANES),
                side=dice.randint(*_SMALL_SIDES if restores else _SIDES),
            ),
            per_second=_RATES[0] * (_RATES[1] / _RATES[0]) ** dice.random(),
            memory=_AMPLE if dice.random() < 0.5 and not delivers else 0,
            share=dice.random(),
            delivers=delivers,
            in_writing=restores and dice.random() < 1 / 3,
        )

    def last_moment(self, victim: str) -> float:
        """Seconds from the first plane, up to which the victim matters."""
        streaming = self.sample.planes / self.per_second
        return _LEARNING * BUDGET_S if victim in _RESTORE else streaming + _SLACK_S


@contextmanager
def kills(runs: int, seed: int, *, method: MethodName = "auto") -> Iterator[Runs]:
    """Give runs that kill each of the victims.

    Parameters
    ----------
    runs, seed
        As for a `Part`.
    method
        By which stacks are restored whose worker is killed; the others are interpolated, to be quick.
    """
    start = partial(Served, budget_s=BUDGET_S, tail_s=TAIL_S)
    with Services(partial(start, method=method)) as learning, Services(partial(start, method="interpolate")) as quick:
        learn = _RESTORE if method != "interpolate" else ()
        pools = {victim: learning if victim in learn else quick for victim in VICTIMS}
        yield numbered("kills", {v: partial(_run, pools[v], v, seed) for v in VICTIMS}, runs, seed)


def _run(services: Services, victim: str, seed: int, number: int) -> Result:
    case = Case.draw(victim, seed, number)
    with services.lent(victim) as served:
        try:
            found = _killed(served, victim, case, served.folder / case.sample.name)
        except Exception as error:
            raise RuntimeError(f"{error}; its files are in {served.folder}") from error
        if found["problems"]:
            served.suspect = True
            found["evidence"] = str(served.folder)
    return found


def _killed(served: Served, victim: str, case: Case, folder: Path) -> Result:
    sample, data = case.sample, served.data
    publish = partial(Camera, served.address, sample, per_second=case.per_second, folder=folder, memory=case.memory)
    camera = publish()
    try:
        killed, found = _strike(served, victim, case, camera)
        if victim == "publisher":
            camera, more = _publish_again(served, case, camera, publish)
            found |= more
        else:
            found["problems"] = camera.problems()
        until(lambda: is_over(sample.session, data), "the session is over", seconds=_PATIENCE_S, pause=0.05)
        found["recovered_s"] = round(time.monotonic() - killed, 2)
    finally:
        camera.kill()
    missing = _missing(data, sample) if found["how"] == "deliver" else []
    promised = set(camera.told("acknowledged")) | (set(range(sample.planes)) - set(missing))
    reasons = ("finished", "aborted") if found["how"] == "deliver" else ("finished",)
    found["problems"] += [
        *plane_problems(data, sample, promised),
        *restored_problems(data, sample, closed=reasons, missing=missing),
        *served.problems(),
    ]
    return found


def _strike(served: Served, victim: str, case: Case, camera: Camera) -> tuple[float, Result]:
    """Kill the victim when its moment has come; return when that was, and the facts."""
    sample, data = case.sample, served.data
    until(lambda: camera.told("published") or camera.process.poll(), "the first plane is published", pause=0.002)
    first = time.monotonic()
    if victim == "worker":
        until(lambda: stage_of(sample.session, data), "the worker begins", pause=0.01)
    if case.in_writing:
        until(lambda: stage_of(sample.session, data) == "restore", "the volume is written", pause=0.01)
        time.sleep(case.share * _WRITING_S)
    else:
        time.sleep(case.share * max(first + case.last_moment(victim) - time.monotonic(), 0.0))
    stage = "over" if is_over(sample.session, data) else stage_of(sample.session, data) or "before"
    acknowledged = len(set(camera.told("acknowledged")))
    killed = time.monotonic()
    if victim == "publisher":
        camera.kill()
    else:
        served.kill(victim)
    if victim == "service":
        served.start()
    facts = {
        "planes": sample.planes,
        "side": sample.side,
        "per_second": round(case.per_second, 1),
        "moment_s": round(killed - first, 3),
        "stage": stage,
        "acknowledged": acknowledged,
        "how": "restart",
    }
    return killed, facts


def _publish_again(served: Served, case: Case, camera: Camera, publish: Callable[[], Camera]) -> tuple[Camera, Result]:
    """Do what a user does whose script was killed; return the last publisher, and what is wrong by then."""
    sample = case.sample
    promised = set(camera.told("acknowledged"))
    problems = plane_problems(served.data, sample, promised) if promised else []
    if camera.told("ended"):
        return camera, {"how": "was through", "problems": problems}
    left = spill_folder(camera.spill, sample.session)
    if not (case.delivers and left.is_dir()):
        camera = publish()
        return camera, {"how": "again", "problems": problems + camera.problems()}
    spilled = {int(file.name.split("_")[2]) for file in left.glob(PLANE_FILES)}
    command = [sys.executable, "-m", "otf_stream.cli", "deliver", str(camera.spill), "--to", served.address, "--killed"]
    ran = subprocess.run(command, capture_output=True, text=True)  # noqa: S603 - ours
    if ran.returncode:
        problems.append(f"deliver ended with code {ran.returncode}: {ran.stderr.strip()}")
    problems += plane_problems(served.data, sample, promised | spilled)
    return camera, {"how": "deliver", "spilled": len(spilled), "problems": problems}


def _missing(data: Path, sample: Sample) -> list[int]:
    """Return the planes that are not in the journal."""
    (path,) = stores_of(sample.session, data)
    with closing(Journal.open(journal_path(path))) as journal:
        return sorted(set(range(sample.planes)) - set(journal.planes_of((0, 0))))


def section(results: Sequence[Result]) -> str:
    """Say what came of the kills."""
    rows = []
    for victim, those in of_kind(results).items():
        there = [result for result in those if "moment_s" in result]
        rows.append(
            (
                victim,
                len(those),
                sum(result["planes"] for result in there),
                sum(result["acknowledged"] for result in there),
                ", ".join(f"{stage} {n}" for stage, n in Counter(result["stage"] for result in there).most_common()),
                spread(there, "recovered_s"),
                len(failed(those)),
            )
        )
    head = (
        "killed",
        "runs",
        "planes",
        "acknowledged before",
        "in the midst of",
        "recovered (median, worst)",
        "failures",
    )
    how = Counter(result["how"] for result in results if result.get("how") not in (None, "restart"))
    ways = ", ".join(f"{name} {n}" for name, n in how.most_common()) or "none"
    return f"""A service with a budget of {BUDGET_S:g} s, and {TAIL_S:g} s after the last plane; a publisher in a
process of its own that writes down each acknowledgement; and `kill -9` at a random moment: of the listener and of the
publisher while planes are on their way, of the worker from when it begins with the stack until half of the budget, of
the whole service from the first plane until then; a third of the latter two while the volume is restored and written,
which is short. These learn from the stack, the others interpolate. Stacks have {_PLANES[0]} to {_PLANES[1]} planes of
{_SIDES[0]}² to {_SIDES[1]}² pixels, where worker or service are killed {_FEW_PLANES[0]} to {_FEW_PLANES[1]} of
{_SMALL_SIDES[0]}² to {_SMALL_SIDES[1]}²; {_RATES[0]:g} to {_RATES[1]:g} of them come in a second.

{table(head, rows)}

Asserted in each run: every plane that was acknowledged is in the journal, and its chunk is the one that was sent, bit
for bit; so is every other plane, and none is there that was not sent; the session is closed; the stack is restored, its
provenance is there and not that of a preview; no shard of the volume is missing, at any level of the pyramid, no chunk
is empty, and it resembles its planes; the publisher ends with code 0 and is told that nothing is missing; no process is
left, and no traceback is in the log. *Recovered* is the time from the kill to the closed session and the restored
volume, of which much is the stack's own time to come and to be restored.

Publishers that were killed: {ways} (*again*: the script was run again with the same session; *deliver*:
`otf-stream deliver --killed` sent what was left in files, and the provenance names the planes that died with the
publisher; *was through*: all was delivered before).
"""


KILLS = Part("kills", "Processes that are killed", kills, 2, section)
