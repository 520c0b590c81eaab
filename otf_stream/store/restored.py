"""The restored image of a session: isotropic, multiscale, chunked and sharded for viewing.

``restored/`` stands beside ``raw/`` in the session store, for all time points and channels from the start, and
fills up stack by stack. Its chunks are 64³, small enough to browse; shards of up to 256³ keep the number of files
small. A shard is written whole, once: regions to write are therefore aligned to a lateral grid of 256 pixels
and as deep as the volume, and never need what another region wrote. Blosc with zstd at its lowest level and
byte shuffle writes about 200 MB/s and saves a third of noisy 16-bit voxels; lighter codecs are hardly faster.
"""

from __future__ import annotations

import errno
import itertools
import json
import math
import os
import shutil
import tempfile
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, Self, cast

import numpy as np
import zarr
from zarr.codecs import BloscCodec

from otf_stream.acquisition import Acquisition, PixelType, StackIndex, isotropic_depth
from otf_stream.store import ome
from otf_stream.store.contrast import everything, show_raw
from otf_stream.store.disk import fsync_file, fsync_folder, fsync_tree
from otf_stream.store.metadata import put_group
from otf_stream.store.pyramid import Shape, halve, level_places, level_shapes
from otf_stream.store.session import ATTRIBUTES, SessionStore

CHUNK = 64
BLOCK = 256
"""Side of the lateral grid that regions are aligned to, and of the largest shard."""

Region = tuple[slice, slice]
Place = tuple[slice, slice, slice]
Level = zarr.Array[Any]

_PROVENANCE = "provenance"  # the group, in that of the image, that has a group for each stack

_ATTRIBUTES = threading.RLock()
"""Held while attributes are read, changed and written back: stacks of one image may be written by several threads."""


class _Halved:
    """The second level of a stack while its regions come, of which each is a part of a shard; and which have come.

    Reading the finest level back to pool it would take longer than writing it. It lies in a file without a name, which
    is mapped only where it is used, and as long: what is mapped counts as memory of the process.
    """

    def __init__(self, folder: Path, shape: Shape, dtype: np.dtype[Any]) -> None:
        self._shape, self._dtype = shape, dtype
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - closed with its last user
        weakref.finalize(self, self._file.close)
        size = math.prod(shape) * dtype.itemsize
        # Where a mapped file has no room on the disk, writing to it is no error but ends the process.
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(self._file.fileno(), 0, size)
        else:
            self._file.truncate(size)
        self.places: set[tuple[int, int]] = set()

    def __getitem__(self, place: Place) -> np.ndarray:
        return np.array(self._mapped()[place])

    def __setitem__(self, place: Place, voxels: np.ndarray) -> None:
        self._mapped()[place] = voxels

    def _mapped(self) -> np.memmap[Any, np.dtype[Any]]:
        return np.memmap(self._file, self._dtype, mode="r+", shape=self._shape)


class RestoredWriter:
    """Writes the restored image of one session; get one from `create`.

    Different regions may be written from several threads or processes at once.

    Parameters
    ----------
    path
        Of the session store.
    acquisition
        What was announced.
    """

    def __init__(self, path: Path, acquisition: Acquisition) -> None:
        self.path = path
        self.acquisition = acquisition
        group = zarr.open_group(path / "restored", mode="r+")
        self._shapes = _shapes(group, acquisition)
        self._levels = [_array(group, level) for level in range(len(self._shapes))]
        self.dtype: np.dtype[Any] = self._levels[0].dtype
        self._halved: dict[StackIndex, _Halved] = {}
        self._halving = threading.Lock()

    @classmethod
    def create(cls, store: SessionStore, *, dtype: PixelType) -> Self:
        """Create the empty restored image of ``store``, or go on with the one that is there.

        Parameters
        ----------
        store
            The session.
        dtype
            Of the restored voxels: the acquisition's own, or ``"float32"``.

        Raises
        ------
        ValueError
            If there is a restored image already with another grid or dtype.
        """
        with _ATTRIBUTES:
            _create_or_check(store, dtype)
            return cls(store.path, store.acquisition)

    @property
    def shape(self) -> Shape:
        """Shape ``(z', y, x)`` of one restored stack."""
        return self._shapes[0]

    def regions(self) -> list[Region]:
        """List the lateral regions ``(y, x)`` that tile a stack, aligned as `write` needs them, column by column."""
        _, height, width = self.shape
        return [(y, x) for x, y in itertools.product(_tiles(width), _tiles(height))]

    def write(self, stack: StackIndex, region: Region, volume: np.ndarray) -> None:
        """Write one region of a stack, over its whole depth.

        Parameters
        ----------
        stack
            ``(t, c)``.
        region
            Slices of y and x that start at multiples of `BLOCK` and end there or at the image's edge.
        volume
            ``(z', y, x)``, any real dtype, on the raw data's intensity scale. Rounded and clipped where the store
            holds integers.

        Raises
        ------
        ValueError
            If the stack or region is not in the image, the region is not aligned, the volume has another shape,
            or holds values that are not finite.
        """
        self._check_stack(stack)
        depth, height, width = self.shape
        for side, length in zip(region, (height, width), strict=True):
            starts = range(0, length, BLOCK)
            ends = [min(start + BLOCK, length) for start in starts]
            if (
                side.start not in starts
                or side.stop not in ends
                or side.stop <= side.start
                or side.step not in (None, 1)
            ):
                raise ValueError(
                    f"region {side.start}:{side.stop} of {length} pixels is not aligned to multiples of {BLOCK}; "
                    "take one of regions()"
                )
        expected = (depth, *(side.stop - side.start for side in region))
        if volume.shape != expected:
            raise ValueError(f"the restored region has shape {volume.shape}, but its place in the image {expected}")
        if not np.isfinite(volume).all():
            raise ValueError("the restored region holds values that are not finite; restore it by another method")
        voxels = _as_dtype(volume, self.dtype)
        self._levels[0][(*stack, slice(0, depth), *region)] = voxels
        if len(self._levels) > 1:
            y, x = (slice(side.start // 2, -(-side.stop // 2)) for side in region)
            halved = self._halved_of(stack)
            for z in range(0, depth, CHUNK):  # in slabs, to stay small in memory
                slab = _as_dtype(halve(voxels[z : z + CHUNK]), self.dtype)
                halved[slice(z // 2, z // 2 + len(slab)), y, x] = slab
            halved.places.add((y.start, x.start))

    def read(self, stack: StackIndex, region: Region) -> np.ndarray:
        """Read back one region of a stack, over its whole depth: ``(z', y, x)``, float32."""
        self._check_stack(stack)
        return np.asarray(self._levels[0][(*stack, slice(0, self.shape[0]), *region)], np.float32)

    def _halved_of(self, stack: StackIndex) -> _Halved:
        with self._halving:
            if stack not in self._halved:
                self._halved[stack] = _Halved(self.path, self._shapes[1], self.dtype)
            return self._halved[stack]

    def finest_level(self, voxels: int) -> int:
        """Return the finest level of which a stack has no more than so many voxels, or the coarsest."""
        return _finest(self._shapes, voxels)

    def write_level(self, stack: StackIndex, level: int, volume: np.ndarray) -> None:
        """Write a stack at one level and those coarser than it, as a preview: nothing waits for the disk.

        Parameters
        ----------
        stack
            ``(t, c)``.
        level
            Of the pyramid; 0 is the finest. The finer ones stay as they are.
        volume
            ``(z', y, x)``, in the shape of the level, any real dtype.

        Raises
        ------
        ValueError
            If the stack is not in the image, or the volume has another shape.
        """
        self._check_stack(stack)
        if volume.shape != self._shapes[level]:
            raise ValueError(f"level {level} has shape {self._shapes[level]}, but the volume {volume.shape}")
        for array in self._levels[level:]:
            array[stack] = _as_dtype(volume, self.dtype)
            volume = halve(volume)
        self._show(stack[1], np.asarray(self._levels[-1][stack]))

    def finish(self, stack: StackIndex, *, threads: int = 1) -> None:
        """Build the pyramid of a stack whose regions are all written, and see that all of it is on disk.

        Works shard by shard, in some 200 MB of memory a thread whatever the size of the stack.

        Parameters
        ----------
        stack
            ``(t, c)``.
        threads
            That build shards side by side.

        Raises
        ------
        ValueError
            If there is no such stack.
        """
        self._check_stack(stack)
        halved = self._halved.pop(stack, None)
        known = halved if halved and len(halved.places) == len(self.regions()) else None
        with ThreadPoolExecutor(threads, thread_name_prefix="pyramid") as pool:
            for fine, coarse in itertools.pairwise(self._levels):
                places = itertools.product(*(_tiles(length) for length in coarse.shape[2:]))

                def pool_into(place: Place, fine: Level = fine, coarse: Level = coarse) -> None:
                    pooled = known[place] if known is not None and coarse is self._levels[1] else None
                    coarse[(*stack, *place)] = _pooled(fine, stack, place) if pooled is None else pooled

                list(pool.map(pool_into, places))
        self._show(stack[1], np.asarray(self._levels[-1][stack]))
        for level in range(len(self._levels)):
            chunks = self.path / "restored" / str(level) / "c" / str(stack[0]) / str(stack[1])
            fsync_tree(chunks)
            for folder in chunks.parents[:3]:
                if folder.is_dir():  # Shards of zeros are not written; nor is their folder.
                    fsync_folder(folder)
        self._fsync_attributes()

    def write_provenance(self, stack: StackIndex, provenance: dict[str, Any]) -> None:
        """Keep with the image how ``stack`` was restored, as JSON; replaces what was said of it before.

        Each stack's is in the attributes of a group of its own: there may be ten thousand, and one file of all of them
        would be written anew with each.
        """
        self._check_stack(stack)
        put_group(self.path / "restored" / _PROVENANCE / "t{}c{}".format(*stack), {ATTRIBUTES: provenance})

    def _show(self, channel: int, overview: np.ndarray) -> None:
        """Let viewers open the channel at a contrast that suits its latest stack."""
        low, high = (float(value) for value in np.percentile(overview, (0.1, 99.9)))
        with _ATTRIBUTES:
            group = zarr.open_group(self.path / "restored", mode="r+")
            metadata: Any = group.attrs["ome"]
            window = metadata["omero"]["channels"][channel]["window"]
            window.update(start=low, end=max(high, low + 1e-6))
            if self.dtype.kind == "f":
                window.update(min=float(overview.min()), max=max(float(overview.max()), window["end"]))
            group.attrs.put({**group.attrs.asdict(), "ome": metadata})
            if (self.path / "raw" / "zarr.json").is_file():
                with suppress(OSError, ValueError, KeyError):  # the volume is whole whatever a viewer will show
                    show_raw(self.path, self.acquisition, channel, low, high)

    def _fsync_attributes(self) -> None:
        fsync_file(self.path / "restored" / "zarr.json")
        fsync_folder(self.path / "restored")

    def _check_stack(self, stack: StackIndex) -> None:
        if not self.acquisition.holds((*stack, 0)):
            sizes = self.acquisition.sizes
            raise ValueError(f"stack t={stack[0]}, c={stack[1]} is none of {sizes.t} time points × {sizes.c} channels")


def finest_level(acquisition: Acquisition, voxels: int) -> int:
    """Return what that of the writer will, before there is a restored image; the acquisition is not growing."""
    return _finest(level_shapes(_grid(acquisition), BLOCK), voxels)


def _finest(shapes: list[Shape], voxels: int) -> int:
    return next((level for level, shape in enumerate(shapes) if math.prod(shape) <= voxels), len(shapes) - 1)


def read_restored(path: Path, stack: StackIndex, level: int = 0) -> np.ndarray:
    """Read one restored stack of the session store at ``path`` into memory.

    Returns
    -------
    np.ndarray
        ``(z', y, x)``; level 0 is the finest.

    Raises
    ------
    FileNotFoundError
        If the store has no restored image.
    ValueError
        If it has no such stack or level.
    """
    group = _open_restored(path)
    metadata: Any = group.attrs["ome"]
    levels = len(metadata["multiscales"][0]["datasets"])
    if not 0 <= level < levels:
        raise ValueError(f"{path.name} has no restored level {level}; it has 0 to {levels - 1}")
    array = _array(group, level)
    if not all(0 <= index < length for index, length in zip(stack, array.shape, strict=False)):
        last = ", ".join(f"{name} from 0 to {length - 1}" for name, length in zip("tc", array.shape, strict=False))
        raise ValueError(f"{path.name} has no stack t={stack[0]}, c={stack[1]}; it has {last}")
    volume: np.ndarray = np.asarray(array[stack])
    return volume


def read_provenance(path: Path) -> dict[str, Any]:
    """Read how the stacks of the session store at ``path`` were restored: ``{"t0c0": {…}, …}``.

    Raises
    ------
    FileNotFoundError
        If the store has no restored image.
    """
    _open_restored(path)
    found = {}
    for file in (path / "restored" / _PROVENANCE).glob("t*c*/zarr.json"):
        t, c = file.parent.name[1:].split("c")
        found[int(t), int(c)] = json.loads(file.read_bytes())["attributes"][ATTRIBUTES]
    return {f"t{t}c{c}": found[t, c] for t, c in sorted(found)}


def _create_or_check(store: SessionStore, dtype: PixelType) -> None:
    acquisition, folder = store.acquisition, store.path / "restored"
    if not folder.exists():
        # Built beside the store and moved in: readers meet the whole image or none.
        partial = store.path.with_name(store.path.name + ".restored.partial")
        shutil.rmtree(partial, ignore_errors=True)
        _create_hierarchy(partial, acquisition, np.dtype(dtype).newbyteorder("<"))
        fsync_tree(partial)
        partial.replace(folder)
        fsync_folder(store.path)
    if not (folder / _PROVENANCE).is_dir():
        put_group(folder / _PROVENANCE, {})
    series = zarr.open_group(store.path / "OME", mode="r+")
    if series.attrs["ome"] != ome.series(["raw", "restored"]):
        series.attrs.put({"ome": ome.series(["raw", "restored"])})
    shape = (*acquisition.sizes.shape[:2], *_grid(acquisition))
    if acquisition.growing:
        _extend(zarr.open_group(folder, mode="r+"), acquisition)
    present = _array(zarr.open_group(folder, mode="r"), 0)
    if present.shape != shape or present.dtype != np.dtype(dtype):
        raise ValueError(
            f"{folder} holds a restored image of shape {present.shape} and dtype {present.dtype}, but "
            f"{shape} and {dtype} are asked for; delete that folder to restore anew"
        )


def _pooled(fine: zarr.Array[Any], stack: StackIndex, place: tuple[slice, slice, slice]) -> np.ndarray:
    # The block of the finer level is twice as long along each axis: read in slabs, to stay small in memory.
    depth, height, width = (slice(2 * s.start, min(2 * s.stop, n)) for s, n in zip(place, fine.shape[2:], strict=True))
    slabs = [
        _as_dtype(halve(np.asarray(fine[(*stack, slice(z, min(z + CHUNK, depth.stop)), height, width)])), fine.dtype)
        for z in range(depth.start, depth.stop, CHUNK)
    ]
    return np.concatenate(slabs)


def _as_dtype(volume: np.ndarray, dtype: np.dtype[Any]) -> np.ndarray:
    if dtype.kind == "f" or volume.dtype == dtype:
        return volume.astype(dtype, copy=False)
    limits, voxels = np.iinfo(dtype), np.empty(volume.shape, dtype)
    for z, plane in enumerate(volume):  # one at a time: copies of all of them would take three times the memory
        voxels[z] = np.clip(np.rint(plane), limits.min, limits.max)
    return voxels


def _grid(acquisition: Acquisition) -> Shape:
    sizes = acquisition.sizes
    return (isotropic_depth(sizes.z, acquisition.voxel_size), sizes.y, sizes.x)


def _tiles(length: int) -> list[slice]:
    return [slice(start, min(start + BLOCK, length)) for start in range(0, length, BLOCK)]


def _create_hierarchy(path: Path, acquisition: Acquisition, dtype: np.dtype[Any]) -> None:
    shapes = level_shapes(_grid(acquisition), BLOCK)
    windows = [everything(dtype)] * acquisition.sizes.c
    image = ome.image(
        "restored",
        list(level_places(shapes, acquisition.voxel_size.lateral)),
        acquisition.interval_s,
        omero=ome.omero(acquisition.channel_names, windows),
    )
    group = zarr.create_group(path, attributes={"ome": image})
    for level, shape in enumerate(shapes):
        chunks = tuple(min(CHUNK, length) for length in shape)
        shards = tuple(min(BLOCK, -(-length // chunk) * chunk) for length, chunk in zip(shape, chunks, strict=True))
        group.create_array(
            str(level),
            shape=(acquisition.sizes.t, acquisition.sizes.c, *shape),
            chunks=(1, 1, *chunks),
            shards=(1, 1, *shards),
            dtype=dtype,
            compressors=BloscCodec(cname="zstd", clevel=1, shuffle="shuffle"),
            fill_value=0,
            dimension_names=ome.AXES,
        )


def _shapes(group: zarr.Group, acquisition: Acquisition) -> list[Shape]:
    """Shapes of the levels that are there; an acquisition that has grown may be worth one more, and does without."""
    return level_shapes(_grid(acquisition), BLOCK)[: len(list(group.array_keys()))]


def _extend(group: zarr.Group, acquisition: Acquisition) -> None:
    """Make room for what the acquisition has grown to; chunks and shards stay what they are."""
    for level, shape in enumerate(_shapes(group, acquisition)):
        array, wanted = _array(group, level), (*acquisition.sizes.shape[:2], *shape)
        if array.shape != wanted:
            array.resize(wanted)
    metadata: Any = group.attrs["ome"]
    windows = [tuple(channel["window"].values()) for channel in metadata["omero"]["channels"]]
    if len(windows) < acquisition.sizes.c:
        low, high = windows[0][:2]
        windows += [(low, high, low, high)] * (acquisition.sizes.c - len(windows))
        metadata.update(omero=ome.omero(acquisition.channel_names, windows))
        group.attrs.put({**group.attrs.asdict(), "ome": metadata})


def _open_restored(path: Path) -> zarr.Group:
    if not (path / "restored" / "zarr.json").is_file():
        raise FileNotFoundError(errno.ENOENT, "there is no restored image", str(path / "restored"))
    return zarr.open_group(path / "restored", mode="r")


def _array(group: zarr.Group, level: int) -> zarr.Array[Any]:
    return cast("zarr.Array[Any]", group[str(level)])
