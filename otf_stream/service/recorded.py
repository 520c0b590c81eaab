"""Restoring a recorded stack: its planes are put into a session store, and from there all is as in live use."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from isal.isal_zlib import crc32

from otf_stream.acquisition import StackIndex
from otf_stream.learn.compute import Compute
from otf_stream.service.costs import Costs
from otf_stream.service.demand import Demand
from otf_stream.service.folder import is_served
from otf_stream.service.memory import Memory
from otf_stream.service.settings import Settings
from otf_stream.service.source import StackSource
from otf_stream.service.stack import expected_demand, restore_stack
from otf_stream.store.recordings import Recording
from otf_stream.store.session import SessionStore

_GROUP = 8  # planes made durable together

Progress = Callable[[StackIndex, str, float], None]
"""Told the stack, the stage and its progress, from 0 to 1."""


def restore_recording(
    recording: Recording,
    path: Path,
    settings: Settings,
    compute: Compute,
    *,
    overwrite: bool = False,
    progress: Progress = lambda stack, stage, done: None,
) -> dict[StackIndex, dict[str, Any]]:
    """Restore every stack of a recording into a new session store.

    Parameters
    ----------
    recording
        What was recorded.
    path
        The new store, ``NAME.ome.zarr``.
    settings
        Method, budget and seed. The budget counts from the first plane read, and covers all stacks.
    compute
        Device and precision.
    overwrite
        Replace a store that is there.
    progress
        Is told what is being done.

    Returns
    -------
    dict
        The provenance of each stack.

    Raises
    ------
    ValueError
        If ``path`` would overwrite the recording, or lies in the data folder of a service.
    FileExistsError
        If ``path`` exists and ``overwrite`` is not set.
    OSError
        If the disk is full or cannot be written.
    """
    source, out = recording.path.resolve(), path.resolve()
    if source == out or source in out.parents or out in source.parents:
        raise ValueError(f"{path} is, holds or lies in the recording {recording.path} itself; give another output")
    if is_served(out.parent):
        raise ValueError(
            f"a service is at work in {path.parent}, and would restore the stack as well; give an output elsewhere"
        )
    store = SessionStore.create(path, recording.acquisition, session=uuid.uuid4().hex, overwrite=overwrite)
    try:
        _copy_planes(recording, store, progress)
        stacks = [stack for stack in recording.acquisition.stacks() if store.journal.planes_of(stack)]
        provenance, memory, costs = {}, Memory(), Costs(on_processor=compute.device.type == "cpu")
        for done, stack in enumerate(stacks):

            def tell(stage: str, fraction: float, stack: StackIndex = stack) -> None:
                progress(stack, stage, fraction)

            def others(left: Sequence[StackIndex] = stacks[done + 1 :]) -> list[Demand]:
                return [expected_demand(StackSource(store, stack), settings, costs) for stack in left]

            provenance[stack] = restore_stack(
                store, stack, settings, compute, progress=tell, others=others, memory=memory, costs=costs
            )
        return provenance
    finally:
        store.close()


def _copy_planes(recording: Recording, store: SessionStore, progress: Progress) -> None:
    t, c, z = (range(n) for n in recording.acquisition.sizes.shape[:3])
    planes = [(i, j, k) for i in t for j in c for k in z if (i, j, k) not in recording.missing]
    for start in range(0, len(planes), _GROUP):
        progress(planes[start][:2], "read", start / len(planes))
        group = []
        for plane in planes[start : start + _GROUP]:
            pixels = np.ascontiguousarray(recording.plane(plane), recording.acquisition.numpy_dtype)
            group.append((plane, pixels.data, crc32(pixels.data)))
        store.write_planes(group)
    store.journal.close_arrivals("recorded")
