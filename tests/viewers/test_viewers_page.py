"""What docs/viewers.md tells people to run in Python does run."""

import re
from pathlib import Path

import pytest
import tifffile
from stacks import small_stack, write

from otf_stream.acquisition import Acquisition, Sizes, VoxelSize
from otf_stream.store.restored import RestoredWriter
from otf_stream.store.session import SessionStore

PAGE = Path(__file__).parents[2] / "docs" / "viewers.md"
SNIPPETS = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    acquisition = Acquisition(
        name="NAME", sizes=Sizes(z=10, y=72, x=72), dtype="uint16", voxel_size=VoxelSize(z=0.8, y=0.2, x=0.2)
    )
    store = SessionStore.create(tmp_path / "NAME.ome.zarr", acquisition, session="s")
    write(store, [((0, 0, z), plane) for z, plane in enumerate(small_stack())])
    writer = RestoredWriter.create(store, dtype="uint16")
    writer.write_level((0, 0), 0, small_stack(planes=37))
    writer.write_provenance((0, 0), {"method": "interpolate"})
    store.close()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_volumes_go_to_fiji_as_tiff(folder):
    exec(SNIPPETS[0], {})  # noqa: S102 - of our own page
    with tifffile.TiffFile(folder / "restored.tif") as tiff:
        assert tiff.series[0].shape == (37, 72, 72)
        assert tiff.imagej_metadata["spacing"] == 0.2


def test_volumes_are_read_with_dask(folder):
    told = {}
    exec(SNIPPETS[1], told)  # noqa: S102 - of our own page
    assert told["projection"].shape == (72, 72)
    assert told["scale"] == [1, 1, 0.2, 0.2, 0.2]
    assert told["told"]["method"] == "interpolate"
