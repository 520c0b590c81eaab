"""The planes of a growing stack, denoised and freed of haze: what deblurring is learnt from.

Every plane is denoised once, as soon as its neighbours are there, and put aside on the disk until the stack is
restored. In memory all are kept binned, because the haze of one plane comes from all; a few rows and columns of all,
which are axial slices; and of planes as much as training can use. The haze is computed anew as the stack grows.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from otf_stream.acquisition import isotropic_depth
from otf_stream.heap import release_memory
from otf_stream.learn.compute import Compute
from otf_stream.learn.denoise import NEIGHBOURS, Denoiser
from otf_stream.learn.pairs import PATCH, patch_side
from otf_stream.learn.planes import PlanePool, random_window
from otf_stream.optics.haze import HazeField, binned, spread
from otf_stream.optics.haze_errors import haze_errors
from otf_stream.restore.methods import CleanPlanes, Grid, denoised
from otf_stream.restore.turns import Room, Turn, Work, unhindered
from otf_stream.service.character import FoundPsf, middle
from otf_stream.service.source import StackSource
from otf_stream.service.tidying import tidy_up

_LOOK = 0.5  # seconds between two looks for new planes
_BATCH, _READ = 4, 8  # planes read at a time; fewer of large ones, of more pixels than so many times what is best
_KEPT = 8 * 2**20  # pixels that training can use
_WINDOW = 512  # side of what is kept for training of a plane: of a few whole ones it would learn less
_HAZE_VOXELS = 4 * 2**20
_COARSEST = 8
# Where pinholes or two photons leave little haze, bins twice as wide take a tenth of the time and cost 0.02 dB; a light
# sheet would lose 0.25 dB.
_FAINT_HAZE, _FAINT_HAZE_BINNING = ("confocal", "multiphoton"), 4
_WIDER = 2  # times as wide as those of haze are bins in which its errors are rehearsed: those are broad
_ERROR_PLANES, _ERROR_SIDE = 12, 192  # of the window of planes whose errors are drawn
_HELD_OUT = 8  # one plane of so many is kept for the exam
_BRIGHT, _SORTED = 99.9, 2**21  # percentile, and pixels that tell it
_TIDIED = 2**22  # pixels that are denoised before memory is tidied up, which takes about as long as 2 % of that
_LINES = 12  # rows, and columns, that are kept of every plane


@dataclass(frozen=True)
class Batch:
    """Planes with those before and after: ``planes`` ``(n, y, x)``, float32 counts, of which ``wanted`` are new."""

    indices: list[int]
    planes: Tensor
    wanted: slice


class Feed:
    """Reads each plane of a growing stack once, with its neighbours, a few at a time."""

    def __init__(self, source: StackSource, compute: Compute) -> None:
        self._source = source
        sizes = source.acquisition.sizes
        self._batch = max(min(_BATCH, _READ * compute.pixels // (sizes.y * sizes.x)), 1)
        self._read: set[int] = set()
        self._looked = float("-inf")

    @property
    def seen(self) -> int:
        """How many planes have been read."""
        return len(self._read)

    def fresh(self, *, at_once: bool = False, least: float = 0.0) -> Iterator[Batch]:
        """Yield the planes that have come since the last look and whose neighbours are there too.

        Parameters
        ----------
        at_once
            Look now, however short ago the last look was.
        least
            Yield none unless there are so many times as many as have been read.
        """
        if not at_once and time.monotonic() - self._looked < _LOOK:
            return
        self._looked = time.monotonic()
        complete = self._source.arrivals().complete
        there = self._source.planes()
        ready = there if complete else there[: max(len(there) - NEIGHBOURS, 1)]
        new = [place for place, z in enumerate(ready) if z not in self._read]
        if len(new) < least * self.seen:
            return
        for run in np.split(np.array(new, int), np.flatnonzero(np.diff(new) != 1) + 1) if new else []:
            for start in range(0, len(run), self._batch):
                places = run[start : start + self._batch]
                first, last = int(places[0]), int(places[-1]) + 1
                window = slice(max(first - NEIGHBOURS, 0), min(last + NEIGHBOURS, len(there)))
                planes = torch.from_numpy(self._source.read(there[window]))
                yield Batch(there[first:last], planes, slice(first - window.start, last - window.start))
                self._read.update(there[first:last])


@dataclass(frozen=True)
class Lessons:
    """What deblurring is learnt from.

    Parameters
    ----------
    clean
        Planes without haze, normalised.
    held_out
        Others, for an exam; the same where there is none to spare.
    held_out_planes
        How many those are; 0 where there is none to spare.
    clean_haze, held_out_haze
        By how much the haze of each of them may be overestimated where y, and where x, plays z: ``(n, 2, y, x)``.
    errors
        What denoising leaves in consecutive planes, ``(z, y, x)``, in the same unit.
    scale
        That unit, in counts: from no light to the brightest thousandth.
    """

    clean: PlanePool
    held_out: PlanePool
    held_out_planes: int
    clean_haze: PlanePool
    held_out_haze: PlanePool
    errors: Tensor
    scale: float


def _bright(*planes: Tensor) -> float:
    """Return what the brightest thousandth of the pixels exceeds, of so many as are worth sorting."""
    step = max(sum(some.numel() for some in planes) // _SORTED, 1)
    pixels = torch.cat([some.flatten()[::step] for some in planes])
    return float(np.percentile(pixels.cpu().numpy(), _BRIGHT))


@dataclass(frozen=True)
class _Window:
    """A part of a denoised plane: which part, and its light ``(y, x)`` in counts."""

    y: slice
    x: slice
    light: Tensor


class CleanStack:
    """Denoises planes as they come, and keeps what haze and pairs are computed from.

    Parameters
    ----------
    source
        The stack.
    denoiser
        Of its planes.
    generator
        Source of randomness, on the computing device.
    room
        Puts planes aside.
    """

    def __init__(
        self, source: StackSource, denoiser: Denoiser, generator: torch.Generator, *, room: Room = unhindered
    ) -> None:
        sizes = source.acquisition.sizes
        self.denoiser = denoiser
        self.generator = generator
        self._room = room
        self._feed = Feed(source, denoiser.compute)
        self._voxel_size = source.acquisition.voxel_size
        self.anisotropy = self._voxel_size.anisotropy
        self.lateral = slice(0, sizes.y), slice(0, sizes.x)
        """All rows, and all columns, of a plane."""
        self._coarse: dict[int, Tensor] = {}
        self._aside = source.scratch(sizes.y, sizes.x, np.float32)
        self._kept: dict[int, _Window] = {}
        self._rows, self._columns = (
            sorted({(2 * i + 1) * n // (2 * _LINES) for i in range(_LINES)}) for n in (sizes.y, sizes.x)
        )
        self._lines: dict[int, tuple[Tensor, Tensor]] = {}
        self._haze: tuple[FoundPsf, list[int], list[int], HazeField] | None = None
        self._source = source
        self._haze_time = 0.0
        self._errors: Tensor | None = None
        self._most = max(_KEPT // (min(sizes.y, _WINDOW) * min(sizes.x, _WINDOW)), 1)
        finest = _FAINT_HAZE_BINNING if source.acquisition.modality in _FAINT_HAZE else 2
        self.binning = next(
            (b for b in range(finest, _COARSEST) if sizes.z * sizes.y * sizes.x <= _HAZE_VOXELS * b**2), _COARSEST
        )

    @property
    def haze_time_of_all(self) -> float:
        """Seconds that computing the haze of all planes will take, by those of the last time; 0 when all are there."""
        planes = len(self._source.extent)
        return self._haze_time * planes / max(self.seen, 1) if self.seen < planes else 0.0

    @property
    def seen(self) -> int:
        """How many planes have been denoised."""
        return self._feed.seen

    @property
    def planes(self) -> list[int]:
        """Index of every plane that has been denoised, ascending."""
        return sorted(self._coarse)

    def taking(self, *, at_once: bool = False) -> Work[None]:
        """Denoise the planes that have come, by turns."""
        pixels = 0
        for batch in self._feed.fresh(at_once=at_once):
            light = (yield from denoised(self.denoiser, batch.planes, batch.wanted)) - self.denoiser.noise.offset
            self._coarse.update(zip(batch.indices, binned(light, self.binning), strict=True))
            for z, plane in zip(batch.indices, light, strict=True):
                yield from self._room(partial(self._aside.put, z, plane.cpu().numpy()))
                self._lines[z] = plane[self._rows], plane[:, self._columns]
                self._keep(z, plane)
            pixels += light.numel()
            if pixels >= _TIDIED:
                pixels = 0
                release_memory()  # what is kept of planes lies between what was needed to denoise them

    def _keep(self, z: int, plane: Tensor) -> None:
        """Keep a window of a plane for training; past the capacity all are equally likely to stay."""
        if len(self._kept) >= self._most:
            slot = int(torch.randint(self.seen + 1, (), generator=self.generator, device=plane.device))
            if slot >= self._most:
                return
            del self._kept[sorted(self._kept)[slot]]
        y, x = random_window(plane.shape[0], plane.shape[1], _WINDOW, self.generator)
        self._kept[z] = _Window(y, x, plane[y, x].clone())

    def stop_keeping(self) -> None:
        """Forget what is kept of planes for training, once it is over; of those that come later nothing is kept."""
        self._most = 0
        self._kept.clear()

    def haze(self, found: FoundPsf, planes: Sequence[int] | None = None) -> HazeField:
        """Compute the haze, or return what was computed if nothing has changed.

        Parameters
        ----------
        found
            Point spread function of the stack.
        planes
            In which planes; in those that have been denoised if None.
        """
        there = self.planes
        wanted = there if planes is None else list(planes)
        if self._haze and self._haze[0] is found and self._haze[1:3] == (there, wanted):
            return self._haze[3]
        begun = time.monotonic()
        # Haze is smooth along z: a plane that is not there is taken to look like the one before.
        every = np.arange(min(there[0], *wanted), max(there[-1], *wanted) + 1)
        nearest = np.clip(np.searchsorted(there, every, side="right") - 1, 0, len(there) - 1)
        light = torch.stack([self._coarse[there[place]] for place in nearest])
        rows = torch.tensor([z - every[0] for z in wanted], device=light.device)
        field = HazeField.of(light, found.psf, self.anisotropy, self.binning, rows)
        self._haze, self._haze_time = (found, there, wanted, field), time.monotonic() - begun
        return field

    def light(self, planes: Sequence[int], y: slice, x: slice) -> Tensor:
        """Return a window of denoised planes, ``(z, y, x)``, light in counts."""
        return self.denoiser.compute.upload(self._aside.read(planes, y, x))

    def grid(self) -> Grid:
        """Return where the planes lie that have been denoised, and the isotropic grid from the first to the last."""
        there = self.planes
        start = math.ceil(there[0] * self.anisotropy - 1e-6)
        return Grid(there, self.anisotropy, isotropic_depth(there[-1] + 1, self._voxel_size) - start, start)

    def clean(self, grid: Grid, found: FoundPsf, scale: float) -> CleanPlanes:
        """Return the planes of a grid, all of them denoised, and what is known of them; ``scale`` is their unit."""
        field, origin = self.haze(found, grid.planes), self.denoiser.noise.offset
        return CleanPlanes(grid, self.light, field, found.psf.kernel, origin, scale)

    @property
    def left_to_denoise(self) -> int:
        """How many planes are still to be denoised."""
        return len(self._source.extent) - self.seen

    def axial(self, found: FoundPsf) -> tuple[Grid, list[Tensor]]:
        """Return some axial slices of the planes that have been denoised.

        Parameters
        ----------
        found
            Point spread function of the stack.

        Returns
        -------
        Grid
            Of the slices: it begins at the first of the planes and ends at the last.
        list of Tensor
            XZ slices, then YZ slices: ``(n, z, width)`` each, light in counts, free of haze.
        """
        grid = self.grid()
        there = list(grid.planes)
        field = self.haze(found, there)
        y, x = self.lateral
        rows, columns = (torch.stack(lines, dim=0) for lines in zip(*(self._lines[z] for z in there), strict=True))
        xz = [field.removed(rows[:, i, None], slice(at, at + 1), x)[:, 0] for i, at in enumerate(self._rows)]
        yz = [field.removed(columns[..., i, None], y, slice(at, at + 1))[..., 0] for i, at in enumerate(self._columns)]
        return grid, [torch.stack(xz), torch.stack(yz)]

    def lessons(self, found: FoundPsf) -> Work[Lessons]:
        """Free the planes that are kept of their haze, and set some of them aside; by turns.

        Parameters
        ----------
        found
            Point spread function of the stack.
        """
        field = self.haze(found)
        tidy_up(self._source)
        yield Turn.READY
        kept = sorted(self._kept)
        asked = [z for z in kept if z % _HELD_OUT == _HELD_OUT // 2]
        taught = [z for z in kept if z not in asked]
        if not taught:
            asked, taught = [], kept
        clean = self._without_haze(field, taught)
        held_out = self._without_haze(field, asked) if asked else clean
        scale = max(_bright(clean, held_out[: len(asked)]), 1e-6)
        pools = [self._pooled(clean.div_(scale)), self._pooled(held_out.div_(scale) if asked else clean)]
        del clean, held_out
        yield Turn.READY
        wrong = self._haze_errors(found, field) / (field.core_share * scale)
        pools += [self._pooled(self._spread_errors(wrong, planes)) for planes in (taught, asked or taught)]
        yield Turn.READY
        errors = (yield from self._drawn_errors()) / (field.core_share * scale)
        wide = PlanePool(errors.device, smallest=PATCH)
        wide.add(errors[:, None], self.generator)
        tidy_up(self._source)
        return Lessons(pools[0], pools[1], len(asked), pools[2], pools[3], wide.planes[:, 0], scale)

    def _pooled(self, windows: Tensor) -> PlanePool:
        """Return a pool of windows of planes, ``(n, c, y, x)``, that pairs can be cut from."""
        pool = PlanePool(windows.device, smallest=patch_side(self.anisotropy))
        pool.add(windows, self.generator)
        return pool

    def _haze_errors(self, found: FoundPsf, field: HazeField) -> Tensor:
        """Rehearse by how much haze is overestimated, counts, ``(2, z, y, x)``, in wider bins than those of haze."""
        there = self.planes
        light = torch.stack([self._coarse[z] for z in there])
        free = binned(light.sub_(field.coarse).div_(field.core_share), _WIDER)
        positions = torch.tensor(there, dtype=torch.float32, device=free.device) * self.anisotropy
        return haze_errors(free, positions, found.psf, self.anisotropy, binning=_WIDER * self.binning)

    def _spread_errors(self, wrong: Tensor, planes: Sequence[int]) -> Tensor:
        """Interpolate what :meth:`_haze_errors` returns to what is kept of planes: ``(n, 2, y, x)``."""
        shape = self._kept[planes[0]].light.shape
        each = torch.empty(len(planes), 2, *shape, dtype=torch.float16, device=wrong.device)
        for one, (row, window) in zip(each, self._windows(planes), strict=True):
            one[:] = spread(wrong[:, row], _WIDER * self.binning, window.y, window.x)
        return each

    def _without_haze(self, field: HazeField, planes: Sequence[int]) -> Tensor:
        """Free what is kept of planes of its haze: ``(n, 1, y, x)``."""
        light = self._kept[planes[0]].light
        clean = light.new_empty(len(planes), 1, *light.shape)
        for one, (row, window) in zip(clean, self._windows(planes), strict=True):
            there = replace(field, coarse=field.coarse[row : row + 1])
            one[:] = there.removed(window.light[None], window.y, window.x)
        return clean

    def _windows(self, planes: Sequence[int]) -> Iterator[tuple[int, _Window]]:
        """Yield where each of some planes stands among those that have been denoised, and what is kept of it."""
        rows = {z: row for row, z in enumerate(self.planes)}
        yield from ((rows[z], self._kept[z]) for z in planes)

    def _drawn_errors(self) -> Work[Tensor]:
        """Return what denoising leaves in some planes, ``(z, y, x)``, counts; drawn anew for twice as many."""
        some = sorted(self._coarse)[:_ERROR_PLANES]
        if self._errors is None or len(some) >= 2 * len(self._errors):
            window = (middle(axis.stop, _ERROR_SIDE) for axis in self.lateral)
            light = self.light(some, *window) + self.denoiser.noise.offset
            recorded = self.denoiser.recorded(light, self.generator)
            self._errors = (yield from denoised(self.denoiser, recorded)) - light
        return self._errors
