from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from otf_stream.acquire.hooks import unplanned
from otf_stream.acquire.hooks.growing import Plane
from otf_stream.acquire.hooks.stream import Stream
from otf_stream.acquire.hooks.unplanned import Unplanned, unplanned_name

NOBODY = "tcp://127.0.0.1:9"
PIXELS = np.zeros((4, 6), np.uint16)


def plane(t: int, position: int | None = None, tile: int | None = None) -> Plane:
    return Plane(t, "a", 0, lambda: PIXELS, PIXELS.shape, PIXELS.dtype, position=position, tile=tile)


@pytest.mark.parametrize(("in_memory", "lost"), [(True, 5), (False, 0)])
def test_what_is_held_in_memory_has_a_bound(
    in_memory: bool, lost: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unplanned, "_HELD_BYTES", 4 * PIXELS.nbytes)
    stream = Stream(NOBODY, spill=tmp_path)
    places = Unplanned(stream, "x", lambda first, place: None, remedy="do this", in_memory=in_memory)
    for t in range(5):
        places.take(plane(t))
    assert (stream.lost, places.held) == (lost, 5 - lost)
    places.give_up()
    assert stream.lost == 5
    (failure,) = stream.failures
    assert "5 planes came without two heights" in failure
    assert failure.endswith("do this")


def test_where_there_may_be_more_places_each_has_its_number_from_the_first_on() -> None:
    assert unplanned_name("x", plane(0)) == "x"
    assert unplanned_name("x", plane(0, position=0)) == "x_p0"
    assert unplanned_name("x", plane(0, position=1, tile=0)) == "x_p1_g0"
    assert unplanned_name("x", plane(0, tile=2)) == "x_p0_g2"
