"""What a part of the benchmark is: runs that are independent of each other, and a table of what came of them.

A run never raises: what went wrong in it is what the page is for, so that an error is one more problem that it reports.
What runs have in common, such as a service that is used by many of them, lives as long as the part does.
"""

from __future__ import annotations

import statistics
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial

from otf_stream.bench.results import Result

Run = tuple[str, str, int, int]
"""The part, the kind of trouble in it, the seed and the number of a run."""
Runs = Mapping[Run, Callable[[], Result]]


@dataclass(frozen=True)
class Part:
    """A part of the benchmark.

    Parameters
    ----------
    name
        By which it is chosen.
    title
        Of its section.
    runs
        Called with the number of runs of each kind and the seed; gives the runs, within a context that keeps what they
        share. What a run returns has ``problems``, a list of sentences that is empty where all went well.
    at_once
        How many runs go on side by side.
    section
        Returns, from results, what the page says below the title.
    """

    name: str
    title: str
    runs: Callable[[int, int], AbstractContextManager[Runs]]
    at_once: int
    section: Callable[[Sequence[Result]], str]


def run_of(result: Result) -> Run:
    """Return which run a result is of."""
    return result["part"], result["kind"], result["seed"], result["run"]


def numbered(part: str, kinds: Mapping[str, Callable[[int], Result]], count: int, seed: int) -> Runs:
    """Return ``count`` runs of each kind, the kinds by turns.

    Parameters
    ----------
    part
        Its name.
    kinds
        For each kind what does a run, given its number.
    count, seed
        How many of each, and the seed that is noted with them.
    """
    runs = {(part, kind, seed, number): run for number in range(count) for kind, run in kinds.items()}
    return {key: partial(_tried, key, run) for key, run in runs.items()}


def _tried(key: Run, run: Callable[[int], Result]) -> Result:
    part, kind, seed, number = key
    begun = time.monotonic()
    try:
        found = run(number)
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        found = {"problems": [f"{type(error).__name__}: {error} ({where.name}, line {where.lineno})"]}
    took = round(time.monotonic() - begun, 2)
    return {"part": part, "kind": kind, "seed": seed, "run": number, "took_s": took, **found}


def of_kind(results: Sequence[Result]) -> dict[str, list[Result]]:
    """Return the results of each kind, sorted by its name."""
    kinds = sorted({result["kind"] for result in results})
    return {kind: [result for result in results if result["kind"] == kind] for kind in kinds}


def failed(results: Sequence[Result]) -> list[Result]:
    """Return the results that have problems."""
    return [result for result in results if result["problems"]]


def spread(results: Sequence[Result], what: str) -> str:
    """Say the median and the worst of a figure in seconds, of those results that have it."""
    figures = [result[what] for result in results if result.get(what) is not None]
    return f"{statistics.median(figures):.1f} s, {max(figures):.1f} s" if figures else "–"


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return a table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)
