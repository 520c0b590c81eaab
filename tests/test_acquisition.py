from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from otf_stream.acquisition import MAX_CHANNELS, MAX_PLANES, Acquisition, PlaneIndex, Sizes, VoxelSize, faults

PLANNED = Acquisition(
    name="x",
    sizes=Sizes(t=3, c=3, z=6, y=4, x=5),
    dtype="uint16",
    voxel_size=VoxelSize(z=1, y=0.2, x=0.2),
    channels=("DAPI", "GFP", "BF"),
    z_ranges=((0, 6), (1, 4), (2, 3)),
    every=(1, 2, 1),
)
LEAST = Sizes(z=1, y=4, x=5)
GROWING = Acquisition(name="x", sizes=LEAST, dtype="uint16", voxel_size=VoxelSize(z=1, y=0.2, x=0.2), growing=True)
INDICES = st.tuples(st.integers(0, 40), st.integers(0, 3), st.integers(0, 60))


def named(*names: str) -> Acquisition:
    sizes = LEAST.model_copy(update={"c": max(len(names), 1)})
    return GROWING.model_copy(update={"channels": names, "sizes": sizes})


def test_channels_of_their_own_planes() -> None:
    assert list(PLANNED.planes_of(1)) == [1, 2, 3]
    # A single plane is no stack, and the second channel comes every other time point.
    assert PLANNED.stacks() == [(0, 0), (0, 1), (1, 0), (2, 0), (2, 1)]
    assert PLANNED.planned == 3 * 6 + 2 * 3 + 3 * 1
    assert PLANNED.holds((1, 1, 5))  # Nobody planned it, but there is room for it.


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"z_ranges": ((0, 6), (1, 4))}, "2 z ranges for 3 channels"),
        ({"z_ranges": ((0, 6), (1, 7), (0, 1))}, "1 to 7"),
        ({"z_ranges": ((0, 6), (3, 3), (0, 1))}, "3 to 3"),
        ({"every": (1,)}, "1 intervals for 3 channels"),
        ({"growing": True}, "leave them out"),
        ({"interval_s": 0}, "greater than 0"),
    ],
)
def test_plans_that_cannot_be(change: dict[str, object], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        Acquisition.model_validate({**PLANNED.model_dump(), **change})


@given(st.lists(INDICES))
def test_planes_extend_what_grows(planes: list[PlaneIndex]) -> None:
    grown = GROWING
    for plane in planes:
        assert grown.admits(plane)
        grown = grown.extended(plane)
    assert all(grown.holds(plane) for plane in planes)
    lengths = tuple(max((plane[axis] for plane in planes), default=0) + 1 for axis in range(3))
    assert grown.sizes.shape == (*lengths, 4, 5)
    assert Acquisition.model_validate(grown.model_dump()) == grown


def test_growth_has_limits() -> None:
    assert not PLANNED.admits((0, 0, 6))
    assert not GROWING.admits((0, 0, -1))
    assert not GROWING.admits((0, 0, 10**6))
    assert GROWING.admits((0, MAX_CHANNELS - 1, 0))
    assert not GROWING.admits((0, MAX_CHANNELS, 0))
    with pytest.raises(ValidationError, match="less than or equal to 1000"):
        Sizes(c=MAX_CHANNELS + 1, z=1, y=1, x=1)
    assert not GROWING.extended((MAX_PLANES // 10, 0, 0)).admits((0, 0, 10))
    assert "split the acquisition" in GROWING.outside((0, 0, 10**6))
    assert "3 time points" in PLANNED.outside((0, 0, 6))


def test_what_two_descriptions_tell_together() -> None:
    assert PLANNED.joined(PLANNED) == PLANNED
    assert PLANNED.joined(PLANNED.model_copy(update={"name": "y"})) is None
    long, wide = GROWING.extended((7, 0, 2)), named("DAPI", "GFP")
    both = long.joined(wide)
    assert both is not None
    assert both == wide.joined(long)
    assert (both.sizes.shape, both.channels) == ((8, 2, 3, 4, 5), ("DAPI", "GFP"))
    assert wide.joined(named("DAPI", "GFP", "Cy5")) == named("DAPI", "GFP", "Cy5")
    assert wide.joined(named("GFP")) is None
    assert GROWING.joined(GROWING.model_copy(update={"dtype": "uint8"})) is None
    # A channel that came before its name has a number for one, until it is named.
    seen, told = wide.extended((0, 2, 0)), named("DAPI", "GFP", "Cy5")
    assert seen.channels == ("DAPI", "GFP", "2")
    assert seen.joined(told) == told.joined(seen) == told
    assert told.joined(named("DAPI", "GFP", "Cy3")) is None


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"name": "Größe"}, "name: names are of at most 100 letters without accents"),
        ({"modality": "MRI"}, "modality: has to be one of 'unknown', 'confocal'"),
        ({"voxel_size": {"z": -1, "y": 1, "x": 1}}, "voxel_size.z: has to be above 0"),
        ({"voxel_size": {"z": 3, "y": 1, "x": 2}}, "voxel_size: lateral pixels must be square"),
        ({"optics": {"numerical_aperture": 3}}, "optics.numerical_aperture: has to be at most 1.7"),
        ({"colour": "red"}, "there is no colour here"),
        ({"sizes": {"z": 2, "y": 3}}, "sizes.x is missing"),
    ],
)
def test_what_is_wrong_is_told_in_words(wrong, said):
    right = {"name": "x", "sizes": {"z": 2, "y": 3, "x": 4}, "dtype": "uint8", "voxel_size": {"z": 1, "y": 1, "x": 1}}
    with pytest.raises(ValidationError) as raised:
        Acquisition.model_validate(right | wrong)
    (told,) = faults(raised.value)
    assert told.startswith(said)
