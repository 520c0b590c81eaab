"""A session store with one stack that has been restored, and a few events as the worker notes them."""

import shutil

import pytest
from stacks import small_stack, write

from otf_stream.acquisition import Acquisition, Sizes, VoxelSize
from otf_stream.learn.compute import choose_compute
from otf_stream.service.settings import Settings
from otf_stream.service.stack import restore_stack
from otf_stream.store.session import SessionStore

NAME = "<b>GFP & co</b>"


def learn(store, stack=(0, 0)):
    """Note what a worker would that learns from a stack."""
    for stage in ("characterise", "denoise", "finetune"):
        store.journal.note("stage", stack=list(stack), stage=stage)
        for steps, loss in ((2, 0.5), (9, 0.25)):
            store.journal.note("training", stack=list(stack), stage=stage, steps=steps, loss=loss)
    store.journal.note("training", stack=list(stack), stage="examined", steps=9, gain_db=2.5)


@pytest.fixture(scope="session")
def restored_once(tmp_path_factory):
    """A folder with a store whose channel has a name that would be markup, restored by interpolation."""
    acquisition = Acquisition(
        name="cells", sizes=Sizes(z=10, y=72, x=72), dtype="uint16", voxel_size=VoxelSize(z=0.8, y=0.2, x=0.2),
        channels=(NAME,),
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("restored")
    store = SessionStore.create(folder / "cells.ome.zarr", acquisition, session="s")
    write(store, [((0, 0, z), plane) for z, plane in enumerate(small_stack()) if z != 4])
    store.journal.close_arrivals("finished")
    learn(store)
    restore_stack(store, (0, 0), Settings(method="interpolate"), choose_compute("cpu"))
    store.close()
    return folder


@pytest.fixture
def restored(restored_once, tmp_path):
    """Path of a store of one's own, restored."""
    shutil.copytree(restored_once, tmp_path, dirs_exist_ok=True)
    return tmp_path / "cells.ome.zarr"
