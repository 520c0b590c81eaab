"""What commands show while they work, where there is no terminal."""

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
