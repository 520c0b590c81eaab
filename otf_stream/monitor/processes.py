"""What the processes of a service take of the machine's memory."""

from __future__ import annotations

import os

import psutil

from otf_stream.monitor.state import Snapshot


def resident_bytes(snapshot: Snapshot) -> dict[str, int]:
    """Return the memory of the ``listener``, the ``worker`` and this process, the ``monitor``, as far as known.

    Parameters
    ----------
    snapshot
        Of the service; it knows which processes these are, on this machine.
    """
    listener, worker = snapshot.listener, snapshot.worker
    processes = {
        "listener": listener.pid if listener and listener.current else 0,
        "worker": worker.pid if worker and worker.current else 0,
        "monitor": os.getpid(),
    }
    found = {}
    for name, pid in processes.items():
        try:
            if pid:
                found[name] = int(psutil.Process(pid).memory_info().rss)
        except psutil.Error:  # it has just ended
            continue
    return found
