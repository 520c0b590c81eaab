"""Part 4: somebody who should not be there, or who breaks the rules; whoever keeps to them does not notice.

Each run starts a listener of its own, and an honest publisher that streams before, during and after the attack. What
counts is what is on the disk afterwards, what the listener says that it refused, and that nothing is anywhere else.
"""

from __future__ import annotations

import random
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from uuid import UUID

import numpy as np

from otf_stream.acquire.keys import KeyFolder
from otf_stream.acquire.publisher import Publisher
from otf_stream.acquisition import Acquisition
from otf_stream.bench.chaos.attacks import ATTACKS, CROWD
from otf_stream.bench.chaos.camera import witness
from otf_stream.bench.chaos.checks import plane_problems
from otf_stream.bench.chaos.part import Part, Runs, failed, numbered, of_kind, table
from otf_stream.bench.chaos.raw import Watched
from otf_stream.bench.chaos.sample import Sample, Stack
from otf_stream.bench.chaos.scene import Attack, Scene
from otf_stream.bench.listening import listening
from otf_stream.bench.results import Result
from otf_stream.store.finding import find_sessions
from otf_stream.store.session import session_attributes

_PER_SECOND, _SIDE = 20.0, 256
_AROUND_S = 1.5  # the publisher streams alone, before the attack and after it
_MOST_MB = 128.0  # by which the listener may grow
_HANDFUL = 20  # there is one run of an attack for so many that are asked for


@dataclass(frozen=True)
class _Stream(Sample):
    """Planes of noise whose number is not known in advance."""

    @property
    def acquisition(self) -> Acquisition:
        told = super().acquisition
        return told.model_copy(update={"growing": True, "sizes": told.sizes.model_copy(update={"z": 1})})

    def stack(self) -> Stack:
        noise = np.random.default_rng(self.seed).integers(1, 4096, (8, self.side, self.side), "<u2")
        stack = noise[np.arange(self.planes) % len(noise)]
        stack[:, 0, 0] = np.arange(self.planes)
        return stack


class _Honest:
    """Streams planes at a steady rate in a thread of its own, from when it is made until it is stopped."""

    def __init__(self, address: str, sample: _Stream, spill: Path, keys: Path) -> None:
        self.sample = sample
        self.acknowledged: list[float] = []
        self._address, self._spill, self._keys = address, spill, keys
        self._stop = threading.Event()
        self._problems: list[str] = []
        self._sent = 0
        self._thread = threading.Thread(target=self._stream, name="honest")
        self._thread.start()

    def stop(self, data: Path) -> list[str]:
        """Stop it, and return what is wrong with what is on the disk."""
        self._stop.set()
        self._thread.join()
        sent = replace(self.sample, planes=self._sent)
        return self._problems + plane_problems(data, sent, range(self._sent))

    @property
    def sent(self) -> int:
        """How many planes were sent."""
        return self._sent

    def longest_pause(self, begun: float, ended: float) -> float:
        """Return the longest time without an acknowledgement between two moments."""
        within = [begun, *(at for at in self.acknowledged if begun < at < ended), ended]
        return round(max((float(gap) for gap in np.diff(within)), default=0.0), 3)

    def _stream(self) -> None:
        stack = replace(self.sample, planes=8).stack()
        try:
            with Publisher(
                self._address, self.sample.acquisition, session=self.sample.session, spill=self._spill, keys=self._keys
            ) as publisher:
                witness(publisher, lambda *_: self.acknowledged.append(time.monotonic()))
                begun = time.monotonic()
                while not self._stop.wait(max(0.0, begun + self._sent / _PER_SECOND - time.monotonic())):
                    plane = stack[self._sent % len(stack)].copy()
                    plane[0, 0] = self._sent
                    publisher.publish(plane, z=self._sent)
                    self._sent += 1
            if publisher.ended is None or publisher.ended.missing_count:
                self._problems.append(f"the honest publisher was told {publisher.ended!r}")
        except Exception as error:
            self._problems.append(f"the honest publisher failed: {type(error).__name__}: {error}")


@contextmanager
def intruders(runs: int, seed: int, *, briefly: bool = False) -> Iterator[Runs]:
    """Give a handful of runs of each attack.

    Parameters
    ----------
    runs, seed
        As for a `Part`.
    briefly
        Attack for a shorter time.
    """
    kinds = {kind: partial(_run, kind, attack, seed, briefly) for kind, attack in ATTACKS.items()}
    yield numbered("intruders", kinds, -(-runs // _HANDFUL), seed)


def _run(kind: str, attack: Attack, seed: int, briefly: bool, number: int) -> Result:
    dice = random.Random(f"{seed} {kind} {number}")  # noqa: S311 - no secret
    with tempfile.TemporaryDirectory(prefix="otf_stream-intruders-") as folder:
        outside = Path(folder)
        data, log, keys = outside / "data", outside / "log", outside / "keys"
        here, microscope = KeyFolder(keys / "here"), KeyFolder(keys / "microscope")
        settings = dict(attack.settings)
        if attack.secured:
            here.authorise("honest", microscope.make().public)
            microscope.trust("127.0.0.1", here.make().public)
            settings["keys"] = here.folder
        with listening(data, log, **settings) as (address, process):
            watched = Watched(data, log, process)
            scene = Scene(
                address,
                data,
                outside,
                dice,
                here if attack.secured else None,
                microscope if attack.secured else None,
                briefly,
            )
            sample = _Stream("honest", UUID(int=dice.getrandbits(128)).hex, dice.getrandbits(32), 8, _SIDE)
            honest = _Honest(address, sample, outside / "spill", microscope.folder)
            try:
                found = _attacked(attack, scene, watched, honest)
            finally:
                problems = honest.stop(data)
            return found | {"planes": honest.sent, "problems": found["problems"] + problems + watched.problems()}


def _attacked(attack: Attack, scene: Scene, watched: Watched, honest: _Honest) -> Result:
    """Attack while the publisher streams; return figures and what is wrong."""
    while not honest.acknowledged and honest._thread.is_alive():
        time.sleep(0.01)
    begun = time.monotonic()
    time.sleep(_AROUND_S)
    outside, resident = _listing(scene), watched.resident_mb
    before = watched.status().counters["refused"]
    attacked = time.monotonic()
    problems = attack.do(scene)
    over = time.monotonic()
    time.sleep(_AROUND_S)
    after = watched.status().counters["refused"]
    refused = {code: n for code in after if (n := after[code] - before.get(code, 0))}
    grown = watched.resident_mb - resident
    problems += [f"nothing was counted as {code}" for code in attack.counted if code not in refused]
    if attack.secured and watched.status().counters["received"] > honest.sent + len(scene.may_leave) * 8:
        problems.append("planes of somebody without a key were received")
    if new := _listing(scene) - outside:
        problems.append(f"outside the data folder there is {', '.join(sorted(new)[:5])}")
    there = {(session_attributes(path) or {}).get("session") for path in find_sessions(scene.data)}
    if strange := there - scene.may_leave - {honest.sample.session}:
        problems.append(f"there are stores of {len(strange)} sessions that should have none")
    if grown > _MOST_MB:
        problems.append(f"the listener grew by {grown:.0f} MB")
    return {
        "problems": problems,
        "refused": refused,
        "attack_s": round(over - attacked, 2),
        "grown_mb": round(grown, 1),
        "pause_before_s": honest.longest_pause(begun, attacked),
        "pause_during_s": honest.longest_pause(attacked, over),
    }


def _listing(scene: Scene) -> set[str]:
    """Return whatever lies around the data folder, but for what the publisher spills."""
    inside = (scene.data, scene.outside / "spill")
    paths = scene.outside.rglob("*")
    return {str(path) for path in paths if not any(path == top or top in path.parents for top in inside)}


def section(results: Sequence[Result]) -> str:
    """Say what came of the attacks."""
    rows = []
    for kind, those in of_kind(results).items():
        there = [result for result in those if "refused" in result]
        refused: dict[str, int] = {}
        for result in there:
            for code, count in result["refused"].items():
                refused[code] = refused.get(code, 0) + count
        rows.append(
            (
                kind,
                len(those),
                ", ".join(f"{code} {count}" for code, count in sorted(refused.items())) or "not counted",
                sum(result["planes"] for result in there),
                _worst(there, "pause_before_s"),
                _worst(there, "pause_during_s"),
                f"{max((result['grown_mb'] for result in there), default=0):.0f} MB",
                len(failed(those)),
            )
        )
    head = (
        "attack",
        "runs",
        "counted as",
        "honest planes",
        "longest pause between acknowledgements before",
        "during the attack",
        "the listener grew by at most",
        "failures",
    )
    return f"""An honest publisher streams {_PER_SECOND:g} planes of {_SIDE}² pixels a second to a listener in a process
of its own, before, during and after each attack. Where keys are attacked, the listener asks for them. *Recorded
connection*: the bytes of an encrypted connection are sent again; *replayed session*: the messages of an old session,
also with other pixels, with further planes, and for another acquisition. *Huge shapes*: {_sessions()} sessions of ten
million planes each, more than may be open, and others that grow as far in two planes. *Slow senders*: {CROWD}
connections that send a byte now and then, or stop in the midst of the handshake or of a message.

{table(head, rows)}

Asserted in each run: the attack does not get what it is after, and is counted; every plane of the honest publisher is
acknowledged and on the disk, bit for bit; the listener's process is the one it was, its log has no error, and it grew
by less than {_MOST_MB:g} MB; nothing has appeared around the data folder; there are no stores but those of sessions
that broke no rule. Pauses are told, not asserted; attacker and publisher share the machine with the listener.
"""


def _sessions() -> int:
    return 2 * int(ATTACKS["huge shapes"].settings["max_sessions"])


def _worst(results: Sequence[Result], what: str) -> str:
    return f"{max((result[what] for result in results), default=0):.2f} s"


INTRUDERS = Part("intruders", "Intruders", intruders, 1, section)
