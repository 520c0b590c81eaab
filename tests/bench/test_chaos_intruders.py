"""Attacks are refused, counted and told; what an attack achieves is told too."""

from __future__ import annotations

import pytest

from otf_stream.bench.chaos import attacks, intruders
from otf_stream.bench.chaos.intruders import section
from otf_stream.bench.chaos.raw import Dealer
from otf_stream.bench.chaos.scene import Attack, Scene, whole
from otf_stream.bench.results import Result


def attacked(kind: str, attack: Attack) -> Result:
    return intruders._run(kind, attack, 0, True, 0)


@pytest.mark.parametrize("kind", ["revoked key", "replayed session", "endless message"])
def test_intruders_are_refused_and_nobody_else_notices(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intruders, "_AROUND_S", 0.5)
    found = attacked(kind, attacks.ATTACKS[kind])
    assert found["problems"] == []
    assert set(attacks.ATTACKS[kind].counted) <= set(found["refused"])
    assert found["planes"] > 10
    assert f"| {kind} | 1 |" in section([found | {"kind": kind}])


def test_there_is_a_run_of_every_attack_for_each_handful() -> None:
    with intruders.intruders(21, 0) as runs:
        assert len(runs) == 2 * len(attacks.ATTACKS)
    with intruders.intruders(1, 0) as runs:
        assert [kind for _, kind, _, _ in runs] == list(attacks.ATTACKS)


def burgle(scene: Scene) -> list[str]:
    """Leave a session that should not be, and a file where none should be."""
    with Dealer(scene.address) as dealer:
        for message in whole(scene.sample("burglar"), 2):
            dealer.send(*message)
            assert dealer.receive() is not None
    (scene.outside / "loot").write_bytes(b"")
    return []


def test_what_an_attack_achieves_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intruders, "_AROUND_S", 0.1)
    problems = " ".join(attacked("burglar", Attack(burgle, ("conflict",)))["problems"])
    for said in ("nothing was counted as conflict", "loot", "stores of 1 sessions that should have none"):
        assert said in problems
