"""How the commands talk to people and to scripts.

Results go to standard output and all else to standard error, so that a script can read the one and a person the other;
every foreseen error is one line.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from otf_stream.acquisition import faults

say = Console(stderr=True)  # for people; standard output is for results


@contextmanager
def installed_with(extra: str) -> Iterator[None]:
    """Say how to install what a plain installation, as on a microscope's PC, lacks; then end with exit code 1."""
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if not package or package in ("otf_stream", "simulators"):
            raise
        fail(f'this needs {package}, which is not installed here; in a checkout, pip install ".[{extra}]" brings it')
        raise SystemExit(1) from None


@contextmanager
def errors_told() -> Iterator[None]:
    """Turn the errors that a user can do something about into a message and exit code 1."""
    try:
        yield
    except typer.Exit:  # that it has been told already is no error of its own
        raise
    except ValidationError as error:
        for fault in faults(error):
            fail(fault)
        raise typer.Exit(1) from None
    except OSError as error:
        where = f": {error.filename}" if error.filename else ""
        fail(f"{error.strerror or error}{where}")
        raise typer.Exit(1) from None
    except (ValueError, RuntimeError) as error:
        fail(str(error))
        raise typer.Exit(1) from None


@contextmanager
def until_stopped(at_once: bool = True) -> Iterator[Callable[[], bool]]:
    """Run the body until Ctrl-C, or the SIGTERM that service managers send.

    Parameters
    ----------
    at_once
        Raise ``KeyboardInterrupt`` wherever the body is, which ends waits in code of others. What runs in an extension
        module may lose it, and what starts processes may lose these: who looks after others is only asked.

    Yields
    ------
    Callable
        Whether somebody said so; a loop asks it in any case.
    """
    import signal

    said = False

    def stop(number: int, frame: Any) -> None:
        nonlocal said
        said = True
        if at_once:
            raise KeyboardInterrupt

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: said
    except KeyboardInterrupt:
        pass
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def fail(message: str) -> None:
    """Print an error."""
    say.print(f"[bold red]error[/]: {escape(message)}", soft_wrap=True, highlight=False)


def counted(number: int, what: str) -> str:
    """Return so many of a thing in words: 1 plane, 2 planes."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def print_json(value: Any) -> None:
    """Print a result for scripts."""
    typer.echo(json.dumps(value, indent=2))


def progress_bar() -> Progress:
    """Return a display of what is being done; where there is no terminal, it leaves no trace."""
    return Progress(
        SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
        console=say, transient=not say.is_terminal,
    )  # fmt: skip


@contextmanager
def stages_told() -> Iterator[Callable[[str, float], None]]:
    """Yield what shows stages that come one after the other: told one, and how far it is from 0 to 1.

    In a terminal these are bars. Elsewhere a bar leaves no trace, and a line is printed for each quarter.
    """
    with progress_bar() as bar:
        tasks: dict[str, TaskID] = {}
        quarters: dict[str, int] = {}

        def tell(stage: str, done: float) -> None:
            if stage not in tasks:
                for earlier in tasks.values():
                    bar.update(earlier, completed=100)
                tasks[stage] = bar.add_task(stage, total=100)
            bar.update(tasks[stage], completed=round(100 * done))
            quarter = int(4 * min(done, 1.0))
            if not say.is_terminal and quarter > quarters.get(stage, -1):
                quarters[stage] = quarter
                say.print(f"{stage} … {25 * quarter} %" if quarter else f"{stage} …")

        yield tell
