"""Commands for keys: ``keys make``, ``show``, ``token``, ``authorise``, ``revoke``, ``trust``, ``forget``.

Two machines are involved, so each command says what is left to be done on the other one.
"""

from __future__ import annotations

import platform
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from otf_stream.cli.options import Json, KeysOption, Overwrite
from otf_stream.cli.terminal import errors_told, print_json, say

if TYPE_CHECKING:
    from otf_stream.acquire.keys import KeyFolder

app = typer.Typer(
    name="keys",
    help="Which microscopes may connect, and to which listeners: keys and encryption.",
    no_args_is_help=True,
)

_Name = Annotated[str, typer.Argument(metavar="NAME", help="What the microscope is called here.")]
_Host = Annotated[
    str, typer.Argument(metavar="HOST", help="Of the listener, as in the addresses in use; or HOST:PORT.")
]
_Key = Annotated[
    str, typer.Argument(metavar="KEY", help="The public key that keys make prints there, or the file own.key.")
]


@app.command()
def make(keys: KeysOption = None, overwrite: Overwrite = False, json: Json = False) -> None:
    """Make the pair of keys of this machine, if it has none, and print the public one."""
    with errors_told():
        folder = _folder(keys)
        public = folder.make(overwrite=overwrite).public
    if json:
        print_json({"folder": str(folder.folder), "public_key": public})
    else:
        typer.echo(public)
    key = shlex.quote(public)
    _next(f"If this machine listens, on each microscope's PC: otf-stream keys trust {_this_host()} {key}")
    _next(f"If it has a microscope, on the machine that listens: otf-stream keys authorise {_this_host()} {key}")


@app.command()
def show(keys: KeysOption = None, json: Json = False) -> None:
    """Print the public key of this machine, the microscopes that may connect, and the listeners that it trusts."""
    with errors_told():
        folder = _folder(keys)
        public = folder.own().public
        authorised, trusted = folder.authorised(), folder.trusted()
    if json:
        print_json({"folder": str(folder.folder), "public_key": public, "authorised": authorised, "listeners": trusted})
        return
    lines = [f"folder      {folder.folder}", f"public key  {public}"]
    lines += [f"authorised  {key}  {name}" for name, key in authorised.items()] or ["authorised  none"]
    lines += [f"trusted     {key}  {host}" for host, key in trusted.items()] or ["trusted     none"]
    typer.echo("\n".join(lines))


@app.command()
def token(keys: KeysOption = None, overwrite: Overwrite = False, json: Json = False) -> None:
    """Make the token that a monitor asks for which other machines can reach, if there is none, and print it."""
    from otf_stream.monitor.token import TokenFile

    with errors_told():
        file = TokenFile(_folder(keys))
        made = file.make(overwrite=overwrite)
    if json:
        print_json({"file": str(file.path), "token": made})
    else:
        typer.echo(made)
    _next(f"In a browser: http://{_this_host()}:8420/?token={made}, once; elsewhere: Authorization: Bearer TOKEN")


@app.command()
def authorise(name: _Name, key: _Key, keys: KeysOption = None) -> None:
    """Let a microscope connect to the listener of this machine; a service that runs takes note at once."""
    with errors_told():
        folder = _folder(keys)
        folder.authorise(name, key)
        public = folder.make().public
    typer.echo(f"{name} may connect to the listener of this machine")
    _next(f"If that is not done yet, on its PC: otf-stream keys trust {_this_host()} {shlex.quote(public)}")


@app.command()
def revoke(name: _Name, keys: KeysOption = None) -> None:
    """Let a microscope connect no more."""
    with errors_told():
        _folder(keys).revoke(name)
    typer.echo(f"{name} may not connect any more")
    _next("A connection that it has lasts until it breaks: restart the service to end it now; nothing is lost.")


@app.command()
def trust(host: _Host, key: _Key, keys: KeysOption = None) -> None:
    """Connect to the listener at a host with this machine's key, and only if the listener has that one."""
    with errors_told():
        folder = _folder(keys)
        folder.trust(host, key)
        public = folder.make().public
    typer.echo(f"what this machine sends to {host} is encrypted, and for the listener with that key only")
    _next(f"On the machine that listens: otf-stream keys authorise {_this_host()} {shlex.quote(public)}")


@app.command()
def forget(host: _Host, keys: KeysOption = None) -> None:
    """Connect to a host without keys again."""
    with errors_told():
        _folder(keys).forget(host)
    typer.echo(f"what this machine sends to {host} is not encrypted any more")


def _folder(keys: Path | None) -> KeyFolder:
    from otf_stream.acquire.keys import KeyFolder

    return KeyFolder(keys)


def _next(step: str) -> None:
    """Print what is left to do, on one line, so that commands can be copied."""
    say.print(step, markup=False, highlight=False, soft_wrap=True)


def _this_host() -> str:
    """Return what this machine calls itself, for a command to copy."""
    name = "".join(letter if letter.isalnum() and letter.isascii() else "-" for letter in platform.node().split(".")[0])
    return name.strip("-") or "HOST"
