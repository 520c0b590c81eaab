"""Services to kill: ``otf-stream serve`` as a group of processes of its own, lent from run to run.

A service takes seconds to start, most of them for importing torch. So one that has recovered is used again; but not
where the same process of it has died already too often, since the supervisor restarts such a process ever more slowly,
and not for ever, so that its data folder stays small.
"""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

_PORTS = (20_000, 32_000)  # below those that the system gives to whoever connects
_DEATHS = 2  # of the same process in one service; the pause before the restart doubles with each
_RUNS = 12  # in one data folder
_START_S = 90.0
_STOP_S = 60.0


def until(condition: Callable[[], object], what: str, *, seconds: float = _START_S, pause: float = 0.02) -> None:
    """Wait for a condition.

    Raises
    ------
    TimeoutError
        If it takes too long; says ``what`` was waited for.
    """
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"waited {seconds:g} s until {what}")
        time.sleep(pause)


class Served:
    """A running service.

    Parameters
    ----------
    budget_s, tail_s, method
        How it restores.
    data
        Its data folder, where it is not to have one of its own.
    disk_reserve_gb
        What it leaves free.
    """

    def __init__(
        self, *, budget_s: float, tail_s: float, method: str, data: Path | None = None, disk_reserve_gb: float = 0
    ) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="otf_stream-chaos-"))
        self.data = self.folder / "data" if data is None else data
        self.deaths: Counter[str] = Counter()
        self.runs = 0
        self.suspect = False
        """Whether something went wrong with it; then it is not used again, and its folder is kept."""
        self._log = self.folder / "log"
        self._port = _free_port()
        settings = {"budget_s": budget_s, "tail_s": tail_s, "method": method, "data": str(self.data)}
        settings |= {"listen": self.address, "threads": 1, "disk_reserve_gb": disk_reserve_gb}
        settings |= {"monitor": ""}  # it takes no part in what is looked at
        lines = (f"{name} = {json.dumps(value)}\n" for name, value in settings.items())
        (self.folder / "otf.toml").write_text("".join(lines), encoding="utf-8")
        self.start()

    @property
    def address(self) -> str:
        """Where it listens."""
        return f"tcp://127.0.0.1:{self._port}"

    @property
    def told(self) -> str:
        """What it printed, unwrapped."""
        return " ".join(self._log.read_text("utf-8", "replace").split())

    @property
    def supervisor(self) -> psutil.Process:
        """The process that was started, which has started the others."""
        return psutil.Process(self._process.pid)

    def start(self) -> None:
        """Start it, on the same folder and port each time, and wait until it listens."""
        command = [sys.executable, "-m", "otf_stream.cli", "serve", "--config", str(self.folder / "otf.toml")]
        env = {**os.environ, "PYTHONIOENCODING": "utf-8", "NO_COLOR": "1"}
        already = self._log.stat().st_size if self._log.exists() else 0
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 - ours
                command, stdout=subprocess.DEVNULL, stderr=log, env=env, start_new_session=True
            )

        def listens() -> bool:
            said = self._log.read_bytes()[already:]
            if self._process.poll() is not None:
                raise RuntimeError(f"the service did not start: {said.decode(errors='replace').strip()}")
            return b"listening on" in said

        until(listens, "the service listens")

    def kill(self, victim: str) -> None:
        """Kill the listener, the worker or all of the service, as the kernel does when memory runs out.

        What is left of a service restarts the other two; of the whole service nothing is left, and `start` is called.
        """
        if victim == "service":
            members = self._members()
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            _, left = psutil.wait_procs(members, timeout=_STOP_S)
            if left:
                raise RuntimeError(f"processes {[process.pid for process in left]} outlived the service")
            self.deaths.clear()
            return
        before = self.told.count(f"{victim} ended with code -9")
        child = self.child(victim)
        child.kill()
        self.deaths[victim] += 1
        until(lambda: self.told.count(f"{victim} ended with code -9") > before, f"the death of the {victim} is noticed")

    def problems(self) -> list[str]:
        """Return what it should not have printed."""
        found = re.search(r"Traceback .{0,400}", self.told)
        return [found[0]] if found else []

    def stop(self) -> list[str]:
        """Stop it as a service manager does; return what is wrong with how it ends."""
        members = self._members()
        self._process.terminate()
        found = []
        try:
            if code := self._process.wait(_STOP_S):
                found.append(f"the service ended with code {code}")
        except subprocess.TimeoutExpired:
            found.append("the service did not stop")
        _, left = psutil.wait_procs(members, timeout=10)
        found += [f"process {process.pid} was left behind" for process in left]
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        if not self.suspect and not found:
            shutil.rmtree(self.folder, ignore_errors=True)
        return found

    def _members(self) -> list[psutil.Process]:
        with suppress(psutil.Error):
            return list(psutil.Process(self._process.pid).children(recursive=True))
        return []

    def child(self, which: str) -> psutil.Process:
        """Return the listener, which is the one that listens, or the other, the worker."""
        found: list[psutil.Process] = []

        def there() -> bool:
            for child in self._members():
                with suppress(psutil.Error):  # it has just died
                    if not any("spawn_main" in word for word in child.cmdline()):
                        continue  # multiprocessing's own
                    ports = {c.laddr.port for c in child.net_connections("tcp") if c.status == psutil.CONN_LISTEN}
                    if (self._port in ports) == (which == "listener"):
                        found.append(child)
            return bool(found)

        until(there, f"there is a {which} to kill", pause=0.01)
        return found[0]


class Services:
    """Lends services, each to one run at a time; use it as a context manager.

    Parameters
    ----------
    start
        Starts another one.

    Raises
    ------
    RuntimeError
        On leaving, if a service did not end as it should, or left a process behind.
    """

    def __init__(self, start: Callable[[], Served]) -> None:
        self._start = start
        self._idle: list[Served] = []
        self._ends: list[str] = []
        self._lock = threading.Lock()

    @contextmanager
    def lent(self, victim: str) -> Iterator[Served]:
        """Lend a service for a run that kills ``victim``."""
        served = self._taken(victim)
        served.runs += 1
        try:
            yield served
        except BaseException:
            served.suspect = True
            raise
        finally:
            if served.suspect:
                served.stop()
            else:
                with self._lock:
                    self._idle.append(served)

    def __enter__(self) -> Services:
        return self

    def __exit__(self, *_: object) -> None:
        for served in self._idle:
            self._ends += served.stop()
        if self._ends:
            raise RuntimeError("; ".join(self._ends))

    def _taken(self, victim: str) -> Served:
        with self._lock:
            fit = [s for s in self._idle if s.deaths[victim] < _DEATHS and s.runs < _RUNS]
            served = fit[0] if fit else self._idle[0] if self._idle else None
            if served is not None:
                self._idle.remove(served)
        if served is None or fit:
            return served or self._start()
        self._ends += served.stop()
        return self._start()


def _free_port() -> int:
    while True:
        port = random.randint(*_PORTS)  # noqa: S311 - no secret
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
