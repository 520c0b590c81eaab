"""Session stores as napari is given them, without napari."""

import tomllib
import zlib
from pathlib import Path

import numpy as np
import pytest
import yaml
from stacks import small_stack, write

from otf_stream import viewers
from otf_stream.acquisition import Acquisition, Sizes, VoxelSize
from otf_stream.store.restored import RestoredWriter
from otf_stream.store.session import SessionStore
from otf_stream.viewers.following import Follower
from otf_stream.viewers.layers import get_reader, has_content, read_contrast, read_layers


@pytest.fixture
def store(tmp_path):
    acquisition = Acquisition(
        name="cells", sizes=Sizes(c=2, z=10, y=72, x=72), dtype="uint16", voxel_size=VoxelSize(z=0.8, y=0.2, x=0.2),
        channels=("DAPI", "GFP"), interval_s=30,
    )  # fmt: skip
    store = SessionStore.create(tmp_path / "cells.ome.zarr", acquisition, session="s")
    yield store
    store.close()


def arrive(store, channels=(0, 1), planes=range(10)):
    write(store, [((0, c, z), small_stack(seed=c)[z]) for c in channels for z in planes])


def preview(store, level=0):
    writer = RestoredWriter.create(store, dtype="uint16")
    for c in range(2):
        writer.write_level((0, c), level, np.arange(np.prod(writer.shape)).reshape(writer.shape) % 900)
    store.journal.note("preview", stack=[0, 0])


def test_only_session_stores_are_read(store, tmp_path):
    assert get_reader(str(store.path)) is not None
    assert get_reader([str(store.path)] * 2) is not None
    assert get_reader(str(store.path / "raw")) is None
    assert get_reader(str(tmp_path)) is None
    assert get_reader([]) is None


def test_layers_have_names_scale_units_colours_and_contrast(store):
    arrive(store)
    preview(store)
    layers = get_reader(str(store.path))(str(store.path))
    assert [a["name"] for _, a, _ in layers] == [
        "cells raw DAPI", "cells raw GFP", "cells restored DAPI", "cells restored GFP",
    ]  # fmt: skip
    assert {kind for _, _, kind in layers} == {"image"}
    raw, restored = layers[0][1], layers[-1][1]
    assert raw["scale"] == [30, 0.8, 0.2, 0.2]
    assert restored["scale"] == [30, 0.2, 0.2, 0.2]
    assert raw["units"] == ["second", *["micrometer"] * 3]
    assert raw["axis_labels"] == ["t", "z", "y", "x"]
    assert [a["colormap"] for _, a, _ in layers] == ["green", "magenta"] * 2
    assert [a["visible"] for _, a, _ in layers] == [False, False, True, True]
    assert layers[0][1]["contrast_limits"] == layers[2][1]["contrast_limits"]
    assert layers[0][0].shape == (1, 10, 72, 72)
    np.testing.assert_array_equal(layers[1][0][0, 3].compute(), store.read_plane((0, 1, 3)))


def test_an_empty_store_opens_and_fills_up_under_the_same_layers(store):
    layers = read_layers(store.path)
    assert [a["visible"] for _, a, _ in layers] == [True, True]
    assert layers[0][1]["contrast_limits"] == (0, 65535)
    assert not layers[0][0].any().compute()
    arrive(store)
    np.testing.assert_array_equal(layers[0][0][0, 3].compute(), store.read_plane((0, 0, 3)))
    low, high = read_contrast(store.path, "raw", 0)
    assert 80 < low < high < 600


def test_large_images_are_multiscale(tmp_path):
    acquisition = Acquisition(
        name="wide", sizes=Sizes(z=2, y=300, x=300), dtype="uint16", voxel_size=VoxelSize(z=0.4, y=0.2, x=0.2)
    )
    store = SessionStore.create(tmp_path / "wide.ome.zarr", acquisition, session="s")
    RestoredWriter.create(store, dtype="uint16")
    store.close()
    raw, restored = read_layers(store.path)
    assert not raw[1]["multiscale"]
    assert restored[1]["multiscale"]
    assert [level.shape for level in restored[0]] == [(1, 3, 300, 300), (1, 2, 150, 150)]
    assert restored[1]["colormap"] == "gray"


def test_a_follower_sees_planes_states_and_the_volume_and_nothing_twice(store):
    follower = Follower(store.path)
    assert follower.look().planes == 0
    assert follower.look() is None
    arrive(store, planes=range(3))
    seen = follower.look()
    assert (seen.planes, seen.expected, seen.newest, seen.content) == (6, 20, (0, 1, 2), False)
    assert "6 of 20 planes" in seen.as_text()
    preview(store)
    assert follower.look().content
    assert has_content(store.path)


def test_a_growing_session_is_followed_along_all_axes(tmp_path):
    acquisition = Acquisition(
        name="live", sizes=Sizes(z=2, y=8, x=8), dtype="uint16", voxel_size=VoxelSize(z=1, y=1, x=1), growing=True
    )
    store = SessionStore.create(tmp_path / "live.ome.zarr", acquisition, session="s")
    follower = Follower(store.path)
    follower.look()
    plane = np.arange(64, dtype=np.uint16).reshape(8, 8)
    store.write_planes([((3, 1, 4), plane.data, zlib.crc32(plane.data))])
    seen = follower.look()
    store.close()
    assert seen.shape == (4, 2, 5)
    assert seen.expected is None
    assert [data.shape for data, _, _ in read_layers(store.path)] == [(4, 5, 8, 8)] * 2


def test_a_store_without_journal_is_not_followed(store):
    follower = Follower(store.path.with_name("moved.ome.zarr"))
    assert not follower.has_journal
    assert follower.look() is None


def test_the_plugin_is_declared_and_what_it_declares_is_there():
    # npe2, which validates such files, cannot be imported where warnings are errors; it was asked by hand.
    folder = Path(viewers.__file__).parent
    manifest = yaml.safe_load((folder / "napari.yaml").read_text(encoding="utf-8"))
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert manifest["name"] == project["name"]
    assert project["entry-points"]["napari.manifest"] == {"otf-stream": "otf_stream.viewers:napari.yaml"}
    contributions = manifest["contributions"]
    commands = {command["id"]: command["python_name"] for command in contributions["commands"]}
    (reader,) = contributions["readers"]
    assert reader["accepts_directories"]
    assert commands[reader["command"]] == f"{get_reader.__module__}:{get_reader.__name__}"
    (widget,) = contributions["widgets"]
    module, _, name = commands[widget["command"]].partition(":")
    source = folder / (module.rpartition(".")[2] + ".py")  # it needs Qt to be imported
    assert f"class {name}" in source.read_text(encoding="utf-8")
