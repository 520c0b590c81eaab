"""The monitor's process: looks, writes the log and answers HTTP, until it is told to end or its parent dies.

It only reads the data folder, at a lower priority than what lands and restores planes. That its port is taken is no
reason to end: it keeps the log all the same, and tries again now and then.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import FrameType

import uvicorn

from otf_stream.handles import allow_many_files
from otf_stream.monitor.access import Access
from otf_stream.monitor.api import create_app
from otf_stream.monitor.dashboard import mount
from otf_stream.monitor.monitor import Monitor

_AGAIN = 2.0  # seconds until a port that is taken is tried again
_ENDING = 10.0  # seconds that a look may take to end
_NICE = 10  # a tenth of a core is left to it where all are busy
_CLOSING = 2  # seconds that open connections have to end

Say = Callable[[str], None]


def run_monitor(data: Path, address: str, access: Access, say: Connection | None = None) -> None:
    """Run a monitor: the main function of a process.

    Parameters
    ----------
    data
        The folder of the session stores.
    address
        ``HOST:PORT``; ``*`` as port takes a free one.
    access
        Who may ask.
    say
        Where to send lines for people, as bytes: the address once it answers there, or why it does not.
    """
    stop = threading.Event()
    servers: list[uvicorn.Server] = []

    def end(number: int, frame: FrameType | None) -> None:
        stop.set()
        for server in servers:
            server.should_exit = True

    # A Ctrl-C goes to the whole group; the supervisor decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, end)
    allow_many_files()
    if parent := multiprocessing.parent_process():
        threading.Thread(target=_exit_after, args=(parent,), name="parent", daemon=True).start()
    if hasattr(os, "nice"):
        os.nice(_NICE)

    def tell(line: str) -> None:
        if say is not None:
            with contextlib.suppress(OSError):
                say.send_bytes(line.encode())

    monitor = Monitor(data, access)
    looking = threading.Thread(target=monitor.run, args=(stop,), name="looking", daemon=True)
    looking.start()
    try:
        if (bound := _bound(address, stop, tell)) is not None:
            host, port = bound.getsockname()[:2]
            # What is asked is not logged: the address of a first visit has the token in it.
            app = create_app(monitor)
            mount(app, monitor)
            config = uvicorn.Config(
                app,
                access_log=False,
                log_level="warning",
                lifespan="on",
                server_header=False,
                timeout_graceful_shutdown=_CLOSING,
            )
            servers.append(_Server(config))
            tell(f"monitor on http://{host}:{port}/")
            if not stop.is_set():
                servers[0].run(sockets=[bound])
    finally:
        stop.set()
        looking.join(_ENDING)
        monitor.close()


def _exit_after(parent: BaseProcess) -> None:
    """End with the parent process: left alone, this one would keep the port from the next service."""
    parent.join()
    os._exit(1)


class _Server(uvicorn.Server):
    """Leaves signals alone: what they mean is decided above."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _bound(address: str, stop: threading.Event, tell: Say) -> socket.socket | None:
    """Bind the address, waiting for it to be free; None if stopped before."""
    host, _, port = address.rpartition(":")
    told = False
    while not stop.is_set():
        found = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            if os.name == "posix":  # elsewhere it would let two programs have one port
                found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            found.bind((host, 0 if port == "*" else int(port)))
            found.listen(128)
        except OSError as error:
            found.close()
            if not told:
                tell(
                    f"no monitor on {address} ({error.strerror}); give another address with --monitor HOST:PORT. "
                    "Planes are taken and restored all the same"
                )
            told = True
            time.sleep(_AGAIN)  # not a wait for what a signal's handler sets: it would wait for its own lock
        else:
            return found
    return None
