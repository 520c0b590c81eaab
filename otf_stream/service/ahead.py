"""Stage 7, begun early: slabs of a stack go through the network while its last planes are still to come.

A stack that would take longer to restore than there is time after its last plane cannot wait for it. Learning then
ends sooner, and XZ slices of a slab are restored as soon as the planes are there that tell of it, all with the network
as it is by then: slabs of different networks would show. Slabs overlap, so that short ones cost more; but whoever keeps
up with the planes has the time, and whoever does not finds more planes there for the next slab, which is longer. If
there is time after all once the last plane is there, all is restored anew, by what all planes tell of blur and haze.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from otf_stream.restore.deblurring import CONTEXT, Deblurring
from otf_stream.restore.turns import Turn, Work
from otf_stream.service.learning import Learned
from otf_stream.service.source import StackSource

SLAB = 32
"""Voxels along z that are restored ahead together, at the least."""
DEEP = 192
"""Voxels along z from which on it is worth it: the last slab, and what lies around it, must be a small part."""


def may_go_ahead(source: StackSource) -> bool:
    """Whether a stack is deep enough to be restored in slabs, and is known to become so deep."""
    return not source.acquisition.growing and source.grid().depth >= DEEP


def go_ahead(
    source: StackSource, learned: Learned, deblurring: Deblurring, told: Callable[[int], None] = lambda stop: None
) -> Work[None]:
    """Restore slab after slab, as planes come, until all of them have come.

    Parameters
    ----------
    source
        The stack.
    learned
        Of it; its planes are denoised as they come.
    deblurring
        Takes the slabs.
    told
        Told where a slab ends that will be restored, in voxels.
    """
    while not source.arrivals().complete:
        yield from learned.stack.taking()
        grid = replace(source.grid(), planes=learned.stack.planes)
        stop = _told_of(grid.planes, source.extent, grid.anisotropy, grid.start) - CONTEXT
        if stop - deblurring.across >= SLAB:
            told(stop)
            yield from deblurring.go_across(learned.clean(grid), stop)
        else:
            yield Turn.WAITING


def _told_of(planes: Sequence[int], extent: range, anisotropy: float, start: int) -> int:
    """How many voxels, from the first, lie between planes that are all there."""
    there = next((at for at, z in enumerate(extent) if at == len(planes) or planes[at] != z), len(extent))
    return int((extent.start + there - 1) * anisotropy - start) + 1 if there else 0
