"""How fast the device restores, and how near to what it can do."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from otf_stream.bench.commands.options import Json, Performance, Threads, computing, numbers, section_written, tell


def restore(
    out: Performance = Path("docs/performance.md"),
    planes: Annotated[int, typer.Option(help="Of the stacks whose size grows.", min=5)] = 32,
    sides: Annotated[str, typer.Option(help="Of the planes, in pixels, separated by commas.")] = "256,512,1024",
    threads: Threads = None,
    json: Json = False,
) -> None:
    """Measure how fast both networks are, what share of the device that is, and how time and memory grow."""
    from otf_stream.bench.restoring import run_growth, run_throughput, section

    compute = computing(threads)
    throughput = run_throughput(compute)
    lengths = [int(side) for side in numbers(sides, "--sides")]
    growth = run_growth(compute, planes=planes, sides=lengths, progress=tell)
    told = section(throughput, growth, f"otf-stream bench restore --planes {planes} --sides {sides}")
    section_written(out, "Restoring", told, [*throughput, *growth], json)


def gpu(
    out: Performance = Path("docs/performance.md"),
    seconds: Annotated[float, typer.Option(help="Budget of 80 × 400 × 500 recorded planes.", min=1)] = 20.0,
    tail: Annotated[float, typer.Option(help="Seconds from the last of 100 × 2048 × 2048 live planes.", min=1)] = 60.0,
    planes_per_second: Annotated[float, typer.Option(help="At which those come.", min=0.01)] = 2.0,
    json: Json = False,
) -> None:
    """Measure the two tasks for a graphics card; needs one."""
    from otf_stream.bench.gpu import run_gpu, section
    from otf_stream.learn.compute import choose_compute

    try:
        compute = choose_compute("cuda")
    except RuntimeError as error:
        raise typer.BadParameter(str(error)) from error
    found = run_gpu(compute, seconds=seconds, tail_s=tail, planes_per_second=planes_per_second, progress=tell)
    command = f"otf-stream bench gpu --seconds {seconds:g} --tail {tail:g} --planes-per-second {planes_per_second:g}"
    section_written(out, "GPU", section(found, command), found, json)
