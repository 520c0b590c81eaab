"""What commands show while they work, where there is no terminal."""

import signal
import sys
from contextlib import suppress

import pytest
from rich.console import Console

from otf_stream.cli import terminal


@pytest.fixture
def console(monkeypatch):
    one = Console(record=True, force_terminal=False, width=80)
    monkeypatch.setattr(terminal, "say", one)
    return one


def test_of_each_stage_every_quarter_is_told_once(console):
    with terminal.stages_told() as tell:
        for stage in ("learn", "restore"):
            for percent in range(100):
                tell(stage, percent / 100)
        tell("restore", 1.0)
        tell("restore", 1.0)
    told = [line.rstrip() for line in console.export_text().splitlines() if line.strip()]
    quarters = ["…", "… 25 %", "… 50 %", "… 75 %"]
    assert told == [*(f"learn {q}" for q in quarters), *(f"restore {q}" for q in quarters), "restore … 100 %"]


def test_a_stage_that_is_over_at_once_is_told(console):
    with terminal.stages_told() as tell:
        tell("pyramid", 1.0)
    assert console.export_text().strip() == "pyramid … 100 %"


@pytest.mark.skipif(sys.platform == "win32", reason="sends POSIX signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_that_somebody_said_stop_is_known_where_the_exception_got_lost(number):
    before = signal.getsignal(number)
    with terminal.until_stopped() as stopped:
        assert not stopped()
        with suppress(KeyboardInterrupt):  # as in extension modules
            signal.raise_signal(number)
        assert stopped()
    with terminal.until_stopped() as stopped:
        signal.raise_signal(number)
        raise AssertionError("it went on")
    assert signal.getsignal(number) is before


@pytest.mark.skipif(sys.platform == "win32", reason="sends POSIX signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_who_looks_after_others_is_only_asked(number):
    with terminal.until_stopped(at_once=False) as stopped:
        signal.raise_signal(number)
        signal.raise_signal(number)
        assert stopped()
        went_on = True
    assert went_on
