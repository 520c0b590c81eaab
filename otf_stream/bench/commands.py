"""The commands ``otf-stream bench …``: they take options, call the benchmark, and write the page it makes."""

from __future__ import annotations

import json as jsonlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console

if TYPE_CHECKING:
    from collections.abc import Sequence

    from otf_stream.bench.results import Result
    from otf_stream.learn.compute import Compute

app = typer.Typer(name="bench", help="Measure what the documentation claims.", no_args_is_help=True)
_say = Console(stderr=True)

_Page = Annotated[Path, typer.Option("--out", help="The page to write; results and pictures land beside it.")]
_Threads = Annotated[int | None, typer.Option(help="Processor cores to use; all, if not given.", min=1)]
_Again = Annotated[bool, typer.Option("--again", help="Do not keep the results of earlier runs.")]
_Performance = Annotated[Path, typer.Option("--out", help="The page of which to write a section.")]
_Json = Annotated[bool, typer.Option("--json", help="Print the results as JSON.")]
_Python = Path | None


@app.command()
def quality(
    out: _Page = Path("docs/quality.md"),
    cases: Annotated[
        Literal["few", "all"], typer.Option(help="Four cases and four held out, or all 72, which takes hours.")
    ] = "few",
    budget: Annotated[float, typer.Option(help="Seconds for each stack, and for training CARE.", min=10)] = 120.0,
    care_python: Annotated[
        _Python, typer.Option(help="Interpreter of an environment with csbdeep, tensorflow-cpu and tf-keras.")
    ] = None,
    threads: _Threads = None,
    again: _Again = False,
) -> None:
    """Compare with interpolation, Richardson–Lucy and CARE on phantoms of four modalities."""
    from otf_stream.bench.cases import all_cases, few_cases, few_held_out_cases
    from otf_stream.bench.quality import page, run_cases
    from otf_stream.bench.results import read_results

    few = [*few_cases(), *few_held_out_cases()]
    wanted = all_cases() if cases == "all" else few
    results, compute = _prepared(out, threads, again=again)
    command = f"otf-stream bench quality --cases {cases} --budget {budget:g}"
    if care_python:
        command += " --care-python PYTHON"

    def write() -> None:
        """Write the page of what is there: all of it takes hours."""
        names = {case.name for case in wanted}
        there = [found for found in read_results(results) if found["case"] in names and found["budget"] == budget]
        shown = [f"images/quality/{case.name}.png" for case in few if any(r["case"] == case.name for r in there)]
        if there:
            out.write_text(page(there, command, shown), encoding="utf-8")

    def told(said: str) -> None:
        _tell(said)
        write()

    write()
    run_cases(
        wanted,
        results,
        compute,
        seconds=budget,
        care_python=care_python,
        pictures=out.parent / "images" / "quality",
        progress=told,
    )
    typer.echo(f"page:    {out}\nresults: {results}")


@app.command()
def layers(
    out: _Page = Path("docs/layers.md"),
    seconds: Annotated[float, typer.Option(help="Training time of each contender on each stack.", min=1)] = 30.0,
    share: Annotated[float, typer.Option(help="Share of the parameters to train.", min=0.001, max=1)] = 0.3,
    seeds: Annotated[int, typer.Option(help="How often to repeat.", min=1)] = 5,
    threads: _Threads = None,
    again: _Again = False,
) -> None:
    """Compare fine-tuning of ZEST's layers with that of random ones, the last ones, all and none, in equal time."""
    from otf_stream.bench.cases import few_cases
    from otf_stream.bench.layers import draw, page, run_layers

    results, compute = _prepared(out, threads, again=again)
    found = run_layers(few_cases(), results, compute, seconds=seconds, share=share, seeds=seeds, progress=_tell)
    picture = Path("images") / f"{out.stem}.png"
    draw(out.parent / picture, found)
    command = f"otf-stream bench layers --seconds {seconds:g} --share {share:g} --seeds {seeds}"
    _written(out, page(found, command, picture.as_posix()), results)


@app.command()
def denoisers(
    out: _Page = Path("docs/denoising.md"),
    seconds: Annotated[float, typer.Option(help="Training time of each contender on each stack.", min=1)] = 60.0,
    n2v2_python: Annotated[_Python, typer.Option(help="Interpreter of an environment with careamics.")] = None,
    threads: _Threads = None,
    again: _Again = False,
) -> None:
    """Compare families of self-supervised denoising, and N2V2, in equal time."""
    from otf_stream.bench.cases import few_cases
    from otf_stream.bench.denoisers import page, run_denoisers

    results, compute = _prepared(out, threads, again=again)
    found = run_denoisers(few_cases(), results, compute, seconds=seconds, n2v2_python=n2v2_python, progress=_tell)
    command = f"otf-stream bench denoisers --seconds {seconds:g}"
    if n2v2_python:
        command += " --n2v2-python PYTHON"
    _written(out, page(found, command), results)


@app.command()
def curves(
    out: _Page = Path("docs/curves.md"),
    budgets: Annotated[str, typer.Option(help="Seconds, separated by commas.")] = "30,60,120",
    threads: _Threads = None,
    again: _Again = False,
) -> None:
    """Compare from scratch, pre-trained, ZEST and all layers over time."""
    from otf_stream.bench.cases import few_cases
    from otf_stream.bench.curves import draw, page, run_curves

    seconds = _numbers(budgets, "--budgets")
    results, compute = _prepared(out, threads, again=again)
    found = run_curves(few_cases(), results, compute, budgets=seconds, progress=_tell)
    picture = Path("images") / f"{out.stem}.png"
    draw(out.parent / picture, found)
    _written(out, page(found, f"otf-stream bench curves --budgets {budgets}", picture.as_posix()), results)


@app.command()
def timelapse(
    out: _Page = Path("docs/timelapse.md"),
    time_points: Annotated[int, typer.Option(help="How many.", min=1)] = 3,
    planes: Annotated[int, typer.Option(help="Of each.", min=5)] = 32,
    side: Annotated[int, typer.Option(help="Of the planes, in pixels.", min=64)] = 512,
    planes_per_second: Annotated[float, typer.Option(help="At which they come.", min=0.01)] = 2.0,
    threads: _Threads = None,
) -> None:
    """Stream a time-lapse through a service, and tell whether each time point lands in time."""
    from otf_stream.bench.timelapse import page, run_timelapse

    results, _ = _prepared(out, threads, again=True)
    found = run_timelapse(
        time_points=time_points, planes=planes, side=side,
        planes_per_second=planes_per_second, threads=threads, progress=_tell,
    )  # fmt: skip
    results.write_text("".join(jsonlib.dumps(result) + "\n" for result in found), encoding="utf-8")
    command = (
        f"otf-stream bench timelapse --time-points {time_points} --planes {planes} --side {side} "
        f"--planes-per-second {planes_per_second:g}"
    )
    _written(out, page(found, command), results)


@app.command()
def acquisitions(
    out: _Page = Path("docs/acquisitions.md"),
    count: Annotated[int, typer.Option(help="How many.", min=1)] = 200,
    planes: Annotated[int, typer.Option(help="Of each.", min=2)] = 8,
    side: Annotated[int, typer.Option(help="Of the planes, in pixels.", min=16)] = 256,
) -> None:
    """Run many acquisitions in a row, and tell whether one is lost or leaves something behind."""
    from otf_stream.bench.acquisitions import page, run_all
    from otf_stream.bench.results import machine

    results, compute = _prepared(out, 1, again=True)
    found = run_all(count=count, planes=planes, side=side, progress=_tell)
    lines = (jsonlib.dumps({"series": name, **result}) for name, results_of in found.items() for result in results_of)
    results.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    command = f"otf-stream bench acquisitions --count {count} --planes {planes} --side {side}"
    _written(out, page(found, planes, command, machine(compute)), results)


@app.command()
def publish(
    planes: Annotated[int, typer.Option(help="To publish at each rate.", min=1)] = 200,
    side: Annotated[int, typer.Option(help="Of a plane, in pixels.", min=16)] = 2048,
    planes_per_second: Annotated[str, typer.Option(help="Rates of the camera, separated by commas.")] = "20,50",
    out: Annotated[Path | None, typer.Option(help="Write a page with the result.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Measure what streaming costs the microscope's PC: importing the client, and publishing with the network down."""
    from otf_stream.bench.publish import measure, page

    rates = _numbers(planes_per_second, "--planes-per-second")
    if min(rates) <= 0:
        raise typer.BadParameter(f"{planes_per_second!r} are no rates above 0", param_hint="--planes-per-second")
    costs = measure(planes=planes, side=side, rates=rates, progress=_tell)
    if out:
        out.parent.mkdir(parents=True, exist_ok=True)
        command = f"otf-stream bench publish --planes {planes} --side {side} --planes-per-second {planes_per_second}"
        out.write_text(page(costs, command), encoding="utf-8")
    typer.echo(jsonlib.dumps(costs.as_dict(), indent=2) if json else costs.as_text())


@app.command()
def latency(
    out: _Performance = Path("docs/performance.md"),
    planes: Annotated[int, typer.Option(help="Of a stack.", min=5)] = 32,
    side: Annotated[int, typer.Option(help="Of the planes, in pixels.", min=64)] = 256,
    planes_per_second: Annotated[float, typer.Option(help="At which they come.", min=0.01)] = 1.0,
    tail: Annotated[float, typer.Option(help="Seconds from the last plane to the deadline.", min=0)] = 15.0,
    offline: Annotated[float, typer.Option(help="Seconds for the same stack as a recording.", min=10)] = 120.0,
    repeats: Annotated[int, typer.Option(help="Stacks, of different samples.", min=1)] = 3,
    threads: _Threads = None,
    json: _Json = False,
) -> None:
    """Measure how long after its last plane a stack is complete, and what the haste costs."""
    from otf_stream.bench.latency import run_latency, section

    found = run_latency(
        _compute(threads), planes=planes, side=side, planes_per_second=planes_per_second,
        tail_s=tail, offline_s=offline, repeats=repeats, progress=_tell,
    )  # fmt: skip
    command = (
        f"otf-stream bench latency --planes {planes} --side {side} --planes-per-second {planes_per_second:g} "
        f"--tail {tail:g} --offline {offline:g} --repeats {repeats}"
    )
    told = section(found, command, planes_per_second=planes_per_second, tail_s=tail, offline_s=offline)
    _section_written(out, "Latency", told, found, json)


@app.command()
def deadlines(
    out: _Performance = Path("docs/performance.md"),
    stacks: Annotated[int, typer.Option(help="How many, counted by channel.", min=1)] = 50,
    minutes: Annotated[float, typer.Option(help="Over which they begin.", min=0.1)] = 10.0,
    budget: Annotated[float, typer.Option(help="Seconds from the first plane.", min=1)] = 60.0,
    tail: Annotated[float, typer.Option(help="Seconds from the last plane.", min=0)] = 30.0,
    seed: Annotated[int, typer.Option(help="Of all that is drawn.")] = 0,
    threads: _Threads = None,
    json: _Json = False,
) -> None:
    """Stream random acquisitions at once, beside other programs, and tell whether one is late."""
    from otf_stream.bench.deadlines import run_deadlines, section

    found = run_deadlines(
        _compute(threads), stacks=stacks, minutes=minutes, budget_s=budget, tail_s=tail,
        seed=seed, threads=threads, progress=_tell,
    )  # fmt: skip
    command = (
        f"otf-stream bench deadlines --stacks {stacks} --minutes {minutes:g} --budget {budget:g} --tail {tail:g} "
        f"--seed {seed}"
    )
    told = section(found, command, minutes=minutes, budget_s=budget, tail_s=tail)
    _section_written(out, "Deadlines", told, found, json)


@app.command()
def restore(
    out: _Performance = Path("docs/performance.md"),
    planes: Annotated[int, typer.Option(help="Of the stacks whose size grows.", min=5)] = 32,
    sides: Annotated[str, typer.Option(help="Of the planes, in pixels, separated by commas.")] = "256,512,1024",
    threads: _Threads = None,
    json: _Json = False,
) -> None:
    """Measure how fast both networks are, what share of the device that is, and how time and memory grow."""
    from otf_stream.bench.restoring import run_growth, run_throughput, section

    compute = _compute(threads)
    throughput = run_throughput(compute)
    lengths = [int(side) for side in _numbers(sides, "--sides")]
    growth = run_growth(compute, planes=planes, sides=lengths, progress=_tell)
    told = section(throughput, growth, f"otf-stream bench restore --planes {planes} --sides {sides}")
    _section_written(out, "Restoring", told, [*throughput, *growth], json)


@app.command()
def gpu(
    out: _Performance = Path("docs/performance.md"),
    seconds: Annotated[float, typer.Option(help="Budget of 80 × 400 × 500 recorded planes.", min=1)] = 20.0,
    tail: Annotated[float, typer.Option(help="Seconds from the last of 100 × 2048 × 2048 live planes.", min=1)] = 60.0,
    planes_per_second: Annotated[float, typer.Option(help="At which those come.", min=0.01)] = 2.0,
    json: _Json = False,
) -> None:
    """Measure the two tasks for a graphics card; needs one."""
    from otf_stream.bench.gpu import run_gpu, section
    from otf_stream.learn.compute import choose_compute

    try:
        compute = choose_compute("cuda")
    except RuntimeError as error:
        raise typer.BadParameter(str(error)) from error
    found = run_gpu(compute, seconds=seconds, tail_s=tail, planes_per_second=planes_per_second, progress=_tell)
    command = f"otf-stream bench gpu --seconds {seconds:g} --tail {tail:g} --planes-per-second {planes_per_second:g}"
    _section_written(out, "GPU", section(found, command), found, json)


def _section_written(page: Path, title: str, body: str, results: Sequence[Result], json: bool) -> None:
    from otf_stream.bench.performance import write_section

    write_section(page, title, body)
    typer.echo(jsonlib.dumps(results, indent=2) if json else f"{body}\npage: {page}")


def _compute(threads: int | None) -> Compute:
    """Choose where to compute."""
    import torch

    from otf_stream.learn.compute import choose_compute

    torch.set_num_threads(threads or torch.get_num_threads())
    return choose_compute(cores=threads)


@app.command()
def ingest(
    planes: Annotated[int, typer.Option(help="To stream in each round.", min=2)] = 128,
    side: Annotated[int, typer.Option(help="Of a plane, in pixels.", min=16)] = 2048,
    rounds: Annotated[int, typer.Option(help="How often to measure.", min=1)] = 5,
    folder: Annotated[Path, typer.Option(help="On the disk to measure; what is written there is deleted.")] = Path(),
    out: Annotated[Path | None, typer.Option(help="Put the result on this page, docs/performance.md.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Measure how fast planes become durable, beside the disk's and the network's own rates."""
    from otf_stream.bench.ingest import as_text, run_ingest, section
    from otf_stream.bench.performance import write_section

    found = run_ingest(planes=planes, side=side, rounds=rounds, folder=folder, progress=_tell)
    if out:
        command = f"otf-stream bench ingest --planes {planes} --side {side} --rounds {rounds}"
        write_section(out, "Ingest", section(found, command))
    typer.echo(jsonlib.dumps(found, indent=2) if json else as_text(found))


def _numbers(given: str, option: str) -> list[float]:
    try:
        return [float(number) for number in given.split(",")]
    except ValueError as error:
        raise typer.BadParameter(f"{given!r} are no numbers separated by commas", param_hint=option) from error


def _prepared(out: Path, threads: int | None, *, again: bool) -> tuple[Path, Compute]:
    """Make ready to measure; return where the results of earlier runs are, and where to compute."""
    out.parent.mkdir(parents=True, exist_ok=True)
    results = out.with_suffix(".jsonl")
    if again:
        results.unlink(missing_ok=True)
    return results, _compute(threads)


def _written(out: Path, page: str, results: Path) -> None:
    out.write_text(page, encoding="utf-8")
    typer.echo(f"page:    {out}\nresults: {results}")


def _tell(said: str) -> None:
    _say.print(said, highlight=False)
