"""The service: a listener, a worker and a monitor, each a process of its own, started, watched and restarted.

They share the session stores on disk and nothing else, so each can die alone: planes keep landing while the worker
restarts, a stack keeps being restored while the listener does, and nobody needs the monitor. A process that keeps dying
is restarted ever more slowly. A stack at which the worker keeps dying is set aside (`casualties`).

Only the worker imports torch: the supervisor computes nothing, starts at once and stays small.
"""

from __future__ import annotations

import faulthandler
import multiprocessing
import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.util import find_spec
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path
from types import TracebackType
from typing import Self

from filelock import Timeout

from otf_stream.acquire.keys import KeyFolder, KeysError, is_loopback
from otf_stream.acquire.process import run_listener
from otf_stream.config import ServiceConfig
from otf_stream.handles import allow_many_files
from otf_stream.monitor.work import tell_of_start
from otf_stream.service.casualties import Casualties
from otf_stream.service.folder import folder_lock
from otf_stream.service.monitoring import MonitorProcess
from otf_stream.service.whereabouts import Whereabouts

# Forking a process that has threads (ZeroMQ's, torch's) is not safe; Windows cannot fork at all.
_PROCESSES = multiprocessing.get_context("spawn")
_START = 600.0  # seconds that a listener may take to look at what is there, and to bind
_ASK = 0.2  # seconds between two questions whether the service is to stop, while it does
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
    ended: Callable[[int], list[str]] = lambda code: []
    process: SpawnProcess | None = None
    started: float = 0.0
    deaths: int = 0
    again: float = field(default=0.0)

    def run(self) -> None:
        self.process = self.start()
        self.started = time.monotonic()

    def watch(self) -> list[str]:
        """Restart the process if it has died and its pause is over; return messages when something happened."""
        now = time.monotonic()
        if self.process is None:
            if now < self.again:
                return []
            try:
                self.run()
            except (ServiceError, OSError) as error:  # OSError: the system has no room for one more process
                self.deaths += 1
                self.again = time.monotonic() + min(2.0**self.deaths, _LONGEST_PAUSE)
                return [f"{self.name} cannot restart yet: {error}"]
            return [f"{self.name} restarted"]
        if self.process.is_alive():
            return []
        self.deaths = 1 if now - self.started > _STEADY else self.deaths + 1
        pause = min(2.0 ** (self.deaths - 1), _LONGEST_PAUSE)
        self.again = now + pause
        code = self.process.exitcode
        self.process.close()
        self.process = None
        told = f"{self.name} ended with code {code}; it restarts in {pause:.0f} s, nothing acknowledged is lost"
        return [told, *self.ended(code or 0)]

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
    stopping
        Whether it is to stop already: asked where it waits for a listener that starts.

    Raises
    ------
    KeyboardInterrupt
        On entering and from `watch`, if it is.
    ServiceError
        On entering, if the listener cannot bind its address or write its folder, or has to ask for keys and there are
        none; if the monitor has to ask for a token and there is none; or if another service has the data folder.
    """

    def __init__(self, config: ServiceConfig, stopping: Callable[[], bool] = lambda: False) -> None:
        self._config = config
        self._stopping = stopping
        self.address = config.listen
        """Where microscopes connect; with the real port once the service runs."""
        self._folder = folder_lock(config.data)
        self._keys: Path | None = None  # where there are any that microscopes must have
        self._listener = _Child("listener", self._start_listener)
        self._casualties = Casualties(config.data)
        self._worker = _Child("worker", self._start_worker, self._casualties.count)
        self._monitoring = MonitorProcess(config, _PROCESSES)
        self._monitor = _Child("monitor", self._monitoring.start)

    def __enter__(self) -> Self:
        self._keys = required_keys(self._config)
        try:
            self._monitoring.prepare()
        except KeysError as error:
            raise ServiceError(str(error)) from error
        try:
            self._config.data.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ServiceError(f"cannot create the data folder {self._config.data}: {error.strerror}") from error
        if find_spec("torch") is None:
            raise ModuleNotFoundError("torch is not installed", name="torch")
        if self._config.monitor and find_spec("fastapi") is None:
            raise ModuleNotFoundError("fastapi is not installed", name="fastapi")
        if self._config.device == "cuda":  # refused now, and not when a stack is on the stage
            from otf_stream.learn.compute import choose_compute

            try:
                choose_compute("cuda")
            except RuntimeError as error:
                raise ServiceError(str(error)) from error
        self._take_folder()
        try:
            self._listener.run()
            self._worker.run()
            if self._config.monitor:
                self._monitor.run()
        except BaseException:
            self._worker.stop()
            self._listener.stop()
            self._folder.release()
            raise
        return self

    def _take_folder(self) -> None:
        """Keep other services away."""
        try:
            self._folder.acquire(timeout=0)
        except Timeout as error:
            raise ServiceError(
                f"another service has the data folder {self._config.data}; it takes the planes of several microscopes, "
                "or give this one a folder of its own with --data"
            ) from error
        except OSError as error:
            raise ServiceError(f"cannot write the data folder {self._config.data}: {error.strerror}") from error

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # The worker first: it may be told of planes until the last moment.
        self._worker.stop()
        self._listener.stop()
        self._monitor.stop()
        self._casualties.close()
        self._folder.release()

    def watch(self) -> list[str]:
        """Restart what has died; return what is to be told of it. To be called now and then."""
        # The worker first: to restart the listener is to wait until it listens.
        told = [*self._worker.watch(), *self._casualties.note(), *self._listener.watch()]
        return [*told, *self._monitor.watch(), *self._monitoring.heard()] if self._config.monitor else told

    @property
    def monitor(self) -> str | None:
        """Where the monitor answers, once `watch` has heard of it."""
        return self._monitoring.url

    def _start_listener(self) -> SpawnProcess:
        ours, theirs = _PROCESSES.Pipe(duplex=False)
        config = self._config
        process = _PROCESSES.Process(
            target=run_listener,
            args=(config.data, self.address),
            kwargs={
                "ready": theirs,
                "keys": self._keys,
                "disk_reserve": int(config.disk_reserve_gb * 1e9),
                "max_plane_bytes": int(config.max_plane_mb * 1e6),
                "max_planes": config.max_planes,
                "max_sessions": config.max_sessions,
                "max_connections": config.max_connections,
                "silence": config.silence_s,
                "sync": config.sync,
                "sync_interval": config.sync_interval_s,
            },
            name="otf-stream listener",
        )
        process.start()
        theirs.close()
        try:
            self.address = _bound_address(ours, self._stopping)
        except BaseException:  # nobody else knows of it yet
            process.kill()
            process.join()
            raise
        return process

    def _start_worker(self) -> SpawnProcess:
        self._casualties.begin()
        args = (self._config, self._casualties.whereabouts, self._casualties.faults)
        process = _PROCESSES.Process(target=_work, args=args, name="otf-stream worker")
        process.start()
        return process


def _work(config: ServiceConfig, whereabouts: Whereabouts, faults: Path) -> None:
    """Run the worker: the body of its process."""
    allow_many_files()
    tell_of_start(config.data)
    with suppress(OSError):  # a disk that has no room for it is no reason not to work
        faulthandler.enable(os.open(faults, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644))
    from otf_stream.service.worker import run_worker

    run_worker(config, whereabouts)


def required_keys(config: ServiceConfig) -> Path | None:
    """Return the folder of the keys that microscopes must have, if they must; refuse where nobody could connect."""
    if config.security == "none" or (config.security == "auto" and is_loopback(config.listen)):
        return None
    try:
        keys = KeyFolder(config.keys)
        keys.own()
        if not keys.authorised():
            raise KeysError(
                f"no microscope is authorised in {keys.folder}; {keys.command('authorise', 'NAME', 'KEY')} authorises "
                "one, with the key that `otf-stream keys make` prints there"
            )
    except (KeysError, OSError) as error:
        raise ServiceError(
            f"microscopes that connect to {config.listen} need keys, but {error}. Without keys: --listen "
            "tcp://127.0.0.1:PORT, for this machine only, or --security none, for everybody who reaches the address"
        ) from error
    return keys.folder


def _bound_address(ready: Connection, stopping: Callable[[], bool]) -> str:
    """Wait for the listener to say where it listens."""
    until = time.monotonic() + _START
    answer = ""
    with ready:
        try:
            while not answer:
                if stopping():
                    raise KeyboardInterrupt
                if ready.poll(_ASK):
                    answer = ready.recv_bytes().decode()
                elif time.monotonic() > until:
                    answer = f"!it did not start within {_START:g} s"
        except (EOFError, OSError):
            answer = "!it ended while it started; what it wrote last tells why"
    if answer.startswith("!"):
        raise ServiceError(f"the listener does not run: {answer[1:]} (--listen sets the address, --data the folder)")
    return answer
