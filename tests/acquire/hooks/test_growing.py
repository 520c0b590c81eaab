from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from otf_stream.acquire.hooks.growing import GrowingPlace, Plane
from otf_stream.acquisition import PlaneIndex

PIXELS = np.zeros((4, 6), np.uint16)


def plane(t: int | None, channel: int | str, z: int | None, **told: Any) -> Plane:
    return Plane(t, channel, z, lambda: PIXELS, PIXELS.shape, PIXELS.dtype, **told)


def indices(planes: list[Plane], *, from_first: bool = False) -> list[PlaneIndex]:
    """Number planes as they would be sent: those that were held first."""
    place = GrowingPlace(from_first=from_first)
    found: list[PlaneIndex] = []
    known = False
    for each in planes:
        if known:
            found.append(place.index(each))
            continue
        place.held.append(each)
        known = place.known()
        found += [place.index(held) for held in place.held] if known else []
    assert known
    return found


@given(
    st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(2, 5)),
    st.permutations((0, 1, 2)),
    st.floats(-100, 100),
    st.floats(0.05, 5),
    st.booleans(),
)
def test_without_an_index_each_plane_has_the_one_that_it_would_have_had(
    sizes: tuple[int, int, int], order: list[int], first: float, step: float, up: bool
) -> None:
    # A time point is over when one of its planes comes again, so the order of channels and planes is free.
    inner = [axis for axis in order if axis != 0]
    planned = [
        (t, *(index for _, index in sorted(zip(inner, at, strict=True))))
        for t in range(sizes[0])
        for at in itertools.product(*(range(sizes[axis]) for axis in inner))
    ]
    planes = [plane(None, "abc"[c], None, height_um=first + (step if up else -step) * z) for _, c, z in planned]
    assert indices(planes) == planned


def test_a_missing_plane_does_not_shift_the_time_points_after_it() -> None:
    heights = [0, 1, 3, 0, 1, 2, 3]
    planes = [plane(None, "a", None, height_um=height) for height in heights]
    assert indices(planes) == [(0, 0, 0), (0, 0, 1), (0, 0, 3), (1, 0, 0), (1, 0, 1), (1, 0, 2), (1, 0, 3)]


def test_channels_with_numbers_keep_them_whatever_comes_first() -> None:
    place = GrowingPlace()
    place.held = [plane(0, 1, 0, channel_name="GFP"), plane(0, 0, 0, channel_name="DAPI"), plane(0, 1, 1)]
    assert place.known()
    assert place.announced()["channels"] == ("DAPI", "GFP")
    assert place.index(plane(0, 3, 0, channel_name="Cy5")) == (0, 3, 0)
    assert place.names == ["DAPI", "GFP", "2", "Cy5"]


def test_where_the_first_plane_is_plane_0() -> None:
    later = [plane(7, "a", z) for z in (3, 4)]
    assert indices(later) == [(7, 0, 3), (7, 0, 4)]
    assert indices(later, from_first=True) == [(0, 0, 0), (0, 0, 1)]
    assert indices(later[::-1], from_first=True) == [(0, 0, 4), (0, 0, 3)]  # down to 0, in most scripts
    assert indices([plane(0, "a", z) for z in (-2, -1)]) == [(0, 0, 0), (0, 0, 1)]


def test_single_planes_tell_nothing() -> None:
    place = GrowingPlace()
    place.held = [plane(t, "a", None, height_um=float(t)) for t in range(9)]  # the focus follows the sample
    assert not place.known()


def test_planes_that_have_no_index() -> None:
    place = GrowingPlace()
    place.held = [plane(None, "a", None, height_um=height) for height in (5.0, 6.0)]
    assert place.known()
    with pytest.raises(ValueError, match=r"z=-1 came, but the acquisition began with t=0, z=0"):
        place.index(plane(None, "a", None, height_um=4.0))
    with pytest.raises(ValueError, match=r"at 6.4 µm came, but planes began at 5 µm and are 1 µm apart"):
        place.index(plane(None, "a", None, height_um=6.4))
