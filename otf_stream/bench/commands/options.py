"""What the commands ``otf-stream bench …`` share: their options, and how they say and write what was found."""

from __future__ import annotations

import json as jsonlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

if TYPE_CHECKING:
    from collections.abc import Sequence

    from otf_stream.bench.results import Result
    from otf_stream.learn.compute import Compute

_say = Console(stderr=True)

Page = Annotated[Path, typer.Option("--out", help="The page to write; results and pictures land beside it.")]
Threads = Annotated[int | None, typer.Option(help="Processor cores to use; all, if not given.", min=1)]
Again = Annotated[bool, typer.Option("--again", help="Do not keep the results of earlier runs.")]
Performance = Annotated[Path, typer.Option("--out", help="The page of which to write a section.")]
Json = Annotated[bool, typer.Option("--json", help="Print the results as JSON.")]


def tell(said: str) -> None:
    """Say how far a benchmark is, where results are not disturbed."""
    _say.print(said, highlight=False)


def numbers(given: str, option: str) -> list[float]:
    """Return the numbers that were given to an option, separated by commas."""
    try:
        return [float(number) for number in given.split(",")]
    except ValueError as error:
        raise typer.BadParameter(f"{given!r} are no numbers separated by commas", param_hint=option) from error


def computing(threads: int | None) -> Compute:
    """Choose where to compute."""
    import torch

    from otf_stream.learn.compute import choose_compute

    torch.set_num_threads(threads or torch.get_num_threads())
    return choose_compute(cores=threads)


def prepared(out: Path, threads: int | None, *, again: bool) -> tuple[Path, Compute]:
    """Make ready to measure; return where the results of earlier runs are, and where to compute."""
    out.parent.mkdir(parents=True, exist_ok=True)
    results = out.with_suffix(".jsonl")
    if again:
        results.unlink(missing_ok=True)
    return results, computing(threads)


def written(out: Path, page: str, results: Path) -> None:
    """Write a page, and say where it is."""
    out.write_text(page, encoding="utf-8")
    typer.echo(f"page:    {out}\nresults: {results}")


def section_written(page: Path, title: str, body: str, results: Sequence[Result], json: bool) -> None:
    """Write a section of the page on performance, and print it, or the results themselves."""
    from otf_stream.bench.performance import write_section

    write_section(page, title, body)
    typer.echo(jsonlib.dumps(results, indent=2) if json else f"{body}\npage: {page}")
