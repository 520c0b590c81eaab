"""Commands that show what became of a stack: ``report``, ``view``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from otf_stream.cli.options import Json
from otf_stream.cli.terminal import errors_told, installed_with, print_json, say, until_stopped

Store = Annotated[Path, typer.Argument(help="A session store, NAME.ome.zarr.")]


def report(
    store: Store,
    stack: Annotated[
        tuple[int, int] | None,
        typer.Option(metavar="T C", help="Time point and channel; all that have planes if not given."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Write it to this file; beside the store if not given.")] = None,
    json: Json = False,
) -> None:
    """Write a report on a stack: one HTML page with slices, sharpness, timeline and warnings."""
    from otf_stream.report.page import write_report
    from otf_stream.store.session import SessionStore

    with errors_told():
        stacks = [stack] if stack else []
        if not stacks:
            opened = SessionStore.open(store)
            stacks = opened.journal.begun()
            opened.close()
        if not stacks:
            raise ValueError(f"no stack of {store.name} has begun yet")
        if out and len(stacks) > 1:
            raise ValueError(f"{store.name} has {len(stacks)} stacks, and --out takes one report; give --stack T C too")
        pages = [str(write_report(store, one, out=out)) for one in stacks]
    if json:
        print_json({"reports": pages})
    else:
        for page in pages:
            typer.echo(page)


def view(
    store: Store,
    neuroglancer: Annotated[
        bool, typer.Option("--neuroglancer", help="Serve it to a browser on this machine, and print the link.")
    ] = False,
    port: Annotated[int, typer.Option(help="Of that server.", min=1, max=65535)] = 8422,
) -> None:
    """Open a session store in napari, and follow it while it is written; or in Neuroglancer."""
    from otf_stream.store.session import session_attributes

    with errors_told():
        if session_attributes(store) is None:
            raise ValueError(f"{store} is no session store; give the folder NAME.ome.zarr")
        if neuroglancer:
            from otf_stream.viewers.serving import neuroglancer_link, serve_store

            typer.echo(neuroglancer_link(store, port))
            say.print("open this link in a browser on this machine; Ctrl-C ends")
            with until_stopped():
                serve_store(store, port)
            return
        with installed_with("napari"):
            import napari

            from otf_stream.viewers.opening import open_in_napari

            viewer = open_in_napari(store.resolve())
        viewer.show()
        napari.run()
