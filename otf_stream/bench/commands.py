"""The commands ``otf-stream bench …``: they take options, call the benchmark, and write the page it makes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console

app = typer.Typer(name="bench", help="Measure what the documentation claims.", no_args_is_help=True)
_say = Console(stderr=True)


@app.command()
def quality(
    out: Annotated[Path, typer.Option(help="The page to write; results and pictures land beside it.")] = Path(
        "docs/quality.md"
    ),
    cases: Annotated[
        Literal["few", "all"], typer.Option(help="Four cases, or all of them, which takes hours.")
    ] = "few",
    budget: Annotated[float, typer.Option(help="Seconds for each stack, and for training CARE.", min=10)] = 120.0,
    care_python: Annotated[
        Path | None, typer.Option(help="Interpreter of an environment with csbdeep, tensorflow-cpu and tf-keras.")
    ] = None,
    threads: Annotated[int | None, typer.Option(help="Processor cores to use; all, if not given.", min=1)] = None,
    again: Annotated[bool, typer.Option("--again", help="Do not keep the results of earlier runs.")] = False,
) -> None:
    """Compare with interpolation, Richardson–Lucy and CARE on phantoms of four modalities."""
    import torch

    from otf_stream.bench.cases import all_cases, few_cases
    from otf_stream.bench.quality import page, run_cases
    from otf_stream.learn.compute import choose_compute

    torch.set_num_threads(threads or torch.get_num_threads())
    out.parent.mkdir(parents=True, exist_ok=True)
    results = out.with_suffix(".jsonl")
    if again:
        results.unlink(missing_ok=True)
    pictures = out.parent / "images" / "quality"
    found = run_cases(
        all_cases() if cases == "all" else few_cases(),
        results,
        choose_compute("cpu" if not torch.cuda.is_available() else "cuda"),
        seconds=budget,
        care_python=care_python,
        pictures=pictures,
        progress=lambda said: _say.print(said, highlight=False),
    )
    command = f"otf-stream bench quality --cases {cases} --budget {budget:g}"
    if care_python:
        command += " --care-python PYTHON"
    shown = [f"images/quality/{result['case']}.png" for result in found if result["case"] in _shown()]
    out.write_text(page(found, command, shown), encoding="utf-8")
    typer.echo(f"page:    {out}\nresults: {results}")


@app.command()
def layers(
    out: Annotated[Path, typer.Option(help="The page to write; results and picture land beside it.")] = Path(
        "docs/layers.md"
    ),
    seconds: Annotated[float, typer.Option(help="Training time of each contender on each stack.", min=1)] = 30.0,
    share: Annotated[float, typer.Option(help="Share of the parameters to train.", min=0.001, max=1)] = 0.3,
    seeds: Annotated[int, typer.Option(help="How often to repeat.", min=1)] = 5,
    threads: Annotated[int | None, typer.Option(help="Processor cores to use; all, if not given.", min=1)] = None,
    again: Annotated[bool, typer.Option("--again", help="Do not keep the results of earlier runs.")] = False,
) -> None:
    """Compare fine-tuning of ZEST's layers with that of random ones, the last ones, all and none, in equal time."""
    import torch

    from otf_stream.bench.cases import few_cases
    from otf_stream.bench.layers import draw, page, run_layers
    from otf_stream.learn.compute import choose_compute

    torch.set_num_threads(threads or torch.get_num_threads())
    out.parent.mkdir(parents=True, exist_ok=True)
    results = out.with_suffix(".jsonl")
    if again:
        results.unlink(missing_ok=True)
    found = run_layers(
        few_cases(),
        results,
        choose_compute("cpu" if not torch.cuda.is_available() else "cuda"),
        seconds=seconds,
        share=share,
        seeds=seeds,
        progress=lambda said: _say.print(said, highlight=False),
    )
    picture = Path("images") / f"{out.stem}.png"
    draw(out.parent / picture, found)
    command = f"otf-stream bench layers --seconds {seconds:g} --share {share:g} --seeds {seeds}"
    out.write_text(page(found, command, picture.as_posix()), encoding="utf-8")
    typer.echo(f"page:    {out}\nresults: {results}")


def _shown() -> set[str]:
    from otf_stream.bench.cases import few_cases

    return {case.name for case in few_cases()}
