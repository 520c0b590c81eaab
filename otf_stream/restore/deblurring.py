"""The way to restore with the network: XZ and YZ slices of denoised planes go through it, and the two are fused.

Where there is no time for all YZ slices, every second or fourth will do. Light is blurred along x as well, so that what
XZ and YZ slices of one place differ by is a smooth field: it is the difference that is interpolated, not the sample.
Half of the YZ slices bring nearly all of what all of them do.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from otf_stream.learn.compute import Compute
from otf_stream.learn.folding import folded
from otf_stream.learn.nafnet import NAFNet
from otf_stream.learn.slices import shown
from otf_stream.learn.training import apply_network
from otf_stream.restore.methods import Grid, HazeField, Light
from otf_stream.restore.regions import Method, Region
from otf_stream.restore.turns import OutOfTimeError, Turn, Work

YZ_STEPS = (1, 2, 4)
"""All YZ slices, every second, every fourth."""

# Activations of so many pixels stay in the cache of a CPU core.
_SLICE_PIXELS = 2**17


@dataclass(frozen=True)
class Pace:
    """Is told how far deblurring a region is, and decides how far it goes.

    Parameters
    ----------
    passed
        Given the direction, the share of its slices that have gone through the network, from 0 on, and the region.
    yz_step
        Given the region, once XZ slices are through: one of :data:`YZ_STEPS`, or 0 for no YZ slices.
    """

    passed: Callable[[int, float, Region], None] = lambda direction, share, region: None
    yz_step: Callable[[Region], int] = lambda region: 1


UNHURRIED = Pace()


def deblur(
    grid: Grid,
    light: Light,
    field: HazeField,
    kernel: Tensor,
    network: NAFNet,
    compute: Compute,
    *,
    origin: float,
    scale: float,
    pace: Pace = UNHURRIED,
) -> Method:
    """Free denoised planes of haze, run XZ and YZ slices through the network, and average the two.

    A region is read with :attr:`NAFNet.reach` pixels more along its slices: cutting it shows no seam.

    Parameters
    ----------
    light
        The denoised planes.
    field
        The haze of the whole stack.
    kernel
        Of the axial blur, ``(odd,)``, in voxels.
    network
        Ready for inference.
    compute
        Where it runs.
    origin, scale
        Light is divided by the scale for the network; what comes out is multiplied by it and added to the origin.
    pace
        Decides how far to go. Where YZ slices run out of time, those of XZ do, if the region is the whole field of
        view: regions of one direction beside regions of two would show seams.
    """
    ready = folded(network)

    def restore(raw: Tensor, region: Region) -> Work[Tensor]:
        matrices = grid.imaging(kernel, raw.device), grid.interpolation(raw.device)

        def seen(window: Region) -> Tensor:
            return field.removed(light(window.y, window.x), window.y, window.x).div_(scale)

        def through(direction: int, slices: Tensor, inner: slice) -> Work[Tensor]:
            return _through(ready, compute, *matrices, slices, inner, lambda done: pace.passed(direction, done, region))

        # Columns beyond the region tell what its last ones are to be interpolated from.
        beyond = min(region.x.stop + YZ_STEPS[-1] - 1, region.width)
        across = region.grown(x=network.reach)
        start, length = region.x.start - across.x.start, region.x.stop - region.x.start
        volume = yield from through(1, seen(across), slice(start, start + beyond - region.x.start))
        if step := pace.yz_step(region):
            columns = slice(region.x.start, min(region.x.stop + step - 1, region.width))
            along = Region(region.y, columns, region.height, region.width).grown(y=network.reach)
            top, height = region.y.start - along.y.start, region.y.stop - region.y.start
            try:
                # Turned, the YZ slices of a stack are the XZ slices of its mirror image.
                slices = seen(along)[:, :, ::step].transpose(1, 2)
                turned = yield from through(2, slices, slice(top, top + height))
                _fuse(volume, turned.transpose(1, 2), step, length)
            except OutOfTimeError:
                if not region.is_whole:
                    raise
        return volume[:, :, :length].mul_(scale).add_(origin)

    return Method("network", restore)


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


def slices_at_once(depth: int, width: int) -> int:
    """How many slices of ``depth × width`` pixels go through a network together."""
    edge = 16  # what is mirrored around a slice counts as well
    return max(_SLICE_PIXELS // ((depth + edge) * (width + edge)), 1)


def _through(
    network: NAFNet,
    compute: Compute,
    imaging: Tensor,
    interpolation: Tensor,
    light: Tensor,
    inner: slice,
    passed: Callable[[float], None],
) -> Work[Tensor]:
    """Restore the slices of ``light``, ``(z, slices, width)``, into ``(z', slices, inner)``, a few a turn.

    ``passed`` is told the share that is done.
    """
    _, slices, width = light.shape
    depth = len(interpolation)
    volume = light.new_empty(depth, slices, inner.stop - inner.start)
    batch = slices_at_once(depth, width)

    def restore(start: int) -> int:
        sections = shown(imaging, interpolation, light[:, start : start + batch].transpose(0, 1))
        restored = apply_network(network, sections, compute)[:, 0, :, inner]
        volume[:, start : start + batch] = restored.transpose(0, 1)
        return min(start + batch, slices)

    passed(0.0)
    for end in compute.map(restore, range(0, slices, batch)):
        passed(end / slices)
        if end < slices:
            yield Turn.READY
    return volume
