"""Real listeners that run in threads of the test's own process."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from otf_stream.acquire.listener import Listener


@contextmanager
def running(data_folder: Path, address: str = "tcp://127.0.0.1:*", **settings: Any) -> Iterator[Listener]:
    """Run a listener in a thread."""
    settings.setdefault("disk_reserve", 0)
    stop = threading.Event()
    with Listener(data_folder, address, **settings) as listener:
        thread = threading.Thread(target=listener.run, args=(stop,))
        thread.start()
        try:
            yield listener
        finally:
            stop.set()
            thread.join(30)
    assert not thread.is_alive()
