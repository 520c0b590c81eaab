"""What the page says follows from a snapshot alone, costs the same however many browsers look, and has bounds."""

from __future__ import annotations

import time

import pytest
from monitor_folders import at_work, land, stack

from otf_stream.monitor.dashboard import charts, pace
from otf_stream.monitor.dashboard.answers import any_good, arriving, in_time
from otf_stream.monitor.dashboard.board import Board
from otf_stream.monitor.dashboard.choice import Choice, matching, neighbour, session_of, stack_of
from otf_stream.monitor.dashboard.lists import session_row, stack_row, stacks_in_order
from otf_stream.monitor.dashboard.views import address, find_window, scale_bar, view
from otf_stream.monitor.dashboard.words import clock, gap_list
from otf_stream.monitor.monitor import Monitor, Sample
from otf_stream.monitor.state import Curve, Decision, Gap, Stack, Worker


@pytest.fixture
def monitor(tmp_path):
    monitor = Monitor(tmp_path, throughput=False)
    yield monitor
    monitor.close()


def seen(monitor):
    return monitor.look().sessions[0]


def a_stack(**more):
    return Stack(**{"t": 0, "c": 0, "state": "arriving", "planes": 6, "expected": 10, "missing": 0} | more)


WORKER = Worker(current=True, at=0.0, pid=1, device="cpu", turn=0.0, stacks=1)


def test_whether_every_plane_arrives(session, monitor, tmp_path):
    store = session()
    at_work(tmp_path)
    assert arriving(seen(monitor), monitor.latest.listener).mood == "wait"
    land(store, *stack(0, [0, 1]))
    assert arriving(seen(monitor), monitor.latest.listener).word == "Yes, so far"
    land(store, *stack(0, [4]))
    answer = arriving(seen(monitor), monitor.latest.listener)
    assert (answer.mood, answer.word, answer.figure) == ("bad", "No: 2 missing", "3")
    assert "gaps: z 2–3" in answer.lines
    land(store, *stack(0, [2, 3, 5]))
    assert arriving(seen(monitor), monitor.latest.listener).word == "Yes, all are here"


def test_a_listener_that_is_down_takes_no_planes(session, monitor):
    land(session(), *stack(0, [0, 1]))
    assert arriving(seen(monitor), None).word == "No: listener is down"


@pytest.mark.parametrize(
    ("more", "worker", "word", "figure"),
    [
        ({"seconds_left": 192.4, "restoring_s": 20.0}, WORKER, "Yes", "3:12"),
        ({"seconds_left": 19.0, "restoring_s": 20.0}, WORKER, "Tight", "0:19"),
        ({"seconds_left": -65.0}, WORKER, "No: late", "−1:05"),
        ({"seconds_left": 100.0}, None, "No: worker is down", "1:40"),
        ({}, WORKER, "Not known yet", "–"),
        ({"state": "failed", "reason": "cancelled"}, WORKER, "Cancelled", "–"),
        ({"state": "restored", "first": 10.0, "restored_at": 54.0, "in_hand_s": 16.0}, None, "Yes, 16 s early", "0:44"),
        ({"state": "restored", "first": 10.0, "restored_at": 54.0, "in_hand_s": -3.0}, WORKER, "3 s late", "0:44"),
    ],
)
def test_whether_the_volume_is_in_time(more, worker, word, figure):
    answer = in_time(a_stack(**more), worker, paused=False)
    assert (answer.word, answer.figure) == (word, figure)


def test_what_was_decided_is_told():
    decided = Decision(at=0.0, decision="learn", reason="there is time", figures={})
    lines = in_time(a_stack(decision=decided, stage="finetune", restoring_s=9.0), WORKER, paused=True).lines
    assert "at work: finetune (learning is paused)" in lines
    assert "restoring takes about 9 s" in lines
    assert "decided: learning began: there is time" in lines


@pytest.mark.parametrize(
    ("more", "word", "figure"),
    [
        ({"training": (Curve(stage="finetune", at=(1.0,), steps=(9,), loss=(0.5,)),)}, "Not known yet", "–"),
        ({"gain_db": 4.25}, "Yes", "+4.2 dB"),
        ({"gain_db": -0.5}, "No better than interpolation", "−0.5 dB"),
        ({"gain_db": 4.25, "warnings": ("a gap",)}, "Yes, but see below", "+4.2 dB"),
        ({"state": "restored", "method": "interpolate"}, "Interpolated only", "±0 dB"),
    ],
)
def test_whether_the_volume_is_any_good(more, word, figure):
    answer = any_good(a_stack(**more))
    assert (answer.word, answer.figure) == (word, figure)


def test_the_strip_holds_every_plane_once():
    gaps = [Gap(t=0, c=0, first=3, last=4), Gap(t=1, c=0, first=0, last=9)]
    parts = charts.segments(a_stack(planes=5, missing=2, expected=10), gaps, 0)
    assert parts == [("on disk", 0, 3), ("missing", 3, 2), ("on disk", 5, 2), ("to come", 7, 3)]
    many = [Gap(t=0, c=0, first=z, last=z) for z in range(1, 200, 2)]
    parts = charts.segments(a_stack(planes=500, missing=300, expected=1000), many, 0)
    assert sum(count for _, _, count in parts) == 1000
    assert len(parts) < 50


def test_charts_have_few_points_however_long_it_runs():
    sample = {"bytes_per_s": 1.0, "queue_bytes": 0, "stacks_waiting": 0, "disk_free": 10**9}
    samples = [Sample(at=1e9 + second, planes_per_s=second % 2, **sample) for second in range(900)]
    few = charts.thinned(samples)
    assert len(few) <= 181
    assert few[5].planes_per_s == pytest.approx(0.5, abs=0.11)
    assert len(charts.flow(few)["series"][0]["data"]) == len(few)


def test_the_page_follows_the_newest_planes_until_something_is_chosen(session, monitor):
    old, new = session("old", t=2), session("new", t=3)
    land(new, *stack(1, range(6)))
    land(old, *stack(0, range(6)))
    snapshot = monitor.look()
    assert session_of(Choice(), snapshot).name == "old"
    assert session_of(Choice(new.session), snapshot).name == "new"
    assert session_of(Choice("gone"), snapshot).name == "old"
    shown = snapshot.session(new.session)
    assert stack_of(Choice(), shown) == (1, 0)
    assert stack_of(Choice(new.session, (2, 0)), shown) == (2, 0)
    assert stack_of(Choice(old.session, (2, 0)), shown) == (1, 0)


def test_what_many_browsers_look_at_is_made_once(session, monitor):
    land(session(), *stack(0, range(4)))
    monitor.look()
    board = Board(monitor)
    assert board.shown(Choice()) is board.shown(Choice())
    assert board.flow() is board.flow()
    before = board.shown(Choice())
    monitor.look()
    assert board.shown(Choice()) is not before


def test_slices_of_a_stack_that_comes_in_are_drawn_every_other_second(session, monitor):
    store = session()
    board = Board(monitor)

    def drawn(at, *planes):
        land(store, *stack(0, planes))
        seen = monitor.look()
        monitor.latest = seen.model_copy(update={"at": at})
        return board.shown(Choice()).raw, board.shown(Choice()).stack.planes

    assert drawn(100.0, 0, 1) == ("2", 2)
    assert drawn(101.0, 2) == ("2", 3)  # the figures are never old
    assert drawn(102.0, 3) == ("4", 4)
    assert drawn(102.5, 4, 5) == ("6", 6)  # nor is anything of a stack that is whole


def test_five_hundred_sessions_are_looked_through_quickly(session, monitor):
    land(session(t=1000), *stack(0, range(4)))
    one = seen(monitor)
    many = [one.model_copy(update={"id": f"{n:032x}", "name": f"cells {n}"}) for n in range(500)]
    assert [found.name for found in matching(many, "LLS 49")][:2] == ["cells 499", "cells 498"]
    assert len(stacks_in_order(one)) <= 150
    board = Board(monitor)
    monitor.latest = monitor.latest.model_copy(update={"sessions": tuple(many), "at": time.time()})
    assert board.shown(Choice(many[250].id)).session is many[250]


def test_steps_stay_within_the_list():
    assert [neighbour([1, 2, 3], 2, step) for step in (1, -1, 5, -5)] == [3, 1, 3, 1]
    assert (neighbour([1, 2], 7, 1), neighbour([], 7, 1)) == (1, None)


def test_rows_tell_what_is_wrong_first(session, monitor):
    store = session(t=2)
    land(store, *stack(0, [0, 1, 4]))
    row = session_row(seen(monitor))
    assert (row.sign, row.below) == ("✖", "3/12 planes · 2 missing")
    assert stack_row(seen(monitor), seen(monitor).stacks[0]).below == "arriving · 3/6 planes · 2 missing"


def test_both_images_are_shown_at_the_same_place(session, monitor):
    store = session()  # 6 planes, 0.8 µm apart, of pixels of 0.2 µm
    land(store, *stack(0, range(6)))
    one = seen(monitor)
    assert view(one, "xy", 8).places == {"raw": 2, "restored": 8}
    assert view(one, "xy", 99).places == {"raw": 5, "restored": 20}
    assert view(one, "xz", 3).places == {"raw": 3, "restored": 3}
    assert view(one, "yz", 3).extent == pytest.approx((1.6, 4.2))
    window = find_window(one, (0, 0), 8)
    asked = address(one, (0, 0), view(one, "xy", 8), "restored", window, "v1")
    assert asked.startswith(f"/api/v1/sessions/{one.id}/slices?image=restored&t=0&c=0&axis=xy&at=8&")


def test_figures_are_short():
    assert [clock(s) for s in (0, 59.9, 61, 3725, -5, -0.5)] == ["0:00", "0:59", "1:01", "1:02:05", "−0:05", "0:00"]
    assert scale_bar(25.6) == (5.0, pytest.approx(5 / 25.6))
    assert scale_bar(1000.0)[0] == 200.0


def test_a_long_list_of_gaps_is_cut(session, monitor):
    land(session(t=2), *stack(0, range(2)))
    gaps = tuple(Gap(t=1, c=0, first=z, last=z) for z in range(9))
    assert gap_list(gaps, seen(monitor).acquisition) == "; ".join(f"t1 c0 z {z}" for z in range(6)) + " …"


def test_a_slow_browser_is_told_less_often_but_told():
    assert pace.pause(0.005) == 1.0
    assert pace.pause(0.1) == pytest.approx(2.5)
    assert pace.pause(30.0) == 10.0
