"""Commands on recorded stacks and restored volumes: ``restore``, ``evaluate``.

They need no service: a file goes through the code that restores a live stack, without the wait.
"""

from __future__ import annotations

import json as jsonlib
from pathlib import Path
from typing import Annotated, Any

import typer

from otf_stream.acquisition import Acquisition, VoxelSize
from otf_stream.cli.options import (
    LAYERS_HELP,
    ApertureOption,
    Device,
    Json,
    ModalityOption,
    Overwrite,
    PsfOption,
    Seed,
    VoxelSizeOption,
    WeightsOption,
    voxel_size_of,
)
from otf_stream.cli.terminal import counted, errors_told, fail, print_json, say, stages_told
from otf_stream.config import LayerChoice, MethodName


def restore(
    stack: Annotated[Path, typer.Argument(help="TIFF, OME-TIFF, folder of plane TIFFs, OME-Zarr or NDTiff.")],
    out: Annotated[Path, typer.Argument(help="The new store, NAME.ome.zarr.")],
    voxel_size: VoxelSizeOption = None,
    modality: ModalityOption = None,
    numerical_aperture: ApertureOption = None,
    psf: PsfOption = None,
    weights: WeightsOption = None,
    layers: Annotated[LayerChoice, typer.Option(help=LAYERS_HELP)] = "all",
    budget: Annotated[
        float | None, typer.Option(help="Seconds that all of it may take; 300, if not given.", min=0.1)
    ] = None,
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

    with errors_told():
        if report and not report.parent.is_dir():
            raise ValueError(f"the folder of the report {report} does not exist; create it, or give another --report")
        compute = choose_compute(device)
        recording = open_recording(
            stack, voxel_size=voxel_size_of(voxel_size), modality=modality, numerical_aperture=numerical_aperture
        )
        settings = Settings(
            method=method, budget=Budget(total=budget or 300.0, tail=0.0, steps=steps), seed=seed,
            psf=psf, weights=weights, layers=layers,
        )  # fmt: skip
        try:
            check_optics(recording.acquisition, psf)
            if weights:
                network_to_deblur(weights)
            say.print(described(recording.acquisition), markup=False)
            if steps is not None and budget is not None:
                say.print(f"--steps {steps} is what learning ends by; --budget {budget:g} is not asked")
            with stages_told() as tell:

                def progress(which: tuple[int, int], stage: str, done: float) -> None:
                    tell(f"t{which[0]} c{which[1]} {stage}", done)

                provenance = restore_recording(
                    recording, out, settings, compute, overwrite=overwrite, progress=progress
                )
        finally:
            recording.close()
        pages = _reports(out, list(provenance))
        told = {f"t{t}c{c}": said for (t, c), said in provenance.items()}
        if report:
            report.write_text(jsonlib.dumps(told, indent=2), encoding="utf-8")
    if json:
        print_json(told)
        return
    for key, said in told.items():
        fidelity = f"flux x {said['flux_ratio']:.3f}, residual {said['residual']:.2f} sigma"
        typer.echo(f"{key}: {said['method']} in {said['timing']['since_first_plane_s']:.1f} s, {fidelity}")
        for warning in said["warnings"]:
            typer.echo(f"  warning: {warning}")
    typer.echo(f"restored volume: {out / 'restored'}")
    for page in pages:
        typer.echo(f"report: {page}")


def described(acquisition: Acquisition) -> str:
    """Say what a recording was taken to be: whoever gave the voxel size in another order sees it at once."""
    sizes, voxel, modality = acquisition.sizes, acquisition.voxel_size, acquisition.modality
    stacks = "" if sizes.t * sizes.c == 1 else f"{counted(sizes.t, 'time point')} and {counted(sizes.c, 'channel')} of "
    return (
        f"{stacks}{sizes.z} planes of {sizes.y} × {sizes.x}, voxels of {voxel.z:g} × {voxel.y:g} × {voxel.x:g} µm "
        f"(z, y, x), modality {modality}"
    )


def evaluate(
    restored: Annotated[Path, typer.Argument(help="A session store, or a volume as TIFF or OME-Zarr.")],
    reference: Annotated[
        Path | None,
        typer.Option(
            help="The truth on the same grid: plane 0 where the first plane of the raw stack is. Without it, a store "
            "is compared with its raw planes alone."
        ),
    ] = None,
    stack: Annotated[
        tuple[int, int] | None, typer.Option(metavar="T C", help="Which stack of a store; 0 0, if not given.")
    ] = None,
    json: Json = False,
) -> None:
    """Compare a restored volume with a reference: PSNR, SSIM, resolution; and, of a store, with its raw planes."""
    from otf_stream.restore.evaluate import evaluate as compare
    from otf_stream.store.restored import read_provenance

    with errors_told():
        is_store = (restored / "restored").is_dir()
        if stack and not is_store:
            raise ValueError(
                f"--stack {stack[0]} {stack[1]} is for session stores, and {restored} is none; leave it out"
            )
        t, c = stack or (0, 0)
        volume = _volume(restored, (t, c))
        said = read_provenance(restored).get(f"t{t}c{c}") if is_store else None
        if is_store and (said is None or "residual" not in said):
            raise ValueError(
                f"stack t{t} c{c} of {restored.name} is not restored yet: what is there is a preview; evaluate it later"
            )
        if reference is None and not is_store:
            raise ValueError(f"{restored} is a volume alone, which can only be compared with a truth; give --reference")
        result = None if reference is None else compare(volume, _volume(reference, (t, c)))
    if json:
        own = {"residual_sigma": said["residual"], "flux_ratio": said["flux_ratio"]} if said else {}
        print_json((result.as_dict() if result else {}) | own)
        return
    if is_store:
        against = f"against {reference.name}" if reference else "against its raw planes; --reference TRUTH tells more"
        typer.echo(f"stack t{t} c{c} of {restored.name}, {against}")
    if result:
        typer.echo(result.as_text())
    if said:
        typer.echo(
            f"imaged again it differs from its raw planes by {said['residual']:.2f} sigma of their noise, and has "
            f"{said['flux_ratio']:.3f} times their light"
        )


def _reports(store: Path, stacks: list[tuple[int, int]]) -> list[Path]:
    """Write the reports of the first and the last time point of each channel; a volume is there without them too."""
    from otf_stream.report.page import write_report

    times = {c: [t for t, other in stacks if other == c] for _, c in stacks}
    pages = []
    for c, at in sorted(times.items()):
        for t in sorted({min(at), max(at)}):
            try:
                pages.append(write_report(store, (t, c)))
            except Exception as error:
                fail(f"no report of t{t} c{c}: {error}")
    return pages


def _volume(path: Path, stack: tuple[int, int]) -> Any:
    """Read a volume: a restored stack of a session store, or all planes of a recording."""
    import numpy as np

    from otf_stream.store.recordings import open_recording
    from otf_stream.store.restored import read_restored

    if (path / "restored").is_dir():
        return read_restored(path, stack)
    # Only the voxels are compared, so their size need not be known.
    recording = open_recording(path, voxel_size=VoxelSize(z=1, y=1, x=1))
    try:
        return np.stack([recording.plane((0, 0, z)) for z in range(recording.acquisition.sizes.z)])
    finally:
        recording.close()
