"""What a listener finds of former ones: planes that are whole, and planes that a power cut tore."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from otf_stream.acquire.inspection import Inspection
from otf_stream.acquire.publisher import Publisher
from otf_stream.acquisition import Acquisition, PlaneIndex
from otf_stream.store.chunks import chunk_file
from otf_stream.store.session import SessionStore

Pixels = Callable[[PlaneIndex], np.ndarray]
Until = Callable[[Callable[[], object]], None]
SESSION = "0123456789abcdef0123456789abcdef"
TORN = [(0, 0, 1), (0, 0, 3), (0, 1, 0)]


@pytest.fixture
def path(tmp_path: Path, acquisition: Acquisition, indices: list[PlaneIndex], pixels: Pixels) -> Path:
    """A session of which three planes are not as they came: one is gone, one cut short, one altered."""
    path = tmp_path / "cells.ome.zarr"
    with closing(SessionStore.create(path, acquisition, session=SESSION)) as store:
        store.write_planes([(index, pixels(index).data, zlib.crc32(pixels(index).data)) for index in indices])
    gone, short, altered = (chunk_file(path, plane) for plane in TORN)
    gone.unlink()
    short.write_bytes(short.read_bytes()[:100])
    altered.write_bytes(bytes(480))
    return path


def test_finds_what_is_damaged_and_nothing_else(path: Path, until: Until, indices: list[PlaneIndex]) -> None:
    found: list[Any] = []
    with closing(Inspection([path, path.with_name("gone.ome.zarr")])) as inspection:
        until(lambda: found.extend(inspection.found()) or found)
    assert [(each.session, each.planes, list(each.damaged)) for each in found] == [(SESSION, len(indices), TORN)]


def test_of_restored_stacks_nothing_is_read_again(path: Path, until: Until) -> None:
    with closing(SessionStore.open(path)) as store:
        store.journal.set_state((0, 0), "restored")
    found: list[Any] = []
    with closing(Inspection([path])) as inspection:
        until(lambda: found.extend(inspection.found()) or found)
    assert [(each.planes, each.damaged) for each in found] == [(15, ((0, 1, 0),))]


def test_a_damaged_plane_counts_as_missing_and_is_taken_when_it_comes_again(
    tmp_path: Path, path: Path, listening: Callable[..., Any], acquisition: Acquisition, pixels: Pixels, until: Until
) -> None:
    with listening(tmp_path) as listener, closing(SessionStore.open(path)) as store:
        until(lambda: store.journal.latest("damaged"))
        assert store.journal.planes_of((0, 0)) == [0, 2, 4]
        assert store.journal.state((0, 0)) == "arriving"
        assert store.journal.state((1, 1)) == "arrived"
        with Publisher(listener.address, acquisition, session=SESSION) as publisher:
            for t, c, z in TORN:
                publisher.publish(pixels((t, c, z)), t=t, c=c, z=z)
        assert publisher.ended is not None
        assert publisher.ended.missing_count == 0
        for plane in TORN:
            np.testing.assert_array_equal(store.read_plane(plane), pixels(plane))
    with closing(SessionStore.open(path)) as store:
        (noted,) = (event.detail for event in store.journal.events() if event.kind == "damaged")
        assert noted["planes"] == [list(plane) for plane in TORN]


def test_a_closed_session_whose_plane_is_damaged_is_restored_without_it(
    tmp_path: Path, path: Path, listening: Callable[..., Any], until: Until
) -> None:
    with closing(SessionStore.open(path)) as store:
        store.journal.close_arrivals("finished")
        with listening(tmp_path):
            until(lambda: store.journal.latest("damaged"))
        assert store.journal.state((0, 0)) == "arrived"
        assert store.journal.planes_of((0, 0)) == [0, 2, 4]
