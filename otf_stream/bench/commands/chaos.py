"""What happens when something goes wrong."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Annotated

import typer

from otf_stream.bench.commands.options import Again, Page, prepared, tell, written


def chaos(
    out: Page = Path("docs/chaos.md"),
    parts: Annotated[str, typer.Option(help="Which, separated by commas; all, if not given.")] = "",
    runs: Annotated[int, typer.Option(help="Of each kind of trouble.", min=1)] = 100,
    seed: Annotated[int, typer.Option(help="Of all that is drawn.", min=0)] = 0,
    again: Again = False,
) -> None:
    """Kill processes, cut networks, and tell whether a plane is lost or a stack is left unfinished."""
    from otf_stream.bench.chaos.part import failed
    from otf_stream.bench.chaos.report import PARTS, forget, page, run_chaos
    from otf_stream.bench.results import machine, read_results

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # who is told to stop stops the services that it started
    chosen = parts.split(",") if parts else list(PARTS)
    if unknown := set(chosen) - set(PARTS):
        raise typer.BadParameter(
            f"there is no part {', '.join(unknown)}; choose of {', '.join(PARTS)}", param_hint="--parts"
        )
    results, compute = prepared(out, None, again=False)
    if again:
        forget(chosen, results)
    found = run_chaos(chosen, results, runs=runs, seed=seed, progress=tell)
    command = f"otf-stream bench chaos --parts {','.join(chosen)} --runs {runs} --seed {seed}"
    written(out, page(read_results(results), command, machine(compute)), results)
    if failed(found):
        raise typer.Exit(1)
