"""Where the report of a stack lies: beside the store, like everything else that is told of it.

It is named here, below all who write it, link to it or make room for it.
"""

from __future__ import annotations

from pathlib import Path

from otf_stream.acquisition import StackIndex


def report_path(store: Path, stack: StackIndex) -> Path:
    """Where the report of a stack lies: ``NAME.report.t0-c0.html`` beside ``NAME.ome.zarr``."""
    return store.with_name(f"{store.name.removesuffix('.ome.zarr')}.report.t{stack[0]}-c{stack[1]}.html")
