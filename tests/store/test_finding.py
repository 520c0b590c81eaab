"""Thousands of stores are looked for again and again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from otf_stream.acquisition import Acquisition
from otf_stream.store import finding
from otf_stream.store.finding import SessionFinder, find_sessions
from otf_stream.store.journal import journal_path
from otf_stream.store.session import SessionStore


def test_only_what_has_changed_is_read_anew(
    tmp_path: Path, acquisition: Acquisition, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("first", "second"):
        SessionStore.create(tmp_path / f"{name}.ome.zarr", acquisition, session=name).close()
    finder, read = SessionFinder(tmp_path), []
    known = finding.session_attributes
    monkeypatch.setattr(finding, "session_attributes", lambda path: read.append(path.name) or known(path))
    assert [one["session"] for one in finder.find().values()] == ["first", "second"]
    assert [path.name for path in finder.find()] == sorted(read) == ["first.ome.zarr", "second.ome.zarr"]
    journal_path(tmp_path / "first.ome.zarr").unlink()
    assert [path.name for path in finder.find()] == ["second.ome.zarr"]
    assert len(read) == 2


def test_one_that_does_not_tell_when_it_was_made_is_none(tmp_path: Path, acquisition: Acquisition) -> None:
    path = tmp_path / "first.ome.zarr"
    SessionStore.create(path, acquisition, session="first").close()
    metadata = json.loads((path / "zarr.json").read_bytes())
    metadata["attributes"]["otf_stream"]["created"] = "yesterday"
    (path / "zarr.json").write_text(json.dumps(metadata))
    assert find_sessions(tmp_path) == []
