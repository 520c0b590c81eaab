"""The way to restore with the network: XZ and YZ slices of denoised planes go through it, and the two are fused.

What has gone through is put aside on the disk, slice by slice, so that slices are whole whatever the size of the field
of view, and memory holds a few of them. XZ slices go first, all of them: they are a volume, to which YZ slices add.
They need not wait for the last plane: a slab of the volume can be restored once the planes are there that tell of it.

Where there is no time for all YZ slices, every second or fourth will do. Light is blurred along x as well, so that what
XZ and YZ slices of one place differ by is a smooth field: it is the difference that is interpolated, not the sample.
Half of the YZ slices bring nearly all of what all of them do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from otf_stream.learn.compute import Compute
from otf_stream.learn.folding import folded
from otf_stream.learn.nafnet import NAFNet
from otf_stream.learn.slices import shown
from otf_stream.learn.training import apply_network, padded_pixels
from otf_stream.restore.methods import CleanPlanes
from otf_stream.restore.regions import Method, Region
from otf_stream.restore.turns import Room, Turn, Work, unhindered
from otf_stream.store.scratch import Scratch

YZ_STEPS = (1, 2, 4)
"""All YZ slices, every second, every fourth."""

_MOST_PIXELS = 2  # times as many as are best, of one slice; a larger one is cut
_SHORTEST = 64  # pixels that a slice is cut into, but for the halo
_READ = 16  # times as many pixels of planes are read together
_READ_DEEP = 32  # voxels along z of YZ slices are read together
# Rounding to half precision, of a value of about 1, is a tenth of that to counts.
_ASIDE, _LARGEST = np.float16, 6e4

CONTEXT = 24
"""Voxels along z that are looked at before and after a slab: of those farther away it depends by rounding errors."""
_FADED = 8  # voxels that slabs have in common

NewScratch = Callable[[int, int, type[np.float16]], Scratch]
"""Opens a place for images of a height and a width."""


@dataclass(frozen=True)
class _Slab:
    """Voxels from ``start`` to ``stop`` along z, of which all XZ slices are through: ``(z', x)`` by their row."""

    start: int
    stop: int
    slices: Scratch


@dataclass(frozen=True)
class _Slices:
    """Slices of one direction.

    Parameters
    ----------
    planes
        What they are made of.
    wanted, step
        Which ones, and how far they are apart.
    width
        Of each, in pixels.
    inner
        Which voxels along z are kept.
    lines
        Reads what planes see of some of them: ``(n, z, width)``, light in counts.
    aside
        Where they are put.
    passed
        Is told of the last one that is through.
    """

    planes: CleanPlanes
    wanted: Sequence[int]
    step: int
    width: int
    inner: slice
    lines: Callable[[Sequence[int]], Tensor]
    aside: Scratch
    passed: Callable[[int], None]


class Deblurring:
    """The slices of one stack on their way through the network.

    Parameters
    ----------
    network
        Ready for inference.
    compute
        Where it runs.
    shape
        Of the isotropic volume, ``(z', y, x)``.
    scratch
        Opens places to put slices aside.
    room
        Puts them there.
    passed
        Is told the direction, 1 for XZ slices and 2 for YZ slices, and the share of it that is through.
    """

    def __init__(
        self,
        network: NAFNet,
        compute: Compute,
        shape: tuple[int, int, int],
        scratch: NewScratch,
        *,
        room: Room = unhindered,
        passed: Callable[[int, float], None] = lambda direction, share: None,
    ) -> None:
        self._network = folded(network, compute)
        self._compute = compute
        self.depth, self._height, self._width = shape
        self._scratch = scratch
        self._room = room
        self._passed = passed
        self._slabs: list[_Slab] = []

    @property
    def across(self) -> int:
        """So many voxels along z have all their XZ slices through."""
        return self._slabs[-1].stop if self._slabs else 0

    def go_across(self, planes: CleanPlanes, stop: int | None = None) -> Work[None]:
        """Run XZ slices through the network: a slab from where the last one ended to ``stop``, or to the end.

        Parameters
        ----------
        planes
            Those that are there. Of the stack's grid, it is known where all of them will lie.
        stop
            In voxels; planes should be there for :data:`CONTEXT` voxels beyond.
        """
        first, last = max(self.across - _FADED, 0), self.depth if stop is None else stop
        part = planes.part(first - CONTEXT, last + CONTEXT, self._network.multiple)
        begin = part.grid.start - planes.grid.start
        slab = _Slab(first, last, self._scratch(last - first, self._width, _ASIDE))

        def lines(rows: Sequence[int]) -> Tensor:
            return part.free(slice(rows[0], rows[-1] + 1), slice(0, self._width)).transpose(0, 1)

        def passed(row: int) -> None:
            self._passed(1, (first + (last - first) * (row + 1) / self._height) / self.depth)

        self._passed(1, first / self.depth)
        inner = slice(first - begin, last - begin)
        slices = _Slices(part, range(self._height), 1, self._width, inner, lines, slab.slices, passed)
        yield from self._through(slices)
        self._slabs.append(slab)

    def method(self, planes: CleanPlanes, yz_step: int) -> Method:
        """Return the way to restore regions, with every so manieth YZ slice, or none if 0.

        Regions that share columns share YZ slices, and best come one after the other.
        """
        yz = self._scratch(self.depth, self._height, _ASIDE)

        def lines(columns: Sequence[int]) -> Tensor:
            read = planes.free(slice(0, self._height), slice(columns[0], columns[-1] + 1))
            return read[:, :, ::yz_step].permute(2, 0, 1)

        def passed(column: int) -> None:
            self._passed(2, (column // yz_step + 1) / -(-self._width // yz_step))

        def restore(raw: Tensor, region: Region) -> Work[Tensor]:
            # Columns beyond the region tell what its last ones are to be interpolated from.
            columns = slice(region.x.start, min(region.x.stop + max(yz_step, 1) - 1, self._width))
            if yz_step:
                wanted = range(columns.start, columns.stop, yz_step)
                everything = slice(0, self.depth)
                yz.forget(before=columns.start)
                yield from self._through(_Slices(planes, wanted, yz_step, self._height, everything, lines, yz, passed))
            volume = self._xz(region.y, columns, raw.device)
            if yz_step:
                for z in range(0, self.depth, _READ_DEEP):
                    slab = slice(z, z + _READ_DEEP)
                    turned = torch.from_numpy(yz.read(wanted, slab, region.y)).to(raw.device, torch.float32)
                    _fuse(volume[slab], turned.permute(1, 2, 0), yz_step, region.x.stop - region.x.start)
            yield Turn.READY
            return volume[:, :, : region.x.stop - region.x.start].mul_(planes.scale).add_(planes.origin)

        if yz_step:
            self._passed(2, 0.0)
        return Method("network", restore)

    def _xz(self, y: slice, x: slice, device: torch.device) -> Tensor:
        """Read what XZ slices have become: ``(z', y, x)``."""
        volume = torch.empty(self.depth, y.stop - y.start, x.stop - x.start, device=device)
        done = 0
        for slab in self._slabs:
            read = torch.from_numpy(slab.slices.read(range(y.start, y.stop), columns=x)).to(device)
            read, both = read.transpose(0, 1), done - slab.start
            if both:
                ramp = torch.arange(1, both + 1, device=device) / (both + 1)
                volume[slab.start : done].lerp_(read[:both].float(), ramp[:, None, None])
            volume[done : slab.stop] = read[both:]
            done = slab.stop
        return volume

    def _through(self, slices: _Slices) -> Work[None]:
        """Put slices aside once they are through; those that are not yet there."""
        while left := [index for index in slices.wanted if index not in slices.aside]:
            try:
                yield from self._pass(slices, left)
            except (RuntimeError, MemoryError) as error:
                self._compute = self._compute.with_smaller_images(error)

    def _pass(self, slices: _Slices, left: Sequence[int]) -> Work[None]:
        network, width = self._network, slices.width
        matrices = slices.planes.matrices(self._compute.device)
        depth = len(matrices[1])
        cuts = list(_cut(network, depth, width, _MOST_PIXELS * self._compute.pixels))
        batch = slices_at_once(depth, width, self._compute.pixels)
        read = len(slices.planes.grid.planes) * width * slices.step
        together = -(-max(_READ * self._compute.pixels // read, 1) // batch) * batch

        def batches() -> Iterator[tuple[Sequence[int], Tensor]]:
            for start in range(0, len(left), together):
                some = left[start : start + together]
                seen = slices.lines(some).div_(slices.planes.scale)
                yield from ((some[i : i + batch], seen[i : i + batch]) for i in range(0, len(some), batch))

        def restore(some: tuple[Sequence[int], Tensor]) -> tuple[Sequence[int], Tensor]:
            indices, seen = some
            restored = torch.empty(len(indices), _length(slices.inner), width, dtype=torch.float16)
            for window, inner, place in cuts:
                sections = shown(*matrices, seen[..., window])
                part = apply_network(network, sections, self._compute)[:, 0, slices.inner, inner]
                restored[..., place] = part.clamp(-_LARGEST, _LARGEST)
            return indices, restored

        for indices, restored in self._compute.map(restore, batches()):
            for index, image in zip(indices, restored.numpy(), strict=True):
                yield from self._room(partial(slices.aside.put, index, image))
            slices.passed(indices[-1])
            yield Turn.READY


def _fuse(xz: Tensor, yz: Tensor, step: int, length: int) -> None:
    """Average two volumes in place, of which one has every ``step``-th column only.

    Parameters
    ----------
    xz
        ``(z', y, x)``; its first ``length`` columns become the average.
    yz
        ``(z', y, columns)``, of columns 0, ``step``, 2 · ``step``, …; is overwritten.
    """
    columns = yz.shape[2]
    difference = yz.sub_(xz[:, :, : (columns - 1) * step + 1 : step])
    after = [*range(1, columns), columns - 1]  # at the edge of the field of view there is none after the last
    for offset in range(step):
        averaged = xz[:, :, offset:length:step]
        here = averaged.shape[2]
        averaged.add_(difference[:, :, :here], alpha=0.5 * (1 - offset / step))
        if offset:
            averaged.add_(difference[:, :, after[:here]], alpha=0.5 * offset / step)


def slices_at_once(depth: int, width: int, pixels: int) -> int:
    """How many slices of ``depth × width`` go through a network together, of about so many ``pixels``."""
    return max(pixels // (depth * width), 1)


def pixels_through(network: NAFNet, depth: int, width: int, pixels: int) -> int:
    """How many pixels go through a network for a slice of ``depth × width``, halos and edges included.

    ``pixels`` are best for images that go through together.
    """
    cuts = _cut(network, depth, width, _MOST_PIXELS * pixels)
    return sum(padded_pixels(network, depth, window.stop - window.start) for window, _, _ in cuts)


def _cut(network: NAFNet, depth: int, width: int, most: int) -> Iterator[tuple[slice, slice, slice]]:
    """Cut a slice into windows of at most so many pixels; what is inside of each window, and where that belongs.

    Windows begin at multiples that the network asks for and carry a halo of its reach: cuts do not show.
    """
    length, halo = width, 0
    while padded_pixels(network, depth, min(length + 2 * halo, width)) > most and length > _SHORTEST:
        halo = network.reach
        length = -(-length // (2 * network.multiple)) * network.multiple
    for start in range(0, width, length):
        stop = min(start + length, width)
        window = slice(max(start - halo, 0), min(stop + halo, width))
        yield window, slice(start - window.start, stop - window.start), slice(start, stop)


def _length(extent: slice) -> int:
    length: int = extent.stop - extent.start
    return length
