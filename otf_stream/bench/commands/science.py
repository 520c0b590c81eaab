"""How good what is restored is, and what made it so: quality, layers, denoisers, curves."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from otf_stream.bench.commands.options import Again, Page, Threads, numbers, prepared, tell, written

_Path = Path | None


def quality(
    out: Annotated[
        _Path,
        typer.Option(help="The page to write; by default docs/quality.md, docs/held-out.md or docs/gaussian.md."),
    ] = None,
    cases: Annotated[
        Literal["few", "cells", "all", "held-out", "gaussian"],
        typer.Option(
            help="Four cases with cells, or all 36, both with four held out; or all 72; or, for a page of its own, the "
            "36 held out, or ten of another simulator, of Gaussian optics. Hours, but for few."
        ),
    ] = "few",
    budget: Annotated[float, typer.Option(help="Seconds for each stack, and for training CARE.", min=10)] = 120.0,
    care_python: Annotated[
        _Path, typer.Option(help="Interpreter of an environment with csbdeep, tensorflow-cpu and tf-keras.")
    ] = None,
    threads: Threads = None,
    again: Again = False,
) -> None:
    """Compare with interpolation, Richardson–Lucy and CARE on phantoms of four modalities."""
    from otf_stream.bench.cases import TUNED_ON, Case, all_cases, few_cases, few_held_out_cases, held_out_cases
    from otf_stream.bench.contenders import version_of_ours
    from otf_stream.bench.gaussian import gaussian_cases
    from otf_stream.bench.quality import page, run_cases
    from otf_stream.bench.results import read_results

    few = [*few_cases(), *few_held_out_cases()]
    with_cells = [case for case in all_cases() if case.sample in TUNED_ON]
    wanted: dict[str, list[Case]] = {
        "few": few,
        "cells": [*with_cells, *few_held_out_cases()],
        "all": all_cases(),
        "held-out": held_out_cases(),
        "gaussian": [*gaussian_cases()],
    }
    chosen, pictured = wanted[cases], wanted["gaussian" if cases == "gaussian" else "few"]
    out = out or Path("docs") / f"{cases if cases in ('held-out', 'gaussian') else 'quality'}.md"
    results, compute = prepared(out, threads, again=again)
    command = f"otf-stream bench quality --cases {cases} --budget {budget:g}"
    if care_python:
        command += " --care-python PYTHON"

    def write() -> None:
        """Write the page of what is there: all of it takes hours."""
        of_now = {"budget": budget, "ours": version_of_ours()}
        found = {result["case"]: result for result in read_results(results) if of_now.items() <= result.items()}
        there = [found[case.name] for case in chosen if case.name in found]
        shown = [f"images/quality/{case.name}.png" for case in pictured if case.name in found]
        if there:
            out.write_text(page(there, command, shown), encoding="utf-8")

    def told(said: str) -> None:
        tell(said)
        write()

    write()
    run_cases(
        chosen,
        results,
        compute,
        seconds=budget,
        care_python=care_python,
        pictures=out.parent / "images" / "quality",
        progress=told,
    )
    typer.echo(f"page:    {out}\nresults: {results}")


def layers(
    out: Page = Path("docs/layers.md"),
    seconds: Annotated[float, typer.Option(help="Training time of each contender on each stack.", min=1)] = 30.0,
    share: Annotated[float, typer.Option(help="Share of the parameters to train.", min=0.001, max=1)] = 0.3,
    seeds: Annotated[int, typer.Option(help="How often to repeat.", min=1)] = 5,
    threads: Threads = None,
    again: Again = False,
) -> None:
    """Compare fine-tuning of ZEST's layers with that of random ones, the last ones, all and none, in equal time."""
    from otf_stream.bench.cases import few_cases
    from otf_stream.bench.layers import draw, page, run_layers

    results, compute = prepared(out, threads, again=again)
    found = run_layers(few_cases(), results, compute, seconds=seconds, share=share, seeds=seeds, progress=tell)
    picture = Path("images") / f"{out.stem}.png"
    draw(out.parent / picture, found)
    command = f"otf-stream bench layers --seconds {seconds:g} --share {share:g} --seeds {seeds}"
    written(out, page(found, command, picture.as_posix()), results)


def denoisers(
    out: Page = Path("docs/denoising.md"),
    seconds: Annotated[float, typer.Option(help="Training time of each contender on each stack.", min=1)] = 60.0,
    n2v2_python: Annotated[_Path, typer.Option(help="Interpreter of an environment with careamics.")] = None,
    threads: Threads = None,
    again: Again = False,
) -> None:
    """Compare families of self-supervised denoising, and N2V2, in equal time."""
    from otf_stream.bench.cases import few_cases
    from otf_stream.bench.denoisers import page, run_denoisers

    results, compute = prepared(out, threads, again=again)
    found = run_denoisers(few_cases(), results, compute, seconds=seconds, n2v2_python=n2v2_python, progress=tell)
    command = f"otf-stream bench denoisers --seconds {seconds:g}"
    if n2v2_python:
        command += " --n2v2-python PYTHON"
    written(out, page(found, command), results)


def curves(
    out: Page = Path("docs/curves.md"),
    budgets: Annotated[str, typer.Option(help="Seconds, separated by commas.")] = "30,60,120",
    threads: Threads = None,
    again: Again = False,
) -> None:
    """Compare from scratch, pre-trained, ZEST and all layers over time."""
    from otf_stream.bench.cases import few_cases
    from otf_stream.bench.curves import draw, page, run_curves

    seconds = numbers(budgets, "--budgets")
    results, compute = prepared(out, threads, again=again)
    found = run_curves(few_cases(), results, compute, budgets=seconds, progress=tell)
    picture = Path("images") / f"{out.stem}.png"
    draw(out.parent / picture, found)
    written(out, page(found, f"otf-stream bench curves --budgets {budgets}", picture.as_posix()), results)


def estimates(
    out: Page = Path("docs/estimates.md"),
    drawn: Annotated[
        int, typer.Option(help="Instruments drawn at random, beside the 72 cases and ten of another simulator.", min=0)
    ] = 80,
    wide: Annotated[int, typer.Option(help="Others, with pixels larger than their focus.", min=0)] = 20,
    seed: Annotated[int, typer.Option(help="Of the instruments.", min=0)] = 0,
    again: Again = False,
) -> None:
    """Compare the blur, haze and noise that are estimated with the true ones."""
    from otf_stream.bench.cases import all_cases
    from otf_stream.bench.estimates import drawn_cases, page, run_estimates, wide_cases
    from otf_stream.bench.gaussian import gaussian_cases

    results, compute = prepared(out, 1, again=again)
    cases = [*all_cases(), *drawn_cases(drawn, seed=seed), *wide_cases(wide, seed=seed), *gaussian_cases()]
    found = run_estimates(cases, results, compute, progress=tell)
    written(out, page(found, f"otf-stream bench estimates --drawn {drawn} --wide {wide} --seed {seed}"), results)
