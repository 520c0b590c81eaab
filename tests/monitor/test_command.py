"""The commands that look at a service, and the one that makes its token."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from monitor_folders import at_work, land, stack
from rich.console import Console
from typer.testing import CliRunner

from otf_stream.acquire.keys import KeyFolder
from otf_stream.cli.commands import app
from otf_stream.cli.live import view
from otf_stream.cli.monitoring import _folder, _service, _token, _views
from otf_stream.monitor.token import TokenFile


def run(*words, code=0):
    done = CliRunner().invoke(app, list(map(str, words)))
    assert done.exit_code == code, done.output
    return done


def test_a_folder_is_looked_at_without_a_monitor(session, tmp_path):
    land(session(), *stack(0, [0, 1, 4]))
    at_work(tmp_path)
    told = json.loads(run("monitor", "--data", tmp_path, "--json").stdout)
    assert (told["totals"]["durable"], told["totals"]["missing"]) == (3, 2)
    shown = " ".join(run("monitor", "--data", tmp_path).output.split())
    for said in ("cells.ome.zarr", "3/6", "9.0 GB free", "2 of 6 planes of cells are missing", "otf-stream deliver"):
        assert said in shown


def test_a_small_terminal_shows_what_is_at_work_and_the_newest(session, tmp_path):
    stores = [session(name=f"cells{number}") for number in range(6)]
    for store in stores[1:]:
        land(store, *stack(0, range(6)))
        store.journal.close_arrivals("finished")
        store.journal.set_state((0, 0), "restored")
    at_work(tmp_path)
    console = Console(width=120, height=12)
    with console.capture() as captured:
        console.print(view(_folder(tmp_path)(), console.height))
    shown = captured.get()
    assert shown.index("cells0") < shown.index("cells5")
    assert "cells1" not in shown
    assert "sessions more" in shown
    assert "9.0 GB free" in shown
    assert len(shown.splitlines()) < console.height


def test_what_cannot_be_looked_at_is_told(tmp_path):
    assert "is no folder" in run("monitor", "--data", tmp_path / "nothing", code=1).output
    assert "give one" in run("monitor", "--data", tmp_path, "--url", "http://127.0.0.1:1", code=1).output
    said = " ".join(run("monitor", "--url", "http://127.0.0.1:1", "--keys", tmp_path, code=1).output.split())
    assert "is `otf-stream serve` running there?" in said


def test_a_monitor_that_goes_away_may_come_back(session, tmp_path):
    land(session(), *stack(0, [0, 1, 4]))
    at_work(tmp_path)
    look = _folder(tmp_path)
    told = look().model_dump_json().encode()

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(told)

    def answering(port):
        server = ThreadingHTTPServer(("127.0.0.1", port), Answer)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return server

    def shown(seen):
        console = Console(width=200)
        with console.capture() as captured:
            console.print(seen)
        return captured.get()

    server = answering(0)
    port = server.server_port
    views = _views(_service(f"http://127.0.0.1:{port}", None))
    for answers in (True, False, False, True):
        if not answers:
            server.shutdown()
            server.server_close()
        elif server.socket.fileno() < 0:
            server = answering(port)
        seen = shown(next(views))
        assert "3/6" in seen
        assert ("it is asked again and again" in seen) == (not answers)
    server.shutdown()
    server.server_close()


def test_a_token_is_made_once(tmp_path):
    made = run("keys", "token", "--keys", tmp_path / "keys").stdout.strip()
    told = json.loads(run("keys", "token", "--keys", tmp_path / "keys", "--json").stdout)
    assert told == {"file": str(tmp_path / "keys" / "monitor.token"), "token": made}
    other = run("keys", "token", "--keys", tmp_path / "keys", "--overwrite").stdout.strip()
    assert other != made


def test_the_token_of_this_machine_goes_to_no_other(tmp_path):
    made = TokenFile(KeyFolder(tmp_path)).make()
    for url in ("http://127.0.0.1:8420", "http://localhost:8420/", "http://localhost"):
        assert _token(url, None, tmp_path) == made
    for url in ("http://scope.example:8420", "http://127.0.0.1:1@scope.example", "http://scope.example/127.0.0.1:1"):
        assert _token(url, None, tmp_path) is None
    assert _token("http://scope.example", tmp_path / "monitor.token", None) == made
