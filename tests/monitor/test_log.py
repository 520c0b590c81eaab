"""The log tells of every plane and every event once, whatever restarts, and its summary adds up."""

import json
import re
import time
from pathlib import Path

import pytest
from monitor_folders import at_work, land, stack
from typer.testing import CliRunner

from otf_stream.cli.commands import app
from otf_stream.monitor.log import FILE, FOLDER, EventRecord, SecondRecord, ThroughputLog, read_record
from otf_stream.monitor.lookout import Lookout
from otf_stream.monitor.monitor import Monitor
from otf_stream.monitor.summary import read_log, summarise

DOCS = Path(__file__).parents[2] / "docs" / "monitoring.md"


@pytest.fixture
def monitor(tmp_path):
    monitor = Monitor(tmp_path)
    yield monitor
    monitor.close()


def files(tmp_path):
    return sorted((tmp_path / FOLDER).glob(f"{FILE}*"))


def told(tmp_path):
    return read_log(files(tmp_path))


def planes(tmp_path):
    return sum(second.planes for second in told(tmp_path).seconds)


def test_every_plane_and_event_is_told_of(session, tmp_path, monitor):
    store = session(t=2)
    at_work(tmp_path, queue_bytes=5)
    land(store, *stack(0, range(4)))
    store.journal.note("opened")
    monitor.look()
    monitor.look()  # nothing flows: no record
    land(store, *stack(0, [5]))
    monitor.look()
    first, second = told(tmp_path).seconds
    assert (first.planes, first.bytes, first.sessions) == (4, 512, {store.session: 4})
    assert 0 < second.seconds < second.at - first.at  # since the look at which nothing flowed
    assert (second.planes, second.durable, second.missing, second.queue_bytes) == (1, 5, 1, 5)
    assert second.seconds > 0
    assert second.disk_free_bytes == 9 * 10**9
    assert second.resident_bytes["monitor"] > 1e6
    (event,) = told(tmp_path).events
    assert (event.session, event.name, event.event, event.id) == (store.session, "cells", "opened", 1)


def test_a_restart_neither_loses_nor_repeats(session, tmp_path):
    store = session()
    first = Monitor(tmp_path)
    land(store, *stack(0, range(2)))
    store.journal.note("opened")
    first.look()
    first.close()
    land(store, *stack(0, [2, 3]))  # while there is no monitor
    store.journal.note("resumed")
    second = Monitor(tmp_path)
    second.look()
    second.close()
    assert planes(tmp_path) == store.journal.count() == 4
    assert [event.event for event in told(tmp_path).events] == ["opened", "resumed"]
    assert sum(b'"event"' in line for path in files(tmp_path) for line in path.read_bytes().splitlines()) == 2


def test_planes_that_were_damaged_are_taken_off(session, tmp_path, monitor):
    store = session()
    land(store, *stack(0, range(6)))
    monitor.look()
    store.journal.forget_planes([(0, 0, 2)])
    store.journal.note("damaged", planes=[[0, 0, 2]], count=1)
    monitor.look()
    assert planes(tmp_path) == store.journal.count() == 5


def test_a_log_begins_with_what_happens_now(session, tmp_path):
    store = session()
    land(store, *stack(0, range(6)))
    store.journal.note("opened")
    log = ThroughputLog(tmp_path)
    with Lookout(tmp_path) as lookout:
        log.write(lookout.look(time.time() + 3600), lookout.news, {})  # an hour later, the log begins
    assert files(tmp_path) == []
    assert (tmp_path / FOLDER / "positions.json").exists()


def test_files_are_rotated_and_the_oldest_deleted(session, tmp_path):
    store = session(z=40)
    log = ThroughputLog(tmp_path, most_bytes=1000, most_files=3)
    with Lookout(tmp_path) as lookout:
        for z in range(40):
            land(store, (0, 0, z))
            log.write(lookout.look(), lookout.news, {})
    assert [path.name for path in files(tmp_path)] == [FILE, f"{FILE}.1", f"{FILE}.2"]
    assert all(path.stat().st_size < 2000 for path in files(tmp_path))
    assert told(tmp_path).seconds[-1].durable == 40


def test_half_a_line_spoils_no_other(session, tmp_path):
    store = session()
    monitor = Monitor(tmp_path)
    land(store, (0, 0, 0))
    monitor.look()
    monitor.close()
    (path,) = files(tmp_path)
    path.write_bytes(path.read_bytes() + b'{"v":1,"at":17')
    land(store, (0, 0, 1))
    Monitor(tmp_path).close()
    assert (planes(tmp_path), told(tmp_path).unreadable) == (2, 1)


def test_what_a_full_disk_did_not_take_is_told_later(session, tmp_path, monitor, monkeypatch):
    store = session()
    land(store, (0, 0, 0))
    store.journal.note("opened")

    def full(*rest):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(ThroughputLog, "_append", full)
        monitor.look()
        store.journal.note("resumed")
        monitor.look()
    monitor.look()
    assert planes(tmp_path) == 1
    assert [event.event for event in told(tmp_path).events] == ["opened", "resumed"]


def test_the_page_has_the_schema():
    page = DOCS.read_text(encoding="utf-8")
    for model in (SecondRecord, EventRecord):
        section = page.split(f"`kind` = `{model.model_fields['kind'].default}`", 1)[1].split("\n\n###", 1)[0]
        documented = set(re.findall(r"^\| `(\w+)` \|", section.split("\n\n`kind`", 1)[0], re.MULTILINE))
        assert documented == set(model.model_fields) - {"v", "at", "kind"}
    for line in re.findall(r'^\{"v".*\}$', page, re.MULTILINE):
        assert read_record(line) is not None, line
    assert len(re.findall(r'^\{"v".*\}$', page, re.MULTILINE)) == 2


def night(tmp_path):
    """A log as of a night: ten seconds of 100 planes, one session that lost planes, one stack late."""

    def second(at, planes, seconds):
        return SecondRecord(
            at=at, seconds=seconds, planes=planes, bytes=planes * 10**6, sessions={"s": planes}, durable=0, missing=0,
            queue_bytes=2 * 10**6, stacks_waiting=1, disk_free_bytes=None, resident_bytes={"listener": 70 * 10**6},
        )  # fmt: skip

    def event(at, number, kind, **detail):
        return EventRecord(at=at, id=number, session="s", name="cells", event=kind, detail=detail)

    records = [second(100.0 + n, 100, 1.0 if n else None) for n in range(11)]
    records += [second(500.0, 7, 389.0)]  # after a pause: no rate follows from it
    records += [
        event(501.0, 1, "ended", reason="silence", missing_count=9),
        event(502.0, 2, "ended", reason="finished", missing_count=3),
        event(503.0, 3, "refused", code="bad-shape"),
        event(504.0, 4, "restored", method="finetune", in_hand_s=20.0),
        event(505.0, 5, "restored", method="interpolate", in_hand_s=-4.0),
        event(505.0, 5, "restored", method="interpolate", in_hand_s=-4.0),  # told twice
        event(506.0, 6, "failure", stack=[1, 0], trace="learning failed"),
        event(507.0, 7, "restored", stack=[1, 0], method="interpolate", in_hand_s=1.0),
        event(508.0, 8, "failure", stack=[2, 0], trace="so did everything"),
        event(509.0, 9, "set aside", stack=[3, 0], stage="preview"),
        event(510.0, 10, "set aside", stack=[4, 0], stage="turn"),
    ]
    path = tmp_path / FILE
    path.write_text("\n".join(record.model_dump_json() for record in records) + "\nhalf a li")
    return path


def test_a_summary_adds_up(tmp_path):
    found = summarise(read_log([night(tmp_path)]))
    assert (found.planes, found.bytes, found.missing, found.late) == (1107, 1107 * 10**6, 3, 1)
    assert (found.planes_per_s.count, found.planes_per_s.mean, found.mb_per_s.percentiles["p95"]) == (10, 100.0, 100.0)
    assert (found.margins_s.least, found.margins_s.greatest) == (-4.0, 20.0)
    assert (found.restored, found.refused) == ({"finetune": 1, "interpolate": 2}, {"bad-shape": 1})
    assert found.failed == 2
    assert (found.sessions_ended, found.unreadable_lines) == ({"finished": 1}, 1)


def test_the_command_finds_the_log_of_a_data_folder(tmp_path):
    (tmp_path / "logs").mkdir()
    night(tmp_path).rename(tmp_path / "logs" / "throughput.jsonl.1")
    done = CliRunner().invoke(app, ["logs", "summary", str(tmp_path), "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["planes"] == 1107
    (tmp_path / "logs" / "throughput.jsonl.1").unlink()
    done = CliRunner().invoke(app, ["logs", "summary", str(tmp_path)])
    assert (done.exit_code, "no record" in done.output) == (1, True)


def test_the_command_prints_and_draws(tmp_path):
    path, picture = night(tmp_path), tmp_path / "night.png"
    done = CliRunner().invoke(app, ["logs", "summary", str(path), "--plot", str(picture)])
    assert done.exit_code == 0, done.output
    for said in ("1107 durable", "3 missing", "1 late", "p95 100", "1 lines"):
        assert said in done.output
    assert picture.read_bytes().startswith(b"\x89PNG")
    done = CliRunner().invoke(app, ["logs", "summary", str(path), "--json"])
    assert json.loads(done.stdout)["planes"] == 1107
    (tmp_path / "empty").write_text("")
    done = CliRunner().invoke(app, ["logs", "summary", str(tmp_path / "empty")])
    assert done.exit_code == 1
    assert "no record" in done.output
    assert CliRunner().invoke(app, ["logs", "summary", str(tmp_path / "nothing")]).exit_code == 1
