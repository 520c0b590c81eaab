from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otf_stream.acquire.hooks.voxels import even_step_um, first_step_um, known_pixel_size


@given(st.sets(st.integers(0, 100), min_size=2), st.floats(0.01, 10), st.floats(-100, 100), st.booleans())
def test_an_even_step_is_found_whatever_planes_are_there(planes: set[int], step: float, at: float, up: bool) -> None:
    heights = {z: at + (step if up else -step) * z for z in planes}
    assert even_step_um([{}, heights, {7: 1.0}], remedy="") == pytest.approx(step)
    assert first_step_um([{}, heights]) == pytest.approx(step)


def test_stacks_may_lie_at_different_heights() -> None:
    assert even_step_um([{0: 0.0, 1: 0.5}, {0: 90.0, 2: 91.0}], remedy="") == 0.5


@pytest.mark.parametrize("heights", [{0: 0.0, 1: 1.0, 2: 3.0}, {0: 5.0, 1: 5.0}])
def test_uneven_steps_are_refused_with_the_remedy(heights: dict[int, float]) -> None:
    with pytest.raises(ValueError, match="even steps; do this"):
        even_step_um([heights], remedy="do this")


def test_heights_that_tell_nothing() -> None:
    assert even_step_um([{}, {3: 1.0}], remedy="") is None
    assert first_step_um([{}, {3: 1.0}, {0: 2.0, 1: 2.0}]) is None
    assert first_step_um([{0: 2.0, 1: 2.0, 3: 4.0}]) == 1.0


@pytest.mark.parametrize("told", [None, 0.0])
def test_an_unknown_pixel_size_is_refused_with_the_remedy(told: float | None) -> None:
    with pytest.raises(ValueError, match=r"0(\.0)? µm, so not known; give it as pixel_size_um"):
        known_pixel_size(told)
    assert known_pixel_size(0.2) == 0.2
