from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import yaozarrs
import zarr

from otf_stream.acquisition import Acquisition, Sizes, VoxelSize, isotropic_depth
from otf_stream.store.pyramid import halve
from otf_stream.store.restored import BLOCK, RestoredWriter, read_provenance, read_restored
from otf_stream.store.session import SessionStore


def new_store(path: Path, sizes: Sizes, dtype: str = "uint16", channels: tuple[str, ...] = ()) -> SessionStore:
    acquisition = Acquisition.model_validate(
        {
            "name": "cells",
            "sizes": sizes,
            "dtype": dtype,
            "voxel_size": VoxelSize(z=0.9, y=0.3, x=0.3),
            "channels": channels,
        }
    )
    return SessionStore.create(path / "cells.ome.zarr", acquisition, session="s1")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SessionStore]:
    """Sides that are no multiples of anything: restored to 22 × 300 × 515."""
    store = new_store(tmp_path, Sizes(c=2, z=8, y=300, x=515), channels=("DAPI", "GFP"))
    yield store
    store.close()


def smooth(shape: tuple[int, ...]) -> np.ndarray:
    z, y, x = np.ogrid[: shape[0], : shape[1], : shape[2]]
    noise = np.random.default_rng(0).normal(0, 20, shape)
    return np.asarray(1000 + 500 * np.sin(z / 3) * np.cos(y / 20) * np.sin(x / 30) + noise, np.float32)


def write_all(writer: RestoredWriter, volume: np.ndarray, stack: tuple[int, int] = (0, 0)) -> None:
    for region in writer.regions():
        writer.write(stack, region, volume[(slice(None), *region)])


def test_has_the_isotropic_grid(store: SessionStore) -> None:
    writer = RestoredWriter.create(store, dtype="uint16")
    assert writer.shape == (isotropic_depth(8, store.acquisition.voxel_size), 300, 515) == (22, 300, 515)
    assert writer.regions()[0] == (slice(0, 256), slice(0, 256))
    assert writer.regions()[-1] == (slice(256, 300), slice(512, 515))
    covered = np.zeros((300, 515), int)
    for region in writer.regions():
        covered[region] += 1
    assert (covered == 1).all()


def test_is_valid_from_the_start_to_the_end(store: SessionStore) -> None:
    writer = RestoredWriter.create(store, dtype="uint16")
    yaozarrs.validate_zarr_store(str(store.path))
    yaozarrs.validate_zarr_store(str(store.path / "restored"))
    assert zarr.open_group(store.path / "OME", mode="r").attrs["ome"] == {
        "version": "0.5",
        "series": ["raw", "restored"],
    }
    write_all(writer, smooth(writer.shape))
    writer.finish((0, 0))
    writer.write_provenance((0, 0), {"method": "finetune"})
    yaozarrs.validate_zarr_store(str(store.path))
    yaozarrs.validate_zarr_store(str(store.path / "restored"))


def test_comes_back_as_written_at_all_levels(store: SessionStore) -> None:
    writer = RestoredWriter.create(store, dtype="uint16")
    volume = smooth(writer.shape)
    write_all(writer, volume, (0, 1))
    writer.finish((0, 1))
    expected = np.rint(volume)
    np.testing.assert_array_equal(read_restored(store.path, (0, 1)), expected)
    for level, shape in ((1, (11, 150, 258)), (2, (6, 75, 129))):
        expected = np.rint(halve(expected))
        read = read_restored(store.path, (0, 1), level)
        assert read.shape == shape
        np.testing.assert_array_equal(read, expected)
    assert not read_restored(store.path, (0, 0)).any()
    with pytest.raises(ValueError, match="no restored level 3; it has 0 to 2"):
        read_restored(store.path, (0, 0), 3)
    with pytest.raises(ValueError, match="no stack t=0, c=2"):
        read_restored(store.path, (0, 2))


def test_opens_in_ome_zarr_py(store: SessionStore) -> None:
    from ome_zarr.io import parse_url
    from ome_zarr.reader import Reader

    writer = RestoredWriter.create(store, dtype="uint16")
    volume = smooth(writer.shape)
    write_all(writer, volume)
    writer.finish((0, 0))
    location = parse_url(store.path / "restored")
    assert location is not None
    (node,) = Reader(location)()
    np.testing.assert_array_equal(node.data[0][0, 0].compute(), np.rint(volume))
    assert [level.shape for level in node.data] == [(1, 2, 22, 300, 515), (1, 2, 11, 150, 258), (1, 2, 6, 75, 129)]
    assert node.metadata["channel_names"] == ["DAPI", "GFP"]
    low, high = node.metadata["contrast_limits"][0]
    assert 450 < low < 700
    assert 1300 < high < 1550
    assert node.metadata["contrast_limits"][1] == [0, 65535]  # Not restored yet.
    levels = node.metadata["coordinateTransformations"]
    assert levels[0] == [{"type": "scale", "scale": [1.0, 1.0, 0.3, 0.3, 0.3]}]
    np.testing.assert_allclose(levels[2][0]["scale"], [1, 1, 1.2, 1.2, 1.2])
    np.testing.assert_allclose(levels[2][1]["translation"], [0, 0, 0.45, 0.45, 0.45])


def test_writes_whole_shards(store: SessionStore) -> None:
    writer = RestoredWriter.create(store, dtype="uint16")
    level = zarr.open_group(store.path / "restored", mode="r")["0"]
    assert isinstance(level, zarr.Array)
    assert level.chunks == (1, 1, 22, 64, 64)
    assert level.shards == (1, 1, 22, 256, 256)
    chunks = store.path / "restored" / "0" / "c"
    for done, region in enumerate(writer.regions(), start=1):
        writer.write((0, 0), region, smooth(writer.shape)[(slice(None), *region)] + 1)
        assert sum(path.is_file() for path in chunks.rglob("*")) == done


def test_rounds_and_clips_integers(tmp_path: Path) -> None:
    store = new_store(tmp_path, Sizes(z=2, y=1, x=4), dtype="uint8")
    writer = RestoredWriter.create(store, dtype="uint8")
    write_all(writer, np.broadcast_to(np.array([-3.0, 1.6, 254.4, 900.0]), (4, 1, 4)))
    np.testing.assert_array_equal(read_restored(store.path, (0, 0))[2, 0], [0, 2, 254, 255])
    store.close()


def test_a_float_store_keeps_values(tmp_path: Path) -> None:
    store = new_store(tmp_path, Sizes(z=4, y=40, x=300))
    writer = RestoredWriter.create(store, dtype="float32")
    volume = smooth(writer.shape) - 2000
    write_all(writer, volume)
    writer.finish((0, 0))
    np.testing.assert_array_equal(read_restored(store.path, (0, 0)), volume)
    np.testing.assert_allclose(read_restored(store.path, (0, 0), 1), halve(volume), rtol=1e-5)
    yaozarrs.validate_zarr_store(str(store.path / "restored"))
    store.close()


def test_refuses_what_does_not_fit(store: SessionStore) -> None:
    writer = RestoredWriter.create(store, dtype="uint16")
    block = np.zeros((22, 256, 256), np.float32)
    whole = slice(0, BLOCK)
    for side in (slice(0, 100), slice(1, 257), slice(0, 512), slice(256, 256), slice(None), slice(0, 256, 2)):
        with pytest.raises(ValueError, match="not aligned"):
            writer.write((0, 0), (side, whole), block)
    with pytest.raises(ValueError, match=r"shape \(21, 256, 256\), but its place in the image \(22, 256, 256\)"):
        writer.write((0, 0), (whole, whole), block[1:])
    with pytest.raises(ValueError, match="t=0, c=2"):
        writer.write((0, 2), (whole, whole), block)
    block[3, 4, 5] = np.nan
    with pytest.raises(ValueError, match="not finite"):
        writer.write((0, 0), (whole, whole), block)
    assert not read_restored(store.path, (0, 0)).any()


def test_goes_on_with_the_image_that_is_there(store: SessionStore) -> None:
    first = RestoredWriter.create(store, dtype="uint16")
    volume = np.rint(smooth(first.shape))
    y, x = first.regions()[0]
    first.write((0, 0), (y, x), volume[:, y, x])
    again = RestoredWriter.create(store, dtype="uint16")
    assert again.shape == first.shape
    np.testing.assert_array_equal(read_restored(store.path, (0, 0))[:, y, x], volume[:, y, x])
    with pytest.raises(ValueError, match="delete that folder"):
        RestoredWriter.create(store, dtype="float32")


def test_repairs_the_list_of_images_after_a_crash(store: SessionStore) -> None:
    RestoredWriter.create(store, dtype="uint16")
    ome = zarr.open_group(store.path / "OME", mode="r+")
    ome.attrs.put({"ome": {"version": "0.5", "series": ["raw"]}})
    RestoredWriter.create(store, dtype="uint16")
    assert zarr.open_group(store.path / "OME", mode="r").attrs["ome"]["series"] == ["raw", "restored"]  # type: ignore[index,call-overload]


def test_provenance_is_merged_by_stack(store: SessionStore) -> None:
    with pytest.raises(FileNotFoundError, match="no restored image"):
        read_provenance(store.path)
    with pytest.raises(FileNotFoundError, match="no restored image"):
        read_restored(store.path, (0, 0))
    writer = RestoredWriter.create(store, dtype="uint16")
    assert read_provenance(store.path) == {}
    writer.write_provenance((0, 0), {"method": "pretrained", "late": True})
    RestoredWriter.create(store, dtype="uint16").write_provenance((0, 1), {"method": "finetune", "steps": 400})
    writer.write_provenance((0, 0), {"method": "finetune"})
    writer.finish((0, 0))
    assert read_provenance(store.path) == {"t0c0": {"method": "finetune"}, "t0c1": {"method": "finetune", "steps": 400}}
    groups = dict(zarr.open_group(store.path / "restored" / "provenance", mode="r").groups())
    assert groups["t0c1"].attrs["otf_stream"] == {"method": "finetune", "steps": 400}
    yaozarrs.validate_zarr_store(str(store.path))


def test_finishing_never_holds_the_volume(tmp_path: Path) -> None:
    store = new_store(tmp_path, Sizes(z=6, y=2048, x=2048))
    writer = RestoredWriter.create(store, dtype="uint16")
    region = np.full((writer.shape[0], BLOCK, BLOCK), 7, np.uint16)
    for place in writer.regions():
        writer.write((0, 0), place, region)
    tracemalloc.start()
    try:
        writer.finish((0, 0))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    volume_bytes = np.prod(writer.shape) * 2
    assert peak < volume_bytes / 2
    assert (read_restored(store.path, (0, 0), 3) == 7).all()
    store.close()


def test_grows_with_its_acquisition(tmp_path: Path) -> None:
    acquisition = Acquisition(
        name="cells",
        sizes=Sizes(z=8, y=40, x=300),
        dtype="uint16",
        voxel_size=VoxelSize(z=0.9, y=0.3, x=0.3),
        channels=("DAPI",),
        growing=True,
    )
    store = SessionStore.create(tmp_path / "cells.ome.zarr", acquisition, session="s1")
    first = RestoredWriter.create(store, dtype="uint16")
    early = smooth(first.shape)
    write_all(first, early)
    first.finish((0, 0))
    store.extend(acquisition.extended((1, 1, 99)))  # deep enough for a level and a shard more
    second = RestoredWriter.create(store, dtype="uint16")
    assert second.shape == (isotropic_depth(100, acquisition.voxel_size), 40, 300)
    late = smooth(second.shape)
    write_all(second, late, (1, 1))
    second.finish((1, 1))
    np.testing.assert_array_equal(read_restored(store.path, (1, 1)), np.rint(late))
    old = read_restored(store.path, (0, 0))
    np.testing.assert_array_equal(old[: len(early)], np.rint(early))
    assert not old[len(early) :].any()
    np.testing.assert_allclose(read_restored(store.path, (1, 1), level=1), halve(np.rint(late)), atol=1)
    metadata = zarr.open_group(store.path / "restored", mode="r").attrs["ome"]
    assert [channel["label"] for channel in metadata["omero"]["channels"]] == ["DAPI", "1"]
    yaozarrs.validate_zarr_store(store.path)
    store.close()
