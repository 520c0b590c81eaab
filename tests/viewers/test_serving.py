"""What a viewer in a browser needs of a server of stores."""

import asyncio
import json
from urllib.parse import unquote

import httpx
import pytest
from stacks import small_stack, write

from otf_stream.acquisition import Acquisition, Sizes, VoxelSize
from otf_stream.store.session import SessionStore
from otf_stream.viewers.serving import NEUROGLANCER, application, neuroglancer_link


@pytest.fixture
def path(tmp_path):
    acquisition = Acquisition(
        name="cells", sizes=Sizes(z=10, y=72, x=72), dtype="uint16", voxel_size=VoxelSize(z=0.8, y=0.2, x=0.2)
    )
    store = SessionStore.create(tmp_path / "cells.ome.zarr", acquisition, session="s")
    write(store, [((0, 0, z), plane) for z, plane in enumerate(small_stack())])
    store.close()
    return store.path


def ask(path, method, url, **headers):
    async def answer():
        transport = httpx.ASGITransport(app=application(path))
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            return await client.request(method, url, headers=headers)

    return asyncio.run(answer())


def test_another_page_may_read_parts_of_files_and_nothing_beside_the_store(path):
    answer = ask(path, "GET", "/raw/0/c/0/0/0/0/0", Origin=NEUROGLANCER, Range="bytes=4-7")
    assert answer.status_code == 206
    assert answer.content == (path / "raw/0/c/0/0/0/0/0").read_bytes()[4:8]
    assert answer.headers["access-control-allow-origin"] == NEUROGLANCER
    assert ask(path, "GET", "/%2e%2e/cells.journal.sqlite").status_code == 404
    assert "access-control-allow-origin" not in ask(path, "GET", "/zarr.json", Origin="https://else").headers
    assert ask(path, "PUT", "/zarr.json").status_code == 405


def test_the_link_opens_each_image_at_the_contrast_of_the_store(path):
    link = neuroglancer_link(path, 1234)
    state = json.loads(unquote(link.partition("#!")[2]))
    (layer,) = state["layers"]
    assert layer["source"] == "zarr3://http://127.0.0.1:1234/raw"
    low, high = layer["shaderControls"]["normalized"]["range"]
    assert 80 < low < high < 600
