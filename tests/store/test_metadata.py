"""What is said of an image is always whole, whoever changes it at the same moment."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

from otf_stream.store.metadata import amend


def test_those_who_change_it_at_the_same_moment_leave_it_whole(tmp_path: Path) -> None:
    (tmp_path / "zarr.json").write_text("{}")
    failed: list[BaseException] = []

    def change(name: str) -> None:
        try:
            for number in range(60):
                amend(tmp_path, lambda metadata, number=number: metadata.update({name: "x" * 500 * (number % 7)}))
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=change, args=(name,)) for name in ("listener", "worker", "preview")]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        json.loads((tmp_path / "zarr.json").read_bytes())
    assert not failed
    assert [path.name for path in tmp_path.iterdir()] == ["zarr.json"]


def test_what_cannot_be_said_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "zarr.json").write_text('{"a": 1}')
    with pytest.raises(TypeError):
        amend(tmp_path, lambda metadata: metadata.update(b=object()))
    assert [path.read_text() for path in tmp_path.iterdir()] == ['{"a": 1}']
