"""What must be true of a stack once all is over: the promises, checked on the disk and nowhere else."""

from __future__ import annotations

import zlib
from collections.abc import Collection
from contextlib import closing, suppress
from pathlib import Path

import numpy as np
import zarr

from otf_stream.bench.chaos.sample import Z_STEP, Sample, Stack
from otf_stream.store.chunks import chunk_file
from otf_stream.store.finding import find_sessions
from otf_stream.store.journal import Journal, JournalError, journal_path
from otf_stream.store.restored import CHUNK, read_provenance, read_restored
from otf_stream.store.session import session_attributes

_STACK = (0, 0)
_RESEMBLANCE = 0.5  # correlation with the raw planes that any method reaches


def stores_of(session: str, data: Path) -> list[Path]:
    """Return the stores of a session; there should be one."""
    return [path for path in find_sessions(data) if (session_attributes(path) or {}).get("session") == session]


def is_over(session: str, data: Path) -> bool:
    """Whether the session is closed and its stack done with."""
    for path in stores_of(session, data):
        with suppress(JournalError, FileNotFoundError), closing(Journal.open(journal_path(path))) as journal:
            return journal.closed is not None and journal.state(_STACK) in ("restored", "failed")
    return False


def stage_of(session: str, data: Path) -> str:
    """Return what was begun last with the stack; empty before anything was."""
    for path in stores_of(session, data):
        with suppress(JournalError, FileNotFoundError), closing(Journal.open(journal_path(path))) as journal:
            stages = [str(event.detail["stage"]) for event in journal.events() if event.kind == "stage"]
            return stages[-1] if stages else ""
    return ""


def plane_problems(data: Path, sample: Sample, promised: Collection[int]) -> list[str]:
    """Compare the planes on the disk with those that were drawn.

    Parameters
    ----------
    data
        Folder of the stores.
    sample
        What was sent.
    promised
        The planes that must be there.
    """
    stores = stores_of(sample.session, data)
    if len(stores) != 1:
        return [f"there are {len(stores)} stores of the session"]
    with closing(Journal.open(journal_path(stores[0]))) as journal:
        durable = journal.durable()
    found = [f"plane {z} was acknowledged and is not in the journal" for z in promised if (0, 0, z) not in durable]
    drawn = sample.stack()
    for index, crc in durable.items():
        if index[:2] != _STACK or index[2] >= len(drawn):
            found.append(f"plane {index} is in the journal and was never sent")
            continue
        content = drawn[index[2]].tobytes()
        file = chunk_file(stores[0], index)
        if not file.is_file():
            found.append(f"the chunk of plane {index[2]} is missing")
        elif file.read_bytes() != content:
            found.append(f"the chunk of plane {index[2]} is altered")
        elif crc != zlib.crc32(content):
            found.append(f"the checksum of plane {index[2]} in the journal is wrong")
    return found


def restored_problems(
    data: Path, sample: Sample, *, closed: Collection[str], missing: Collection[int] = ()
) -> list[str]:
    """Look whether the session is closed and its volume complete.

    Parameters
    ----------
    data
        Folder of the stores.
    sample
        What was sent.
    closed
        Why the session may be closed.
    missing
        Planes that were never sent, of which the provenance has to tell.
    """
    stores = stores_of(sample.session, data)
    if len(stores) != 1:
        return [f"there are {len(stores)} stores of the session"]
    path = stores[0]
    with closing(Journal.open(journal_path(path))) as journal:
        state, reason = journal.state(_STACK), journal.closed
        traces = [event.detail["trace"] for event in journal.events() if event.kind in ("failure", "preview failed")]
    found = [f"a failure was noted: {trace.strip().splitlines()[-1]}" for trace in traces]
    if state != "restored":
        return [*found, f"the stack is {state}"]
    if reason not in closed:
        found.append(f"the session was closed for {reason!r}, not {' or '.join(closed)}")
    provenance = read_provenance(path).get("t0c0", {"preview": True})
    if provenance.get("preview"):
        return [*found, "the provenance is that of a preview"]
    if provenance["missing_planes"] != sorted(missing):
        found.append(f"the provenance tells of missing planes {provenance['missing_planes']}, not {sorted(missing)}")
    return found + _volume_problems(path, sample.volume_shape, sample.stack(), missing)


def _volume_problems(path: Path, shape: tuple[int, int, int], stack: Stack, missing: Collection[int]) -> list[str]:
    group = zarr.open_group(path / "restored", mode="r")
    holes = [name for name, array in group.arrays() if array.nchunks_initialized != array.nchunks]
    found = [f"level {name} of the volume has missing shards" for name in holes]
    volume = read_restored(path, _STACK)
    if volume.shape != shape:
        return [*found, f"the volume has the shape {volume.shape}, not {shape}"]
    # The sample has no black voxels, so that an empty chunk is one that was not written.
    corners = np.ndindex(*(-(-length // CHUNK) for length in shape))
    chunks = (tuple(slice(CHUNK * i, CHUNK * (i + 1)) for i in corner) for corner in corners)
    if not all(volume[chunk].any() for chunk in chunks):
        found.append("the volume has empty chunks")
    there = [z for z in range(len(stack)) if z not in missing]
    alike = np.corrcoef(volume[::Z_STEP][there].ravel(), stack[there].ravel())[0, 1]
    if not alike > _RESEMBLANCE:
        found.append(f"the volume does not resemble its planes (correlation {alike:.2f})")
    return found
