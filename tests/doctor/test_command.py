"""`otf-stream doctor` as people and scripts run it."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from otf_stream.cli.commands import app
from otf_stream.doctor import examination
from otf_stream.doctor.capacity import depth_of
from otf_stream.doctor.findings import Finding
from otf_stream.service.costs import RestoringTime

# Runs the command as if only what a plain installation brings were there.
PLAIN = """
import importlib.metadata, sys

absent = set(sys.argv.pop(1).split(","))
known = importlib.metadata.version

class NotInstalled:
    def find_spec(self, name, path=None, target=None):
        if name in absent:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

def version(name):
    if name.replace("-", "_") in absent:
        raise importlib.metadata.PackageNotFoundError(name)
    return known(name)

sys.meta_path.insert(0, NotInstalled())
importlib.metadata.version = version
from otf_stream.cli import main
sys.argv[0] = "otf-stream"
main()
"""
ABSENT = "torch,zarr,scipy,skimage,scikit_image,safetensors,psfmodels,matplotlib,fastapi,uvicorn,nicegui,httpx,psutil,"
ABSENT += "prometheus_client,PIL,pymmcore_plus,mm_test_adapters,threadpoolctl"


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let what takes long have been measured."""
    from otf_stream.doctor import measuring
    from otf_stream.doctor.capacity import Speed

    def restoring(planes: int, side: int) -> RestoringTime:
        return RestoringTime(depth_of(planes) * side**2 / 5e5, 0.0)

    monkeypatch.setattr(measuring, "measure", lambda config: Speed("a device", True, 0.1, restoring))
    monkeypatch.setattr(examination.ports, "loopback_rate", lambda: 1e9)
    monkeypatch.setattr(examination.disks, "write_rate", lambda folder, reserve=0: 3e8)
    monkeypatch.setattr(examination.installation, "find_adapters", lambda: examination.installation.Adapters(None))


def arguments(tmp_path: Path, *more: str) -> list[str]:
    config = tmp_path / "otf.toml"
    config.write_text(f'data = {json.dumps(str(tmp_path / "data"))}\nmonitor = ""\ndisk_reserve_gb = 0\n')
    return ["doctor", "--config", str(config), *more]


@pytest.mark.usefixtures("measured")
def test_a_sound_machine_passes_with_a_verdict_and_a_table(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, arguments(tmp_path, "--listen", "tcp://127.0.0.1:*"))
    assert done.exit_code == 0, done.output
    assert "| planes | learnt from, up to | restoring | training steps | interpolated in time, up to |" in done.stdout
    assert "This machine (a device) learns from a stack" in " ".join(done.stdout.split())
    assert not (tmp_path / "data").exists()


@pytest.mark.usefixtures("measured")
def test_what_keeps_the_service_from_working_is_exit_code_1(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        listen = f"tcp://127.0.0.1:{other.getsockname()[1]}"
        done = CliRunner().invoke(app, arguments(tmp_path, "--listen", listen, "--json"))
    assert done.exit_code == 1
    report = json.loads(done.stdout)
    assert (report["role"], report["ok"]) == ("service", False)
    problems = [finding for finding in report["findings"] if finding["level"] == "problem"]
    assert [finding["check"] for finding in problems] == ["port (listen)"]
    assert report["verdict"].startswith("The service cannot work as it is: port (listen).")
    assert [stack["planes"] for stack in report["largest"]] == [16, 32, 64, 128, 256]


@pytest.mark.usefixtures("measured")
def test_a_full_disk_is_exit_code_1(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(examination.disks, "free_bytes", lambda folder: 0)
    done = CliRunner().invoke(app, arguments(tmp_path, "--listen", "tcp://127.0.0.1:*"))
    assert done.exit_code == 1
    assert "planes are held back" in " ".join(done.stdout.split())


def test_a_device_that_is_not_there_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    before = torch.get_num_threads()
    found: Finding
    found, said, fitting = examination._computing(examination.ServiceConfig(data=tmp_path, device="cuda"), None)
    torch.set_num_threads(before)
    assert (found.level, "sees no CUDA device" in found.found, "--device cpu" in found.remedy) == (
        "problem",
        True,
        True,
    )
    assert (said, fitting) == ("nothing can be said of stacks.", [])


def test_options_that_do_not_go_together_are_named(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["doctor", "--to", "tcp://127.0.0.1:1", "--data", str(tmp_path)])
    assert done.exit_code == 1
    done = CliRunner().invoke(app, ["doctor", "--to", "8421"])
    assert done.exit_code == 1


def test_a_plain_installation_checks_its_own_end(tmp_path: Path) -> None:
    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", PLAIN, ABSENT, "doctor", *words],
            capture_output=True, text=True, encoding="utf-8", timeout=120, check=False, cwd=tmp_path,
        )  # fmt: skip

    with socket.create_server(("127.0.0.1", 0)) as found:
        port = found.getsockname()[1]
    done = run("--to", f"tcp://127.0.0.1:{port}", "--json")
    assert done.returncode == 1, done.stderr
    report = json.loads(done.stdout)
    levels = {finding["check"]: finding["level"] for finding in report["findings"]}
    assert levels["versions"] == "ok"
    assert [check for check, level in levels.items() if level == "problem"] == ["listener"]
    done = run("--data", str(tmp_path / "data"), "--json")
    assert done.returncode == 1, done.stderr
    report = json.loads(done.stdout)
    assert report["verdict"] == "This machine cannot run a service: packages are missing."
    assert "torch" in report["findings"][0]["found"]
