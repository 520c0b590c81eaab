from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from otf_stream.acquire.leftovers import find_leftovers
from otf_stream.acquire.publisher import Publisher, deliver
from otf_stream.acquisition import Acquisition, PlaneIndex
from otf_stream.store.session import SessionStore

Listening = Callable[..., Any]
Pixels = Callable[[PlaneIndex], Any]
NOBODY = "tcp://127.0.0.1:9"


def leave(acquisition: Acquisition, planes: list[PlaneIndex], pixels: Pixels, spill: Path, *, abort: bool) -> str:
    publisher = Publisher(NOBODY, acquisition, spill=spill)
    for t, c, z in planes:
        publisher.publish(pixels((t, c, z)), t=t, c=c, z=z)
    if abort:
        publisher.abort(0.1)
    else:
        with pytest.raises(TimeoutError, match="otf-stream deliver"):
            publisher.close(0.1)
    return publisher.session


@pytest.mark.parametrize("abort", [False, True])
def test_what_was_left_is_delivered_later(
    tmp_path: Path,
    listening: Listening,
    acquisition: Acquisition,
    indices: list[PlaneIndex],
    pixels: Pixels,
    abort: bool,
) -> None:
    session = leave(acquisition, indices[:7], pixels, tmp_path / "spill", abort=abort)
    (leftover,) = find_leftovers(tmp_path / "spill")
    assert (leftover.session, leftover.acquisition, leftover.planes) == (session, acquisition, 7)
    assert leftover.ended == ("aborted" if abort else "finished")
    with pytest.raises(TimeoutError):
        deliver(leftover, NOBODY, wait_s=0.1)
    (leftover,) = find_leftovers(tmp_path / "spill")  # Nothing is lost by trying.
    assert leftover.planes == 7
    with listening(tmp_path / "data") as listener:
        assert deliver(leftover, listener.address) == 7
    assert list((tmp_path / "spill").iterdir()) == []
    store = SessionStore.open(tmp_path / "data" / "cells.ome.zarr")
    assert store.session == session
    assert list(store.journal.durable()) == indices[:7]
    assert all((store.read_plane(index) == pixels(index)).all() for index in indices[:7])
    assert store.journal.closed == leftover.ended
    store.close()


def test_a_publisher_at_work_is_not_disturbed(
    tmp_path: Path,
    acquisition: Acquisition,
    indices: list[PlaneIndex],
    pixels: Pixels,
    until: Callable[..., None],
) -> None:
    publisher = Publisher(NOBODY, acquisition, memory=1, spill=tmp_path)
    for t, c, z in indices:
        publisher.publish(pixels((t, c, z)), t=t, c=c, z=z)
    until(lambda: publisher.spilled)
    (leftover,) = find_leftovers(tmp_path)
    assert leftover.ended is None
    publisher.abort(0.1)
    (leftover,) = find_leftovers(tmp_path)
    assert (leftover.ended, leftover.planes) == ("aborted", len(indices))


def test_folders_of_others_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "otf_stream-x").mkdir()
    (tmp_path / "otf_stream-y").mkdir()
    (tmp_path / "otf_stream-y" / "acquisition.json").write_text("{}")
    assert find_leftovers(tmp_path) == []
