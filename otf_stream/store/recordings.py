"""Readers of recorded stacks: whatever a microscope saved, seen as an acquisition whose planes can be read.

The formats (see `formats`) only say what they find. What is common is decided here, once: which pixel types are taken,
that a voxel size must be known, and what the recording is called. Planes are read one at a time, so that a recording
may be larger than memory.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from otf_stream.acquisition import Acquisition, Modality, Optics, PlaneIndex, VoxelSize, faults
from otf_stream.store.formats.ndtiff import is_ndtiff, open_ndtiff
from otf_stream.store.formats.source import RecordingError, Source, name_after, pixel_type, stated_voxel_size
from otf_stream.store.formats.tiff import SUFFIXES, open_folder, open_tiff

__all__ = ["Recording", "RecordingError", "open_recording"]


class Recording:
    """An open recording; get one from `open_recording`.

    Parameters
    ----------
    path
        Of the file or folder.
    source
        As its format sees it.
    acquisition
        The description of an acquisition that would have recorded it.
    """

    def __init__(self, path: Path, source: Source, acquisition: Acquisition) -> None:
        self.path = path
        self.acquisition = acquisition
        self.missing = source.missing
        self._source = source

    def plane(self, plane: PlaneIndex) -> np.ndarray:
        """Read one plane.

        Returns
        -------
        np.ndarray
            ``(y, x)``, the acquisition's dtype, little-endian, contiguous.

        Raises
        ------
        RecordingError
            If the plane is missing, outside the axes, or damaged.
        """
        if not self.acquisition.holds(plane):
            raise RecordingError(self.acquisition.outside(plane))
        if plane in self.missing:
            t, c, z = plane
            raise RecordingError(f"plane t={t}, c={c}, z={z} is missing in {self.path}")
        pixels = self._source.read(plane)
        sizes = self.acquisition.sizes
        if pixels.shape != (sizes.y, sizes.x):
            raise RecordingError(f"plane {plane} of {self.path} has shape {pixels.shape}, not {(sizes.y, sizes.x)}")
        return np.ascontiguousarray(pixels, self.acquisition.numpy_dtype)

    def close(self) -> None:
        """Close the files; twice is fine."""
        self._source.close()


def open_recording(
    path: Path,
    *,
    voxel_size: VoxelSize | None = None,
    name: str | None = None,
    modality: Modality | None = None,
    numerical_aperture: float | None = None,
) -> Recording:
    """Open a recorded stack.

    Parameters
    ----------
    path
        A TIFF, ImageJ TIFF or OME-TIFF file; a folder with one TIFF per plane; an OME-Zarr image or a session
        store; an NDTiff folder.
    voxel_size
        In µm; overrides what the metadata say.
    name
        What to call the acquisition; from the name of the file where not given.
    modality, numerical_aperture
        Of the microscope; override what the metadata say.

    Returns
    -------
    Recording
        Open; close it when done.

    Raises
    ------
    RecordingError
        If there is nothing there, it is no stack, its pixel type is not supported, its voxel size is unknown, or its
        first plane cannot be read.
    """
    source = _open(path)
    try:
        dtype = pixel_type(path, source.dtype)
        size = voxel_size or _voxel_size(path, source)
        given: dict[str, Any] = {}
        if name is not None:
            given["name"] = name
        if modality is not None:
            given["modality"] = modality
        if numerical_aperture is not None:
            known = source.acquisition.optics if source.acquisition else Optics()
            given["optics"] = {**known.model_dump(), "numerical_aperture": numerical_aperture}
        if source.acquisition is not None:
            description = {**source.acquisition.model_dump(), "voxel_size": size, **given}
        else:
            description = {
                "name": name_after(path),
                "sizes": source.sizes,
                "dtype": dtype,
                "voxel_size": size,
                "channels": source.channels if len(source.channels) == source.sizes.c else (),
                **given,
            }
        recording = Recording(path, source, Acquisition.model_validate(description))
        # What cannot be decoded should be known before anything is made of it.
        first = next((plane for plane in np.ndindex(*source.sizes.shape[:3]) if plane not in source.missing), None)
        if first is not None:
            recording.plane(first)
        return recording
    except ValidationError as error:
        source.close()
        said = "; ".join(faults(error))
        ours = all(one["loc"][:1] and one["loc"][0] in given for one in error.errors())
        raise RecordingError(said if ours else f"{path} does not describe an acquisition: {said}") from error
    except BaseException:
        source.close()
        raise


def _open(path: Path) -> Source:
    if not path.exists():
        raise RecordingError(f"{path} does not exist")
    if path.is_dir():
        if is_ndtiff(path):
            return open_ndtiff(path)
        if not _is_zarr(path):
            return open_folder(path)
        from otf_stream.store.formats.zarr_image import open_zarr  # The microscope's PC may have no zarr.

        return open_zarr(path)
    if path.suffix.lower() not in SUFFIXES:
        raise RecordingError(
            f"{path} is of no known format; convert it to TIFF or OME-Zarr (Fiji and bioformats2raw read most formats)"
        )
    return open_tiff(path)


def _is_zarr(path: Path) -> bool:
    return any((path / name).is_file() for name in ("zarr.json", ".zgroup", ".zarray"))


def _voxel_size(path: Path, source: Source) -> VoxelSize:
    if source.acquisition is not None:
        return source.acquisition.voxel_size
    return stated_voxel_size(path, source.spacing)
