"""A store as the service makes it, opened by other people's readers."""

from __future__ import annotations

import json
import warnings
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import yaozarrs
import zarr
from ome_zarr.io import parse_url
from ome_zarr.reader import Node, Reader
from stacks import small_stack

from otf_stream.acquisition import VoxelSize
from otf_stream.learn.compute import choose_compute
from otf_stream.service.recorded import restore_recording
from otf_stream.service.settings import Settings
from otf_stream.store.recordings import open_recording
from otf_stream.store.restored import read_restored


def read(path: Path) -> Node:
    """Read an image as napari's plugin does."""
    location = parse_url(path)
    assert location is not None
    (node,) = Reader(location)()
    return node


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store of a recording with two channels, restored."""
    folder = tmp_path_factory.mktemp("finished")
    stack = np.stack([small_stack(seed=1), small_stack(seed=2)], axis=1)
    tifffile.imwrite(folder / "cells.tif", stack, imagej=True, metadata={"axes": "ZCYX"})
    path = folder / "cells.ome.zarr"
    with closing(open_recording(folder / "cells.tif", voxel_size=VoxelSize(z=0.8, y=0.2, x=0.2))) as recording:
        restore_recording(recording, path, Settings(method="interpolate"), choose_compute("cpu"))
    return path


def test_a_restored_store_is_valid_as_a_whole_and_in_its_parts(finished: Path) -> None:
    for part in (finished, finished / "raw", finished / "restored"):
        yaozarrs.validate_zarr_store(str(part))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        members = dict(zarr.open_group(finished, mode="r").members(max_depth=None))
    told = {f"restored/provenance{stack}" for stack in ("", "/t0c0", "/t0c1")}
    assert members.keys() == {"OME", "raw", "raw/0", "restored", "restored/0", *told}
    ome: Any = zarr.open_group(finished / "OME", mode="r").attrs["ome"]
    assert ome["series"] == ["raw", "restored"]


def test_raw_and_restored_lie_at_the_same_place(finished: Path) -> None:
    raw, restored = read(finished / "raw"), read(finished / "restored")
    assert raw.data[0].shape == (1, 2, 10, 72, 72)
    assert restored.data[0].shape == (1, 2, 37, 72, 72)
    scales = [node.metadata["coordinateTransformations"][0][0]["scale"] for node in (raw, restored)]
    np.testing.assert_allclose(scales, [[1, 1, 0.8, 0.2, 0.2], [1, 1, 0.2, 0.2, 0.2]])
    assert [axis["name"] for axis in restored.metadata["axes"]] == ["t", "c", "z", "y", "x"]
    for channel in range(2):
        volume = restored.data[0][0, channel].compute()
        np.testing.assert_array_equal(volume, read_restored(finished, (0, channel)))
        # Both start at 0, and four voxels make a z step: interpolated, the planes are where they were.
        np.testing.assert_array_equal(volume[::4], raw.data[0][0, channel].compute())


def test_any_json_reader_learns_how_the_volume_came_about(finished: Path) -> None:
    groups = sorted((finished / "restored" / "provenance").glob("t*c*"))
    assert [group.name for group in groups] == ["t0c0", "t0c1"]
    for group in groups:
        told = json.loads((group / "zarr.json").read_text(encoding="utf-8"))["attributes"]["otf_stream"]
        assert told["method"] == told["settings"]["method"] == "interpolate"
        assert {"noise", "axial_blur", "timing", "versions", "compute", "warnings", "missing_planes"} <= told.keys()
