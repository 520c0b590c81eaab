"""The commands ``otf-stream bench …``: they take options, call the benchmark, and write the page it makes."""

from __future__ import annotations

import typer

from otf_stream.bench.commands.chaos import chaos
from otf_stream.bench.commands.device import gpu, restore
from otf_stream.bench.commands.live import acquisitions, dashboard, deadlines, ingest, latency, publish, timelapse
from otf_stream.bench.commands.science import curves, denoisers, estimates, layers, quality

app = typer.Typer(name="bench", help="Measure what the documentation claims.", no_args_is_help=True)
for command in (
    quality, estimates, layers, denoisers, curves, timelapse, acquisitions, publish, ingest, dashboard, latency,
    deadlines, restore, gpu, chaos,
):  # fmt: skip
    app.command()(command)
