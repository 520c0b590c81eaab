"""Changes to the metadata of a Zarr group or array, of which readers see all or nothing.

Listener and worker both change those of the raw image. If they do so at the same moment one change is lost, which is no
more than a contrast; what is written is always whole.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

from otf_stream.store.chunks import write_file
from otf_stream.store.disk import fsync_folder


def amend(node: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Let ``change`` alter the metadata of the group or array in folder ``node``, and put it on the disk."""
    file = node / "zarr.json"
    metadata = json.loads(file.read_bytes())
    change(metadata)
    partial = file.with_name(f"{file.name}.{uuid4().hex}.partial")  # nobody else writes this one
    try:
        write_file(partial, memoryview(json.dumps(metadata, indent=2).encode()))
        partial.replace(file)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    fsync_folder(node)
