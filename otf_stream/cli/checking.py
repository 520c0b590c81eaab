"""The command that looks at an installation: ``doctor``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from otf_stream.cli.options import Json, KeysOption
from otf_stream.cli.terminal import errors_told, print_json, say
from otf_stream.config import DeviceName, ServiceConfig

if TYPE_CHECKING:
    from otf_stream.doctor.findings import Fitting, Report

_SIGNS = {"ok": "[green]ok     [/]", "warning": "[yellow]warning[/]", "problem": "[bold red]problem[/]"}


def doctor(
    to: Annotated[
        str | None, typer.Option("--to", help="On a microscope's PC: where otf-stream serve listens, tcp://HOST:PORT.")
    ] = None,
    config: Annotated[Path | None, typer.Option(help="The service's TOML file.")] = None,
    data: Annotated[Path | None, typer.Option(help="Folder of the session stores.")] = None,
    listen: Annotated[str | None, typer.Option(help="Where microscopes are to connect, tcp://HOST:PORT.")] = None,
    keys: KeysOption = None,
    device: Annotated[DeviceName | None, typer.Option(help="Where to compute.")] = None,
    planes_per_second: Annotated[
        float | None, typer.Option(help="Of the camera, for the verdict; all planes at once, if not given.", min=1e-3)
    ] = None,
    json: Json = False,
) -> None:
    """Check this machine, measure it, and say which stacks meet the deadline; exit code 1 if something is amiss.

    Without --to, it is checked for a service; with it, for a microscope that sends planes to one.
    """
    from otf_stream.doctor.examination import examine_microscope, examine_service

    with errors_told():
        if to is not None:
            if any(option is not None for option in (config, data, listen, device, planes_per_second)):
                raise ValueError(
                    "--to checks a microscope's PC, which has no service; with it, give --keys and --json alone"
                )
            report = examine_microscope(ServiceConfig(listen=to).listen, keys)
        else:
            settings = ServiceConfig.load(config, data=data, listen=listen, keys=keys, device=device)
            with say.status("looking and measuring, half a minute at the most"):
                report = examine_service(settings, planes_per_second=planes_per_second)
    if json:
        print_json(report.as_dict())
    else:
        _show(report)
    if not report.ok:
        raise typer.Exit(1)


def _show(report: Report) -> None:
    """Print a report as text: each finding on a line, what to do about it below, and the verdict."""
    from rich.console import Console

    out = Console(highlight=False, soft_wrap=True)
    for finding in report.findings:
        out.print(f"{_SIGNS[finding.level]} {escape(finding.check)}: {escape(finding.found)}")
        if finding.remedy:
            out.print(f"        → {escape(finding.remedy)}")
    if report.fitting:
        out.print("\n" + "\n".join(table_of(report.fitting)))
    out.print(f"\n{escape(report.verdict)}")


def table_of(fitting: Sequence[Fitting]) -> list[str]:
    """Return the largest stacks that are in time as a table in Markdown, line by line.

    Parameters
    ----------
    fitting
        The stacks, by their planes.
    """
    head = ["planes", "learnt from, up to", "restoring", "training steps", "interpolated in time, up to"]
    return [_row(head), _row(["---"] * len(head)), *(_row(_cells(stack)) for stack in fitting)]


def _cells(stack: Fitting) -> list[str]:
    learnt, interpolated = stack.learnt_px, stack.interpolated_px
    cells = [f"{learnt} × {learnt}", f"{stack.restoring_s:.0f} s", f"{stack.steps}"] if learnt else ["none", "", ""]
    return [f"{stack.planes}", *cells, f"{interpolated} × {interpolated}"]


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
