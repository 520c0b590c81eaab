from __future__ import annotations

import contextlib
import errno
import multiprocessing
import shutil
import sqlite3
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from otf_stream.acquisition import Acquisition
from otf_stream.store import journal as journals
from otf_stream.store.journal import Event, Journal, JournalError, PlaneRecord, StackState, journal_path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return journal_path(tmp_path / "cells.ome.zarr")


@pytest.fixture
def journal(path: Path, acquisition: Acquisition) -> Iterator[Journal]:
    with contextlib.closing(Journal.create(path, acquisition, session="s1")) as journal:
        yield journal


def record(t: int, c: int, z: int, crc: int = 7, received: float = 1.0) -> PlaneRecord:
    return PlaneRecord((t, c, z), crc, received)


def test_lies_beside_the_store() -> None:
    assert journal_path(Path("/data/cells.ome.zarr")) == Path("/data/cells.journal.sqlite")


def test_identifies_its_session_alone(path: Path, journal: Journal, acquisition: Acquisition) -> None:
    with contextlib.closing(Journal.open(path)) as other:
        assert (other.session, other.acquisition) == ("s1", acquisition)


def test_keeps_planes(path: Path, journal: Journal) -> None:
    journal.record_planes([record(0, 1, 3, crc=11, received=20.0), record(0, 1, 0, crc=2**32 - 1, received=10.0)])
    with contextlib.closing(Journal.open(path)) as other:
        assert other.durable() == {(0, 1, 0): 2**32 - 1, (0, 1, 3): 11}
        assert other.planes_of((0, 1)) == [0, 3]
        assert other.planes_of((0, 0)) == []
        assert other.span((0, 1)) == (10.0, 20.0)
        assert other.span((0, 0)) is None
        assert other.holds((0, 1, 3))
        assert not other.holds((0, 1, 4))


planes = st.tuples(st.integers(0, 1), st.integers(0, 1), st.integers(0, 4))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=30)
@given(st.lists(st.lists(st.tuples(planes, st.integers(0, 2**32 - 1)), max_size=6), max_size=8))
def test_any_order_and_duplicates_leave_the_first_record(
    tmp_path_factory: pytest.TempPathFactory,
    acquisition: Acquisition,
    groups: list[list[tuple[tuple[int, int, int], int]]],
) -> None:
    path = tmp_path_factory.mktemp("journal") / "a.journal.sqlite"
    first: dict[tuple[int, int, int], int] = {}
    with contextlib.closing(Journal.create(path, acquisition, session="s")) as journal:
        for group in groups:
            journal.record_planes([PlaneRecord(plane, crc, 1.0) for plane, crc in group])
            for plane, crc in group:
                first.setdefault(plane, crc)
        assert journal.durable() == first
        for stack in acquisition.stacks():
            assert journal.planes_of(stack) == sorted(z for t, c, z in first if (t, c) == stack)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=50)
@given(
    st.sets(st.tuples(st.integers(0, 1), st.integers(0, 1), st.integers(0, 4))),
    st.dictionaries(
        st.tuples(st.integers(0, 1), st.integers(0, 1)), st.sampled_from(["restoring", "restored", "failed"])
    ),
    st.booleans(),
)
def test_stacks_are_found_and_counted_as_their_planes_and_states_say(
    tmp_path_factory: pytest.TempPathFactory,
    acquisition: Acquisition,
    planes: set[tuple[int, int, int]],
    stored: dict[tuple[int, int], StackState],
    closed: bool,
) -> None:
    path = tmp_path_factory.mktemp("journal") / "a.journal.sqlite"
    with contextlib.closing(Journal.create(path, acquisition, session="s")) as journal:
        journal.record_planes([PlaneRecord(plane, 7, 1.0) for plane in planes])
        begun = sorted({plane[:2] for plane in planes})
        for stack, state in stored.items():
            if stack in begun:
                journal.set_state(stack, state)
        if closed:
            journal.close_arrivals("finished")
        states = {stack: journal.state(stack) for stack in acquisition.stacks()}
        assert journal.begun() == begun
        assert journal.pending() == [stack for stack in begun if states[stack] not in ("restored", "failed")]
        assert journal.states() == Counter(states.values())
        assert dict(journal.unfinished_planes()) == {p: 7 for p in planes if p[:2] in journal.pending()}


def test_a_stack_without_a_plane_is_given_up_when_no_more_will_come(journal: Journal) -> None:
    journal.record_planes([record(0, 0, 0)])
    assert journal.state((1, 1)) == "arriving"
    journal.close_arrivals("silence")
    assert (journal.state((0, 0)), journal.state((1, 1))) == ("arrived", "failed")
    journal.reopen_arrivals()
    assert journal.state((1, 1)) == "arriving"


def test_a_channel_of_single_planes_has_no_stack(path: Path, acquisition: Acquisition) -> None:
    planned = acquisition.model_copy(update={"z_ranges": ((0, 5), (2, 3)), "every": (1, 1)})
    with contextlib.closing(Journal.create(path, planned, session="s")) as journal:
        journal.record_planes([record(0, 1, 2), record(0, 0, 0)])
        assert journal.begun() == [(0, 0)]
        assert journal.states() == {"arriving": 2}


def test_looking_for_stacks_costs_what_has_come_and_not_what_was_announced(path: Path) -> None:
    huge = Acquisition.model_validate(
        {
            "name": "huge",
            "sizes": {"t": 1_000_000, "c": 1, "z": 10, "y": 4, "x": 4},
            "dtype": "uint8",
            "voxel_size": {"z": 1, "y": 1, "x": 1},
        }
    )
    with contextlib.closing(Journal.create(path, huge, session="s")) as journal:
        steps = 0

        def count() -> int:
            nonlocal steps
            steps += 1
            return 0

        journal.record_planes([record(0, 0, 0), record(999_999, 0, 9)])
        journal._connection.set_progress_handler(count, 100)
        assert journal.pending() == [(0, 0), (999_999, 0)]
        assert journal.states() == {"arriving": 1_000_000}
        assert steps < 100


def test_planes_that_turn_out_damaged_are_forgotten(journal: Journal) -> None:
    journal.record_planes([record(0, 0, z) for z in range(5)])
    journal.forget_planes([(0, 0, 3), (1, 1, 1)])
    assert journal.planes_of((0, 0)) == [0, 1, 2, 4]
    assert journal.state((0, 0)) == "arriving"


def test_the_latest_event_of_a_kind(journal: Journal) -> None:
    assert journal.latest("stage") is None
    for stage in ("learn", "restore"):
        journal.note("stage", stage=stage)
    journal.note("other")
    latest = journal.latest("stage")
    assert latest is not None
    assert latest.detail == {"stage": "restore"}


def test_a_group_with_a_plane_outside_leaves_no_trace(journal: Journal) -> None:
    with pytest.raises(ValueError, match=r"z=5 lies outside .* 5 planes"):
        journal.record_planes([record(0, 0, 0), record(0, 0, 5)])
    assert journal.durable() == {}


def test_a_stack_arrives_with_its_last_plane(journal: Journal) -> None:
    journal.record_planes([record(0, 0, z) for z in range(4)])
    assert journal.state((0, 0)) == "arriving"
    journal.record_planes([record(0, 0, 4)])
    assert journal.state((0, 0)) == "arrived"
    assert journal.state((0, 1)) == "arriving"


def test_stacks_arrive_when_arrivals_are_closed(path: Path, journal: Journal) -> None:
    journal.record_planes([record(1, 1, 0)])
    journal.set_state((0, 0), "restoring")
    assert journal.closed is None
    journal.close_arrivals("the sender said so")
    journal.close_arrivals("again")
    assert journal.closed == "the sender said so"
    assert journal.state((0, 0)) == "restoring"
    assert journal.state((1, 1)) == "arrived"
    journal.set_state((0, 0), "restored")
    with contextlib.closing(Journal.open(path)) as other:
        assert other.state((0, 0)) == "restored"
        assert other.closed == "the sender said so"


def test_refuses_unknown_states_and_stacks(journal: Journal) -> None:
    with pytest.raises(ValueError, match="'lost' is no state"):
        journal.set_state((0, 0), "lost")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="t=2"):
        journal.set_state((2, 0), "restored")


def test_keeps_events_in_order(journal: Journal) -> None:
    journal.note("greeted", sender="scope-1", planes=3)
    journal.note("closed")
    first, second = journal.events()
    assert isinstance(first, Event)
    assert (first.kind, first.detail, second.kind, second.detail) == (
        "greeted",
        {"sender": "scope-1", "planes": 3},
        "closed",
        {},
    )
    assert 0 < first.at <= second.at


def test_never_overwrites(path: Path, journal: Journal, acquisition: Acquisition) -> None:
    with pytest.raises(FileExistsError):
        Journal.create(path, acquisition, session="other")


def test_says_what_is_wrong_with_a_file(tmp_path: Path, path: Path, journal: Journal) -> None:
    with pytest.raises(FileNotFoundError, match="no journal"):
        Journal.open(tmp_path / "none.journal.sqlite")
    journal.close()
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 99")
    with pytest.raises(JournalError, match=r"version 99.*update otf_stream"):
        Journal.open(path)
    foreign = tmp_path / "foreign.sqlite"
    sqlite3.connect(foreign).close()
    with pytest.raises(JournalError, match="no journal of a session"):
        Journal.open(foreign)
    foreign.write_bytes(b"planes, I promise" * 100)
    with pytest.raises(JournalError, match="cannot be read"):
        Journal.open(foreign)


def test_a_disk_too_full_for_a_journal_is_an_oserror_and_leaves_none(
    path: Path, acquisition: Acquisition, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect = journals._connect

    def full(path: Path, *given: float) -> sqlite3.Connection:
        connection = connect(path, *given)
        connection.execute("PRAGMA max_page_count = 1")
        return connection

    with monkeypatch.context() as patch:
        patch.setattr(journals, "_connect", full)
        with pytest.raises(OSError, match="No space") as raised:
            Journal.create(path, acquisition, session="s")
    assert raised.value.errno == errno.ENOSPC
    assert not path.exists()
    Journal.create(path, acquisition, session="s").close()


def test_a_full_disk_is_an_oserror_and_records_nothing(journal: Journal) -> None:
    (pages,) = journal._connection.execute("PRAGMA page_count").fetchone()
    journal._connection.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(OSError, match="No space") as full:
        journal.note("long", text="x" * 100_000)
    assert full.value.errno == errno.ENOSPC
    assert journal.events() == []
    journal._connection.execute("PRAGMA max_page_count = 100000")
    journal.note("short")
    assert [event.kind for event in journal.events()] == ["short"]


def test_threads_share_one_journal(journal: Journal) -> None:
    def work(c: int) -> None:
        for z in range(5):
            journal.record_planes([record(0, c, z)])
            journal.note("plane", c=c, z=z)
            journal.state((0, c))

    threads = [threading.Thread(target=work, args=(c,)) for c in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(journal.durable()) == len(journal.events()) == 10


def _note_many(path: Path, who: str) -> None:
    with contextlib.closing(Journal.open(path)) as journal:
        for i in range(20):
            journal.note(who, i=i)


def test_processes_write_at_once(path: Path, journal: Journal) -> None:
    other = multiprocessing.get_context("spawn").Process(target=_note_many, args=(path, "worker"))
    other.start()
    for i in range(20):
        journal.note("listener", i=i)
    other.join(120)
    assert other.exitcode == 0
    for who in ("listener", "worker"):
        assert [event.detail["i"] for event in journal.events() if event.kind == who] == list(range(20))


def test_knows_when_planes_were_taken(journal: Journal) -> None:
    journal.record_planes([PlaneRecord((0, 0, 0), 1, 20.0, 10.5), PlaneRecord((0, 0, 1), 1, 21.0)])
    assert [journal.taken((0, 0, z)) for z in range(3)] == [10.5, None, None]


def test_a_plane_that_comes_late_makes_its_stack_arrive_again(journal: Journal) -> None:
    journal.record_planes([PlaneRecord((0, 0, z), 1, 0.0) for z in range(3)])
    journal.finish_stack((0, 0), 3)
    assert journal.state((0, 0)) == "restored"
    journal.record_planes([PlaneRecord((0, 0, 2), 1, 0.0)])  # is there already
    assert journal.state((0, 0)) == "restored"
    journal.record_planes([PlaneRecord((0, 0, 3), 1, 0.0)])
    assert journal.state((0, 0)) == "arriving"
    journal.finish_stack((0, 0), 3)  # one more came while it was being restored
    assert journal.state((0, 0)) == "arriving"


def test_a_sender_that_comes_back_reopens_the_arrivals(journal: Journal) -> None:
    journal.record_planes([record(0, 0, 0)])
    journal.close_arrivals("silence")
    assert journal.state((0, 0)) == "arrived"
    journal.reopen_arrivals()
    assert journal.closed is None
    assert journal.state((0, 0)) == "arriving"


def test_reads_journals_of_the_first_version(path: Path, journal: Journal) -> None:
    journal.record_planes([PlaneRecord((0, 0, 0), 7, 5.0)])
    journal.close()
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.executescript("ALTER TABLE planes DROP COLUMN taken; PRAGMA user_version = 1;")
    again = Journal.open(path)
    again.record_planes([PlaneRecord((0, 0, 1), 8, 6.0, 5.5)])
    assert again.durable() == {(0, 0, 0): 7, (0, 0, 1): 8}
    assert again.taken((0, 0, 1)) == 5.5
    again.close()


def test_events_records_and_the_newest_plane_are_found_by_stack(journal: Journal) -> None:
    assert journal.newest() is None
    journal.record_planes([record(0, 1, 2, received=5.0), record(0, 1, 0, received=9.0), record(1, 1, 3, received=7.0)])
    assert journal.newest() == (0, 1, 0)
    assert [found.plane for found in journal.records_of((0, 1))] == [(0, 1, 0), (0, 1, 2)]
    journal.note("stage", stack=[0, 1], stage="denoise")
    journal.note("stage", stack=[0, 11], stage="denoise")
    journal.note("failure", trace='"stack": [0, 1]')
    assert [event.detail["stack"] for event in journal.events_of((0, 1))] == [[0, 1]]


def test_an_acquisition_of_another_version_is_told_as_such(path: Path, journal: Journal) -> None:
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE session SET acquisition = json_set(acquisition, '$.of_next_year', 1)")
    with pytest.raises(JournalError, match="another version"):
        Journal.open(path)
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("DELETE FROM session")
    with pytest.raises(JournalError, match="cannot be read"):
        Journal.open(path)


def test_it_knows_whether_it_is_where_it_was_opened(path: Path, journal: Journal) -> None:
    assert journal.is_in_place()
    path.rename(path.with_name("moved.sqlite"))
    assert not journal.is_in_place()
    path.write_bytes(b"another one")
    assert not journal.is_in_place()


def test_events_of_some_kinds_are_left_out(journal: Journal) -> None:
    for kind in ("opened", "training", "restored", "training"):
        journal.note(kind)
    assert [event.kind for event in journal.events(without=("training",))] == ["opened", "restored"]
    assert [event.id for event in journal.events(2, kinds=("training",))] == [4]


def test_an_error_of_a_full_disk_is_told_as_such(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for free, expected in ((0, OSError), (2**30, sqlite3.OperationalError)):
        monkeypatch.setattr(journals.shutil, "disk_usage", lambda _, free=free: shutil._ntuple_diskusage(1, 1, free))
        error = sqlite3.OperationalError("disk I/O error")
        error.sqlite_errorcode = sqlite3.SQLITE_IOERR_WRITE
        with pytest.raises(expected), journals._full_disk_as_oserror(path):
            raise error
