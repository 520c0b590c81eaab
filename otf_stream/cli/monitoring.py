"""Commands that look at a service: ``monitor``, live in a terminal, and ``logs summary``, of last night."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Group, RenderableType
from rich.live import Live

from otf_stream.cli.options import Json, KeysOption
from otf_stream.cli.terminal import errors_told, fail, print_json, say, until_stopped

if TYPE_CHECKING:
    from otf_stream.monitor.state import Status

_VARIABLE = "OTF_STREAM_MONITOR_TOKEN"
_DEFAULT = "http://127.0.0.1:8420"
_LOOK = 1.0  # seconds


class NoMonitorError(ValueError):
    """No monitor answers."""


logs = typer.Typer(name="logs", help="The throughput log of a service.", no_args_is_help=True)


def monitor(
    url: Annotated[str | None, typer.Option(help=f"Of a running service's monitor.  [default: {_DEFAULT}]")] = None,
    data: Annotated[Path | None, typer.Option(help="Look at this data folder instead, without a monitor.")] = None,
    token_file: Annotated[
        Path | None, typer.Option(help=f"File of the token that the monitor asks for; or {_VARIABLE}.")
    ] = None,
    keys: KeysOption = None,
    json: Json = False,
) -> None:
    """Show what a service sees, restores and is short of, until Ctrl-C; once, with --json or without a terminal."""
    from otf_stream.cli.live import view

    with errors_told():
        if url is not None and data is not None:
            raise ValueError("--url and --data are two places to look at; give one")
        look = (
            _folder(data) if data is not None else _service(url or _DEFAULT, _token(url or _DEFAULT, token_file, keys))
        )
        if json:
            print_json(look().model_dump(mode="json"))
        elif not say.is_terminal:
            say.print(view(look()))
        else:
            with until_stopped() as stopped, Live(console=say, auto_refresh=False, screen=False) as live:
                views = _views(look)
                while not stopped():
                    live.update(next(views), refresh=True)
                    time.sleep(_LOOK)


@logs.command()
def summary(
    of: Annotated[
        list[Path],
        typer.Argument(metavar="DATA|FILE…", help="A service's data folder, or files of its throughput log."),
    ],
    json: Json = False,
    plot: Annotated[Path | None, typer.Option(help="Draw rates and deadline margins into this PNG.")] = None,
) -> None:
    """Print rates, percentiles, lost planes and deadline margins of what a log tells."""
    from otf_stream.monitor.log import files_of
    from otf_stream.monitor.summary import read_log, summarise

    with errors_told():
        found = read_log(file for path in of for file in (files_of(path) if path.is_dir() else [path]))
        if not found.seconds and not found.events:
            fail(f"{', '.join(map(str, of))}: no record of a throughput log; give the data folder of a service")
            raise typer.Exit(1)
        told = summarise(found)
        if plot is not None:
            from otf_stream.monitor.plot import draw

            draw(found, plot)
    if json:
        print_json(told.model_dump(mode="json"))
    else:
        typer.echo(told.as_text())


def _views(look: Callable[[], Status]) -> Iterator[RenderableType]:
    """Yield what is to be seen, again and again; once there was something, a monitor that goes away may come back."""
    from otf_stream.cli.live import gone, view

    last, since = view(look(), say.height), None
    yield last
    while True:
        try:
            last, since = view(look(), say.height), None
            yield last
        except NoMonitorError as error:
            since = since or time.time()
            yield Group(last, gone(str(error), since))


def _folder(data: Path) -> Callable[[], Status]:
    from otf_stream.cli.live import MOST_SHOWN
    from otf_stream.monitor.lookout import Lookout

    if not data.is_dir():
        raise ValueError(f"{data} is no folder; give the data folder of a service")
    lookout = Lookout(data)
    return lambda: lookout.look().status(MOST_SHOWN)


def _service(url: str, token: str | None) -> Callable[[], Status]:
    import httpx

    from otf_stream.monitor.state import Status

    url = url if "://" in url else f"http://{url}"
    client = httpx.Client(
        base_url=url, headers={"Authorization": f"Bearer {token}"} if token else {}, timeout=10, trust_env=False
    )

    def look() -> Status:
        try:
            answer = client.get("/api/v1/status")
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise NoMonitorError(
                f"no monitor answers at {url} ({error}); is `otf-stream serve` running there?"
            ) from error
        if answer.is_error:
            try:
                told = answer.json()
                said = f"{told['detail']}; {told['remedy']}"
            except (ValueError, KeyError, TypeError):
                said = "this is no monitor of otf_stream"
            raise ValueError(f"{url} answers {answer.status_code}: {said}")
        return Status.model_validate_json(answer.content)

    return look


def _token(url: str, file: Path | None, keys: Path | None) -> str | None:
    """Return the token that was given, or that of this machine, which is no other machine's business."""
    from otf_stream.acquire.keys import KeyFolder, KeysError, is_loopback
    from otf_stream.monitor.token import TokenFile

    if file is None and (told := os.environ.get(_VARIABLE)):
        return told
    host = url.partition("://")[2].partition("/")[0].rpartition("@")[2]
    if file is None and not is_loopback(f"tcp://{host if ':' in host else host + ':80'}"):
        return None
    try:
        return TokenFile(KeyFolder(keys), file).read()
    except KeysError:
        if file is not None:
            raise
        return None
