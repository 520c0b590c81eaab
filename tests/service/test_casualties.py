"""Crashes are counted against the stacks that caused them, in journals that may not always be there."""

import sqlite3

import pytest
from stacks import small_stack, write

from otf_stream.service import casualties
from otf_stream.service.casualties import Casualties, crashes_at, is_poisoned, suspects
from otf_stream.service.casualty_report import how_it_ended, report_path
from otf_stream.service.pending import PendingStacks
from otf_stream.service.whereabouts import Whereabout, Whereabouts
from otf_stream.store.journal import Event, journal_path, remove_journal

TURN = Whereabout("turn", "a.ome.zarr", (0, 0), 0x10)
PREVIEW = Whereabout("preview", "b.ome.zarr", (3, 1), 0x20)


@pytest.fixture
def account(tmp_path, monkeypatch):
    """No patience, no pauses, and a kernel that is never short of memory until a test says so."""
    monkeypatch.setattr(casualties, "_PATIENCE", 0.0)
    monkeypatch.setattr(casualties, "_RETRY", 0.0)
    monkeypatch.setattr(casualties, "_KERNEL", tmp_path / "proc")
    (tmp_path / "proc").mkdir()
    short_of_memory(tmp_path, 0)
    account = Casualties(tmp_path)
    account.begin()
    return account


def short_of_memory(tmp_path, times):
    (tmp_path / "proc" / "vmstat").write_text(f"nr_free_pages 7\noom_kill {times}\n", encoding="ascii")


def die(account, store, code=-11, stage="turn", stack=(0, 0)):
    """Die as a worker does at a stack; return what is told of it."""
    context = account.whereabouts.at(stage, store.path.name, stack)
    context.__enter__()  # and never leaves
    told = account.count(code) + account.note()
    account.begin()
    return told


def kinds(store):
    return [event.kind for event in store.journal.events()]


def crash(*, stack=(0, 0), stage="turn", outside=False):
    return Event(0.0, "crash", {"stack": list(stack), "stage": stage, "outside": outside})


def happened(kind, stage="turn"):
    return Event(0.0, kind, {"stack": [0, 0], "stage": stage})


def test_whoever_is_at_nothing_leaves_nothing_behind():
    whereabouts = Whereabouts()
    with whereabouts.at("turn", "a.ome.zarr", (0, 1)), whereabouts.at("preview", "ß.ome.zarr", (2, 0)):
        assert [(w.stage, w.store, w.stack) for w in whereabouts.read()] == [
            ("turn", "a.ome.zarr", (0, 1)),
            ("preview", "ß.ome.zarr", (2, 0)),
        ]
    assert whereabouts.read() == []
    with pytest.raises(ZeroDivisionError), whereabouts.at("turn", "a.ome.zarr", (0, 1)):
        _ = 1 / 0
    assert whereabouts.read() == []


@pytest.mark.parametrize(
    ("trace", "blamed"),
    [
        ("", [TURN, PREVIEW]),
        ("Fatal Python error: Aborted\n\nThread 0x0000000000000010 (most recent call first):\n", [TURN, PREVIEW]),
        ("Thread 0x10 (most recent call first):\n\nCurrent thread 0x0020 (most recent call first):\n", [PREVIEW]),
        ("Current thread 0x0000000000000010 (most recent call first):\n", [TURN]),
        ("Current thread 0x0000000000000030 (most recent call first):\n", [TURN, PREVIEW]),
    ],
)
def test_the_thread_that_crashed_is_to_blame(trace, blamed):
    assert suspects([TURN, PREVIEW], trace) == blamed


def test_an_exit_code_is_told_in_words():
    assert how_it_ended(3) == "exit code 3"
    assert how_it_ended(0xC0000005) == "exit code 0xc0000005"
    assert how_it_ended(-11).startswith("signal 11 (SIGSEGV")
    assert how_it_ended(-1000) == "signal 1000"


def test_crashes_count_for_one_stack_and_one_stage_until_it_is_restored_or_set_aside():
    events = [crash(), crash(stack=(0, 1)), crash(stage="preview"), crash()]
    assert len(crashes_at(events, (0, 0), "turn")) == 2
    assert len(crashes_at(events, (0, 0), "preview")) == 1
    assert len(crashes_at([*events, happened("decision")], (0, 0), "turn")) == 2
    assert len(crashes_at([*events, happened("restored"), crash()], (0, 0), "turn")) == 1
    assert len(crashes_at([*events, happened("set aside"), crash()], (0, 0), "turn")) == 1
    assert len(crashes_at([*events, happened("set aside", "preview")], (0, 0), "turn")) == 2


def test_being_killed_by_somebody_weighs_less():
    assert is_poisoned([crash()] * 2)
    assert not is_poisoned([crash()] + [crash(outside=True)] * 3)
    assert is_poisoned([crash(outside=True)] * 5)


def test_a_stack_is_set_aside_at_its_second_crash(session, account):
    store = session({(0, 0): small_stack(), (0, 1): small_stack()})
    (told,) = die(account, store)
    assert "stack.ome.zarr t0 c0 was being restored when the worker ended: signal 11" in told
    assert store.journal.state((0, 0)) == "arrived"
    _, told = die(account, store)
    path = report_path(store.path, (0, 0), "turn")
    assert path.name == "stack.t0-c0.set-aside.txt"
    assert f"see {path}" in told
    assert store.journal.state((0, 0)) == "failed"
    assert store.journal.state((0, 1)) == "arrived"
    assert kinds(store) == ["crash", "crash", "set aside"]
    text = path.read_text(encoding="utf-8")
    for expected in ("crashed 2 times", "10 of 10 planes", "SIGSEGV", "otf-stream restore", "torch 2", "no preview"):
        assert expected in text


def test_an_end_that_was_asked_for_blames_nobody(session, account):
    store = session({(0, 0): small_stack()})
    assert die(account, store, code=0) == []
    assert kinds(store) == []


def test_an_idle_worker_blames_nobody_and_its_stacks_are_kept(account, tmp_path):
    assert account.count(-9) == []
    account.faults.write_text("Fatal Python error", encoding="utf-8")
    (told,) = account.count(-11)
    assert "at no stack" in told
    assert (tmp_path / "worker-crash.txt").read_text(encoding="utf-8") == "Fatal Python error"
    assert account.note() == []


def test_want_of_memory_is_told_from_a_kill_by_hand(session, account, tmp_path):
    store = session({(0, 0): small_stack()})
    for _ in range(2):
        (told,) = die(account, store, code=-9)
        assert "by somebody" in told
    assert store.journal.state((0, 0)) == "arrived"
    for times in (1, 2):
        short_of_memory(tmp_path, times)
        told = die(account, store, code=-9)
        assert "runs out of memory" in told[0]
    assert store.journal.state((0, 0)) == "failed"


def test_a_journal_that_is_locked_is_written_later(session, account):
    store = session({(0, 0): small_stack()})
    other = sqlite3.connect(journal_path(store.path), isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    (told,) = die(account, store)
    assert "cannot be noted yet" in told
    assert account.note() == []  # told once
    assert kinds(store) == []
    other.execute("ROLLBACK")
    other.close()
    (told,) = account.note()
    assert "was being restored" in told
    assert kinds(store) == ["crash"]


def test_a_report_that_cannot_be_written_keeps_nobody_waiting(session, account):
    store = session({(0, 0): small_stack()})
    report_path(store.path, (0, 0), "turn").mkdir()
    die(account, store)
    _, told = die(account, store)
    assert "cannot be written" in told
    assert store.journal.state((0, 0)) == "failed"
    assert kinds(store) == ["crash", "crash", "set aside"]


@pytest.mark.parametrize("content", [None, b"this is no database" * 100])
def test_a_journal_that_is_gone_or_damaged_stops_nobody(session, account, content):
    store = session({(0, 0): small_stack()})
    store.close()
    remove_journal(journal_path(store.path))
    if content:
        journal_path(store.path).write_bytes(content)
    sound = session({(0, 0): small_stack()}, name="sound")
    assert die(account, store) == []
    assert len(die(account, sound)) == 1


def test_a_stack_that_was_set_aside_is_tried_again_when_all_its_planes_are_there(session, account, tmp_path):
    stack = small_stack()
    store = session({(0, 0): stack}, skip=(7, 8, 9), close=False)
    for _ in range(2):
        die(account, store)
    pending = PendingStacks(tmp_path)
    for z in (7, 8, 9):
        assert list(pending.find()) == []
        write(store, [((0, 0, z), stack[z])])
    assert [found.stack for found in pending.find()] == [(0, 0)]
    die(account, store)
    assert store.journal.state((0, 0)) == "arrived"  # counted anew
    pending.close()


def test_previews_that_crash_are_given_up_and_nothing_else(session, account, tmp_path):
    store = session({(0, 0): small_stack(), (0, 1): small_stack()})
    for _ in range(2):
        told = die(account, store, stage="preview")
    assert "gets no more previews" in told[-1]
    assert "Nothing needs to be done" in report_path(store.path, (0, 0), "preview").read_text(encoding="utf-8")
    assert store.journal.state((0, 0)) == "arrived"
    pending = PendingStacks(tmp_path)
    assert {found.stack: found.previewed for found in pending.find()} == {(0, 0): False, (0, 1): True}
    pending.close()
