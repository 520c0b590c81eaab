"""The supervisor computes nothing, refuses what its worker could not do, and outlives whatever kills that."""

import multiprocessing
import subprocess
import sys

import pytest
import torch
from stacks import small_stack
from waiting import until

from otf_stream.config import ServiceConfig
from otf_stream.service.casualty_report import report_path
from otf_stream.service.folder import is_served
from otf_stream.service.pending import PendingStacks
from otf_stream.service.supervisor import Service, ServiceError, _Child
from otf_stream.store.restored import read_provenance

# What Python runs as it starts: when a module of the worker is imported, one of its functions is made to crash the
# process, at the sessions whose names say so.
POISON = """
import ctypes, importlib.util, os, sys

def at_turns(module):
    turn = module.Restoration.turn
    def crash(restoration):
        return ctypes.string_at(0) if "poisoned" in restoration._store.path.name else turn(restoration)
    module.Restoration.turn = crash

def at_previews(module):
    write = module.write_preview
    def crash(pending, *rest):
        return os.abort() if "garish" in pending.store.path.name else write(pending, *rest)
    module.write_preview = crash

class Poison:
    changes = {"otf_stream.service.stack": at_turns, "otf_stream.service.preview": at_previews}

    def find_spec(self, name, path=None, target=None):
        if not (change := self.changes.pop(name, None)):
            return None
        spec = importlib.util.find_spec(name)
        load = spec.loader.exec_module
        spec.loader.exec_module = lambda module: (load(module), change(module))
        return spec

sys.meta_path.insert(0, Poison())
"""


@pytest.fixture
def poison(tmp_path, monkeypatch):
    """Let the worker crash at sessions called "poisoned", and at previews of those called "garish"."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(POISON, encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))


@pytest.fixture
def config(tmp_path):
    return ServiceConfig(
        data=tmp_path,
        listen="tcp://127.0.0.1:*",
        monitor="",
        method="interpolate",
        device="cpu",
        threads=1,
        disk_reserve_gb=0,
        reports="none",
    )


def watched(service, done):
    """Watch a service until it is done; return what it told."""
    told = []
    until(lambda: told.extend(service.watch()) or done(), seconds=240)
    return told


def restored(*stores):
    return lambda: all(store.journal.state((0, 0)) == "restored" for store in stores)


def kinds(store):
    return [event.kind for event in store.journal.events() if event.kind in ("crash", "set aside", "preview")]


def test_it_does_without_torch():
    code = "import sys, otf_stream.service.supervisor, otf_stream.monitor.lookout; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


def test_a_process_that_cannot_be_started_is_tried_again():
    def start():
        raise BlockingIOError("no more processes")

    (told,) = _Child("worker", start).watch()
    assert told == "worker cannot restart yet: no more processes"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a graphics card")
def test_a_device_that_is_not_there_is_refused_at_once(tmp_path):
    with pytest.raises(ServiceError, match="--device cpu"), Service(ServiceConfig(data=tmp_path, device="cuda")):
        raise AssertionError("it started")


def test_a_data_folder_has_one_service_and_who_comes_next_may_have_it(config):
    with Service(config), pytest.raises(ServiceError, match="another service has the data folder"), Service(config):
        raise AssertionError("it started")
    with Service(config):
        assert is_served(config.data)
    assert not is_served(config.data)


def test_a_service_that_is_to_stop_while_it_starts_leaves_no_process(config):
    before = set(multiprocessing.active_children())
    with pytest.raises(KeyboardInterrupt), Service(config, stopping=lambda: True):
        raise AssertionError("it started")
    assert set(multiprocessing.active_children()) == before
    assert not is_served(config.data)


@pytest.mark.skipif(sys.platform == "win32", reason="crashes as POSIX processes do")
def test_a_stack_that_crashes_the_worker_twice_is_set_aside_and_the_others_are_restored(session, poison, config):
    poisoned, sound = (session({(0, 0): small_stack(side=48)}, name=name) for name in ("poisoned", "sound"))
    with Service(config) as service:
        watched(service, lambda: "crash" in kinds(poisoned))
    with Service(config) as service:  # the first crash still counts
        listener = service._listener.process.pid
        told = watched(service, restored(sound))
        assert service._listener.process.pid == listener
    assert not any("listener" in message for message in told)
    assert sum("worker ended with code -11" in message for message in told) == 1
    assert poisoned.journal.state((0, 0)) == "failed"
    assert [kind for kind in kinds(poisoned) if kind != "preview"] == ["crash", "crash", "set aside"]
    assert "crash" not in kinds(sound)
    first = next(event.detail for event in poisoned.journal.events() if event.kind == "crash")
    assert (first["exit_code"], first["stage"], first["outside"]) == (-11, "turn", False)
    path = report_path(poisoned.path, (0, 0), "turn")
    assert any(f"see {path}" in message for message in told)
    assert path.read_text(encoding="utf-8").count("in string_at") == 2  # the Python stacks
    assert not (config.data / ".worker.faults").exists()
    pending = PendingStacks(config.data)
    assert list(pending.find()) == []  # nor will the next service try it
    pending.close()


@pytest.mark.skipif(sys.platform == "win32", reason="crashes as POSIX processes do")
def test_a_stack_whose_previews_crash_the_worker_is_restored_without(session, poison, config):
    garish = session({(0, 0): small_stack(side=48)}, name="garish")
    with Service(config) as service:
        told = watched(service, restored(garish))
    assert kinds(garish) == ["crash", "crash", "set aside"]
    assert {event.detail["stage"] for event in garish.journal.events() if event.kind == "crash"} == {"preview"}
    assert any("gets no more previews" in message for message in told)
    assert "preview" not in read_provenance(garish.path)["t0c0"]
