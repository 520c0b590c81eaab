"""Reads a frame of an NDTiff dataset that pycromanager is still writing."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from otf_stream.acquire.hooks.pycromanager_events import Axes

_NDTIFF_PIXELS: dict[int, tuple[type[np.generic], tuple[int, ...]]] = {0: (np.uint8, ()), 2: (np.uint8, (3,))}


def read_saved(dataset: Any, axes: Axes) -> tuple[np.ndarray, Mapping[str, Any]]:
    """Read a frame of a dataset that is being written.

    ``dataset.read_image`` cannot be used on a file: its reader reads ahead, beyond what is written, and takes the
    beginning of a later frame from what it read then (ndstorage 0.1.18: in a quarter of the frames of 512 × 512, up to
    1,600 pixels are zero). So the place in the file is all that is taken from it.
    """
    full = dataset.res_levels[0] if hasattr(dataset, "res_levels") else dataset  # a grid has smaller versions, too
    entry = getattr(full, "index", {}).get(frozenset(axes.items()))
    if entry is None:  # kept in memory
        return dataset.read_image(**axes), dataset.read_metadata(**axes)
    dtype, colours = _NDTIFF_PIXELS.get(entry["pixel_type"], (np.uint16, ()))  # the others are 10 to 16 bits
    shape = (entry["image_height"], entry["image_width"], *colours)
    with Path(full.path, entry["filename"]).open("rb", buffering=0) as file:
        file.seek(entry["pix_offset"])
        pixels = np.fromfile(file, dtype, math.prod(shape)).reshape(shape)
        file.seek(entry["metadata_offset"])
        return pixels, json.loads(file.read(entry["metadata_length"]))
