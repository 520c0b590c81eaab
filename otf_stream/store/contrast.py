"""The contrast at which viewers open the raw image: as soon as there is a plane, and later that of the volume.

A viewer that is told nothing shows 16-bit planes of some hundred counts as black. Until the first plane of a channel
has come its window spans all values, which says that nobody knows; the first plane gives a first idea, and when the
stack has been restored, or has a preview, raw and restored image are shown alike, so that they can be compared.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from otf_stream.acquisition import Acquisition
from otf_stream.store import ome
from otf_stream.store.metadata import amend

Window = tuple[float, float, float, float]

_PERCENTILES = (0.1, 99.9)
_SAMPLES = 128  # along each side of a plane


def everything(dtype: np.dtype[Any]) -> Window:
    """Return the window ``(min, max, start, end)`` of a channel of which nothing is known."""
    low, high = (0.0, 1.0) if dtype.kind == "f" else (float(np.iinfo(dtype).min), float(np.iinfo(dtype).max))
    return low, high, low, high


def show_first_plane(store: Path, acquisition: Acquisition, channel: int, plane: np.ndarray) -> None:
    """Show a channel of the raw image as suits its first plane ``(y, x)``; nothing where a contrast is known."""
    y, x = (max(length // _SAMPLES, 1) for length in plane.shape)
    sample = np.nan_to_num(np.asarray(plane[::y, ::x]).astype(np.float32), posinf=0.0, neginf=0.0)
    low, high = (float(value) for value in np.percentile(sample, _PERCENTILES))
    _show(store, acquisition, channel, low, high, only_first=True)


def show_raw(store: Path, acquisition: Acquisition, channel: int, low: float, high: float) -> None:
    """Show a channel of the raw image from ``low``, which is black, to ``high``, which is white."""
    _show(store, acquisition, channel, low, high, only_first=False)


def _show(store: Path, acquisition: Acquisition, channel: int, low: float, high: float, *, only_first: bool) -> None:
    unknown = everything(acquisition.numpy_dtype)

    def change(group: dict[str, Any]) -> None:
        metadata = group["attributes"]["ome"]
        known = [tuple(told["window"].values()) for told in metadata.get("omero", {}).get("channels", [])]
        windows = [*known, *[unknown] * (acquisition.sizes.c - len(known))]  # it may have grown
        if not only_first or windows[channel] == unknown:
            least, most = (min(low, unknown[0]), max(high, unknown[1]))
            windows[channel] = (least, most, low, max(high, low + 1e-6))
        metadata["omero"] = ome.omero(acquisition.channel_names, windows)

    amend(store / "raw", change)
