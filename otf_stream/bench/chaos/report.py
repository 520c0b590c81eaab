"""Runs the parts of the benchmark, and writes the page of what came of them.

A further part is a module that offers a `Part`, and a line in `PARTS`. The page tells of every part that has results,
also of those that were not run this time, and lists whatever failed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from otf_stream.bench.chaos.cuts import CUTS
from otf_stream.bench.chaos.disk import DISK
from otf_stream.bench.chaos.fuzz import FUZZ
from otf_stream.bench.chaos.intruders import INTRUDERS
from otf_stream.bench.chaos.kills import KILLS
from otf_stream.bench.chaos.part import Part, failed, run_of, table
from otf_stream.bench.chaos.soak import SOAK
from otf_stream.bench.results import Result, read_results, run_missing

PARTS: dict[str, Part] = {part.name: part for part in (KILLS, CUTS, FUZZ, INTRUDERS, DISK, SOAK)}


def run_chaos(
    parts: Sequence[str], results: Path, *, runs: int, seed: int, progress: Callable[[str], None] = lambda said: None
) -> list[Result]:
    """Do what has not been done of the runs of some parts.

    Parameters
    ----------
    parts
        Their names.
    results
        Where results are kept, one by one.
    runs
        Of each kind of trouble.
    seed
        Of all that is drawn.
    progress
        Is told of each run.

    Returns
    -------
    list of dict
        What came of the runs, those done earlier included.
    """
    found: list[Result] = []
    for part in (PARTS[name] for name in parts):
        with part.runs(runs, seed) as wanted:
            found += run_missing(results, wanted, run_of, lambda result: progress(_said(result)), at_once=part.at_once)
    return found


def forget(parts: Sequence[str], results: Path) -> None:
    """Drop the results of some parts."""
    kept = [result for result in read_results(results) if result["part"] not in parts]
    if results.exists():
        results.write_text("".join(json.dumps(result) + "\n" for result in kept), encoding="utf-8")


def page(results: Sequence[Result], command: str, machine: str) -> str:
    """Write the page of the documentation from the results."""
    sections = [
        f"## {part.title}\n\n{part.section(of_part)}"
        for part in PARTS.values()
        if (of_part := [result for result in results if result["part"] == part.name])
    ]
    said = "\n\n".join([*sections, f"## Failures\n\n{_failures(results)}"])
    return f"""# Chaos

What goes wrong in a laboratory is made to go wrong here, on purpose and at random moments, and after each run the disk
is read and compared with what was sent. Written by `{command}` on {machine}.

Each run draws what happens from its seed and its number; the moments at which it happens depend on the machine too.
Results of single runs are in [chaos.jsonl](chaos.jsonl).

{said}
"""


def _failures(results: Sequence[Result]) -> str:
    if not (problems := failed(results)):
        return f"None, in {len(results)} runs."
    rows = [(*run_of(result), " ".join("; ".join(result["problems"]).replace("|", "/").split())) for result in problems]
    return f"{len(problems)} of {len(results)} runs.\n\n" + table(("part", "kind", "seed", "run", "what"), rows)


def _said(result: Result) -> str:
    part, kind, _, number = run_of(result)
    return f"{part}, {kind} {number}: {'; '.join(result['problems']) or 'as it should be'} ({result['took_s']:.1f} s)"
