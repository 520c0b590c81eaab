"""Part 2: the network is cut and garbles what passes; every plane arrives, once and intact.

Two kinds of networks: one that breaks connections off and flips bits in the stream of bytes, below ZeroMQ, and one that
does to single messages what no TCP connection would do. The publisher runs in the process of the benchmark, since it is
the network that fails here; the listener has a process of its own, which must survive all of it.
"""

from __future__ import annotations

import logging
import random
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from uuid import UUID

from otf_stream.acquire.publisher import Publisher, PublishError
from otf_stream.bench.chaos.checks import plane_problems
from otf_stream.bench.chaos.part import Part, Runs, failed, numbered, of_kind, spread, table
from otf_stream.bench.chaos.sample import Sample
from otf_stream.bench.listening import listening
from otf_stream.bench.results import Result
from otf_stream.bench.streaming import paced
from simulators.network import Cut, MessageFaults, MessageProxy, StreamFaults, StreamProxy

_PLANES, _SIDE = 60, 64
_PLANE_BYTES, _ANSWER_BYTES = 2 * _SIDE**2, 100
_RATES = (20.0, 50.0)  # planes a second
_CUTS_S = (1.0, 30.0)
_AGAIN = 0.5  # share of runs in which the network is cut once more
_AMPLE = 64 << 20
_PATIENCE_S = 150.0  # without an acknowledgement


@dataclass(frozen=True)
class Case:
    """What is drawn for a run: what is sent, how fast, with how much memory (0 is the least), and through what."""

    sample: Sample
    per_second: float
    memory: int
    faults: StreamFaults | MessageFaults

    @classmethod
    def draw(cls, kind: str, seed: int, number: int, *, cuts_s: tuple[float, float]) -> Case:
        """Draw the case of a run; the same whenever it is drawn."""
        dice = random.Random(f"{seed} {kind} {number}")  # noqa: S311 - no secret
        sample = Sample(
            name=f"{kind}_{number}",
            session=UUID(int=dice.getrandbits(128)).hex,
            seed=dice.getrandbits(32),
            planes=_PLANES,
            side=_SIDE,
        )
        per_second = dice.uniform(*_RATES)
        cuts = _draw_cuts(dice, _PLANES / per_second, cuts_s)
        faults = _draw_stream(dice, cuts) if kind == "stream" else _draw_messages(dice, cuts)
        return cls(sample, per_second, dice.choice((0, _AMPLE)), faults)


def _draw_cuts(dice: random.Random, streaming: float, lasting: tuple[float, float]) -> tuple[Cut, ...]:
    """Draw a cut while planes are on their way, and perhaps another one soon after it."""
    cuts = [Cut(dice.uniform(0, streaming), dice.uniform(*lasting), dice.choice(("break", "stall")))]
    if dice.random() < _AGAIN:
        begins = cuts[0].at_s + cuts[0].seconds + dice.uniform(0.1, 3)
        cuts.append(Cut(begins, dice.uniform(*lasting) / 3, dice.choice(("break", "stall"))))
    return tuple(cuts)


def _draw_stream(dice: random.Random, cuts: tuple[Cut, ...]) -> StreamFaults:
    flips = 10 ** dice.uniform(-6, -4.5) if dice.random() < 0.7 else 0.0
    flips_back = min(_PLANE_BYTES / _ANSWER_BYTES * flips, 1e-3)  # so that answers are hit about as often as planes
    return StreamFaults(cuts=cuts, delay_s=dice.choice((0.0, 0.02)), flips=flips, flips_back=flips_back)


def _draw_messages(dice: random.Random, cuts: tuple[Cut, ...]) -> MessageFaults:
    return MessageFaults(
        cuts=cuts,
        drop=dice.uniform(0, 0.05),
        duplicate=dice.uniform(0, 0.2),
        reorder=dice.uniform(0, 0.2),
        truncate=dice.uniform(0, 0.03),
        delay=dice.uniform(0, 0.2),
        delay_s=dice.uniform(0, 1),
        flip_header=dice.uniform(0, 0.03),
        flip_pixels=dice.uniform(0, 0.03),
    )


@contextmanager
def cuts(runs: int, seed: int, *, cuts_s: tuple[float, float] = _CUTS_S) -> Iterator[Runs]:
    """Give runs through both kinds of networks.

    Parameters
    ----------
    runs, seed
        As for a `Part`.
    cuts_s
        How long a cut lasts at the least and at the most.
    """
    log = logging.getLogger("otf_stream.acquire")
    level = log.level
    log.setLevel(logging.CRITICAL)  # it rightly complains of this network
    try:
        kinds = {kind: partial(_run, kind, seed, cuts_s) for kind in ("stream", "messages")}
        yield numbered("cuts", kinds, runs, seed)
    finally:
        log.setLevel(level)


def _run(kind: str, seed: int, cuts_s: tuple[float, float], number: int) -> Result:
    case = Case.draw(kind, seed, number, cuts_s=cuts_s)
    with tempfile.TemporaryDirectory(prefix="otf_stream-chaos-") as folder:
        data, log = Path(folder) / "data", Path(folder) / "log"
        with listening(data, log) as (address, listener):
            with _network(address, case.faults, number) as proxy:
                found = _sent(proxy, case, Path(folder) / "spill")
            if not listener.is_alive():
                found["problems"].append(f"the listener ended with code {listener.exitcode}")
            found["problems"] += plane_problems(data, case.sample, range(case.sample.planes))
        said = log.read_text("utf-8", "replace")
        if "Traceback" in said:
            found["problems"].append(f"the listener logged a traceback: {said.strip().splitlines()[-1]}")
        return found | {"faults": dict(proxy.counts), "cut_s": round(sum(cut.seconds for cut in case.faults.cuts), 1)}


def _network(address: str, faults: StreamFaults | MessageFaults, seed: int) -> StreamProxy | MessageProxy:
    if isinstance(faults, StreamFaults):
        return StreamProxy(address, faults, seed=seed)
    return MessageProxy(address, faults, seed=seed)


def _sent(proxy: StreamProxy | MessageProxy, case: Case, spill: Path) -> Result:
    """Send all planes; return how long it took, and what the publisher has to complain of."""
    sample, problems = case.sample, []
    publisher = Publisher(proxy.address, sample.acquisition, session=sample.session, memory=case.memory, spill=spill)
    # Cuts are drawn to fall while planes are on their way: a slow start must not have them all sent before.
    proxy.begun.wait(_PATIENCE_S)
    begun = time.monotonic()
    try:
        for z, plane in paced(enumerate(sample.stack()), case.per_second):
            publisher.publish(plane, z=z)
        publisher.close(_PATIENCE_S)
    except (PublishError, TimeoutError) as error:
        problems.append(f"{type(error).__name__}: {error}")
        publisher.abort(0)
    if publisher.ended is None or publisher.ended.missing_count:
        problems.append(f"the publisher was told {publisher.ended!r}")
    return {
        "planes": sample.planes,
        "per_second": round(case.per_second, 1),
        "seconds": round(time.monotonic() - begun, 2),
        "after_cuts_s": round(
            max(time.monotonic() - begun - max(c.at_s + c.seconds for c in case.faults.cuts), 0.0), 2
        ),
        "problems": problems,
    }


def section(results: Sequence[Result]) -> str:
    """Say what came of it."""
    rows = []
    for kind, those in of_kind(results).items():
        there = [result for result in those if "faults" in result]
        done: Counter[str] = Counter()
        for result in there:
            done.update(result["faults"])
        rows.append(
            (
                kind,
                len(those),
                sum(result["planes"] for result in there),
                f"{sum(result['cut_s'] for result in there):.0f} s",
                ", ".join(f"{what} {n}" for what, n in sorted(done.items())),
                spread(there, "after_cuts_s"),
                len(failed(those)),
            )
        )
    head = (
        "network",
        "runs",
        "planes",
        "cut for",
        "what it did",
        "done after the last cut (median, worst)",
        "failures",
    )
    return f"""A publisher sends {_PLANES} planes of {_SIDE}² pixels, {_RATES[0]:g} to {_RATES[1]:g} a second, to a
listener in a process of its own, through a proxy on loopback. In each run the network is cut for {_CUTS_S[0]:g} to
{_CUTS_S[1]:g} s, in half of the runs once more soon after. *stream*: connections are reset in the middle of a frame and
refused during the cut, or nothing passes; bytes are held up, and up to one in 30,000 has a flipped bit, of the
listener's answers up to one in 1,000, whatever it belongs to: pixels, headers, or ZeroMQ's own frames. *messages*: up
to 5 % of the messages are lost, up to 20 % come twice, 20 % are overtaken, 20 % are held up for up to a second, 3 % are
cut short, 3 % have a flipped bit in the header and 3 % in the pixels, in both directions.

{table(head, rows)}

Asserted in each run: every plane is in the journal once, its chunk is the one that was sent, bit for bit, and no other
plane is there; the publisher is told that the session ended and that nothing is missing; the listener's process is the
one it was.
"""


CUTS = Part("cuts", "Networks that are cut and garble", cuts, 16, section)
