"""All commands. Each reads its arguments, calls the part that does the work, and prints what came of it.

Here the commands are put together, in the order in which ``--help`` shows them; each module beside this one has a
group of them. Heavy modules are imported inside the commands, so that ``--help`` and a typing error answer at once.
"""

from __future__ import annotations

from typing import Annotated

import typer

from otf_stream import __version__
from otf_stream.bench.commands import app as bench
from otf_stream.cli import checking, keys, monitoring, recorded, seeing, streaming, supervising, weights
from otf_stream.cli.terminal import installed_with

app = typer.Typer(
    name="otf-stream",
    help="An isotropic view of a microscope's sample while the sample is still on the stage.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (
    supervising.demo,
    supervising.serve,
    monitoring.monitor,
    checking.doctor,
    streaming.replay,
    streaming.simulate,
    streaming.watch,
    streaming.deliver,
    recorded.restore,
    recorded.evaluate,
    seeing.report,
    seeing.view,
    weights.pretrain,
):
    app.command()(command)
app.add_typer(keys.app)
app.add_typer(monitoring.logs)
app.add_typer(bench)
app.add_typer(weights.app)


def run() -> None:
    """Run the command line; see `otf_stream.cli.main`."""
    with installed_with("service"):
        app()


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"otf-stream {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass
