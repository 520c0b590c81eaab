"""A listener for the hooks, and the stores that it fills."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from listeners import running

from otf_stream.acquire.listener import Listener
from otf_stream.store.session import SessionStore


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[Listener]:
    with running(tmp_path / "data") as listener:
        yield listener


@pytest.fixture
def stored(tmp_path: Path) -> Iterator[Callable[[str], SessionStore]]:
    """Open a store of the listener's by its name."""
    opened: list[SessionStore] = []

    def open_store(name: str) -> SessionStore:
        opened.append(SessionStore.open(tmp_path / "data" / f"{name}.ome.zarr"))
        return opened[-1]

    yield open_store
    for store in opened:
        store.close()
