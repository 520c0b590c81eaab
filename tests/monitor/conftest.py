"""Session stores with real journals."""

import uuid

import pytest

from otf_stream.acquisition import Acquisition
from otf_stream.monitor import planes
from otf_stream.store.session import SessionStore


@pytest.fixture
def session(tmp_path):
    """Make a session store of ``(t, c, z)`` planes that are to come; `land` makes some durable."""
    opened = []

    def make(name="cells", *, t=1, c=1, z=6, y=8, x=8, **more):
        acquisition = Acquisition(
            name=name,
            sizes={"t": t, "c": c, "z": z, "y": y, "x": x},
            dtype="uint16",
            voxel_size={"z": 0.8, "y": 0.2, "x": 0.2},
            **more,
        )
        store = SessionStore.create(tmp_path / f"{name}.ome.zarr", acquisition, session=uuid.uuid4().hex)
        opened.append(store)
        return store

    yield make
    for store in opened:
        store.close()


@pytest.fixture(autouse=True)
def hasty(monkeypatch):
    """Have planes count as missing as soon as a later one is there, but in the tests of how long that takes."""
    monkeypatch.setattr(planes, "_PATIENCE_S", 0.0)
