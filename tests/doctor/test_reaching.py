"""The microscope's end, against real listeners: reached, refused, not there, and something else in its place."""

from __future__ import annotations

import socket
from pathlib import Path

import zmq
from listeners import running
from monitor_server import serving

from otf_stream.acquire.keys import KeyFolder
from otf_stream.acquire.protocol import Error, ErrorCode
from otf_stream.doctor.examination import examine_microscope
from otf_stream.doctor.reaching import Answer, ask_listener, check_trust, clock_difference, judge_answer, judge_clock
from otf_stream.monitor.api import create_app
from otf_stream.monitor.monitor import Monitor


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


def test_a_listener_is_reached_and_nothing_is_left_there(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with running(data) as listener:
        found = judge_answer(listener.address, ask_listener(listener.address, tmp_path / "keys"))
        report = examine_microscope(listener.address, tmp_path / "keys", tmp_path)
    assert (found.level, "answers after" in found.found) == ("ok", True)
    assert listener.counters.as_dict()["refused"] == {}
    assert not list(data.glob("*.ome.zarr"))
    assert report.ok, report
    assert report.verdict == f"This machine can send planes to {listener.address}"
    assert [finding.check for finding in report.findings][2:4] == ["keys", "listener"]


def test_keys_that_fit_are_let_in_and_others_told_what_to_do(tmp_path: Path) -> None:
    here, microscope = KeyFolder(tmp_path / "here"), KeyFolder(tmp_path / "microscope")
    here.make()
    with running(tmp_path / "data", keys=here) as listener:
        address = listener.address
        without = judge_answer(address, ask_listener(address, tmp_path / "nobody"))
        assert (without.level, "asks for keys" in without.found) == ("problem", True)
        microscope.trust("127.0.0.1", here.own().public)
        microscope.make()
        unknown = judge_answer(address, ask_listener(address, microscope.folder))
        assert (unknown.level, "otf-stream keys authorise" in unknown.remedy) == ("problem", True)
        here.authorise("confocal", microscope.own().public)
        assert judge_answer(address, ask_listener(address, microscope.folder)).level == "ok"
        assert check_trust(address, microscope.folder).figures["trusted"] == here.own().public
        (microscope.folder / "own.key_secret").chmod(0o644)
        assert check_trust(address, microscope.folder).level == "problem"


def test_a_closed_port_and_an_unknown_host_are_problems() -> None:
    address = f"tcp://127.0.0.1:{free_port()}"
    closed = judge_answer(address, ask_listener(address, patience=0.5))
    assert (closed.level, "nothing answers at" in closed.found) == ("problem", True)
    nobody = judge_answer("", ask_listener("tcp://no-such-host.invalid:8421"))
    assert (nobody.level, "is not known" in nobody.found) == ("problem", True)


def test_something_else_in_its_place_is_told() -> None:
    with zmq.Context() as context, context.socket(zmq.ROUTER) as router:
        port = router.bind_to_random_port("tcp://127.0.0.1")
        router.setsockopt(zmq.LINGER, 0)
        silent = ask_listener(f"tcp://127.0.0.1:{port}", patience=0.5)
    assert silent.message is None
    other = Error(code=ErrorCode.UNSUPPORTED_VERSION, message="version 1 is not understood", fatal=True)
    found = judge_answer("tcp://a:1", Answer(other))
    assert (found.level, "same version" in found.remedy) == ("problem", True)


def test_no_trusted_key_is_a_warning_off_loopback(tmp_path: Path) -> None:
    found = check_trust("tcp://restoration-pc:8421", tmp_path)
    assert (found.level, "otf-stream keys trust restoration-pc KEY" in found.remedy) == ("warning", True)
    assert check_trust("tcp://127.0.0.1:8421", tmp_path).level == "ok"


def test_clocks_are_compared_where_there_is_a_monitor(tmp_path: Path) -> None:
    assert clock_difference("127.0.0.1", free_port(), patience=1.0) is None
    monitor = Monitor(tmp_path, throughput=False)
    with serving(create_app(monitor)) as client:
        difference = clock_difference("127.0.0.1", client.base_url.port or 0)
    monitor.close()
    assert difference is not None
    assert abs(difference) < 2
    assert judge_clock("host", None).level == "ok"
    assert judge_clock("host", 0.7).level == "ok"
    apart = judge_clock("host", -61.2)
    assert (apart.level, "61 s behind" in apart.found, "NTP" in apart.remedy) == ("warning", True, True)
