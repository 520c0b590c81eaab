"""A listener for what the simulators stream, and samples that are drawn once."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from listeners import running

from otf_stream.acquire.listener import Listener
from simulators.specimen import CHANNELS


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[Listener]:
    with running(tmp_path / "data") as listener:
        yield listener


@pytest.fixture(scope="module", autouse=True)
def drawn_once() -> Iterator[None]:
    """Draw a sample once a file: it depends on its shape and seed alone, and takes longer than what is done with it."""
    with pytest.MonkeyPatch.context() as patched:
        for label, draw in CHANNELS.items():
            patched.setitem(CHANNELS, label, cache(draw))
        yield
