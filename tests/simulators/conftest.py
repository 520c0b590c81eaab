"""A listener for what the simulators stream."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from listeners import running

from otf_stream.acquire.listener import Listener


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[Listener]:
    with running(tmp_path / "data") as listener:
        yield listener
