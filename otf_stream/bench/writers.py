"""Libraries that could write the raw planes, each as its documentation says, compared with the store of this package.

All write the same array: Zarr v3, uncompressed, a chunk a plane. The store makes every group of planes durable and
records it before it takes the next; the others are asked for durability in whatever way they have, and only at
the end. What is not installed is left out.
"""

from __future__ import annotations

import importlib
import select
import shutil
import time
from collections.abc import Callable, Iterable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from isal.isal_zlib import crc32
from zarr.codecs import BytesCodec

from otf_stream.acquire.landing import Landed, Landing
from otf_stream.acquire.protocol import Plane
from otf_stream.acquisition import Acquisition, Sizes, VoxelSize
from otf_stream.bench.ceilings import Planes, numbered, settle_disk, write_and_delete
from otf_stream.store.disk import fsync_tree
from otf_stream.store.session import SessionStore

_GROUP = 8  # planes that are under way at the same time
_LOOK_S = 0.002


def stack_of(planes: Planes, count: int) -> Acquisition:
    """Describe a stack of ``count`` planes."""
    y, x = planes[0].shape
    return Acquisition(
        name="stack",
        sizes=Sizes(z=count, y=y, x=x),
        dtype="uint16",
        voxel_size=VoxelSize(z=0.5, y=0.1, x=0.1),
    )


def write_rates(folder: Path, planes: Planes, count: int) -> dict[str, float]:
    """Write ``count`` planes with each library that there is, until they are durable.

    Parameters
    ----------
    folder
        Where; what is written is deleted.
    planes
        ``(y, x)`` uint16, which are written in turn.

    Returns
    -------
    dict
        bytes/s, by the library's name.

    Raises
    ------
    RuntimeError
        If a library did not write what it was given.
    """
    rates = {}
    for name, (module, write) in WRITERS.items():
        try:
            library = importlib.import_module(module)
        except ImportError:
            continue
        path = folder / "written.ome.zarr"
        write_and_delete(folder, planes, count)  # so that each finds the same memory at hand
        settle_disk()
        begun = time.perf_counter()
        array = write(library, path, planes, count)
        rates[name] = count * planes[0].nbytes / (time.perf_counter() - begun)
        last = np.asarray(zarr.open_array(array, mode="r")[..., count - 1, :, :]).reshape(planes[0].shape)
        if not np.array_equal(last, numbered(planes, count - 1)):
            raise RuntimeError(f"{name} did not write the last of {count} planes as it was")
        shutil.rmtree(path)
        path.with_name("written.journal.sqlite").unlink(missing_ok=True)
    return rates


def _write_store(landing_module: Any, path: Path, planes: Planes, count: int) -> Path:
    acquisition = stack_of(planes, count)
    with closing(SessionStore.create(path, acquisition, session="0" * 32)) as store:
        landing: Landing = landing_module.Landing(_GROUP * acquisition.plane_bytes)
        with closing(landing):
            for z in range(count):
                while landing.full:
                    select.select([landing.ear], [], [], _LOOK_S)
                    _check(landing.landed())
                pixels = numbered(planes, z).copy()  # others are written meanwhile
                header = Plane(session=store.session, t=0, c=0, z=z, crc=crc32(pixels.data))
                landing.put(store, header, pixels.data, b"")
            landing.settle()
            _check(landing.landed())
    return path / "raw" / "0"


def _check(landed: Iterable[Landed]) -> None:
    for plane in landed:
        if plane.error is not None:
            raise plane.error


def _create_array(path: Path, planes: Planes, count: int) -> zarr.Array[Any]:
    return zarr.create_array(
        path,
        shape=(count, *planes[0].shape),
        chunks=(1, *planes[0].shape),
        dtype="uint16",
        compressors=None,
        filters=None,
        serializer=BytesCodec(endian="little"),
        fill_value=0,
    )


def _write_zarr(library: Any, path: Path, planes: Planes, count: int) -> Path:
    array = _create_array(path, planes, count)
    for z in range(count):
        array[z] = numbered(planes, z)
    fsync_tree(path)
    return path


def _write_tensorstore(tensorstore: Any, path: Path, planes: Planes, count: int) -> Path:
    _create_array(path, planes, count)
    # It synchronises each file itself, and its folder, before it calls a write done.
    array = tensorstore.open({"driver": "zarr3", "kvstore": {"driver": "file", "path": str(path)}}).result()
    for first in range(0, count, _GROUP):
        writes = [array[z].write(numbered(planes, z).copy()) for z in range(first, min(first + _GROUP, count))]
        for write in writes:
            write.result()
    return path


def _write_acquire_zarr(acquire: Any, path: Path, planes: Planes, count: int) -> Path:
    y, x = planes[0].shape
    kinds = acquire.DimensionType
    dimensions = [
        acquire.Dimension(name=name, kind=kind, array_size_px=size, chunk_size_px=chunk, shard_size_chunks=1)
        for name, kind, size, chunk in (
            ("z", kinds.SPACE, count, 1),
            ("y", kinds.SPACE, y, y),
            ("x", kinds.SPACE, x, x),
        )
    ]
    array = acquire.ArraySettings(output_key="", dimensions=dimensions, data_type=acquire.DataType.UINT16)
    stream = acquire.ZarrStream(acquire.StreamSettings(store_path=str(path), arrays=[array]))
    for z in range(count):
        stream.append(numbered(planes, z))
    stream.close()
    fsync_tree(path)
    return next(found.parent for found in path.rglob("zarr.json") if b'"array"' in found.read_bytes())


Write = Callable[[Any, Path, Planes, int], Path]
WRITERS: dict[str, tuple[str, Write]] = {
    "this store": ("otf_stream.acquire.landing", _write_store),
    "zarr-python": ("zarr", _write_zarr),
    "tensorstore": ("tensorstore", _write_tensorstore),
    "acquire-zarr": ("acquire_zarr", _write_acquire_zarr),
}
"""Module and writer, by the library's name; a writer returns where its array is."""
