"""What each check says, of machines that deserve it and of this one."""

from __future__ import annotations

import errno
import os
import socket
import sys
from pathlib import Path

import pytest

from otf_stream.acquire.keys import KeyFolder
from otf_stream.acquire.status import ListenerStatus
from otf_stream.config import ServiceConfig
from otf_stream.doctor import access, disks, installation, ports
from otf_stream.doctor.findings import Finding, Report
from otf_stream.doctor.installation import Adapters

GB = 10**9


def test_a_problem_is_what_makes_a_report_fail() -> None:
    good, bad = Finding("a", "warning", "found", "remedy", {"value_s": 1.0}), Finding("b", "problem", "found")
    assert Report("service", [good], "fine").ok
    report = Report("service", [good, bad], "not fine")
    assert not report.ok
    assert report.as_dict()["findings"][0] == {
        "check": "a", "level": "warning", "found": "found", "remedy": "remedy", "figures": {"value_s": 1.0},
    }  # fmt: skip


def test_missing_packages_are_named_with_what_brings_them() -> None:
    assert installation.installed(["numpy", "no-such-package"])["no-such-package"] is None
    assert installation.judge_versions(installation.installed(installation.EVERYWHERE)).level == "ok"
    found = installation.judge_versions({"numpy": "2.0", "torch": None, "zarr": None})
    assert (found.level, "torch, zarr, which are not installed" in found.found) == ("problem", True)
    assert 'pip install ".[service]"' in found.remedy
    assert "--to tcp://" in found.remedy


@pytest.mark.parametrize(
    ("cores", "load", "level"), [(8, 1.0, "ok"), (8, None, "ok"), (8, 9.0, "warning"), (1, 0.1, "warning")]
)
def test_a_busy_machine_is_told(cores: int, load: float | None, level: str) -> None:
    assert installation.judge_cores(cores, load).level == level


def test_adapters_are_found_here_and_their_absence_is_told_where_it_matters() -> None:
    here = installation.judge_adapters(installation.find_adapters(), needed=True)
    assert (here.level, "DemoCamera" in here.found) == ("ok", True)
    nothing = Adapters("0.18", error="RuntimeError: another interface version")
    assert installation.judge_adapters(nothing, needed=True).level == "warning"
    assert "another interface" in installation.judge_adapters(nothing, needed=True).found
    assert installation.judge_adapters(nothing, needed=False).level == "ok"
    without = installation.judge_adapters(Adapters(None), needed=True)
    assert (without.level, "otf-stream watch" in without.found) == ("ok", True)


def test_the_disk_is_judged_by_its_reserve() -> None:
    folder = Path("data")
    assert disks.judge_room(folder, 9 * GB, 2 * GB).level == "ok"
    assert disks.judge_room(folder, 2_200_000_000, 2 * GB).level == "warning"
    full = disks.judge_room(folder, 1 * GB, 2 * GB)
    assert (full.level, full.found.startswith("1.0 GB are free"), "2.0 GB" in full.found) == ("problem", True, True)
    assert "move finished sessions" in full.remedy


def test_the_disk_is_written_and_left_as_it_was(tmp_path: Path) -> None:
    rate = disks.write_rate(tmp_path / "not" / "yet")
    assert rate is not None
    assert rate > 0
    assert not list(tmp_path.iterdir())
    assert disks.write_rate(tmp_path, reserve=10**18) is None
    assert disks.judge_write_rate("disk", None).level == "warning"
    assert disks.judge_write_rate("disk", 1e6).level == "warning"
    fast = disks.judge_write_rate("disk", 838_860_800.0)
    assert (fast.level, "at best 100 planes of 2048 × 2048 a second" in fast.found) == ("ok", True)


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="nothing keeps this user from writing")
def test_a_folder_that_may_not_be_written_is_a_problem(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    assert disks.check_writable(tmp_path / "data").level == "problem"


def test_a_folder_that_cannot_be_written_is_a_problem(tmp_path: Path) -> None:
    assert disks.check_writable(tmp_path / "data").level == "ok"
    assert not list(tmp_path.iterdir())
    if Path("/proc/self/mounts").exists():
        assert disks.check_writable(Path("/proc/otf")).level == "problem"
        assert disks.file_system(Path("/proc/self")) == "proc"
    share = disks.judge_file_system(tmp_path, "nfs4", exists=True)
    assert (share.level, "network share (nfs4)" in share.found) == ("problem", True)


def test_the_spill_disk_is_judged() -> None:
    assert disks.judge_spill(Path("/tmp"), 9 * GB).level == "ok"  # noqa: S108
    assert disks.judge_spill(Path("/tmp"), GB).level == "warning"  # noqa: S108


def test_a_port_that_is_taken_is_a_problem_unless_by_the_service_itself() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        error = ports.try_port("127.0.0.1", str(port))
        assert error is not None
        assert error.errno == errno.EADDRINUSE
    address = f"tcp://127.0.0.1:{port}"
    taken = ports.judge_port("listen", address, error, serving=False, vital=True)
    assert (taken.level, "is taken by another program" in taken.found, "--listen" in taken.remedy) == (
        "problem",
        True,
        True,
    )
    assert ports.judge_port("monitor", address, error, serving=False, vital=False).level == "warning"
    assert ports.judge_port("listen", address, error, serving=True, vital=True).level == "ok"
    assert ports.try_port("127.0.0.1", str(port)) is None
    assert ports.try_port("127.0.0.1", "*") is None
    free = ports.judge_port("monitor", "0.0.0.0:8420", None, serving=False, vital=False)
    assert (free.level, "other machines" in free.found) == ("ok", True)
    unknown = ports.try_port("no-such-host.invalid", "8421")
    assert (
        ports.judge_port("listen", "tcp://no-such-host.invalid:8421", unknown, serving=False, vital=True).level
        == "problem"
    )


def test_another_service_on_the_folder_is_told() -> None:
    status = ListenerStatus(1e12, "tcp://127.0.0.1:1", 1, 1, 1, 1, holding=False, pid=7)
    told = disks.judge_other_service(status)
    assert told is not None
    assert "process 7" in told.found
    assert disks.judge_other_service(None) is None
    assert ports.is_serving(status)
    assert not ports.is_serving(None)


def test_the_loopback_is_measured() -> None:
    assert ports.judge_loopback(ports.loopback_rate()).figures["bytes_per_second"] > 0
    assert ports.judge_loopback(1e6).level == "warning"


def config(tmp_path: Path, **settings: object) -> ServiceConfig:
    return ServiceConfig.model_validate({"keys": tmp_path / "keys", "listen": "tcp://0.0.0.0:8421"} | settings)


def test_keys_are_judged_as_the_service_would(tmp_path: Path) -> None:
    local = access.check_keys(config(tmp_path, listen="tcp://127.0.0.1:8421"))
    assert (local.level, local.figures) == ("ok", {"required": False})
    assert access.check_keys(config(tmp_path, security="none")).level == "warning"
    none = access.check_keys(config(tmp_path))
    assert (none.level, "otf-stream keys make" in none.remedy) == ("problem", True)
    folder = KeyFolder(tmp_path / "keys")
    folder.make()
    nobody = access.check_keys(config(tmp_path))
    assert (nobody.level, "no microscope is authorised" in nobody.found) == ("problem", True)
    folder.authorise("confocal", KeyFolder(tmp_path / "microscope").make().public)
    assert access.check_keys(config(tmp_path)).figures == {"required": True, "authorised": ["confocal"]}
    if os.name == "posix":
        (tmp_path / "keys" / "own.key_secret").chmod(0o644)
        open_to_all = access.check_keys(config(tmp_path))
        assert (open_to_all.level, "mode is 644" in open_to_all.found) == ("problem", True)
        assert "chmod it to 600" in open_to_all.remedy


def test_the_token_is_judged_as_the_monitor_would(tmp_path: Path) -> None:
    assert access.check_token(config(tmp_path)).level == "ok"
    assert access.check_token(config(tmp_path, monitor="")).level == "ok"
    missing = access.check_token(config(tmp_path, monitor="0.0.0.0:8420"))
    assert (missing.level, "there is no token" in missing.found) == ("problem", True)
    assert "otf-stream keys token" in missing.remedy
