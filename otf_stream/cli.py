"""The command line. Each command reads its arguments, calls the part that does the work, and prints what came of it.

Heavy modules are imported inside the commands, so that ``--help`` and a typing error answer at once.
"""

from __future__ import annotations

import json as jsonlib
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Table

from otf_stream import __version__
from otf_stream.acquisition import Modality, VoxelSize
from otf_stream.bench.commands import app as bench
from otf_stream.config import DeviceName, LayerChoice, MethodName, ServiceConfig

if TYPE_CHECKING:
    from otf_stream.acquire.watch.recording import Watched
    from otf_stream.service.overview import SessionOverview
    from otf_stream.service.supervisor import Service

_LOOK = 0.5  # seconds between two looks at the sessions
_SHOWN = 15  # sessions in the live table, the latest

app = typer.Typer(
    name="otf-stream",
    help="An isotropic view of a microscope's sample while the sample is still on the stage.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(bench)
weights = typer.Typer(
    name="weights", help="Bring in published weights, and look at those of a file.", no_args_is_help=True
)
app.add_typer(weights)
_say = Console(stderr=True)  # for people; standard output is for results

Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what is there already.")]
Seed = Annotated[int, typer.Option(help="Of the initial weights and of every draw.", min=0)]
Device = Annotated[DeviceName, typer.Option(help="Where to compute; auto takes a GPU if there is one.")]
VoxelSizeOption = Annotated[
    tuple[float, float, float] | None,
    typer.Option("--voxel-size", metavar="DZ DY DX", help="In µm. Needed where the file does not say."),
]

ModalityOption = Annotated[Modality | None, typer.Option(help="Kind of microscope, where the file does not say.")]
ApertureOption = Annotated[
    float | None, typer.Option("--numerical-aperture", help="Of the objective; found in the stack if not given.")
]
PsfOption = Annotated[
    Path | None, typer.Option(help="TIFF of a measured point spread function; found in the stack if not given.")
]
WeightsOption = Annotated[
    Path | None,
    typer.Option(help="Network to start from, from `pretrain` or `weights import`; the shipped one if not given."),
]
LAYERS_HELP = "Which layers are fine-tuned: all, or those that ZEST selects."


def main() -> None:
    """Run the command line; every foreseen error ends in one clear line and exit code 1."""
    with _installed_with("service"):
        app()


@contextmanager
def _installed_with(extra: str) -> Iterator[None]:
    """Say how to install what a plain installation, as on a microscope's PC, lacks; then end with exit code 1."""
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if not package or package in ("otf_stream", "simulators"):
            raise
        _fail(f'this needs {package}, which is not installed here; pip install "otf-stream[{extra}]" brings it')
        raise SystemExit(1) from None


@contextmanager
def _told() -> Iterator[None]:
    """Turn the errors that a user can do something about into a message and exit code 1."""
    try:
        yield
    except ValidationError as error:
        for detail in error.errors():
            _fail(f"{'.'.join(map(str, detail['loc']))}: {detail['msg']} (it is {detail['input']!r})")
        raise typer.Exit(1) from None
    except OSError as error:
        where = f": {error.filename}" if error.filename else ""
        _fail(f"{error.strerror or error}{where}")
        raise typer.Exit(1) from None
    except (ValueError, RuntimeError) as error:
        _fail(str(error))
        raise typer.Exit(1) from None


def _fail(message: str) -> None:
    _say.print(f"[bold red]error[/]: {escape(message)}", soft_wrap=True, highlight=False)


def _print_json(value: Any) -> None:
    typer.echo(jsonlib.dumps(value, indent=2))


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


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for the store and the picture.")] = Path("demo"),
    overwrite: Overwrite = False,
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """Do the whole main job on this machine: virtual microscope → listener → worker → restored store."""
    with _installed_with("simulate"):
        from otf_stream.demo import run_demo

    with _told():
        summary = run_demo(out, overwrite=overwrite, seed=seed, console=_say)
    if json:
        _print_json(summary.as_dict())
    else:
        typer.echo(summary.as_text())


@app.command()
def serve(
    config: Annotated[Path | None, typer.Option(help="A TOML file with the settings below.")] = None,
    data: Annotated[Path | None, typer.Option(help="Folder of the session stores.")] = None,
    listen: Annotated[str | None, typer.Option(help="Where microscopes connect, tcp://HOST:PORT.")] = None,
    budget: Annotated[float | None, typer.Option(help="Seconds from first plane to restored volume.")] = None,
    tail: Annotated[float | None, typer.Option(help="Seconds granted after the last plane in any case.")] = None,
    method: Annotated[MethodName | None, typer.Option(help="How to restore.")] = None,
    device: Annotated[DeviceName | None, typer.Option(help="Where to compute.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of every draw.")] = None,
    psf: PsfOption = None,
    weights: WeightsOption = None,
    layers: Annotated[LayerChoice | None, typer.Option(help=LAYERS_HELP)] = None,
    threads: Annotated[int | None, typer.Option(help="Processor cores of the worker.")] = None,
) -> None:
    """Listen for microscopes and restore what they send, until Ctrl-C."""
    from otf_stream.service.supervisor import Service

    with _told():
        settings = ServiceConfig.load(
            config, data=data, listen=listen, budget_s=budget, tail_s=tail,
            method=method, device=device, seed=seed, psf=psf, weights=weights, layers=layers, threads=threads,
        )  # fmt: skip
        if settings.weights:
            from otf_stream.learn.checkpoints import network_to_deblur

            network_to_deblur(settings.weights)  # refused now, and not when a stack is on the stage
        with _until_stopped(), Service(settings) as service:
            where = escape(str(settings.data.resolve()))
            _say.print(f"listening on [bold]{service.address}[/], stores in [bold]{where}[/]; Ctrl-C ends")
            _watch(service, settings.data)
    _say.print("stopped; unfinished stacks go on at the next start")


@app.command()
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

    with _told():
        recording = open_recording(
            stack, voxel_size=_voxel_size(voxel_size), name=name,
            modality=modality, numerical_aperture=numerical_aperture,
        )  # fmt: skip
        try:
            with _bar() as bar:
                task = bar.add_task(f"planes of {recording.acquisition.name}", total=recording.acquisition.sizes.planes)
                summary = stream(
                    recording, to, planes_per_second=planes_per_second, on_plane=lambda plane: bar.advance(task)
                )
        finally:
            recording.close()
    if json:
        _print_json(summary.as_dict())
    else:
        typer.echo(summary.as_text())


@app.command()
def simulate(
    to: Annotated[str, typer.Option("--to", help="Where otf-stream serve listens.")] = "tcp://127.0.0.1:8421",
    modality: Annotated[Modality, typer.Option(help="Kind of microscope; not unknown.")] = "confocal",
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

    with _told():
        faults = Faults(bleaching=bleaching, drift_um=drift, dropped=drop, hot_pixels=hot_pixels, stripes=stripes)
        setup = Setup(
            modality, planes=planes, side=side, channels=channels, positions=positions, faults=faults, seed=seed
        )
        with _bar() as bar:
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
        _print_json(summary.as_dict())
    else:
        typer.echo(summary.as_text())
    for failure in summary.failures:
        _fail(failure)
    if summary.failures:
        raise typer.Exit(1)


@app.command()
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

    with _told():
        given = Given(_voxel_size(voxel_size), name, modality, numerical_aperture)
        watching = FolderWatch(folder, to, given, quiet_s=quiet, existing=existing)
        _say.print(f"watching [bold]{escape(str(folder))}[/]; Ctrl-C ends")
        with _bar() as bar:
            with _until_stopped():
                shown: dict[int, tuple[Any, str]] = {}
                while not (once and watching.rests):
                    watching.look()
                    _show_watched(watching.watched(), bar, shown)
                    time.sleep(poll)
            watching.close(aborted=True)
    watched = watching.watched()
    if json:
        _print_json([seen.as_dict() for seen in watched])
    else:
        typer.echo("\n".join(seen.as_text() for seen in watched) or f"nothing was saved in {folder}")
    if any(seen.faults for seen in watched):
        raise typer.Exit(1)


@app.command()
def deliver(
    folder: Annotated[
        Path | None, typer.Argument(help="Where planes were left; the folder for temporary files, if not given.")
    ] = None,
    to: Annotated[str, typer.Option("--to", help="Where otf-stream serve listens.")] = "tcp://127.0.0.1:8421",
    killed: Annotated[
        bool, typer.Option("--killed", help="Also what programs left that were killed. Make sure that none still runs.")
    ] = False,
    json: Json = False,
) -> None:
    """Send the planes that a microscope's script could not deliver before it ended."""
    import tempfile

    from otf_stream.acquire.leftovers import find_leftovers
    from otf_stream.acquire.publisher import deliver as send

    sent: dict[str, int] = {}
    with _told():
        where = folder or Path(tempfile.gettempdir())
        if not where.is_dir():
            raise ValueError(f"there is no folder {where}; give the one that the script's message names")
        for leftover in find_leftovers(where):
            name = f"{leftover.acquisition.name} (session {leftover.session})"
            if leftover.ended is None and not killed:
                _say.print(
                    f"{name}: left alone, its program still runs or was killed; in the latter case give --killed",
                    markup=False,
                )
                continue
            sent[leftover.session] = send(leftover, to)
            _say.print(f"{name}: {sent[leftover.session]} planes delivered", markup=False)
    if json:
        _print_json(sent)
    elif not sent:
        typer.echo(f"nothing to deliver in {where}")


@app.command()
def restore(
    stack: Annotated[Path, typer.Argument(help="TIFF, OME-TIFF, folder of plane TIFFs, OME-Zarr or NDTiff.")],
    out: Annotated[Path, typer.Argument(help="The new store, NAME.ome.zarr.")],
    voxel_size: VoxelSizeOption = None,
    modality: ModalityOption = None,
    numerical_aperture: ApertureOption = None,
    psf: PsfOption = None,
    weights: WeightsOption = None,
    layers: Annotated[LayerChoice, typer.Option(help=LAYERS_HELP)] = "all",
    budget: Annotated[float, typer.Option(help="Seconds that all of it may take.", min=0.1)] = 300.0,
    steps: Annotated[int | None, typer.Option(help="Train so many steps instead: reproducible.", min=1)] = None,
    method: Annotated[MethodName, typer.Option(help="How to restore.")] = "auto",
    device: Device = "auto",
    seed: Seed = 0,
    report: Annotated[Path | None, typer.Option(help="Write the provenance to this JSON file.")] = None,
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Restore a recorded stack, with the same code as live."""
    from otf_stream.learn.checkpoints import network_to_deblur
    from otf_stream.learn.compute import choose_compute
    from otf_stream.service.budget import Budget
    from otf_stream.service.character import check_optics
    from otf_stream.service.recorded import restore_recording
    from otf_stream.service.settings import Settings
    from otf_stream.store.recordings import open_recording

    with _told():
        if report and not report.parent.is_dir():
            raise ValueError(f"the folder of the report {report} does not exist; create it, or give another --report")
        compute = choose_compute(device)
        recording = open_recording(
            stack, voxel_size=_voxel_size(voxel_size), modality=modality, numerical_aperture=numerical_aperture
        )
        settings = Settings(
            method=method, budget=Budget(total=budget, tail=0.0, steps=steps), seed=seed,
            psf=psf, weights=weights, layers=layers,
        )  # fmt: skip
        try:
            check_optics(recording.acquisition, psf)
            if weights:
                network_to_deblur(weights)
            with _bar() as bar:
                stages: dict[str, Any] = {}

                def progress(which: tuple[int, int], stage: str, done: float) -> None:
                    label = f"t{which[0]} c{which[1]} {stage}"
                    if label not in stages:
                        stages[label] = bar.add_task(label, total=100)
                        for earlier in list(stages.values())[:-1]:
                            bar.update(earlier, completed=100)
                    bar.update(stages[label], completed=round(100 * done))

                provenance = restore_recording(
                    recording, out, settings, compute, overwrite=overwrite, progress=progress
                )
        finally:
            recording.close()
        told = {f"t{t}c{c}": said for (t, c), said in provenance.items()}
        if report:
            report.write_text(jsonlib.dumps(told, indent=2), encoding="utf-8")
    if json:
        _print_json(told)
        return
    for key, said in told.items():
        fidelity = f"flux x {said['flux_ratio']:.3f}, residual {said['residual']:.2f} sigma"
        typer.echo(f"{key}: {said['method']} in {said['timing']['since_first_plane_s']:.1f} s, {fidelity}")
        for warning in said["warnings"]:
            typer.echo(f"  warning: {warning}")
    typer.echo(f"restored volume: {out / 'restored'}")


@app.command()
def evaluate(
    restored: Annotated[Path, typer.Argument(help="A session store, or a volume as TIFF or OME-Zarr.")],
    reference: Annotated[Path, typer.Option(help="The truth, on the same grid.")],
    json: Json = False,
) -> None:
    """Compare a restored volume with a reference: PSNR, SSIM, resolution; and, of a store, with its raw planes."""
    from otf_stream.restore.evaluate import evaluate as compare
    from otf_stream.store.restored import read_provenance

    with _told():
        result = compare(_volume(restored), _volume(reference))
        said = read_provenance(restored).get("t0c0") if (restored / "restored").is_dir() else None
    if json:
        own = {"residual_sigma": said["residual"], "flux_ratio": said["flux_ratio"]} if said else {}
        _print_json(result.as_dict() | own)
        return
    typer.echo(result.as_text())
    if said:
        typer.echo(
            f"imaged again it differs from its raw planes by {said['residual']:.2f} sigma of their noise, and has "
            f"{said['flux_ratio']:.3f} times their light"
        )


@app.command()
def pretrain(
    network: Annotated[
        Literal["denoise", "deblur"], typer.Argument(help="Which network. deblur learns from what denoise cleaned.")
    ],
    out: Annotated[Path, typer.Argument(help="The new weights, NAME.safetensors; the model card lands beside them.")],
    steps: Annotated[int, typer.Option(help="Training steps; some six a second on one slow core.", min=1)] = 9000,
    scenes: Annotated[int, typer.Option(help="Drawn scenes that are in use at a time.", min=1)] = 96,
    device: Device = "auto",
    seed: Seed = 0,
    threads: Annotated[int | None, typer.Option(help="Processor cores to use; all, if not given.", min=1)] = None,
    overwrite: Overwrite = False,
) -> None:
    """Pre-train a network on drawn scenes, as those that ship were; their cards tell the steps, scenes and seed."""
    import torch

    from otf_stream.learn.checkpoints import save_weights, shipped_network
    from otf_stream.learn.compute import choose_compute
    from otf_stream.learn.denoise import denoising_network
    from otf_stream.learn.modelcard import card_text, model_card
    from otf_stream.learn.nafnet import deblurring_network
    from otf_stream.learn.pretrain import axial_pairs, noisy_pairs
    from otf_stream.learn.pretrain import pretrain as train

    with _told():
        _check_weights_name(out, overwrite=overwrite)
        compute = choose_compute(device)
        torch.set_num_threads(threads or torch.get_num_threads())
        torch.manual_seed(seed)
        denoising = network == "denoise"
        new = denoising_network() if denoising else deblurring_network()
        make_pairs = noisy_pairs if denoising else axial_pairs(shipped_network("denoise"), compute)
        reports = []
        with _bar() as bar:
            task = bar.add_task("steps", total=steps)
            for report, trained in train(
                new, make_pairs, compute, steps=steps, seed=seed, scenes=scenes,
                progress=lambda done: bar.update(task, completed=round(done * steps)),
            ):  # fmt: skip
                reports.append(report)
                card = model_card(trained, reports, steps=steps, scenes=scenes, seed=seed, compute=compute)
                save_weights(trained, out, card)
                _say.print(f"step {report.steps}: {report.gain_db:+.2f} dB over the input on unseen scenes")
        command = (
            f"otf-stream pretrain {network} {out.name} --steps {steps} --scenes {scenes} --seed {seed} "
            f"--threads {torch.get_num_threads()}"
        )
        out.with_suffix(".md").write_text(card_text(network, card, command), encoding="utf-8")
    typer.echo(f"weights: {out}\ncard:    {out.with_suffix('.md')}")


@weights.command("import")
def import_weights(
    checkpoint: Annotated[Path, typer.Argument(metavar="CHECKPOINT.pth", help="Of a NAFNet, as it is published.")],
    out: Annotated[Path, typer.Argument(metavar="OUT.safetensors", help="The new weights.")],
    overwrite: Overwrite = False,
) -> None:
    """Turn a published NAFNet into weights for images of one channel; nothing in its file is run."""
    from otf_stream.learn.architecture import describe
    from otf_stream.learn.checkpoints import import_checkpoint, save_weights

    with _told():
        _check_weights_name(out, overwrite=overwrite)
        network, card = import_checkpoint(checkpoint)
        save_weights(network, out, card)
    typer.echo(f"weights: {out}\n{_lines(describe(network))}")


@weights.command("show")
def show_weights(
    path: Annotated[Path, typer.Argument(metavar="FILE.safetensors", help="What pretrain or weights import wrote.")],
    json: Json = False,
) -> None:
    """Print the size of a network and the card of its training."""
    from otf_stream.learn.architecture import describe
    from otf_stream.learn.checkpoints import load_weights

    with _told():
        network, card = load_weights(path)
    if json:
        _print_json({"network": describe(network), "card": card})
    else:
        typer.echo(f"network\n{_lines(describe(network))}\ncard\n{_lines(card)}")


def _check_weights_name(out: Path, *, overwrite: bool) -> None:
    if out.suffix != ".safetensors":
        raise ValueError(f"{out} does not end in .safetensors; give it that ending")
    if out.exists() and not overwrite:
        raise FileExistsError(17, "the file exists; give --overwrite to replace it", str(out))


def _lines(values: dict[str, Any]) -> str:
    """Return a line for each key, its value as JSON."""
    width = max(map(len, values), default=0)
    return "\n".join(f"  {key.ljust(width)}  {jsonlib.dumps(value)}" for key, value in values.items())


def _volume(path: Path) -> Any:
    """Read a volume: the first restored stack of a session store, or all planes of a recording."""
    import numpy as np

    from otf_stream.store.recordings import open_recording
    from otf_stream.store.restored import read_restored

    if (path / "restored").is_dir():
        return read_restored(path, (0, 0))
    # Only the voxels are compared, so their size need not be known.
    recording = open_recording(path, voxel_size=VoxelSize(z=1, y=1, x=1))
    try:
        return np.stack([recording.plane((0, 0, z)) for z in range(recording.acquisition.sizes.z)])
    finally:
        recording.close()


def _voxel_size(given: tuple[float, float, float] | None) -> VoxelSize | None:
    if given is None:
        return None
    try:
        return VoxelSize(z=given[0], y=given[1], x=given[2])
    except ValidationError as error:
        reason = "; ".join(str(e["msg"]) for e in error.errors())
        raise ValueError(f"--voxel-size {given[0]:g} {given[1]:g} {given[2]:g} µm: {reason}") from None


def _bar() -> Progress:
    return Progress(
        SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
        console=_say, transient=not _say.is_terminal,
    )  # fmt: skip


def _show_watched(watched: list[Watched], bar: Progress, shown: dict[int, tuple[Any, str]]) -> None:
    """Bring the bar of each acquisition up to date, and print a line when its state changes."""
    for number, seen in enumerate(watched):
        task, state = shown.get(number) or (bar.add_task(f"planes of {seen.name}", total=None), "waiting")
        bar.update(task, completed=seen.durable, total=seen.found or None)
        if seen.state != state:
            _say.print(f"{seen.name}: {seen.state}", markup=False)
        shown[number] = task, seen.state


@contextmanager
def _until_stopped() -> Iterator[None]:
    """Run the body until Ctrl-C, or the SIGTERM that service managers send."""
    import signal

    def stop(number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    except KeyboardInterrupt:
        pass
    finally:
        signal.signal(signal.SIGTERM, before)


def _watch(service: Service, data: Path) -> None:
    """Show the sessions until interrupted: as a live table on a terminal, as lines elsewhere."""
    from otf_stream.service.overview import overview

    seen: dict[Path, str] = {}
    with Live(console=_say, auto_refresh=False, transient=True) if _say.is_terminal else nullcontext() as live:
        while True:
            for message in service.watch():
                _say.print(message, markup=False)
            sessions = overview(data)
            if live is not None:
                live.update(_table(sessions), refresh=True)
            else:
                _print_changes(sessions, seen)
            time.sleep(_LOOK)


def _print_changes(sessions: list[SessionOverview], seen: dict[Path, str]) -> None:
    """Print a line for each session whose stacks have changed state since it was ``seen``."""
    for session in sessions:
        states = _states(session)
        if seen.get(session.store) != states:
            seen[session.store] = states
            _say.print(f"{session.store.name}: {session.durable}/{session.expected} planes, {states}", markup=False)


def _states(session: SessionOverview) -> str:
    return ", ".join(f"{n} {state}" for state, n in sorted(session.states.items()))


def _table(sessions: list[SessionOverview]) -> Table:
    table = Table("session", "planes", "stacks", "doing")
    for session in sessions[-_SHOWN:]:
        planes = f"{session.durable}/{session.expected}"
        table.add_row(session.store.name, planes, _states(session), "" if session.done else session.stage)
    return table


if __name__ == "__main__":
    main()
