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
    metadata = json.loads((node / "zarr.json").read_bytes())
    change(metadata)
    _write(node, metadata)


def put_group(node: Path, attributes: dict[str, Any]) -> None:
    """Make ``node`` a group with these attributes, whatever it was before; its parent is a group."""
    node.mkdir(exist_ok=True)
    _write(node, {"zarr_format": 3, "node_type": "group", "attributes": attributes})
    fsync_folder(node.parent)


def _write(node: Path, metadata: dict[str, Any]) -> None:
    file = node / "zarr.json"
    partial = file.with_name(f"{file.name}.{uuid4().hex}.partial")  # nobody else writes this one
    try:
        write_file(partial, memoryview(json.dumps(metadata, indent=2).encode()))
        partial.replace(file)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    fsync_folder(node)
