"""What real programs write while the folder is watched: every plane ends in the store, at its index, as it was."""

from __future__ import annotations

import threading
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
import tifffile
import useq
from ndstorage import NDTiffDataset
from ome_writers import AcquisitionSettings, OmeTiffFormat, create_stream, dims_from_standard_axes

from otf_stream.acquire.listener import Listener
from otf_stream.acquire.watch.recording import Given

from .conftest import check, names, noise, watching

with warnings.catch_warnings():
    warnings.simplefilter("ignore", FutureWarning)
    from pymmcore_plus.mda.handlers import ImageSequenceWriter, OMETiffWriter

NOTHING = Given()
PACE = 0.02


def write_ndtiff(
    folder: Path, images: list[tuple[dict, np.ndarray]], *, axes: bool = True, name: str = "cells"
) -> None:
    dataset = NDTiffDataset(dataset_path=str(folder), summary_metadata={}, name=name, writable=True)
    for coordinates, plane in images:
        said = {"PixelSizeUm": 0.2, "ZPosition_um_Intended": 100 - 0.5 * coordinates["z"]}
        dataset.put_image(coordinates, plane, {**said, "Axes": coordinates} if axes else said)
        time.sleep(PACE)
    dataset.current_writer.reader.close()
    dataset.finish()
    dataset.close()


@pytest.mark.parametrize("axes", [True, False])
def test_ndtiff(saved: Path, stores: Path, listener: Listener, axes: bool) -> None:
    data = noise(2, 2, 2, 3, 24, 32)
    channel = ["DAPI", "GFP"]
    images = [
        ({"time": t, "position": p, "z": z, "channel": channel[c]}, data[t, p, c, z])
        for t, p, z, c in np.ndindex(2, 2, 3, 2)
        if not (c == 1 and z == 2)
    ]
    with watching(saved, listener, NOTHING) as watch:
        write_ndtiff(saved, images, axes=axes)
        if axes:  # the index itself is written at the end
            assert sum(seen.found for seen in watch.watched()) > 4
    assert names(stores) == ["cells_1_p0", "cells_1_p1"]
    for p in range(2):
        planes = {(t, c, z): data[t, p, c, z] for t, c, z in np.ndindex(2, 2, 3) if not (c == 1 and z == 2)}
        acquisition = check(stores, f"cells_1_p{p}", planes)
        assert acquisition.channel_names == ("DAPI", "GFP")
        assert acquisition.voxel_size.z == pytest.approx(0.5)
        assert acquisition.voxel_size.x == 0.2
    assert [seen.state for seen in watch.watched()] == ["finished"]
    assert not watch.watched()[0].faults


def test_eight_bits_and_tiles_in_ndtiff(saved: Path, stores: Path, listener: Listener) -> None:
    data = (noise(2, 3, 24, 32) >> 8).astype(np.uint8)
    images = [({"row": g, "column": 0, "z": z - 1}, data[g, z]) for g, z in np.ndindex(2, 3)]
    with watching(saved, listener, NOTHING):
        write_ndtiff(saved, images)
    for g in range(2):
        acquisition = check(stores, f"cells_1_p0_g{g}", {(0, 0, z): data[g, z] for z in range(3)})
        assert acquisition.dtype == "uint8"


@pytest.mark.parametrize("ome", [True, False])
@pytest.mark.parametrize("contiguous", [True, False])
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_tifffile_page_by_page(
    saved: Path, stores: Path, listener: Listener, ome: bool, contiguous: bool, compression: str | None
) -> None:
    if contiguous and (compression or ome):
        pytest.skip("the library does not write this plane by plane")
    data = noise(5, 24, 32)
    path = saved / ("cells.ome.tif" if ome else "cells.tif")
    # With all in one series, the shape is only told at the end.
    with watching(saved, listener), tifffile.TiffWriter(path, ome=ome) as writer:
        for plane in data:
            writer.write(plane, contiguous=contiguous, photometric="minisblack", compression=compression)
            time.sleep(PACE)
    check(stores, "cells", {(0, 0, z): data[z] for z in range(5)})


def test_ome_xml_at_the_beginning(saved: Path, stores: Path, listener: Listener) -> None:
    data = noise(2, 2, 3, 24, 32)
    xml = tifffile.OmeXml()
    xml.addimage(
        "uint16", (2, 3, 2, 24, 32), (12, 1, 1, 24, 32, 1), axes="TZCYX", Channel={"Name": ["DAPI", "GFP"]},
        PhysicalSizeX=0.2, PhysicalSizeY=0.2, PhysicalSizeZ=0.5,
    )  # fmt: skip
    with watching(saved, listener, NOTHING) as watch, tifffile.TiffWriter(saved / "cells.ome.tif", ome=False) as writer:
        for number, (t, z, c) in enumerate(np.ndindex(2, 3, 2)):
            writer.write(
                data[t, c, z], contiguous=False, photometric="minisblack", metadata=None,
                description=xml.tostring().encode() if number == 0 else None,
            )  # fmt: skip
            time.sleep(2 * PACE)
        assert watch.watched()[0].found > 4
    acquisition = check(stores, "cells", {index: data[index] for index in np.ndindex(2, 2, 3)})
    assert acquisition.channel_names == ("DAPI", "GFP")
    assert acquisition.voxel_size.z == 0.5


def test_imagej_in_a_big_endian_file(saved: Path, stores: Path, listener: Listener) -> None:
    data = noise(4, 2, 24, 32)
    with watching(saved, listener, NOTHING):
        tifffile.imwrite(
            saved / "cells.tif", data, imagej=True, byteorder=">", resolution=(5, 5),
            metadata={"axes": "ZCYX", "spacing": 0.5, "unit": "um"},
        )  # fmt: skip
    check(stores, "cells", {(0, c, z): data[z, c] for z, c in np.ndindex(4, 2)})


def sequence(positions: int) -> useq.MDASequence:
    return useq.MDASequence(
        axis_order="tpcz",
        channels=["DAPI", "GFP"],
        z_plan={"range": 2, "step": 1},
        time_plan={"interval": 0, "loops": 2},
        stage_positions=[(p, 0, 0) for p in range(positions)],
    )


def test_the_ome_tiff_writer_of_pymmcore_plus(saved: Path, stores: Path, listener: Listener) -> None:
    data = noise(2, 2, 2, 3, 24, 32)
    plan = sequence(2)
    left_out = (1, 1, 1, 2)
    writer = OMETiffWriter(saved / "cells.ome.tif")
    with watching(saved, listener) as watch:
        writer.sequenceStarted(plan, {})
        for event in plan:
            index = tuple(event.index[axis] for axis in "tpcz")
            if index != left_out:
                writer.frameReady(data[index], event, {})
                time.sleep(PACE)
        assert sum(seen.found for seen in watch.watched()) > 4
        writer.sequenceFinished(plan)
    for p in range(2):
        planes = {(t, c, z): data[t, p, c, z] for t, c, z in np.ndindex(2, 2, 3) if (t, p, c, z) != left_out}
        acquisition = check(stores, f"cells_p{p}", planes)
        assert acquisition.channel_names == ("DAPI", "GFP")
    assert [len(seen.faults) for seen in watch.watched()] == [0, 1]
    assert "1 planes of nothing but zeros" in watch.watched()[1].faults[0]


def test_the_image_sequence_writer_of_pymmcore_plus(saved: Path, stores: Path, listener: Listener) -> None:
    data = noise(2, 2, 2, 3, 24, 32)
    plan = sequence(2)
    writer = ImageSequenceWriter(saved / "cells")
    with watching(saved, listener, NOTHING):
        writer.sequenceStarted(plan)
        for event in plan:
            index = tuple(event.index[axis] for axis in "tpcz")
            writer.frameReady(data[index], event, {"pixel_size_um": 0.2})
            time.sleep(PACE)
        writer.sequenceFinished(plan)
    for p in range(2):
        acquisition = check(stores, f"cells_p{p}", {(t, c, z): data[t, p, c, z] for t, c, z in np.ndindex(2, 2, 3)})
        assert (acquisition.voxel_size.z, acquisition.voxel_size.x) == (1, 0.2)


@pytest.mark.parametrize("positions", [1, 2])
def test_ome_writers(saved: Path, stores: Path, listener: Listener, positions: int) -> None:
    data = noise(2, positions, 2, 3, 24, 32)
    several = {"p": positions} if positions > 1 else {}
    axes = {"t": 2 if several else None, **several, "c": 2, "z": 3, "y": 24, "x": 32}
    settings = AcquisitionSettings(
        root_path=str(saved / "cells.ome.tiff"), dtype="uint16", dimensions=dims_from_standard_axes(axes),
        format=OmeTiffFormat(),
    )  # fmt: skip
    with watching(saved, listener) as watch, create_stream(settings) as stream:
        for index in np.ndindex(data.shape[:4]):
            stream.append(data[index])
            time.sleep(PACE)
        assert sum(seen.found for seen in watch.watched()) > 4
    for p in range(positions):
        name = f"cells_p{p:03}" if several else "cells"
        check(stores, name, {(t, c, z): data[t, p, c, z] for t, c, z in np.ndindex(2, 2, 3)})


@pytest.mark.parametrize(
    ("pattern", "channels", "name"),
    [
        ("img_channel{c:03}_position000_time{t:09}_z{z:03}.tif", ("0", "1"), "cells"),
        ("img_{t:09}_{dye}_{z:03}.tif", ("DAPI", "GFP"), "cells"),
        ("stack_t{t:03}_c{c}_z{z:04}.ome.tif", ("0", "1"), "cells"),
    ],
)
def test_plane_files(
    saved: Path, stores: Path, listener: Listener, pattern: str, channels: tuple[str, ...], name: str
) -> None:
    data = noise(2, 2, 3, 24, 32)
    folder = saved / "cells" / "Default"
    with watching(saved, listener):
        folder.mkdir(parents=True)
        (folder / "metadata.txt").write_text('{"Summary": {')
        for t, c, z in np.ndindex(2, 2, 3):
            temporary = folder / "writing.tmp"
            tifffile.imwrite(temporary, data[t, c, z])
            temporary.rename(folder / pattern.format(t=t, c=c, z=z, dye=("DAPI", "GFP")[c]))
            time.sleep(PACE)
    (found,) = names(stores)
    assert found.startswith(name)
    acquisition = check(stores, found, {index: data[index] for index in np.ndindex(2, 2, 3)})
    assert acquisition.channel_names == channels


@pytest.mark.parametrize("pattern", ["{:04}.tif", "frame{:03}.tif", "plane_z{:03}.tif"])
def test_numbered_planes(saved: Path, stores: Path, listener: Listener, pattern: str) -> None:
    data = noise(6, 24, 32)
    folder = saved / "cells"
    folder.mkdir()
    with watching(saved, listener):
        for z in range(6):
            tifffile.imwrite(folder / pattern.format(z + 1), data[z])
            time.sleep(2 * PACE)
    check(stores, "cells", {(0, 0, z): data[z] for z in range(6)})


def test_a_writer_in_another_thread_and_two_acquisitions(saved: Path, stores: Path, listener: Listener) -> None:
    first, second = noise(4, 24, 32), noise(3, 16, 16, seed=1)

    def write() -> None:
        for name, data in (("first", first), ("second", second)):
            with tifffile.TiffWriter(saved / f"{name}.tif") as writer:
                for plane in data:
                    writer.write(plane, contiguous=False)
                    time.sleep(PACE)

    with watching(saved, listener) as watch:
        thread = threading.Thread(target=write)
        thread.start()
        thread.join()
    assert [seen.state for seen in watch.watched()] == ["finished", "finished"]
    check(stores, "first", {(0, 0, z): first[z] for z in range(4)})
    check(stores, "second", {(0, 0, z): second[z] for z in range(3)})
