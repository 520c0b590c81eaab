"""Ports that a service is to answer at, and what the loopback carries."""

from __future__ import annotations

import errno
import os
import socket

from otf_stream.acquire.keys import is_loopback
from otf_stream.acquire.status import ListenerStatus
from otf_stream.bench.ceilings import draw_planes, loopback
from otf_stream.doctor.findings import Finding, Level

_PLANES, _SIDE = 48, 2048
_SLOW = 200e6  # bytes/s


def try_port(host: str, port: str) -> OSError | None:
    """Return why nothing can listen there; None if something can."""
    if port == "*":
        return None
    try:
        address = socket.getaddrinfo(host, int(port), socket.AF_INET, socket.SOCK_STREAM)[0][4]
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as found:
            if os.name == "posix":  # elsewhere it would let two programs have one port
                found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            found.bind(address)
            found.listen(1)
    except OSError as error:
        return error
    return None


def judge_port(setting: str, address: str, error: OSError | None, *, serving: bool, vital: bool) -> Finding:
    """Say whether a port is free, or has the service itself on it.

    Parameters
    ----------
    setting
        What names it: ``listen`` or ``monitor``.
    address
        The setting.
    error
        Why nothing can listen there; None if something can.
    serving
        Whether a service is at work on this data folder.
    vital
        Whether nothing works without it.
    """
    check, figures = f"port ({setting})", {"address": address, "free": error is None}
    reached = "this machine" if is_loopback(f"tcp://{address.removeprefix('tcp://')}") else "other machines"
    if error is None:
        return Finding(check, "ok", f"{address} is free; it can be reached from {reached}", "", figures)
    taken = error.errno == errno.EADDRINUSE
    if taken and serving:
        return Finding(check, "ok", f"{address} is taken by the service, which is at work", "", figures)
    level: Level = "problem" if vital else "warning"
    why = "is taken by another program" if taken else f"cannot be had: {error.strerror or error}"
    own = f"if that is your own service, give its folder with --data; else end it, or choose another --{setting}"
    remedy = own if taken else f"correct --{setting}"
    return Finding(check, level, f"{address} {why}", remedy, figures)


def is_serving(status: ListenerStatus | None) -> bool:
    """Whether a listener is at work on the data folder."""
    return status is not None and status.current


def loopback_rate() -> float:
    """Send planes to another process, which throws them away; in bytes/s."""
    return loopback(draw_planes(4, _SIDE), _PLANES)


def judge_loopback(rate: float) -> Finding:
    """Say what the loopback carries.

    Parameters
    ----------
    rate
        In bytes/s.
    """
    said = f"{rate / 1e9:.2f} GB/s between two processes of this machine"
    figures = {"bytes_per_second": rate}
    if rate < _SLOW:
        return Finding(
            "loopback", "warning", f"{said}, less than {_SLOW / 1e9:.1f} GB/s", "end other programs", figures
        )
    return Finding("loopback", "ok", said, "", figures)
