"""Changes to the metadata of a Zarr group or array, of which readers see all or nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from otf_stream.store.chunks import write_file
from otf_stream.store.disk import fsync_folder


def amend(node: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Let ``change`` alter the metadata of the group or array in folder ``node``, and put it on the disk."""
    file = node / "zarr.json"
    metadata = json.loads(file.read_bytes())
    change(metadata)
    partial = file.with_name(file.name + ".partial")
    write_file(partial, memoryview(json.dumps(metadata, indent=2).encode()))
    partial.replace(file)
    fsync_folder(node)
