"""Planes that a publisher left in files: how they are described there, found again, and delivered.

A spill folder describes itself, so that whoever finds it can deliver what is in it: the script that took the planes may
have ended long ago. It is called ``otf_stream-SESSION`` and holds, beside its planes, ``acquisition.json`` and, once
the acquisition is over, ``ended`` with the reason. Without the latter its publisher may still be at work.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from otf_stream.acquisition import Acquisition

Reason = Literal["finished", "aborted"]
PLANE_FILES = "*.plane"
_PREFIX = "otf_stream-"
_ACQUISITION, _ENDED = "acquisition.json", "ended"


@dataclass(frozen=True)
class Leftover:
    """What a publisher left in files.

    Parameters
    ----------
    folder
        Where they lie.
    session
        Id of the session.
    acquisition
        What was acquired.
    planes
        How many were left.
    ended
        How the acquisition ended; None if its publisher is still at work, or was killed.
    """

    folder: Path
    session: str
    acquisition: Acquisition
    planes: int
    ended: Reason | None


def spill_folder(parent: Path, session: str) -> Path:
    """Where the planes of a session are left, in ``parent``."""
    return parent / f"{_PREFIX}{session}"


def start_spilling(folder: Path, acquisition: Acquisition) -> None:
    """Make the folder ready for a plane: it is there, describes what is acquired, and is not called ended."""
    if not (folder / _ACQUISITION).is_file():  # the folder alone is what a full disk left of an earlier try
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _write(folder / _ACQUISITION, acquisition.model_dump_json())
    (folder / _ENDED).unlink(missing_ok=True)


def resume_spilling(folder: Path) -> None:
    """Take over a folder, if there is one: what was half written goes.

    It stays ended until a plane is added: who delivers what was left may be stopped, and somebody else goes on.
    """
    if folder.is_dir():
        for torn in folder.glob("*.partial"):
            torn.unlink()


def described_in(folder: Path) -> Acquisition | None:
    """What was acquired, by the folder's own account; None where it has none."""
    try:
        return Acquisition.model_validate_json((folder / _ACQUISITION).read_bytes())
    except (OSError, ValidationError):
        return None


def mark_ended(folder: Path, reason: Reason) -> None:
    """Note that no plane will be added."""
    _write(folder / _ENDED, reason)


def remove_spill_folder(folder: Path) -> None:
    """Remove the folder, if its planes are gone.

    Raises
    ------
    OSError
        If there are planes, or no folder.
    """
    if not any(folder.glob(PLANE_FILES)):
        for name in (_ENDED, _ACQUISITION):
            (folder / name).unlink(missing_ok=True)
    folder.rmdir()


def find_leftovers(parent: Path) -> list[Leftover]:
    """List what publishers left in ``parent``, the oldest first; a folder that does not describe itself is left out."""
    found = []
    for folder in sorted(parent.glob(f"{_PREFIX}*"), key=lambda path: path.stat().st_mtime):
        if (acquisition := described_in(folder)) is None:
            continue
        said = (folder / _ENDED).read_text(encoding="utf-8") if (folder / _ENDED).is_file() else None
        ended: Reason | None = None if said is None else "finished" if said == "finished" else "aborted"
        planes = sum(1 for _ in folder.glob(PLANE_FILES))
        found.append(Leftover(folder, folder.name.removeprefix(_PREFIX), acquisition, planes, ended))
    return found


def _write(file: Path, text: str) -> None:
    partial = file.with_suffix(".partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(file)
