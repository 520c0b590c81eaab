"""Part 3: messages that nobody should send, a thousand in each run, to a listener and to the decoder alone.

One listener and one decoder, each in a process of its own, take the messages of all runs, so that what leaks adds up.
Of every message it is known what becomes of it: it is answered once. The counters that the listener publishes must say
the same, and between the runs an honest acquisition has to go through.
"""

from __future__ import annotations

import random
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from uuid import UUID

from otf_stream.acquire.protocol import Hello
from otf_stream.acquire.publisher import Publisher
from otf_stream.bench.chaos.checks import plane_problems, stores_of
from otf_stream.bench.chaos.decoder import Decoder, Told
from otf_stream.bench.chaos.oddities import SESSIONS, Frames, header, odd_messages
from otf_stream.bench.chaos.part import Part, Runs, failed, numbered, of_kind, table
from otf_stream.bench.chaos.raw import Dealer, Watched
from otf_stream.bench.chaos.sample import Sample
from otf_stream.bench.listening import listening
from otf_stream.bench.results import Result
from otf_stream.store.finding import find_sessions
from otf_stream.store.session import delete_session

MESSAGES = 1_000
"""In each run."""
_BATCH = 50
_EARLY = 10  # what memory is compared with is that after a tenth of the runs, and after no fewer than so many
_MOST_MB = 8.0  # by which it may have grown since
_SESSIONS = 8
_LARGEST_PLANE = 2 << 20  # above the longest header, so that one that is too long is told so
_LAST = Sample("last", "f" * 32, 0, 4, 16)


@dataclass
class _Growth:
    """Resident memory of a process, run after run.

    Parameters
    ----------
    early
        How many runs come before what is compared with.
    """

    early: int
    figures: list[float] = field(default_factory=list)

    def problems(self, resident_mb: float) -> list[str]:
        """Note a figure; say so if it is above that of before by too much."""
        self.figures.append(resident_mb)
        if len(self.figures) <= self.early:
            return []
        by = resident_mb - self.figures[self.early - 1]
        return [f"resident memory grew by {by:.1f} MB"] if by > _MOST_MB else []


@contextmanager
def fuzz(runs: int, seed: int, *, messages: int = MESSAGES) -> Iterator[Runs]:
    """Give runs that send odd messages to one listener, and runs that feed one decoder.

    Parameters
    ----------
    runs, seed
        As for a `Part`.
    messages
        Of each run.
    """
    folder = Path(tempfile.mkdtemp(prefix="otf_stream-fuzz-"))
    data, log = folder / "data", folder / "log"
    early = max(_EARLY, -(-runs // _EARLY))
    settings = {"max_sessions": _SESSIONS, "max_plane_bytes": _LARGEST_PLANE}
    first = [frames[0] for frames in odd_messages(seed, 50) if len(frames[0]) < 1000]
    with listening(data, log, **settings) as (address, process), Decoder(seed, first) as decoder:
        watched = Watched(data, log, process)
        kinds = {
            "listener": partial(_run, address, watched, _Growth(early), seed, messages),
            "decoder": partial(_decode, decoder, _Growth(early), messages),
        }
        yield numbered("fuzz", kinds, runs, seed)
    if not watched.suspect:
        shutil.rmtree(folder)


def _run(address: str, watched: Watched, growth: _Growth, seed: int, messages: int, number: int) -> Result:
    dice = random.Random(f"{seed} fuzz {number}")  # noqa: S311 - no secret
    drawn = odd_messages(dice.getrandbits(32), messages)
    ends = [(header({"v": 2, "type": "end", "session": s, "reason": "aborted", "planes": 0}),) for s in SESSIONS]
    last = Hello(session=_LAST.session, acquisition=_LAST.acquisition)
    before = watched.status().counters
    answered: Counter[str] = Counter()
    acknowledged, errors, problems = 0, Counter[str](), []
    with Dealer(address) as dealer:
        for batch in _batches([*drawn, *ends]):
            answers = dealer.exchange(batch, last)
            if answers.count != len(batch):
                problems.append(f"{answers.count} answers came to {len(batch)} messages")
            acknowledged += answers.acknowledged
            errors.update(answers.errors)
            answered.update(answer.type for answer in answers.messages if answer.type not in ("ack", "error"))
    after = watched.status().counters
    problems += _account(before, after, acknowledged, errors)
    _tidy(watched.data)
    sample = Sample("honest", UUID(int=dice.getrandbits(128)).hex, number, 6, 16)
    problems += _honest(address, watched.data, sample)
    resident = round(watched.resident_mb, 1)
    problems += [*growth.problems(resident), *watched.problems()]
    watched.suspect = watched.suspect or bool(problems)
    return {
        "messages": messages,
        "answered": {"ack": acknowledged, **answered, **errors},
        "bytes": sum(len(frame) for frames in drawn for frame in frames),
        "rss_mb": resident,
        "problems": problems,
    }


def _batches(messages: Sequence[Frames]) -> Iterator[Sequence[Frames]]:
    for start in range(0, len(messages), _BATCH):
        yield messages[start : start + _BATCH]


def _account(before: Told, after: Told, acknowledged: int, errors: Counter[str]) -> list[str]:
    """Compare what was answered with what the listener counted meanwhile."""
    counted = Counter[str](after["refused"])
    counted.subtract(before["refused"])
    found = [] if +counted == errors else [f"{dict(errors)} was answered and {dict(+counted)} counted"]
    there = sum(after[what] - before[what] for what in ("durable", "duplicates"))
    if there != acknowledged:
        found.append(f"{acknowledged} planes were acknowledged and {there} counted")
    if broken := errors["internal"] + errors["no-space"]:
        found.append(f"the listener failed at {broken} messages")
    return found


def _honest(address: str, data: Path, sample: Sample) -> list[str]:
    """Send an acquisition as one should, look whether it is there as it was sent, and delete it."""
    with Publisher(address, sample.acquisition, session=sample.session) as publisher:
        for z, plane in enumerate(sample.stack()):
            publisher.publish(plane, z=z)
    found = plane_problems(data, sample, range(sample.planes))
    if publisher.ended is None or publisher.ended.missing_count:
        found.append(f"the honest publisher was told {publisher.ended!r}")
    _tidy(data)
    return found


def _tidy(data: Path) -> None:
    """Delete the stores of all sessions, which are over, but for that of the last message of each batch."""
    kept = stores_of(_LAST.session, data)
    for path in set(find_sessions(data)) - set(kept):
        delete_session(path)


def _decode(decoder: Decoder, growth: _Growth, messages: int, number: int) -> Result:
    told = decoder.go_on(messages)
    if "rss_mb" in told:
        told["problems"] += growth.problems(told["rss_mb"])
    return told


def section(results: Sequence[Result]) -> str:
    """Say what came of the messages."""
    those = of_kind(results)
    listener, decoder = those.get("listener", []), those.get("decoder", [])
    answered: Counter[str] = Counter()
    for result in listener:
        answered.update(result.get("answered", {}))
    executions = sum(result.get("executions", 0) for result in decoder)
    reasons = sorted({result["not_run"] for result in decoder if "not_run" in result})
    rows = [
        ("listener", sum(result.get("messages", 0) for result in listener), _memory(listener), len(failed(listener))),
        ("decoder", executions or f"not run: {'; '.join(reasons)}", _memory(decoder), len(failed(decoder))),
    ]
    head = ("", "messages", "resident memory after a tenth of them, after the last, at most (MB)", "failures")
    ways = ", ".join(f"{what} {count}" for what, count in answered.most_common())
    return f"""A listener in a process of its own, with room for {_SESSIONS} sessions, is sent messages that hypothesis
draws: random bytes, flipped bits, wrong fields under a right checksum, too few and too many frames and some of the
wrong size, msgpack that is deep, huge or announces 4 GiB, greetings that announce anything, and right messages in any
order, of {len(SESSIONS)} sessions.

{table(head, rows)}

Answers: {ways or "none"}.

Asserted in each run of {MESSAGES} messages: each is answered exactly once, before the greeting that is sent after it;
the listener's counters tell the same numbers of acknowledged planes and of refusals of each kind; it never failed
itself; its log has no error; an acquisition that is sent as it should be arrives bit for bit; the process is the same,
and its memory is less than {_MOST_MB:g} MB above that after the first tenth of the runs (the first {_EARLY}, if that is
more). The *decoder* alone is fed by atheris, with coverage: each input as it is, with a right checksum and without one;
nothing but the error of the protocol may come of it.
"""


def _memory(results: Sequence[Result]) -> str:
    figures = [result["rss_mb"] for result in results if "rss_mb" in result]
    if not figures:
        return "–"
    early = min(max(_EARLY, -(-len(figures) // _EARLY)), len(figures))
    return f"{figures[early - 1]:.0f}, {figures[-1]:.0f}, {max(figures):.0f}"


FUZZ = Part("fuzz", "Messages that nobody should send", fuzz, 1, section)
