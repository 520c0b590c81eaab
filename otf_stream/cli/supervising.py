"""Commands that run a service: ``demo``, ``serve``.

What ``serve`` shows is read from the stores, as any other program would read it; the service itself never waits for the
terminal.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.live import Live
from rich.markup import escape

from otf_stream.cli.options import LAYERS_HELP, Json, KeysOption, Overwrite, PsfOption, Seed, WeightsOption
from otf_stream.cli.terminal import errors_told, installed_with, print_json, say, until_stopped
from otf_stream.config import DeviceName, LayerChoice, MethodName, Security, ServiceConfig

if TYPE_CHECKING:
    from otf_stream.monitor.state import Listener, Session
    from otf_stream.service.supervisor import Service

_LOOK = 0.5  # seconds between two looks at the sessions


def _with_default(text: str, setting: str) -> str:
    """Tell what a setting is where no option gives it, which typer cannot know: options are laid over the file."""
    return f"{text}  [default: {ServiceConfig.model_fields[setting].default}]"


def demo(
    out: Annotated[Path, typer.Option(help="Folder for the store and the picture.")] = Path("demo"),
    overwrite: Overwrite = False,
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """Do the whole main job on this machine: virtual microscope → listener → worker → restored store."""
    with installed_with("simulate"):
        from otf_stream.demo import run_demo

    with errors_told():
        summary = run_demo(out, overwrite=overwrite, seed=seed, console=say)
    if json:
        print_json(summary.as_dict())
    else:
        typer.echo(summary.as_text())


def serve(
    config: Annotated[Path | None, typer.Option(help="A TOML file with the settings below.")] = None,
    data: Annotated[Path | None, typer.Option(help=_with_default("Folder of the session stores.", "data"))] = None,
    listen: Annotated[
        str | None, typer.Option(help=_with_default("Where microscopes connect, tcp://HOST:PORT.", "listen"))
    ] = None,
    security: Annotated[
        Security | None,
        typer.Option(help=_with_default("Whether they need keys; auto: unless from this machine only.", "security")),
    ] = None,
    keys: KeysOption = None,
    monitor: Annotated[
        str | None,
        typer.Option(
            help=_with_default("Where the dashboard and HTTP interface are, HOST:PORT; nowhere if empty.", "monitor")
        ),
    ] = None,
    budget: Annotated[
        float | None, typer.Option(help=_with_default("Seconds from first plane to restored volume.", "budget_s"))
    ] = None,
    tail: Annotated[
        float | None, typer.Option(help=_with_default("Seconds granted after the last plane in any case.", "tail_s"))
    ] = None,
    method: Annotated[MethodName | None, typer.Option(help=_with_default("How to restore.", "method"))] = None,
    device: Annotated[DeviceName | None, typer.Option(help=_with_default("Where to compute.", "device"))] = None,
    seed: Annotated[int | None, typer.Option(help=_with_default("Of every draw.", "seed"))] = None,
    psf: PsfOption = None,
    weights: WeightsOption = None,
    layers: Annotated[LayerChoice | None, typer.Option(help=_with_default(LAYERS_HELP, "layers"))] = None,
    threads: Annotated[
        int | None, typer.Option(help="Processor cores of the worker; all but one, if not given.")
    ] = None,
) -> None:
    """Listen for microscopes and restore what they send, until Ctrl-C."""
    from otf_stream.acquire.keys import is_loopback
    from otf_stream.service.supervisor import Service

    with errors_told():
        settings = ServiceConfig.load(
            config, data=data, listen=listen, security=security, keys=keys, monitor=monitor, budget_s=budget,
            tail_s=tail, method=method, device=device, seed=seed, psf=psf, weights=weights, layers=layers,
            threads=threads,
        )  # fmt: skip
        if settings.weights:
            from otf_stream.learn.checkpoints import network_to_deblur

            network_to_deblur(settings.weights)  # refused now, and not when a stack is on the stage
        with until_stopped(at_once=False) as stopped, Service(settings, stopped) as service:
            where = escape(str(settings.data.resolve()))
            if settings.security == "none" and not is_loopback(settings.listen):
                say.print("security is none: whoever reaches this address may write planes, and read those on the way")
            say.print(f"listening on [bold]{service.address}[/], stores in [bold]{where}[/]; Ctrl-C ends")
            _watch(service, settings.data, stopped)
    say.print("stopped; unfinished stacks go on at the next start")


def _watch(service: Service, data: Path, stopped: Callable[[], bool]) -> None:
    """Show the sessions until told to stop: as a live table on a terminal, as lines elsewhere."""
    from otf_stream.cli.live import MOST_SHOWN, view
    from otf_stream.monitor.lookout import Lookout

    seen: dict[Path, str] = {}
    holding = False
    with (
        Lookout(data) as lookout,
        Live(console=say, auto_refresh=False, transient=True) if say.is_terminal else nullcontext() as live,
    ):
        while not stopped():
            told = service.watch()
            with suppress(OSError):  # a log on a full disk, a folder that cannot be read now: no reason to stop
                for message in told:
                    say.print(message, markup=False)
                snapshot = lookout.look()
                listener = snapshot.listener
                if listener and listener.current and listener.holding != holding:
                    holding = listener.holding
                    say.print(_room(listener), markup=False)
                if live is not None:
                    live.update(view(snapshot.status(MOST_SHOWN), say.height), refresh=True)
                else:
                    _print_changes(snapshot.sessions, seen)
            time.sleep(_LOOK)


def _print_changes(sessions: Sequence[Session], seen: dict[Path, str]) -> None:
    """Print a line for each session whose stacks have changed state since it was ``seen``."""
    for session in sessions:
        states = ", ".join(f"{n} {state}" for state, n in sorted(session.states.items()))
        if seen.get(session.store) != states:
            seen[session.store] = states
            say.print(f"{session.store.name}: {session.durable}/{session.expected} planes, {states}", markup=False)


def _room(listener: Listener) -> str:
    """Say whether planes are taken or held back, and why."""
    reserve = f"{listener.disk_reserve / 1e9:.1f} GB are to stay so"
    free = f"{listener.disk_free / 1e9:.1f} GB are free on the disk, {reserve}"
    if listener.holding:
        return f"{free}: planes are held back at their senders; make room, they are taken then"
    return f"{free}: there is room again, planes are taken"
