"""Odd messages are odd, drawn anew the same, and every one of them is accounted for."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from otf_stream.acquire.protocol import ProtocolError, decode
from otf_stream.bench.chaos import fuzz as fuzzing
from otf_stream.bench.chaos.fuzz import fuzz, section
from otf_stream.bench.chaos.oddities import odd_messages
from otf_stream.bench.chaos.raw import Answers


def test_every_message_is_answered_once_and_counted() -> None:
    with fuzz(1, 0, messages=100) as runs:
        found = [run() for run in runs.values()]
    assert [result["kind"] for result in found] == ["listener", "decoder"]
    assert [problem for result in found for problem in result["problems"]] == []
    assert found[0]["messages"] == 100
    assert {"garbled", "malformed", "unknown-session"} < set(found[0]["answered"])
    assert found[1]["executions"] == 100 or "not_run" in found[1]
    assert "| listener | 100 |" in section(found)


def test_a_message_without_an_answer_and_one_that_is_not_counted_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    exchange = fuzzing.Dealer.exchange

    def forgetful(self: fuzzing.Dealer, *given: object) -> Answers:
        return Answers(exchange(self, *given).messages[:-1])  # type: ignore[arg-type]

    monkeypatch.setattr(fuzzing.Dealer, "exchange", forgetful)
    with fuzz(1, 0, messages=20) as runs:
        (problems, *_) = (run()["problems"] for (_, kind, *_), run in runs.items() if kind == "listener")
    assert any("answers came to" in problem for problem in problems)
    assert any("was answered and" in problem for problem in problems)


def test_messages_are_drawn_by_their_seed_and_of_every_kind() -> None:
    first, same, other = (odd_messages(number, 50) for number in (5, 5, 6))
    assert first == same
    assert first != other
    told: Counter[str] = Counter()
    for message in odd_messages(7, 200):
        try:
            told[decode(message[0]).type] += 1
        except ProtocolError as error:
            told[str(error.code)] += 1
    assert {"hello", "plane", "garbled", "malformed"} <= set(told)


def test_growth_is_told() -> None:
    growth = fuzzing._Growth(early=2)
    assert [bool(growth.problems(figure)) for figure in (50.0, 100.0, 101.0, 110.0, 100.0)] == [
        False, False, False, True, False,
    ]  # fmt: skip


def test_a_decoder_that_fails_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("atheris")
    broken = tmp_path / "sitecustomize.py"
    broken.write_text(
        "import msgpack\n"
        "def unpackb(*_, **__):\n"
        "    raise ZeroDivisionError('of all things')\n"
        "msgpack.unpackb = unpackb\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with fuzzing.Decoder(1, [b"\x81\xa1v\x02abcd"]) as decoder:
        told = decoder.go_on(20)
    assert any("ZeroDivisionError: of all things" in problem for problem in told["problems"])


def test_without_atheris_the_decoder_is_told_not_to_have_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "atheris.py").write_text("raise ImportError('not for this Python')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with fuzz(1, 0, messages=20) as runs:
        (result,) = (run() for (_, kind, *_), run in runs.items() if kind == "decoder")
    assert result["problems"] == []
    assert "not for this Python" in result["not_run"]
    assert "not run: atheris cannot be imported here" in section([result])
