"""What holds for every test: none meets the keys of the user who runs it."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

# Set before anything else is imported: some tests keep a copy of the environment for the programs that they start.
os.environ["OTF_STREAM_KEYS"] = str(Path(tempfile.gettempdir()) / f"otf_stream-no-keys-{os.getpid()}")

# The files that take long, those that wait for services between those that compute: what takes long and begins last is
# waited for by every other core.
LONG = (
    "service/test_stack.py",
    "integration/test_service.py",
    "service/test_worker.py",
    "bench/test_chaos.py",
    "bench/test_dashboard.py",
    "learn/test_pretrain.py",
    "integration/test_microscope_page.py",
    "monitor/test_dashboard.py",
    "integration/test_monitor.py",
    "service/test_supervisor.py",
    "integration/test_troubled_acquisitions.py",
    "test_cli.py",
    "bench/test_chaos_disk.py",
    "bench/test_deadlines.py",
    "service/test_ahead.py",
    "integration/test_secured_service.py",
    "bench/test_gpu.py",
    "bench/test_latency.py",
)


def pytest_xdist_auto_num_workers() -> int:
    """Run twice as many tests as there are cores: many wait for processes, or for what must not come."""
    return 2 * (os.cpu_count() or 1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let the files that take long begin first."""
    begins = {Path(__file__).parent / name: place for place, name in enumerate(LONG)}
    items.sort(key=lambda item: begins.get(item.path, len(LONG)))
