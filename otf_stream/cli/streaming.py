"""Commands that send planes to a service: ``replay``, ``simulate``, ``watch``, ``deliver``.

They run on the microscope's PC with what a plain installation brings, but for ``simulate``.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.markup import escape
from rich.progress import Progress, TaskID

from otf_stream.acquisition import NAMES
from otf_stream.cli.options import ApertureOption, Json, ModalityOption, VoxelSizeOption, voxel_size_of
from otf_stream.cli.terminal import counted, errors_told, fail, print_json, progress_bar, say, until_stopped

_GOES_ON = (
    "the service restores them now; its page (port 8420 there), or `otf-stream monitor` beside it, tells when volumes "
    "are ready"
)

if TYPE_CHECKING:
    from otf_stream.acquire.watch.recording import Watched


def replay(
    stack: Annotated[Path, typer.Argument(help="TIFF, OME-TIFF, folder of plane TIFFs, OME-Zarr or NDTiff.")],
    to: Annotated[str, typer.Option("--to", help="Where otf-stream serve listens.")] = "tcp://127.0.0.1:8421",
    voxel_size: VoxelSizeOption = None,
    modality: ModalityOption = None,
    numerical_aperture: ApertureOption = None,
    planes_per_second: Annotated[float | None, typer.Option(help="As fast as it goes, if not given.", min=1e-3)] = None,
    name: Annotated[str | None, typer.Option(help="Of the session; the file's name, if not given.")] = None,
    json: Json = False,
) -> None:
    """Stream a recorded stack as a microscope would."""
    from otf_stream.store.recordings import open_recording
    from simulators.replayer import replay as stream

    with errors_told():
        recording = open_recording(
            stack, voxel_size=voxel_size_of(voxel_size), name=name,
            modality=modality, numerical_aperture=numerical_aperture,
        )  # fmt: skip
        try:
            called = recording.acquisition.name
            if called not in stack.name and name is None:
                say.print(f"its session is called {called}: {NAMES}", markup=False)
            with progress_bar() as bar:
                task = bar.add_task(f"planes of {recording.acquisition.name}", total=recording.acquisition.sizes.planes)
                summary = stream(
                    recording, to, planes_per_second=planes_per_second, on_plane=lambda plane: bar.advance(task)
                )
        finally:
            recording.close()
    if json:
        print_json(summary.as_dict())
    else:
        typer.echo(summary.as_text())
        say.print(_GOES_ON, markup=False)


def simulate(
    to: Annotated[str, typer.Option("--to", help="Where otf-stream serve listens.")] = "tcp://127.0.0.1:8421",
    modality: Annotated[
        Literal["confocal", "multiphoton", "light-sheet", "widefield"], typer.Option(help="Kind of microscope.")
    ] = "confocal",
    planes: Annotated[int, typer.Option(help="Of each stack.", min=2)] = 32,
    side: Annotated[int, typer.Option(help="Pixels of the camera, along y and x.", min=8)] = 256,
    time_points: Annotated[int, typer.Option(help="How often the stacks are taken.", min=1)] = 1,
    channels: Annotated[int, typer.Option(help="Each shows a structure of its own.", min=1, max=3)] = 1,
    positions: Annotated[int, typer.Option(help="Samples side by side; each is a session.", min=1)] = 1,
    planes_per_second: Annotated[float, typer.Option(help="Of the camera.", min=1e-3)] = 2.0,
    interval: Annotated[float, typer.Option(help="Seconds from time point to time point; 0: no pause.", min=0)] = 0.0,
    bleaching: Annotated[float, typer.Option(help="Fraction of the light that each plane costs.")] = 0.0,
    drift: Annotated[float, typer.Option(help="µm that the sample moves along x with each time point.")] = 0.0,
    drop: Annotated[float, typer.Option(help="Probability that the camera loses a frame.")] = 0.0,
    hot_pixels: Annotated[int, typer.Option(help="How many pixels of the camera are hot.")] = 0,
    stripes: Annotated[float, typer.Option(help="Fraction of the light that shadows take in the darkest row.")] = 0.0,
    seed: Annotated[int, typer.Option(help="Of the samples, the noise and the faults.", min=0)] = 0,
    name: Annotated[str, typer.Option(help="Of the session; NAME_p0, NAME_p1 … with several positions.")] = "simulated",
    truth: Annotated[Path | None, typer.Option(help="Folder to write the true volumes to, as TIFF.")] = None,
    json: Json = False,
) -> None:
    """Run a virtual microscope against a running service: Micro-Manager, with samples whose truth is known."""
    from simulators.faults import Faults
    from simulators.simulation import simulate as run
    from simulators.specimen import Setup

    with errors_told():
        faults = Faults(bleaching=bleaching, drift_um=drift, dropped=drop, hot_pixels=hot_pixels, stripes=stripes)
        setup = Setup(
            modality, planes=planes, side=side, channels=channels, positions=positions, faults=faults, seed=seed
        )
        with progress_bar() as bar:
            tasks: dict[str, TaskID] = {}

            def progress(stage: str, done: int, total: int) -> None:
                if stage not in tasks:
                    tasks[stage] = bar.add_task(f"{stage} of {name}", total=total)
                bar.update(tasks[stage], completed=done)

            summary = run(
                setup, to, name=name, time_points=time_points, interval_s=interval,
                planes_per_second=planes_per_second, truth=truth, progress=progress,
            )  # fmt: skip
    if json:
        print_json(summary.as_dict())
    else:
        typer.echo(summary.as_text())
        say.print(_GOES_ON, markup=False)
    for failure in summary.failures:
        fail(failure)
    if summary.failures:
        raise typer.Exit(1)


def watch(
    folder: Annotated[Path, typer.Argument(help="Where the other program saves; it need not be there yet.")],
    to: Annotated[str, typer.Option("--to", help="Where otf-stream serve listens.")] = "tcp://127.0.0.1:8421",
    voxel_size: VoxelSizeOption = None,
    modality: ModalityOption = None,
    numerical_aperture: ApertureOption = None,
    name: Annotated[str | None, typer.Option(help="Of the sessions; after the files, if not given.")] = None,
    quiet: Annotated[
        float, typer.Option(help="An acquisition has ended after so many seconds without news.", min=0.1)
    ] = 30.0,
    poll: Annotated[float, typer.Option(help="Seconds between two looks.", min=0.01)] = 0.5,
    once: Annotated[bool, typer.Option("--once", help="End after the first acquisition.")] = False,
    existing: Annotated[
        bool, typer.Option("--existing", help="Stream also what lies there already and no longer grows.")
    ] = False,
    json: Json = False,
) -> None:
    """Stream what any other program saves in a folder, while it saves it, until Ctrl-C.

    FOLDER may hold, or come to hold, an NDTiff dataset, an OME-TIFF or other multi-page TIFF, or TIFF files of one
    plane each; or several of these, one after another or at once, in folders of their own: each becomes an
    acquisition. What lies there already is left alone unless it grows, and is then streamed from its first plane on.
    Ctrl-C ends acquisitions that still go on as aborted.
    """
    from otf_stream.acquire.watch.folder import FolderWatch
    from otf_stream.acquire.watch.recording import Given

    with errors_told():
        given = Given(voxel_size_of(voxel_size), name, modality, numerical_aperture)
        watching = FolderWatch(folder, to, given, quiet_s=quiet, existing=existing)
        say.print(f"watching [bold]{escape(str(folder))}[/]; Ctrl-C ends")
        with progress_bar() as bar:
            with until_stopped() as stopped:
                shown: dict[int, tuple[Any, str]] = {}
                while not (stopped() or (once and watching.rests)):
                    watching.look()
                    _show_watched(watching.watched(), bar, shown)
                    time.sleep(poll)
            watching.close(aborted=True)
    watched = watching.watched()
    if json:
        print_json([seen.as_dict() for seen in watched])
    else:
        typer.echo("\n".join(seen.as_text() for seen in watched) or f"nothing was saved in {folder}")
    if any(seen.faults for seen in watched):
        raise typer.Exit(1)


def deliver(
    folder: Annotated[
        Path | None, typer.Argument(help="Where planes were left; the folder for temporary files, if not given.")
    ] = None,
    to: Annotated[str, typer.Option("--to", help="Where otf-stream serve listens.")] = "tcp://127.0.0.1:8421",
    killed: Annotated[
        bool, typer.Option("--killed", help="Also what programs left that were killed. Make sure that none still runs.")
    ] = False,
    only_list: Annotated[bool, typer.Option("--list", help="Tell what there is, and send nothing.")] = False,
    json: Json = False,
) -> None:
    """Send the planes that microscopes' scripts could not deliver before they ended: all that lie in FOLDER."""
    import tempfile

    from otf_stream.acquire.leftovers import find_leftovers
    from otf_stream.acquire.publisher import deliver as send

    sent: dict[str, int] = {}
    there: dict[str, int] = {}
    with errors_told():
        where = folder or Path(tempfile.gettempdir())
        if not where.is_dir():
            raise ValueError(f"there is no folder {where}; give the one that the script's message names")
        for leftover in find_leftovers(where):
            name = f"{leftover.acquisition.name} (session {leftover.session})"
            if only_list:
                since = time.strftime("%d %b %H:%M", time.localtime(leftover.folder.stat().st_mtime))
                state = "" if leftover.ended else ", its program still runs or was killed"
                say.print(f"{name}: {counted(leftover.planes, 'plane')}, since {since}{state}", markup=False)
                there[leftover.session] = leftover.planes
                continue
            if leftover.ended is None and not killed:
                say.print(
                    f"{name}: left alone, its program still runs or was killed; in the latter case give --killed",
                    markup=False,
                )
                continue
            sent[leftover.session] = send(leftover, to)
            say.print(f"{name}: {counted(sent[leftover.session], 'plane')} delivered", markup=False)
    if json:
        print_json(there if only_list else sent)
    elif not (sent or there):
        typer.echo(f"nothing to deliver in {where}")


def _show_watched(watched: list[Watched], bar: Progress, shown: dict[int, tuple[Any, str]]) -> None:
    """Bring the bar of each acquisition up to date, and print a line when its state changes."""
    for number, seen in enumerate(watched):
        task, state = shown.get(number) or (bar.add_task(f"planes of {seen.name}", total=None), "waiting")
        bar.update(task, completed=seen.durable, total=seen.found or None)
        if seen.state != state:
            say.print(f"{seen.name}: {seen.state}", markup=False)
        shown[number] = task, seen.state
