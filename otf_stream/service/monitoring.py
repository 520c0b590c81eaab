"""The monitor as the service runs it: a third process, which nothing waits for and nothing depends on.

What it has to say, above all where it answers, comes through a pipe and is told when the service is watched. That it
cannot answer, because its port is taken, stops nothing.
"""

from __future__ import annotations

from multiprocessing.connection import Connection
from multiprocessing.context import SpawnContext, SpawnProcess
from pathlib import Path

from otf_stream.acquire.keys import KeyFolder, KeysError, is_loopback
from otf_stream.config import ServiceConfig
from otf_stream.monitor.token import TokenFile


class MonitorProcess:
    """Starts the monitor of a service, and passes on what it says.

    Parameters
    ----------
    config
        Of the service.
    processes
        Where processes come from.
    """

    def __init__(self, config: ServiceConfig, processes: SpawnContext) -> None:
        self._config = config
        self._processes = processes
        self._ear: Connection | None = None
        self._token: str | None = None
        self.url: str | None = None
        """Where it answers, once it does."""

    def prepare(self) -> None:
        """Read the token that it must ask for, once.

        Raises
        ------
        KeysError
            If it must, and there is none that can be used.
        """
        self._token = required_token(self._config)

    def start(self) -> SpawnProcess:
        """Start a process; it is up soon."""
        if self._ear is not None:
            self._ear.close()
        self.url = None
        self._ear, theirs = self._processes.Pipe(duplex=False)
        address = self._config.monitor
        args = (self._config.data, address, self._token, is_loopback(f"tcp://{address}"), theirs)
        process = self._processes.Process(target=_monitor, args=args, name="otf-stream monitor")
        process.start()
        theirs.close()
        return process

    def heard(self) -> list[str]:
        """Return what it has said since the last time."""
        said: list[str] = []
        try:
            while self._ear is not None and self._ear.poll():
                said.append(self._ear.recv_bytes().decode())
        except (EOFError, OSError):  # it has ended
            self._ear = None
        for line in said:
            if line.startswith("monitor on "):
                self.url = line.removeprefix("monitor on ")
        return said


def required_token(config: ServiceConfig) -> str | None:
    """Return the token that the monitor must ask for; None where it need not.

    Raises
    ------
    KeysError
        If it must, and there is none that can be used.
    """
    needless = is_loopback(f"tcp://{config.monitor}") and config.monitor_token_file is None
    if config.security == "none" or not config.monitor or needless:
        return None
    try:
        return TokenFile(KeyFolder(config.keys), config.monitor_token_file).read()
    except KeysError as error:
        raise KeysError(
            f"who asks the monitor at {config.monitor} needs a token, but {error}. Without one: --monitor "
            "127.0.0.1:PORT, for this machine only, or --security none, for everybody who reaches the address"
        ) from error


def _monitor(data: Path, address: str, token: str | None, loopback: bool, say: Connection) -> None:
    """Run the monitor: the body of its process."""
    from otf_stream.monitor.access import Access
    from otf_stream.monitor.process import run_monitor

    run_monitor(data, address, Access(token, loopback), say)
