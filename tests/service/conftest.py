"""Session stores with small stacks in them, of pixels that suit the usual focus, and a small network."""

import uuid

import pytest
import torch
from stacks import write

from otf_stream.acquisition import Acquisition
from otf_stream.learn.checkpoints import save_weights
from otf_stream.learn.nafnet import NAFNet
from otf_stream.store.session import SessionStore


@pytest.fixture
def session(tmp_path):
    """Make a session store from stacks ``{(t, c): (z, y, x)}``; ``skip`` are planes that never come."""
    opened = []

    def make(
        stacks, *, voxel_size=(0.4, 0.1, 0.1), skip=(), close=True, planes=None, name="stack", modality="confocal"
    ):
        first = next(iter(stacks.values()))
        times, channels = (max(key[axis] for key in stacks) + 1 for axis in (0, 1))
        acquisition = Acquisition(
            name=name,
            sizes={"t": times, "c": channels, "z": planes or len(first), "y": first.shape[1], "x": first.shape[2]},
            dtype=first.dtype.name,
            modality=modality,  # the haze of a confocal takes a tenth of the time of an unknown one
            voxel_size=dict(zip("zyx", voxel_size, strict=True)),
        )
        store = SessionStore.create(tmp_path / f"{name}.ome.zarr", acquisition, session=uuid.uuid4().hex)
        opened.append(store)
        for (t, c), stack in stacks.items():
            write(store, [((t, c, z), plane) for z, plane in enumerate(stack) if z not in skip])
        if close:
            store.journal.close_arrivals("finished")
        return store

    yield make
    for store in opened:
        store.close()


@pytest.fixture(scope="session")
def weights(tmp_path_factory):
    """A network that is small: what is done with it is the same with any."""
    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    torch.manual_seed(0)
    save_weights(NAFNet(width=8, enc_blk_nums=(1,), middle_blk_num=1, dec_blk_nums=(1,)), path, {})
    return path
