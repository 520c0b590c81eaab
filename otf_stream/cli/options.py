"""Options that several commands have: declared once, so that they read and mean the same everywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError

from otf_stream.acquisition import Modality, VoxelSize, faults
from otf_stream.config import DeviceName

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
KeysOption = Annotated[
    Path | None, typer.Option("--keys", help="Folder of the keys; OTF_STREAM_KEYS or ~/.otf_stream/keys if not given.")
]
WeightsOption = Annotated[
    Path | None,
    typer.Option(help="Network to start from, from `pretrain` or `weights import`; the shipped one if not given."),
]
LAYERS_HELP = "Which layers are fine-tuned: all, or those that ZEST selects."


_LARGEST_UM = 100.0


def voxel_size_of(given: tuple[float, float, float] | None) -> VoxelSize | None:
    """Return the voxel size that was given, if any; `ValueError` if there is none such."""
    if given is None:
        return None
    if max(given) > _LARGEST_UM:
        raise ValueError(
            f"--voxel-size {given[0]:g} {given[1]:g} {given[2]:g}: no light microscope has voxels of more than "
            f"{_LARGEST_UM:g} µm; give µm, not nm"
        )
    try:
        return VoxelSize(z=given[0], y=given[1], x=given[2])
    except ValidationError as error:
        reason = "; ".join(faults(error))
        raise ValueError(
            f"--voxel-size {given[0]:g} {given[1]:g} {given[2]:g}: {reason}; give the distance between planes, then "
            "the height and the width of a pixel, in µm"
        ) from None
