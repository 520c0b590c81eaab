"""The listener as a process of its own: it ends when it is told to, and with the process that started it."""

from __future__ import annotations

import multiprocessing
import signal
import threading
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import FrameType
from typing import Any

from otf_stream.acquire.keys import KeyFolder
from otf_stream.acquire.listener import Listener, ListenError
from otf_stream.handles import allow_many_files


def run_listener(
    data_folder: Path,
    address: str,
    *,
    ready: Connection | None = None,
    keys: Path | None = None,
    **settings: Any,
) -> None:
    """Run a listener as the main function of a process, until SIGTERM, SIGINT or the death of the parent process.

    Parameters
    ----------
    data_folder, address
        As for `Listener`.
    ready
        Where to send the address, with the real port, once it listens, as bytes, or why it does not after a ``!``;
        closed after.
    keys
        Folder of the keys that microscopes must have; where not given, whoever reaches the address may write planes.
    settings
        The others of `Listener`.

    Raises
    ------
    SystemExit
        With the reason, if it cannot listen.
    """
    stop = threading.Event()

    def end(number: int, frame: FrameType | None) -> None:
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    if parent := multiprocessing.parent_process():
        threading.Thread(target=_stop_after, args=(parent, stop), name="parent", daemon=True).start()
    allow_many_files()
    try:
        known = None if keys is None else KeyFolder(keys)
        listener = Listener(data_folder, address, keys=known, **settings)
    except (ListenError, OSError) as error:
        if ready is not None:
            ready.send_bytes(f"!{error}".encode())
            raise SystemExit(1) from error
        raise SystemExit(str(error)) from error
    with listener:
        if ready is not None:
            ready.send_bytes(listener.address.encode())
            ready.close()
        listener.run(stop)


def _stop_after(parent: BaseProcess, stop: threading.Event) -> None:
    """Stop with the parent process: left alone, this one would keep the port from the next service."""
    parent.join()
    stop.set()
