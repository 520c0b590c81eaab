"""Giving memory back between the steps of a large stack, so that the most it takes is what one step takes.

What a step leaves behind is in pieces that what the next one needs does not fit in. To get memory again takes up to a
second, so it is given back where a stack takes minutes anyhow.
"""

from __future__ import annotations

from otf_stream.heap import release_memory
from otf_stream.service.source import StackSource

_LARGE = 2**24  # voxels of a stack that takes so long that a second more is worth hundreds of megabytes less


def tidy_up(source: StackSource) -> None:
    """Give back the memory of what was done before, if the stack is large."""
    if source.voxels >= _LARGE:
        release_memory()
