"""The service: a listener and a worker, each a process of its own, started, watched and restarted.

The two share the session stores on disk and nothing else, so either can die alone: planes keep landing while the
worker restarts, and a stack keeps being restored while the listener does. A process that keeps dying is
restarted ever more slowly.

Only the worker imports torch: the supervisor computes nothing, starts at once and stays small.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.util import find_spec
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from types import TracebackType
from typing import Self

from otf_stream.acquire.listener import run_listener
from otf_stream.config import ServiceConfig

# Forking a process that has threads (ZeroMQ's, torch's) is not safe; Windows cannot fork at all.
_PROCESSES = multiprocessing.get_context("spawn")
_START = 60.0  # seconds that a listener may take to bind
_STOP = 10.0  # seconds that a process may take to end by itself
_LONGEST_PAUSE = 30.0
_STEADY = 60.0  # seconds after which an earlier death is forgotten


class ServiceError(RuntimeError):
    """The service cannot start; the message says why."""


@dataclass
class _Child:
    """A process to keep running."""

    name: str
    start: Callable[[], SpawnProcess]
    process: SpawnProcess | None = None
    started: float = 0.0
    deaths: int = 0
    again: float = field(default=0.0)

    def run(self) -> None:
        self.process = self.start()
        self.started = time.monotonic()

    def watch(self) -> str | None:
        """Restart the process if it has died and its pause is over; return a message when something happened."""
        now = time.monotonic()
        if self.process is None:
            if now < self.again:
                return None
            try:
                self.run()
            except ServiceError as error:
                self.deaths += 1
                self.again = now + min(2.0**self.deaths, _LONGEST_PAUSE)
                return f"{self.name} cannot restart yet: {error}"
            return f"{self.name} restarted"
        if self.process.is_alive():
            return None
        self.deaths = 1 if now - self.started > _STEADY else self.deaths + 1
        pause = min(2.0 ** (self.deaths - 1), _LONGEST_PAUSE)
        self.again = now + pause
        code = self.process.exitcode
        self.process.close()
        self.process = None
        return f"{self.name} ended with code {code}; it restarts in {pause:.0f} s, nothing acknowledged is lost"

    def stop(self) -> None:
        if self.process is None:
            return
        self.process.terminate()
        self.process.join(_STOP)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()
        self.process.close()
        self.process = None


class Service:
    """A running service; use it as a context manager.

    Parameters
    ----------
    config
        How it runs.

    Raises
    ------
    ServiceError
        On entering, if the listener cannot bind its address or write its folder.
    """

    def __init__(self, config: ServiceConfig) -> None:
        self._config = config
        self.address = config.listen
        """Where microscopes connect; with the real port once the service runs."""
        self._listener = _Child("listener", self._start_listener)
        self._worker = _Child("worker", self._start_worker)

    def __enter__(self) -> Self:
        try:
            self._config.data.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ServiceError(f"cannot create the data folder {self._config.data}: {error.strerror}") from error
        if find_spec("torch") is None:
            raise ModuleNotFoundError("torch is not installed", name="torch")
        if self._config.device == "cuda":  # refused now, and not when a stack is on the stage
            from otf_stream.learn.compute import choose_compute

            try:
                choose_compute("cuda")
            except RuntimeError as error:
                raise ServiceError(str(error)) from error
        try:
            self._listener.run()
            self._worker.run()
        except BaseException:
            self._listener.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # The worker first: it may be told of planes until the last moment.
        self._worker.stop()
        self._listener.stop()

    def watch(self) -> list[str]:
        """Restart what has died; return what is to be told of it. To be called now and then."""
        return [message for child in (self._listener, self._worker) if (message := child.watch())]

    def _start_listener(self) -> SpawnProcess:
        ours, theirs = _PROCESSES.Pipe(duplex=False)
        config = self._config
        process = _PROCESSES.Process(
            target=run_listener,
            args=(config.data, self.address),
            kwargs={
                "ready": theirs,
                "disk_reserve": int(config.disk_reserve_gb * 1e9),
                "silence": config.silence_s,
            },
            name="otf-stream listener",
        )
        process.start()
        theirs.close()
        self.address = _bound_address(ours, self.address, process)
        return process

    def _start_worker(self) -> SpawnProcess:
        process = _PROCESSES.Process(target=_work, args=(self._config,), name="otf-stream worker")
        process.start()
        return process


def _work(config: ServiceConfig) -> None:
    """Run the worker: the body of its process."""
    from otf_stream.service.worker import run_worker

    run_worker(config)


def _bound_address(ready: Connection, asked: str, process: SpawnProcess) -> str:
    """Wait for the listener to say where it listens."""
    with ready:
        try:
            answered = ready.poll(_START)
            address = ready.recv() if answered else None
        except EOFError:
            address = None
    if not isinstance(address, str):
        process.kill()
        process.join()
        raise ServiceError(
            f"the listener cannot listen on {asked}: the port may be taken; choose another with --listen tcp://HOST:PORT"
        )
    return address
