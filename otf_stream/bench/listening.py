"""A listener in a process of its own, which starts in a moment: nothing is imported here that it does not need."""

from __future__ import annotations

import logging
import multiprocessing
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any

from otf_stream.acquire.process import run_listener

_START_S = 90.0


@contextmanager
def listening(data: Path, log: Path, **settings: Any) -> Iterator[tuple[str, SpawnProcess]]:
    """Run a listener, and stop it at the end.

    Parameters
    ----------
    data
        Folder of the stores.
    log
        Where it says what it has to complain of, tracebacks included.
    settings
        As for `run_listener`.

    Yields
    ------
    tuple
        Its address and its process.
    """
    processes = multiprocessing.get_context("spawn")
    ours, theirs = processes.Pipe(duplex=False)
    process = processes.Process(target=_listen, args=(data, log, theirs, settings))
    process.start()
    theirs.close()
    try:
        with ours:
            if not ours.poll(_START_S):
                raise TimeoutError("the listener did not start")
            address = ours.recv_bytes().decode()
        yield address, process
    finally:
        process.terminate()
        process.join()
        process.close()


def _listen(data: Path, log: Path, ready: Connection, settings: Mapping[str, Any]) -> None:
    """Listen: the body of the process."""
    with log.open("ab") as said:
        os.dup2(said.fileno(), 2)  # of an error that nobody expected, too
    logging.basicConfig()
    run_listener(data, "tcp://127.0.0.1:*", ready=ready, **{"disk_reserve": 0, **settings})
