"""Disks: whether planes may be written there, whether there is room, and how fast they become durable."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from otf_stream.acquire.room import Room
from otf_stream.acquire.status import ListenerStatus
from otf_stream.bench.ceilings import draw_planes, write_and_delete
from otf_stream.doctor.findings import Finding

_PLANES, _SIDE = 24, 2048  # that are written: 200 MB
_SCARCE = 1.25  # times the reserve
_SLOW = 50e6  # bytes/s
_SPILL = 2 * 10**9  # bytes
_NETWORK = frozenset(("nfs", "nfs4", "cifs", "smb3", "smbfs", "afpfs", "fuse.sshfs", "9p", "ceph", "glusterfs"))


def nearest_folder(path: Path) -> Path:
    """Return the folder itself, or the nearest one above it that exists."""
    path = path.absolute()
    return next((folder for folder in (path, *path.parents) if folder.exists()), path)


def check_writable(folder: Path) -> Finding:
    """Try to make a file where the data folder is, or is to be."""
    where = nearest_folder(folder)
    try:
        with tempfile.NamedTemporaryFile(dir=where, prefix=".otf_stream-doctor-"):
            pass
    except OSError as error:
        return Finding(
            "data folder",
            "problem",
            f"{folder} cannot be written: {error.strerror or error} ({where})",
            "give another with --data, or let the user who runs the service write it",
        )
    return judge_file_system(folder, file_system(where), exists=folder.is_dir())


def judge_file_system(folder: Path, kind: str | None, *, exists: bool) -> Finding:
    """Say whether a folder is on a disk that journals work on.

    Parameters
    ----------
    folder
        Of the session stores.
    kind
        Of its file system; None where that is not known.
    exists
        Whether the folder is there.
    """
    said = f"{folder} {'can be written' if exists else 'does not exist yet and can be made'}"
    figures = {"folder": str(folder), "file_system": kind}
    if kind in _NETWORK:
        return Finding(
            "data folder",
            "problem",
            f"{folder} is on a network share ({kind}), where the journals (SQLite in WAL mode) do not work",
            "give a folder on a local disk with --data, and copy finished stores to the share",
            figures,
        )
    return Finding("data folder", "ok", said + (f" ({kind})" if kind else ""), "", figures)


def file_system(folder: Path) -> str | None:
    """Return the kind of file system that a folder is on; None where the system does not tell."""
    try:
        mounts = Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    above = {str(folder.resolve()), *map(str, folder.resolve().parents)}
    found = [fields for fields in map(str.split, mounts) if len(fields) > 2 and fields[1] in above]
    return max(found, key=lambda fields: len(fields[1]))[2] if found else None


def judge_room(folder: Path, free: int, reserve: int) -> Finding:
    """Say whether there is room for planes.

    Parameters
    ----------
    folder
        On the disk.
    free, reserve
        Bytes that are free, and bytes that are to stay so.
    """
    said = f"{free / 1e9:.1f} GB are free on the disk of {folder}, and {reserve / 1e9:.1f} GB are to stay so"
    figures = {"free_bytes": free, "reserve_bytes": reserve}
    remedy = "move finished sessions, each store with its journal, to another disk; or lower disk_reserve_gb"
    if free <= reserve:
        return Finding("room", "problem", f"{said}: planes are held back at their microscopes", remedy, figures)
    if free < _SCARCE * reserve:
        return Finding("room", "warning", f"{said}: the disk is nearly full", remedy, figures)
    return Finding("room", "ok", said, "", figures)


def free_bytes(folder: Path) -> int:
    """Return how many bytes are free on the disk that a folder is, or is to be, on."""
    return Room(nearest_folder(folder), 0).free


def write_rate(folder: Path, *, reserve: int = 0) -> float | None:
    """Write planes to one file and wait until the disk has them.

    Parameters
    ----------
    folder
        On the disk; nothing stays in it.
    reserve
        Bytes that must stay free meanwhile.

    Returns
    -------
    float or None
        Bytes/s; None where there is no room for it, or the folder cannot be written.
    """
    where = nearest_folder(folder)
    if free_bytes(where) < reserve + 2 * _PLANES * _SIDE**2 * 2:
        return None
    try:
        with tempfile.TemporaryDirectory(dir=where, prefix=".otf_stream-doctor-") as scratch:
            return _PLANES * _SIDE**2 * 2 / write_and_delete(Path(scratch), draw_planes(4, _SIDE), _PLANES)
    except OSError:
        return None


def judge_write_rate(check: str, rate: float | None) -> Finding:
    """Say what a camera may send.

    Parameters
    ----------
    check
        Which disk.
    rate
        Bytes/s that become durable; None if it could not be measured.
    """
    if rate is None:
        return Finding(check, "warning", "not measured: there is no room for 0.4 GB, or no leave to write", "make room")
    planes = rate / (_SIDE**2 * 2)
    said = f"{rate / 1e6:.0f} MB/s become durable in one file, at best {planes:.0f} planes of 2048 × 2048 a second"
    figures = {"bytes_per_second": rate, "planes_2048_per_second": planes}
    if rate < _SLOW:
        remedy = 'a local SSD, or sync = "interval", which a power cut may cost the planes of the last second'
        return Finding(check, "warning", f"{said}, less than {_SLOW / 1e6:.0f} MB/s", remedy, figures)
    return Finding(check, "ok", said, "", figures)


def judge_spill(folder: Path, free: int) -> Finding:
    """Say whether planes that cannot be delivered find room on the microscope's PC.

    Parameters
    ----------
    folder
        Where they are put.
    free
        Bytes that are free there.
    """
    said = f"{free / 1e9:.1f} GB are free in {folder}, where planes wait that the listener does not take"
    figures = {"folder": str(folder), "free_bytes": free}
    if free < _SPILL:
        remedy = "make room, or name another folder: spill= in a script, TMPDIR (Windows: TEMP) elsewhere"
        return Finding("spill disk", "warning", f"{said}, less than {_SPILL / 1e9:.0f} GB", remedy, figures)
    return Finding("spill disk", "ok", said, "", figures)


def judge_other_service(status: ListenerStatus | None) -> Finding | None:
    """Say whether a service is at work on the data folder; nothing where there is none."""
    if status is None or not status.current or status.pid in (0, os.getpid()):
        return None
    return Finding(
        "service",
        "ok",
        f"a service is at work on this folder: it listens on {status.address}, process {status.pid}",
        "",
        {"address": status.address, "pid": status.pid},
    )
