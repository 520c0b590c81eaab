"""The systemd unit, by systemd's own tools."""

from __future__ import annotations

import configparser
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

UNIT = Path(__file__).parents[2] / "deploy" / "otf-stream.service"
PROGRAM = "/opt/otf-stream/bin/otf-stream"

analysed = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    """The unit, of a program that exists."""
    text = UNIT.read_text(encoding="utf-8")
    assert text.count(PROGRAM) == 1
    path = tmp_path / UNIT.name
    path.write_text(text.replace(PROGRAM, sys.executable), encoding="utf-8")
    return path


def analyse(*words: object) -> str:
    done = subprocess.run(
        ["systemd-analyze", *map(str, words)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@analysed
def test_systemd_reads_the_unit(unit: Path) -> None:
    said = analyse("verify", "--man=no", unit)
    assert unit.name not in said, said  # what it does not know it says, and ignores


@analysed
def test_little_of_the_system_is_exposed(unit: Path) -> None:
    listed = subprocess.run(
        ["systemd-analyze", "security", "--help"], capture_output=True, text=True, check=False
    ).stdout
    if "--offline" not in listed:
        pytest.skip("this systemd-analyze judges installed units only")
    said = analyse("security", "--offline=true", "--threshold=20", "--no-pager", unit)  # 2.0 of 10
    assert re.search(r"Overall exposure level for otf-stream.service: 1\.\d", said)


def test_it_runs_the_service_as_a_user_of_its_own() -> None:
    parser = configparser.RawConfigParser(strict=False)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(UNIT.read_text(encoding="utf-8"))
    service = parser["Service"]
    assert service["ExecStart"] == f"{PROGRAM} serve --config /etc/otf_stream/otf.toml"
    assert service["User"] == service["Group"] == "otf-stream"
    assert (service["ProtectSystem"], service["NoNewPrivileges"], service["CapabilityBoundingSet"]) == (
        "strict",
        "yes",
        "",
    )
    assert service["ReadWritePaths"] == service["WorkingDirectory"] == parser["Unit"]["RequiresMountsFor"]
