"""Planes that have landed are forgotten: the memory that the system has for files does not grow with them."""

import ctypes
import mmap
import os
import time
from pathlib import Path

import pytest
from stacks import small_stack, write

from otf_stream.acquisition import Acquisition, Sizes, VoxelSize
from otf_stream.bench.pagecache import forget_cached, forgetting
from otf_stream.store.chunks import chunk_file
from otf_stream.store.disk import fsync_file
from otf_stream.store.session import SessionStore

pytestmark = pytest.mark.skipif(not hasattr(os, "posix_fadvise"), reason="only POSIX systems can be asked to forget")


def pages_in_memory(file: Path) -> int:
    """Return how many pages of a file the system has in memory."""
    with file.open("rb+") as opened, mmap.mmap(opened.fileno(), 0) as mapped:
        pages = -(-len(mapped) // mmap.PAGESIZE)
        there = (ctypes.c_ubyte * pages)()
        buffer = ctypes.c_char.from_buffer(mapped)
        try:
            address = ctypes.c_void_p(ctypes.addressof(buffer))
            assert ctypes.CDLL(None, use_errno=True).mincore(address, ctypes.c_size_t(len(mapped)), there) == 0
        finally:
            del buffer
        return sum(page & 1 for page in there)


def test_a_file_is_forgotten(tmp_path):
    file = tmp_path / "file"
    file.write_bytes(bytes(64 * mmap.PAGESIZE))
    fsync_file(file)
    assert pages_in_memory(file) == 64
    forget_cached(file)
    assert pages_in_memory(file) == 0
    assert file.read_bytes() == bytes(64 * mmap.PAGESIZE)


@pytest.mark.parametrize("lately", [0, 2])
def test_planes_are_forgotten_as_they_land(tmp_path, lately):
    stack = small_stack(planes=6, side=128)
    acquisition = Acquisition(
        name="stack", sizes=Sizes(z=6, y=128, x=128), dtype="uint16", voxel_size=VoxelSize(z=0.4, y=0.1, x=0.1)
    )
    store = SessionStore.create(tmp_path / "stack.ome.zarr", acquisition, session="0" * 32)
    files = [chunk_file(store.path, (0, 0, z)) for z in range(6)]
    try:
        with forgetting(tmp_path, lately=lately):
            write(store, [((0, 0, z), plane) for z, plane in enumerate(stack)])
            deadline = time.monotonic() + 30
            while any(pages_in_memory(file) for file in files[: 6 - lately]) and time.monotonic() < deadline:
                time.sleep(0.05)
        assert [pages_in_memory(file) > 0 for file in files] == [False] * (6 - lately) + [True] * lately
    finally:
        store.close()
