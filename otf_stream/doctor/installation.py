"""What is installed: versions, packages that are missing, and what Micro-Manager can drive."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import platform
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

from otf_stream import __version__
from otf_stream.doctor.findings import Finding

EVERYWHERE = ("numpy", "pyzmq", "msgpack", "pydantic", "tifffile")
"""Packages that every installation has."""
OF_A_SERVICE = ("torch", "zarr", "scipy", "scikit-image", "safetensors", "psfmodels", "fastapi", "uvicorn", "nicegui")
"""Packages that a service needs besides."""


@dataclass(frozen=True)
class Adapters:
    """What there is of Micro-Manager.

    Parameters
    ----------
    driver
        Version of pymmcore-plus; None where it is not installed.
    folder
        Of the device adapters; None where none was found.
    names
        Of the adapters.
    error
        Why they could not be listed.
    """

    driver: str | None
    folder: str | None = None
    names: Sequence[str] = ()
    error: str | None = None


def installed(packages: Sequence[str]) -> dict[str, str | None]:
    """Return the version of each package; None where it is missing."""
    found: dict[str, str | None] = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = None
    return found


def judge_versions(versions: Mapping[str, str | None]) -> Finding:
    """Say which versions there are, and which packages are missing.

    Parameters
    ----------
    versions
        Of the packages that this machine needs for its part.
    """
    here = f"otf_stream {__version__}, Python {platform.python_version()}, {platform.system()} {platform.machine()}"
    missing = [package for package, found in versions.items() if found is None]
    figures = {"otf_stream": __version__, "python": platform.python_version(), **versions}
    if missing:
        return Finding(
            "versions",
            "problem",
            f"{here}; a service needs {', '.join(missing)}, which {'are' if len(missing) > 1 else 'is'} not installed",
            'in a checkout, pip install ".[service]"; on a microscope\'s PC: otf-stream doctor --to tcp://HOST:8421',
            figures,
        )
    return Finding(
        "versions", "ok", f"{here}, " + ", ".join(f"{name} {v}" for name, v in versions.items()), "", figures
    )


def judge_cores(cores: int, load: float | None) -> Finding:
    """Say how many cores there are, and whether something else is using them.

    Parameters
    ----------
    cores
        That this process may use.
    load
        Processes that wanted to run in the last minute; None where the system does not tell.
    """
    figures = {"cores": cores, "load": load}
    said = f"{cores} cores" + ("" if load is None else f", of which {load:.1f} were asked for in the last minute")
    if load is not None and load > cores:
        return Finding(
            "processor",
            "warning",
            f"{said}: what is measured here is slower than an idle machine",
            "end what else is running and ask again",
            figures,
        )
    if cores < 2:
        return Finding("processor", "warning", f"{said}, fewer than 2", "one for planes, one for restoring", figures)
    return Finding("processor", "ok", said, "", figures)


def load_of_machine() -> float | None:
    """Return how many processes wanted to run in the last minute; None where the system does not tell."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None


def find_adapters() -> Adapters:
    """Look for Micro-Manager by way of pymmcore-plus, if that is installed."""
    driver = installed(["pymmcore-plus"])["pymmcore-plus"]
    if driver is None:
        return Adapters(None)
    try:
        with _silent():
            from pymmcore_plus import CMMCorePlus, find_micromanager

            folder = find_micromanager()
            names = sorted(CMMCorePlus().getDeviceAdapterNames()) if folder else []
    except Exception as error:  # whatever drivers of other vendors do when they are loaded
        return Adapters(driver, error=f"{type(error).__name__}: {error}")
    return Adapters(driver, str(folder) if folder else None, names)


def judge_adapters(found: Adapters, *, needed: bool) -> Finding:
    """Say what Micro-Manager can drive here.

    Parameters
    ----------
    found
        What there is of it.
    needed
        Whether this machine has a microscope.
    """
    figures = {"pymmcore_plus": found.driver, "folder": found.folder, "adapters": list(found.names)}
    if found.driver is None:
        return Finding(
            "Micro-Manager",
            "ok",
            "pymmcore-plus is not installed; what other software saves is streamed by `otf-stream watch`",
            "to drive the microscope from Python: pip install pymmcore-plus, then mmcore install" if needed else "",
            figures,
        )
    if found.names:
        listed = ", ".join(found.names[:12]) + (f" and {len(found.names) - 12} more" if len(found.names) > 12 else "")
        said = f"pymmcore-plus {found.driver}, {len(found.names)} device adapters in {found.folder}: {listed}"
        return Finding("Micro-Manager", "ok", said, "", figures)
    said = f"pymmcore-plus {found.driver}, but " + (
        found.error or f"no device adapters in {found.folder or 'any folder'}"
    )
    return Finding(
        "Micro-Manager",
        "warning" if needed else "ok",
        said,
        "mmcore install brings some; MICROMANAGER_PATH names the folder of others" if needed else "",
        figures,
    )


@contextmanager
def _silent() -> Iterator[None]:
    """Keep what libraries print while they look around from the results."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.disable(before)
        sys.stdout.flush()
