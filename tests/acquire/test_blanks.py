from __future__ import annotations

import gc
import weakref

from otf_stream.acquire.blanks import Blanks

PLANE = 32 << 20
PLENTY = 1 << 40


def test_so_much_is_made_ready_and_no_more() -> None:
    blanks = Blanks(PLANE // 32)
    made = [blanks.prepare(PLENTY) for _ in range(6)]
    assert made == [True] * 4 + [False] * 2
    taken = blanks.take()
    assert len(taken) == PLANE // 32
    assert not taken.readonly
    assert [blanks.prepare(PLENTY) for _ in range(2)] == [True, False]


def test_what_is_taken_is_nobody_elses() -> None:
    blanks = Blanks(16)
    for _ in range(2):
        blanks.prepare(PLENTY)
    planes = [blanks.take() for _ in range(4)]
    for number, plane in enumerate(planes):
        plane[:] = bytes([number]) * 16
    assert [plane[0] for plane in planes] == [0, 1, 2, 3]


def test_used_memory_comes_back() -> None:
    blanks = Blanks(16)
    used = blanks.take()
    used[:] = b"a used plane ..."
    blanks.give(used, PLENTY)
    assert bytes(blanks.take()) == b"a used plane ..."


def test_idle_memory_stays_within_the_room_that_there_is() -> None:
    blanks = Blanks(16)
    assert [blanks.prepare(room) for room in (15, 16, 31, 32)] == [False, True, False, True]
    used = blanks.take()
    used[:] = b"does not fit ..."
    blanks.give(used, 31)
    assert bytes(blanks.take()) == bytes(16)


def test_idle_memory_of_large_planes_goes_back_to_the_system() -> None:
    blanks = Blanks(PLANE)
    used = [blanks.take() for _ in range(6)]
    kept = [weakref.ref(plane.obj) for plane in used]
    for plane in used:
        blanks.give(plane, PLENTY)
    del plane, used
    gc.collect()
    assert sum(array() is not None for array in kept) == 4


def test_publishers_share_what_is_idle_as_long_as_there_is_one() -> None:
    one, other, another_size = Blanks.of(48), Blanks.of(48), Blanks.of(64)
    assert one is other
    assert one is not another_size
    there = weakref.ref(one)
    del one
    assert there() is other
    del other
    gc.collect()
    assert there() is None
