from __future__ import annotations

import sys
import tracemalloc

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from otf_stream.acquire.ledger import Ledger
from otf_stream.acquisition import MAX_PLANES, Acquisition, Sizes, VoxelSize

ACQUISITION = Acquisition(
    name="x", sizes=Sizes(t=2, c=3, z=4, y=1, x=1), dtype="uint8", voxel_size=VoxelSize(z=1, y=1, x=1)
)
EVERY = [(t, c, z) for t in range(2) for c in range(3) for z in range(4)]


@given(st.dictionaries(st.sampled_from(EVERY), st.integers(0, 2**32 - 1)), st.integers(0, 30))
def test_knows_what_is_there_and_what_is_not(there: dict[tuple[int, int, int], int], limit: int) -> None:
    ledger = Ledger(ACQUISITION)
    for plane, crc in there.items():
        ledger.record(plane, crc)
        ledger.record(plane, crc ^ 1)  # the first note stands
    assert {plane: ledger.crc(plane) for plane in EVERY} == {plane: there.get(plane) for plane in EVERY}
    assert (ledger.count, ledger.missing_count) == (len(there), len(EVERY) - len(there))
    assert [(t, c, z) for t, c, z0, z1 in ledger.runs(100) for z in range(z0, z1)] == sorted(there)
    assert ledger.runs(limit) == ledger.runs(100)[:limit]
    assert ledger.missing(limit) == [plane for plane in EVERY if plane not in there][:limit]


def test_what_was_not_planned_is_not_missing() -> None:
    planned = ACQUISITION.model_copy(update={"z_ranges": ((0, 4), (1, 3), (2, 3)), "every": (1, 1, 2)})
    ledger = Ledger(planned)
    assert ledger.missing_count == planned.planned == 2 * 4 + 2 * 2 + 1
    at_1 = [plane[1:] for plane in ledger.missing(100) if plane[0] == 1]
    assert at_1 == [(0, 0), (0, 1), (0, 2), (0, 3), (1, 1), (1, 2)]
    ledger.record((1, 2, 0), 7)  # nobody asked for it, and it is kept
    assert ledger.crc((1, 2, 0)) == 7
    assert ledger.missing_count == planned.planned


def test_the_largest_acquisition_takes_no_more_memory_than_a_few_bytes_a_plane() -> None:
    sizes = ACQUISITION.sizes.model_copy(update={"t": MAX_PLANES // 10, "c": 1, "z": 10})
    tracemalloc.start()
    try:
        ledger = Ledger(ACQUISITION.model_copy(update={"sizes": sizes}))
        ledger.record((0, 0, 1), 7)
        assert ledger.missing(3) == [(0, 0, 0), (0, 0, 2), (0, 0, 3)]
        assert ledger.missing_count == MAX_PLANES - 1
        assert ledger.runs(10) == [(0, 0, 1, 2)]
        assert tracemalloc.get_traced_memory()[1] < 10 * MAX_PLANES
    finally:
        tracemalloc.stop()


@pytest.mark.skipif(sys.platform != "linux", reason="reads resident memory as Linux tells it")
def test_a_plane_far_away_takes_no_memory_for_those_between() -> None:
    growing = ACQUISITION.model_copy(update={"growing": True, "sizes": ACQUISITION.sizes.model_copy(update={"c": 1})})
    ledgers = [Ledger(growing) for _ in range(8)]
    resident = psutil.Process().memory_info().rss
    for ledger in ledgers:
        ledger.record((999_999, 0, 0), 7)
        ledger.record((0, 0, 9), 8)
        assert (ledger.crc((999_999, 0, 0)), ledger.crc((0, 0, 9)), ledger.count) == (7, 8, 2)
    assert psutil.Process().memory_info().rss - resident < 100 << 20


@pytest.mark.skipif(sys.platform != "linux", reason="reads resident memory as Linux tells it")
def test_ledgers_that_come_and_go_leave_no_memory_behind() -> None:
    shapes = [{"t": 7, "z": 1_000_000}, {"t": 1000, "c": 7, "z": 1000}, {"z": 1_000_000}, {"t": 10, "z": 1_000_000}]
    open_ones: dict[int, Ledger] = {}
    for turn in range(120):
        lengths = {"t": 1, "c": 1, **shapes[turn % len(shapes)]}
        announced = ACQUISITION.model_copy(update={"sizes": ACQUISITION.sizes.model_copy(update=lengths)})
        ledger = open_ones[turn * 5 % 8] = Ledger(announced)  # in place of another
        assert ledger.missing(1) == [(0, 0, 0)]
        if turn == 20:
            resident = psutil.Process().memory_info().rss
    assert psutil.Process().memory_info().rss - resident < 30 << 20


@pytest.mark.parametrize("lengths", [{"t": 1_000_000, "c": 10, "z": 1}, {"t": 1, "c": 1_000_000, "z": 10}])
def test_no_announcement_takes_long_to_be_told_what_is_missing(lengths: dict[str, int]) -> None:
    announced = ACQUISITION.model_copy(update={"sizes": ACQUISITION.sizes.model_copy(update=lengths)})
    calls: list[str] = []
    sys.setprofile(lambda frame, event, _: calls.append(frame.f_code.co_name) if event == "call" else None)
    try:
        ledger = Ledger(announced)
        ledger.record((0, 0, 0), 7)
        missing = ledger.missing_count
    finally:
        sys.setprofile(None)
    assert missing == MAX_PLANES - 1
    assert len(calls) < 1000  # not one a plane, a channel or a time point


@given(st.dictionaries(st.sampled_from(EVERY), st.integers(0, 2**32 - 1), min_size=1))
def test_of_unknown_length(there: dict[tuple[int, int, int], int]) -> None:
    least = ACQUISITION.sizes.model_copy(update={"t": 1, "c": 1, "z": 1})
    ledger = Ledger(ACQUISITION.model_copy(update={"growing": True, "sizes": least}))
    for plane, crc in there.items():
        ledger.record(plane, crc)
    assert {plane: ledger.crc(plane) for plane in EVERY} == {plane: there.get(plane) for plane in EVERY}
    assert [(t, c, z) for t, c, z0, z1 in ledger.runs(100) for z in range(z0, z1)] == sorted(there)
    gaps = set()
    for t, c in {plane[:2] for plane in there}:
        seen = [z for _, channel, z in there if channel == c]
        gaps |= {(t, c, z) for z in range(min(seen), max(seen))} - there.keys()
        gaps |= {(t, c, max(seen))} - there.keys()
    assert set(ledger.missing(100)) == gaps
    assert ledger.missing_count == len(gaps)
