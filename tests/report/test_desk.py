"""Which reports are written of the stacks of a time-lapse, and that none can stop anything."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from otf_stream.report.__main__ import Desk, Restored, write
from otf_stream.service.reporting import Reporter
from otf_stream.store.journal import Journal, journal_path
from otf_stream.store.reports import report_path

STORE = Path("/data/cells.ome.zarr")


def of(t, c=0):
    return Restored(STORE, (t, c))


def taken(desk, count):
    return [desk.take() for _ in range(count)]


def test_of_a_long_time_lapse_the_first_and_the_latest_are_written():
    desk = Desk(each=False)
    for t in range(5):
        desk.put(of(t))
        desk.put(of(t, 1))
    assert taken(desk, 4) == [of(0), of(0, 1), of(4), of(4, 1)]


def test_each_is_written_where_that_is_wanted():
    desk = Desk(each=True)
    for t in range(3):
        desk.put(of(t))
    assert taken(desk, 3) == [of(0), of(1), of(2)]


def test_the_latest_report_takes_the_place_of_the_one_before_and_the_first_stays(tmp_path):
    store = tmp_path / "cells.ome.zarr"
    desk = Desk(each=False)
    for t in range(4):
        report_path(store, (t, 0)).write_text("")
        desk.written(Restored(store, (t, 0)))
    assert sorted(tmp_path.iterdir()) == [report_path(store, (0, 0)), report_path(store, (3, 0))]


def test_nothing_is_written_once_it_is_over():
    desk = Desk(each=True)
    desk.put(of(0))
    desk.close()
    assert desk.take() is None


def test_a_report_that_fails_is_an_event(restored):
    assert not write(Restored(restored, (7, 0)))
    journal = Journal.open(journal_path(restored))
    event = journal.latest("report failed")
    journal.close()
    assert "has no stack" in event.detail["trace"]
    assert not write(Restored(restored.with_name("gone.ome.zarr"), (0, 0)))


def test_the_worker_has_reports_written_by_another_process(restored):
    reporter = Reporter("ends")
    reporter.restored(restored, (0, 0))
    page, journal = report_path(restored, (0, 0)), Journal.open(journal_path(restored))
    patience = time.monotonic() + 60
    while journal.latest("report") is None and time.monotonic() < patience:
        time.sleep(0.1)
    event = journal.latest("report")
    journal.close()
    assert event.detail["file"] == page.name
    assert page.stat().st_size > 50_000
    reporter.close()


def test_no_report_costs_no_process(monkeypatch):
    monkeypatch.setattr(subprocess, "Popen", lambda *args, **more: pytest.fail("a process was started"))
    Reporter("none").restored(STORE, (0, 0))


def test_a_process_that_cannot_be_started_or_has_died_stops_nothing(monkeypatch, restored):
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    reporter = Reporter("each")
    reporter.restored(restored, (0, 0))
    reporter.close()
    monkeypatch.setattr(sys, "executable", "/bin/false")
    for _ in range(3):
        reporter.restored(restored, (0, 0))
        time.sleep(0.05)
    reporter.close()
