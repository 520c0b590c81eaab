from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import zarr
from ndstorage import NDTiffDataset

from otf_stream.acquisition import PlaneIndex, Sizes, VoxelSize
from otf_stream.store.recordings import Recording, RecordingError, open_recording
from otf_stream.store.session import SessionStore

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
SIZE = VoxelSize(z=0.5, y=0.2, x=0.2)
real_data = pytest.mark.skipif(not SHARED.is_dir(), reason=f"needs the recorded stacks in {SHARED}, absent here")


def stack(*shape: int, dtype: str = "uint16") -> np.ndarray:
    return np.random.default_rng(0).integers(0, 200, shape).astype(dtype)


def check(recording: Recording, expected: np.ndarray) -> None:
    """The recording is ``expected`` (t, c, z, y, x), plane by plane."""
    with contextlib.closing(recording):
        assert recording.acquisition.sizes.shape == expected.shape
        for plane in np.ndindex(*expected.shape[:3]):
            if plane not in recording.missing:
                read = recording.plane(plane)
                assert read.dtype == recording.acquisition.numpy_dtype
                assert read.flags.c_contiguous
                np.testing.assert_array_equal(read, expected[plane])


# TIFF files


def write_tiff(path: Path, data: np.ndarray, **options: Any) -> None:
    # Grey said aloud: three or four planes may otherwise be stored as the colours of one.
    tifffile.imwrite(path, data, **{"photometric": "minisblack", **options})


def write_imagej(path: Path, data: np.ndarray, axes: str, **more: Any) -> Path:
    metadata = {"axes": axes, "spacing": 0.5, "unit": "um", **more}
    tifffile.imwrite(path, data, imagej=True, resolution=(5, 5), metadata=metadata)
    return path


@pytest.mark.parametrize(
    ("axes", "shape", "order"),
    [
        ("ZYX", (4, 6, 8), None),
        ("ZCYX", (4, 2, 6, 8), "CZYX"),
        ("TZYX", (3, 4, 6, 8), "TZYX"),
        ("TZCYX", (3, 4, 2, 6, 8), "TCZYX"),
    ],
)
def test_imagej_stacks_of_any_axes(tmp_path: Path, axes: str, shape: tuple[int, ...], order: str | None) -> None:
    data = stack(*shape)
    recording = open_recording(write_imagej(tmp_path / "My cells (1).tif", data, axes))
    assert recording.acquisition.voxel_size == SIZE
    assert recording.acquisition.name == "My cells _1_"
    assert recording.missing == frozenset()
    ordered = np.transpose(data, [axes.index(axis) for axis in order or axes])
    lengths = dict(zip(axes, shape, strict=True))
    check(recording, ordered.reshape([lengths.get(axis, 1) for axis in "TCZYX"]))


def test_an_unnamed_axis_is_z(tmp_path: Path) -> None:
    data = stack(4, 6, 8)
    write_tiff(tmp_path / "plain.tif", data, metadata=None)
    write_tiff(tmp_path / "shaped.tiff", data)
    write_tiff(tmp_path / "zipped.tif", data, compression="zlib")
    write_tiff(tmp_path / "big-endian.tif", data, byteorder=">")
    for path in tmp_path.iterdir():
        check(open_recording(path, voxel_size=SIZE), data[None, None])


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_ome_tiff(tmp_path: Path, compression: str | None) -> None:
    data = stack(2, 4, 2, 6, 8)  # T, Z, C: not the order of the store
    tifffile.imwrite(
        tmp_path / "cells.ome.tif",
        data,
        compression=compression,
        metadata={
            "axes": "TZCYX",
            "PhysicalSizeX": 200.0,
            "PhysicalSizeXUnit": "nm",
            "PhysicalSizeY": 200.0,
            "PhysicalSizeYUnit": "nm",
            "PhysicalSizeZ": 0.5,
            "Channel": {"Name": ["DAPI", "GFP"]},
        },
    )
    recording = open_recording(tmp_path / "cells.ome.tif")
    assert recording.acquisition.name == "cells"
    assert recording.acquisition.channels == ("DAPI", "GFP")
    assert recording.acquisition.voxel_size.z == 0.5
    assert recording.acquisition.voxel_size.x == pytest.approx(0.2)
    check(recording, data.transpose(0, 2, 1, 3, 4))


def test_what_is_given_wins_over_metadata(tmp_path: Path) -> None:
    path = write_imagej(tmp_path / "a.tif", stack(4, 6, 8), "ZYX")
    size = VoxelSize(z=3, y=1, x=1)
    with contextlib.closing(open_recording(path, voxel_size=size, name="mine")) as recording:
        assert recording.acquisition.voxel_size == size
        assert recording.acquisition.name == "mine"
    with pytest.raises(RecordingError, match="name"):
        open_recording(path, name="a/b")


def test_floats_become_float32(tmp_path: Path) -> None:
    data = np.random.default_rng(0).random((3, 6, 8))
    write_tiff(tmp_path / "a.tif", data)
    recording = open_recording(tmp_path / "a.tif", voxel_size=SIZE)
    assert recording.acquisition.dtype == "float32"
    check(recording, data.astype(np.float32)[None, None])


@pytest.mark.parametrize(
    ("data", "options", "reason"),
    [
        (stack(6, 8), {}, "is no stack: it has one plane along z, and"),
        (stack(6, 8, 3, dtype="uint8"), {"photometric": "rgb"}, "is a colour image"),
        (stack(4, 6, 8, 3, dtype="uint8"), {"photometric": "rgb"}, "is a colour image"),
        (
            stack(4, 6, 8, dtype="uint32"),
            {},
            "has pixels of uint32; convert them to one of uint8, uint16, int16, float32",
        ),
        (stack(4, 6, 8, dtype="complex64"), {}, "has pixels of complex64"),
        (stack(4, 6, 8, dtype="bool"), {}, "has pixels of bool"),
        (stack(2, 4, 6, 8), {}, "has the axes QQYX"),
        (stack(4, 6, 8), {"imagej": True, "metadata": {"axes": "TYX"}}, "it has 4 time points but one plane along z"),
        (stack(4, 6, 8), {}, "does not state its voxel size .*--voxel-size DZ DY DX"),
        (
            stack(4, 6, 8),
            {"imagej": True, "resolution": (5, 2), "metadata": {"axes": "ZYX", "unit": "um", "spacing": 1}},
            "lateral pixels must be square.*--voxel-size DZ DY DX",
        ),
    ],
)
def test_says_what_is_wrong_with_a_tiff(tmp_path: Path, data: np.ndarray, options: dict[str, Any], reason: str) -> None:
    write_tiff(tmp_path / "a.tif", data, **options)
    with pytest.raises(RecordingError, match=reason):
        open_recording(tmp_path / "a.tif")


def test_says_what_is_wrong_with_a_path(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match="nowhere does not exist"):
        open_recording(tmp_path / "nowhere")
    (tmp_path / "cells.czi").write_bytes(b"ZISRAWFILE")
    with pytest.raises(RecordingError, match="no known format"):
        open_recording(tmp_path / "cells.czi")
    (tmp_path / "broken.tif").write_bytes(b"not a TIFF")
    with pytest.raises(RecordingError, match=r"broken\.tif cannot be read as TIFF"):
        open_recording(tmp_path / "broken.tif")


def test_a_damaged_file_says_which_plane(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    write_tiff(path, stack(4, 64, 64), compression="zlib")
    with tifffile.TiffFile(path) as tiff:
        page: Any = tiff.pages[3]
        start, length = page.dataoffsets[0], page.databytecounts[0]
    content = path.read_bytes()
    path.write_bytes(content[:start] + bytes(length) + content[start + length :])
    with contextlib.closing(open_recording(path, voxel_size=SIZE)) as recording:
        recording.plane((0, 0, 2))
        with pytest.raises(RecordingError, match=r"plane 3 of .*a\.tif cannot be read"):
            recording.plane((0, 0, 3))


@pytest.mark.parametrize("compression", ["lzw", "zlib", "zstd", "packbits"])
def test_compressed_files_are_read(tmp_path: Path, compression: str) -> None:
    planes = stack(3, 32, 40)
    write_tiff(tmp_path / "a.tif", planes, compression=compression)
    with contextlib.closing(open_recording(tmp_path / "a.tif", voxel_size=SIZE)) as recording:
        assert np.array_equal([recording.plane((0, 0, z)) for z in range(3)], planes)


def test_what_cannot_be_decoded_is_said_when_it_is_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_tiff(tmp_path / "a.tif", stack(3, 32, 40), compression="lzw")

    def decode(page: Any) -> np.ndarray:
        raise ValueError("<COMPRESSION.LZW: 5> requires the 'imagecodecs' package")  # as tifffile does without it

    monkeypatch.setattr(tifffile.TiffPage, "asarray", decode)
    with pytest.raises(RecordingError, match=r"plane 0 of .*LZW.*; pip install imagecodecs, or save it without"):
        open_recording(tmp_path / "a.tif", voxel_size=SIZE)


def test_a_truncated_file_is_not_taken_for_a_short_stack(tmp_path: Path) -> None:
    path = write_imagej(tmp_path / "a.tif", stack(4, 64, 64), "ZYX")
    path.write_bytes(path.read_bytes()[: 8192 * 3 + 2000])
    with pytest.raises(RecordingError, match=r"a\.tif is incomplete: of the 4 planes"):
        open_recording(path)


@pytest.mark.parametrize("kind", ["plain", "imagej", "ome"])
def test_a_file_cut_off_anywhere_is_read_or_refused(tmp_path: Path, kind: str) -> None:
    whole = tmp_path / "whole.tif"
    if kind == "imagej":
        write_imagej(whole, stack(4, 6, 8), "ZYX")
    else:
        write_tiff(whole, stack(4, 6, 8), ome=kind == "ome", metadata={"axes": "ZYX"} if kind == "ome" else None)
    content = whole.read_bytes()
    path = tmp_path / "cut.tif"
    refused = 0
    for end in range(0, len(content), 23):
        path.write_bytes(content[:end])
        try:
            with contextlib.closing(open_recording(path, voxel_size=SIZE)) as recording:
                for z in range(recording.acquisition.sizes.z):
                    recording.plane((0, 0, z))
        except RecordingError:
            refused += 1
    assert refused


def test_ome_tiff_without_one_of_its_files(tmp_path: Path) -> None:
    data = stack(4, 6, 8)
    blocks = "".join(
        f'<TiffData FirstZ="{z}" PlaneCount="1" IFD="0"><UUID FileName="z{z}.ome.tif">urn:uuid:{z}</UUID></TiffData>'
        for z in range(4)
    )
    for z in range(4):
        description = (
            f'<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="urn:uuid:{z}"><Image ID="Image:0">'
            '<Pixels ID="Pixels:0" DimensionOrder="XYZCT" Type="uint16" SizeX="8" SizeY="6" SizeZ="4" SizeC="1" '
            f'SizeT="1" PhysicalSizeX="0.2" PhysicalSizeY="0.2" PhysicalSizeZ="0.5">{blocks}</Pixels></Image></OME>'
        )
        write_tiff(tmp_path / f"z{z}.ome.tif", data[z], description=description, metadata=None)
    check(open_recording(tmp_path / "z0.ome.tif"), data[None, None])
    (tmp_path / "z1.ome.tif").unlink()
    recording = open_recording(tmp_path / "z0.ome.tif")
    assert recording.missing == {(0, 0, 1)}
    assert recording.acquisition.voxel_size == SIZE
    check(recording, data[None, None])
    recording = open_recording(tmp_path, voxel_size=SIZE)  # As a folder of planes.
    assert recording.missing == {(0, 0, 1)}
    check(recording, data[None, None])


# Folders of planes


def write_planes(folder: Path, names: dict[str, np.ndarray]) -> Path:
    folder.mkdir(exist_ok=True)
    for name, plane in names.items():
        write_tiff(folder / name, plane)
    return folder


def test_a_folder_of_planes_in_natural_order(tmp_path: Path) -> None:
    data = stack(12, 6, 8)
    folder = write_planes(tmp_path / "cells", {f"z{z}.tif": data[z] for z in range(12)})
    (folder / "notes.txt").write_text("mouse 3")
    (folder / "._z3.tif").write_bytes(b"what macOS leaves behind")
    recording = open_recording(folder, voxel_size=SIZE)
    assert recording.acquisition.name == "cells"
    assert recording.missing == frozenset()
    check(recording, data[None, None])


def test_gaps_in_the_numbers_are_missing_planes(tmp_path: Path) -> None:
    data = stack(6, 6, 8)
    names = {f"mouse3_plane_z{10 * z + 100:04d}.tif": data[z] for z in (0, 1, 3, 5)}
    recording = open_recording(write_planes(tmp_path / "cells", names), voxel_size=SIZE)
    assert recording.missing == {(0, 0, 2), (0, 0, 4)}
    with pytest.raises(RecordingError, match="z=2 is missing"):
        recording.plane((0, 0, 2))
    with pytest.raises(RecordingError, match="outside"):
        recording.plane((0, 0, 6))
    check(recording, data[None, None])


def test_names_without_a_pattern_are_in_natural_order(tmp_path: Path) -> None:
    data = stack(3, 6, 8)
    folder = write_planes(tmp_path / "cells", {"Top.tif": data[2], "bottom.tif": data[0], "middle 2.tif": data[1]})
    check(open_recording(folder, voxel_size=SIZE), data[None, None])


def test_the_planes_of_several_channels_are_not_mixed(tmp_path: Path) -> None:
    folder = write_planes(tmp_path / "a", {f"z{z}_c{c}.tif": stack(6, 8) for z in range(2) for c in range(2)})
    with pytest.raises(RecordingError, match=r"differ in 2 numbers \(z0_c0\.tif and z1_c1\.tif\).*per folder"):
        open_recording(folder, voxel_size=SIZE)


@pytest.mark.parametrize(
    ("odd", "reason"),
    [
        (stack(6, 9), r"z2\.tif has 6 × 9 pixels of uint16, but the planes before have 6 × 8 of uint16"),
        (stack(6, 8, dtype="uint8"), r"z2\.tif has 6 × 8 pixels of uint8"),
        (stack(3, 6, 8), r"z2\.tif is no single plane"),
    ],
)
def test_names_the_file_that_does_not_belong(tmp_path: Path, odd: np.ndarray, reason: str) -> None:
    planes = {f"z{z}.tif": stack(6, 8) for z in range(4)}
    with pytest.raises(RecordingError, match=reason):
        open_recording(write_planes(tmp_path / "a", {**planes, "z2.tif": odd}), voxel_size=SIZE)


def test_folders_without_a_stack(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match="holds no TIFF files"):
        open_recording(write_planes(tmp_path / "empty", {}), voxel_size=SIZE)
    with pytest.raises(RecordingError, match="is no stack"):
        open_recording(write_planes(tmp_path / "one", {"z0.tif": stack(6, 8)}), voxel_size=SIZE)
    folder = write_planes(tmp_path / "bad", {"z0.tif": stack(6, 8)})
    (folder / "z1.tif").write_bytes(b"")
    with pytest.raises(RecordingError, match=r"z1\.tif cannot be read as TIFF"):
        open_recording(folder, voxel_size=SIZE)


# OME-Zarr


def write_ome_zarr(path: Path, data: np.ndarray, axes: str, chunks: tuple[int, ...], version: str) -> Path:
    unit = {"unit": "micrometer"}
    kinds: dict[str, dict[str, str]] = {"t": {"type": "time"}, "c": {"type": "channel"}}
    multiscale = {
        "axes": [{"name": axis, **kinds.get(axis, {"type": "space", **unit})} for axis in axes],
        "datasets": [
            {
                "path": "full",
                "coordinateTransformations": [
                    {"type": "scale", "scale": [{"z": 0.25, "y": 0.2, "x": 0.2}.get(axis, 1.0) for axis in axes]}
                ],
            }
        ],
        "coordinateTransformations": [
            {"type": "scale", "scale": [2.0 if axis == "z" else 1.0 for axis in axes]},
        ],
    }
    content: dict[str, Any] = {"multiscales": [multiscale]}
    attributes = {"ome": {"version": "0.5", **content}} if version == "0.5" else content
    group = zarr.create_group(path, zarr_format=3 if version == "0.5" else 2, attributes=attributes)
    array = group.create_array("full", shape=data.shape, chunks=chunks, dtype=data.dtype)
    array[...] = data
    return path


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_ome_zarr_images(tmp_path: Path, version: str) -> None:
    data = stack(7, 6, 8)
    recording = open_recording(write_ome_zarr(tmp_path / "a.ome.zarr", data, "zyx", (3, 4, 4), version))
    assert recording.acquisition.name == "a"
    assert recording.acquisition.voxel_size == SIZE
    check(recording, data[None, None])
    data = stack(2, 7, 6, 8)
    recording = open_recording(write_ome_zarr(tmp_path / "b.zarr", data, "czyx", (1, 1, 6, 8), version))
    check(recording, data[None])


def test_several_images_in_one_store_are_read_as_the_first(tmp_path: Path) -> None:
    root = zarr.create_group(tmp_path / "a.zarr", attributes={"ome": {"version": "0.5", "bioformats2raw.layout": 3}})
    root.create_group("OME", attributes={"ome": {"version": "0.5", "series": ["5", "6"]}})
    data = stack(7, 6, 8)
    write_ome_zarr(tmp_path / "a.zarr" / "5", data, "zyx", (1, 6, 8), "0.5")
    check(open_recording(tmp_path / "a.zarr"), data[None, None])


def test_says_what_is_wrong_with_a_zarr(tmp_path: Path) -> None:
    zarr.create_group(tmp_path / "bare.zarr")
    with pytest.raises(RecordingError, match="no OME-Zarr image"):
        open_recording(tmp_path / "bare.zarr")
    zarr.create_array(tmp_path / "array.zarr", shape=(4, 6, 8), dtype="uint16")
    with pytest.raises(RecordingError, match="cannot be read as OME-Zarr"):
        open_recording(tmp_path / "array.zarr")
    write_ome_zarr(tmp_path / "flat.zarr", stack(1, 6, 8), "zyx", (1, 6, 8), "0.5")
    with pytest.raises(RecordingError, match="one plane along z"):
        open_recording(tmp_path / "flat.zarr")


@pytest.mark.parametrize("journal", ["with", "without"])
def test_a_session_store_is_a_recording_of_what_came(
    store: SessionStore,
    sent: Callable[[PlaneIndex], tuple[PlaneIndex, memoryview, int]],
    pixels: Callable[[PlaneIndex], np.ndarray],
    journal: str,
) -> None:
    came = [(t, 1, z) for t in range(2) for z in (0, 1, 4)]
    store.write_planes([sent(plane) for plane in came])
    store.close()
    if journal == "without":
        store.journal.path.unlink()
    with contextlib.closing(open_recording(store.path)) as recording:
        assert recording.acquisition == store.acquisition
        assert recording.missing == set(np.ndindex(2, 2, 5)) - set(came)
        for plane in came:
            np.testing.assert_array_equal(recording.plane(plane), pixels(plane))
    with contextlib.closing(open_recording(store.path, voxel_size=VoxelSize(z=1, y=1, x=1), name="b")) as recording:
        assert recording.acquisition.voxel_size.z == 1
        assert (recording.acquisition.name, recording.acquisition.channels) == ("b", ("DAPI", "GFP"))


# NDTiff


def write_ndtiff(path: Path, images: list[tuple[dict[str, Any], np.ndarray]], step: float | None = 0.5) -> Path:
    dataset = NDTiffDataset(dataset_path=str(path), summary_metadata={}, name="cells", writable=True)
    for coordinates, plane in images:
        metadata = {"PixelSizeUm": 0.2}
        if step is not None:
            metadata["ZPosition_um_Intended"] = 100 - coordinates["z"] * step
        dataset.put_image(coordinates, plane, metadata)
    dataset.current_writer.reader.close()  # The library leaves this one open.
    dataset.finish()
    dataset.close()
    return Path(dataset.path)


def test_ndtiff(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = stack(2, 2, 4, 6, 8)
    names = ["GFP", "DAPI"]
    left_out = (1, 0, 2)
    images = [
        ({"time": t, "z": z - 2, "channel": names[c]}, data[t, c, z])
        for t, z, c in np.ndindex(2, 4, 2)
        if (t, c, z) != left_out
    ]
    path = write_ndtiff(tmp_path, images)
    capsys.readouterr()
    recording = open_recording(path)
    assert capsys.readouterr().out == ""
    assert recording.acquisition.sizes == Sizes(t=2, c=2, z=4, y=6, x=8)
    assert recording.acquisition.channels == ("GFP", "DAPI")
    assert recording.acquisition.voxel_size.x == 0.2
    assert recording.acquisition.voxel_size.z == pytest.approx(0.5)
    assert recording.missing == {left_out}
    check(recording, data)
    recording.close()


def test_says_what_is_wrong_with_an_ndtiff(tmp_path: Path) -> None:
    plane = stack(6, 8)
    path = write_ndtiff(tmp_path / "a", [({"z": z}, plane) for z in range(3)], step=None)
    with pytest.raises(RecordingError, match=r"voxel size \(z unknown, y 0.2 µm, x 0.2 µm\).*--voxel-size"):
        open_recording(path)
    path = write_ndtiff(tmp_path / "b", [({"z": z, "position": p}, plane) for z in range(3) for p in range(2)])
    with pytest.raises(RecordingError, match="2 places along the axis position"):
        open_recording(path)
    path = write_ndtiff(tmp_path / "c", [({"z": 0}, plane)])
    with pytest.raises(RecordingError, match="one plane along z"):
        open_recording(path)
    (path / "NDTiff.index").write_bytes(b"torn")
    with pytest.raises(RecordingError, match="cannot be read as NDTiff"):
        open_recording(path)


# Real stacks


@real_data
def test_a_confocal_stack_of_imagej() -> None:
    path = SHARED / "confocal" / "chromosomes.tif"
    recording = open_recording(path)
    size = recording.acquisition.voxel_size
    assert (size.z, size.y, size.x) == pytest.approx((0.15, 0.0339, 0.0339), rel=2e-3)
    check(recording, tifffile.imread(path)[None, None])


@real_data
def test_a_two_photon_folder() -> None:
    folder = SHARED / "brain_2p"
    with pytest.raises(RecordingError, match="--voxel-size"):
        open_recording(folder)
    recording = open_recording(folder, voxel_size=VoxelSize(z=5, y=2, x=2))
    assert recording.acquisition.sizes == Sizes(z=26, y=1116, x=627)
    np.testing.assert_array_equal(recording.plane((0, 0, 25)), tifffile.imread(folder / "plane_z0025.tif"))
    recording.close()
