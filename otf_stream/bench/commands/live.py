"""What a microscopist meets: streaming, waiting, and acquisition after acquisition."""

from __future__ import annotations

import json as jsonlib
import shutil
from pathlib import Path
from typing import Annotated

import typer

from otf_stream.bench.commands.options import (
    Json,
    Page,
    Performance,
    Threads,
    computing,
    numbers,
    prepared,
    section_written,
    tell,
    written,
)


def publish(
    planes: Annotated[int, typer.Option(help="To publish at each rate.", min=1)] = 200,
    side: Annotated[int, typer.Option(help="Of a plane, in pixels.", min=16)] = 2048,
    planes_per_second: Annotated[str, typer.Option(help="Rates of the camera, separated by commas.")] = "20,50",
    out: Annotated[Path | None, typer.Option(help="Write a page with the result.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Measure what streaming costs the microscope's PC: importing the client, and publishing with the network down."""
    from otf_stream.bench.publish import measure, page

    rates = numbers(planes_per_second, "--planes-per-second")
    if min(rates) <= 0:
        raise typer.BadParameter(f"{planes_per_second!r} are no rates above 0", param_hint="--planes-per-second")
    costs = measure(planes=planes, side=side, rates=rates, progress=tell)
    if out:
        out.parent.mkdir(parents=True, exist_ok=True)
        command = f"otf-stream bench publish --planes {planes} --side {side} --planes-per-second {planes_per_second}"
        out.write_text(page(costs, command), encoding="utf-8")
    typer.echo(jsonlib.dumps(costs.as_dict(), indent=2) if json else costs.as_text())


def ingest(
    planes: Annotated[int, typer.Option(help="To stream in each round.", min=2)] = 128,
    side: Annotated[int, typer.Option(help="Of a plane, in pixels.", min=16)] = 2048,
    rounds: Annotated[int, typer.Option(help="How often to measure.", min=1)] = 5,
    folder: Annotated[Path, typer.Option(help="On the disk to measure; what is written there is deleted.")] = Path(),
    out: Performance = Path("docs/performance.md"),
    json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Measure how fast planes become durable, beside the disk's and the network's own rates."""
    from otf_stream.bench.ingest import as_text, run_ingest, section
    from otf_stream.bench.performance import write_section

    found = run_ingest(planes=planes, side=side, rounds=rounds, folder=folder, progress=tell)
    command = f"otf-stream bench ingest --planes {planes} --side {side} --rounds {rounds}"
    write_section(out, "Ingest", section(found, command))
    typer.echo(jsonlib.dumps(found, indent=2) if json else as_text(found))


def dashboard(
    side: Annotated[int, typer.Option(help="Of a plane, in pixels.", min=16)] = 2048,
    seconds: Annotated[float, typer.Option(help="To measure each rate for.", min=0.1)] = 8.0,
    rounds: Annotated[int, typer.Option(help="How often to measure.", min=1)] = 7,
    browsers: Annotated[int, typer.Option(help="That look at the dashboard.", min=1)] = 3,
    folder: Annotated[Path, typer.Option(help="On the disk to write to; what is written there is deleted.")] = Path(),
    chromium: Annotated[str, typer.Option(help="Program of the browser.")] = "chromium",
    picture: Annotated[Path | None, typer.Option(help="Take a picture of what a browser shows.")] = None,
    out: Performance = Path("docs/performance.md"),
    json: Json = False,
) -> None:
    """Measure what the ingest path loses while browsers look at the dashboard; needs playwright and Chromium."""
    from otf_stream.bench.dashboard import run_dashboard, section

    program = shutil.which(chromium)
    if program is None:
        raise typer.BadParameter(f"there is no program {chromium!r}; install Chromium", param_hint="--chromium")
    try:
        found = run_dashboard(
            side=side, seconds=seconds, rounds=rounds, browsers=browsers, folder=folder, chromium=program,
            picture=picture, progress=tell,
        )  # fmt: skip
    except ModuleNotFoundError as error:
        raise typer.BadParameter(f"{error.name} is not installed; pip install playwright") from error
    command = f"otf-stream bench dashboard --side {side} --seconds {seconds:g} --rounds {rounds} --browsers {browsers}"
    section_written(out, "Dashboard", section(found, command), found, json)


def latency(
    out: Performance = Path("docs/performance.md"),
    planes: Annotated[int, typer.Option(help="Of a stack.", min=5)] = 32,
    side: Annotated[int, typer.Option(help="Of the planes, in pixels.", min=64)] = 256,
    planes_per_second: Annotated[float, typer.Option(help="At which they come.", min=0.01)] = 1.0,
    tail: Annotated[float, typer.Option(help="Seconds from the last plane to the deadline.", min=0)] = 15.0,
    offline: Annotated[float, typer.Option(help="Seconds for the same stack as a recording.", min=10)] = 120.0,
    repeats: Annotated[int, typer.Option(help="Stacks, of different samples.", min=1)] = 3,
    threads: Threads = None,
    json: Json = False,
) -> None:
    """Measure how long after its last plane a stack is complete, and what the haste costs."""
    from otf_stream.bench.latency import run_latency, section, title

    found = run_latency(
        computing(threads), planes=planes, side=side, planes_per_second=planes_per_second,
        tail_s=tail, offline_s=offline, repeats=repeats, progress=tell,
    )  # fmt: skip
    command = (
        f"otf-stream bench latency --planes {planes} --side {side} --planes-per-second {planes_per_second:g} "
        f"--tail {tail:g} --offline {offline:g} --repeats {repeats}"
    )
    told = section(found, command, planes_per_second=planes_per_second, tail_s=tail, offline_s=offline)
    section_written(out, title(found), told, found, json)


def deadlines(
    out: Performance = Path("docs/performance.md"),
    stacks: Annotated[int, typer.Option(help="How many, counted by channel.", min=1)] = 50,
    minutes: Annotated[float, typer.Option(help="Over which they begin.", min=0.1)] = 10.0,
    budget: Annotated[float, typer.Option(help="Seconds from the first plane.", min=1)] = 60.0,
    tail: Annotated[float, typer.Option(help="Seconds from the last plane.", min=0)] = 30.0,
    seed: Annotated[int, typer.Option(help="Of all that is drawn.")] = 0,
    threads: Threads = None,
    json: Json = False,
) -> None:
    """Stream random acquisitions at once, beside other programs, and tell whether one is late."""
    from otf_stream.bench.deadlines import run_deadlines, section

    found = run_deadlines(
        computing(threads), stacks=stacks, minutes=minutes, budget_s=budget, tail_s=tail,
        seed=seed, threads=threads, progress=tell,
    )  # fmt: skip
    command = (
        f"otf-stream bench deadlines --stacks {stacks} --minutes {minutes:g} --budget {budget:g} --tail {tail:g} "
        f"--seed {seed}"
    )
    told = section(found, command, minutes=minutes, budget_s=budget, tail_s=tail)
    section_written(out, "Deadlines", told, found, json)


def timelapse(
    out: Page = Path("docs/timelapse.md"),
    time_points: Annotated[int, typer.Option(help="How many.", min=1)] = 3,
    planes: Annotated[int, typer.Option(help="Of each.", min=5)] = 32,
    side: Annotated[int, typer.Option(help="Of the planes, in pixels.", min=64)] = 512,
    planes_per_second: Annotated[float, typer.Option(help="At which they come.", min=0.01)] = 2.0,
    threads: Threads = None,
) -> None:
    """Stream a time-lapse through a service, and tell whether each time point lands in time."""
    from otf_stream.bench.timelapse import page, run_timelapse

    results, _ = prepared(out, threads, again=True)
    found = run_timelapse(
        time_points=time_points, planes=planes, side=side,
        planes_per_second=planes_per_second, threads=threads, progress=tell,
    )  # fmt: skip
    results.write_text("".join(jsonlib.dumps(result) + "\n" for result in found), encoding="utf-8")
    command = (
        f"otf-stream bench timelapse --time-points {time_points} --planes {planes} --side {side} "
        f"--planes-per-second {planes_per_second:g}"
    )
    written(out, page(found, command), results)


def acquisitions(
    out: Page = Path("docs/acquisitions.md"),
    count: Annotated[int, typer.Option(help="How many.", min=1)] = 200,
    planes: Annotated[int, typer.Option(help="Of each.", min=2)] = 8,
    side: Annotated[int, typer.Option(help="Of the planes, in pixels.", min=16)] = 256,
) -> None:
    """Run many acquisitions in a row, and tell whether one is lost or leaves something behind."""
    from otf_stream.bench.acquisitions import page, run_all
    from otf_stream.bench.results import machine

    results, compute = prepared(out, 1, again=True)
    found = run_all(count=count, planes=planes, side=side, progress=tell)
    lines = (jsonlib.dumps({"series": name, **result}) for name, results_of in found.items() for result in results_of)
    results.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    command = f"otf-stream bench acquisitions --count {count} --planes {planes} --side {side}"
    written(out, page(found, planes, command, machine(compute)), results)
