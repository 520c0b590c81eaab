"""Takes the pictures of the dashboard in ``docs/images``, from a real service and a virtual microscope.

``python docs/dashboard_pictures.py`` takes them all, in about three minutes; it needs the ``test`` extra and Chromium.
Each is taken when the state that it shows is there, not after a time, so a slow machine takes the same pictures.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from playwright.sync_api import Page, sync_playwright

from otf_stream.bench.dashboard import FLAGS

HERE = Path(__file__).parent / "images"
PROGRAM = [sys.executable, "-m", "otf_stream.cli"]
LISTEN, MONITOR = "tcp://127.0.0.1:8731", "127.0.0.1:8730"
STACK = ["--to", LISTEN, "--planes", "24", "--side", "160", "--planes-per-second", "1"]
_PATIENCE = 600.0  # seconds


def main() -> None:
    """Take the pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=HERE, help="folder of the pictures")
    parser.add_argument("--chromium", default=shutil.which("chromium") or "/usr/bin/chromium")
    parser.add_argument("--budget", default="240", help="seconds for each stack")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        serve = ["serve", "--data", folder, "--listen", LISTEN, "--monitor", MONITOR, "--budget", options.budget]
        service = subprocess.Popen([*PROGRAM, *serve], stderr=subprocess.DEVNULL)  # noqa: S603 - our own program
        browser = playwright.chromium.launch(executable_path=options.chromium, args=list(FLAGS))
        try:
            until(lambda: status()["worker"]["current"])
            page = browser.new_page(viewport={"width": 1920, "height": 1080}, color_scheme="light")
            page.goto(f"http://{MONITOR}/")
            take_all(page, options.out)
        finally:
            browser.close()
            service.terminate()
            service.wait(60)


def take_all(page: Page, out: Path) -> None:
    """Take a picture of each state as it comes."""

    def take(name: str, *, whole: bool = False) -> None:
        page.wait_for_timeout(6000)  # what the state brings is drawn within two tellings, on most machines
        page.screenshot(path=out / f"dashboard_{name}.png", full_page=whole)
        print("took", name)

    until(lambda: not status()["alarms"])
    take("empty")
    first = simulate("embryo", "--seed", "3")
    until(lambda: planes() > 14)
    take("arriving")
    first.wait(_PATIENCE)
    until(lambda: len(training()) > 3 or stack()["state"] == "restored")
    take("learning", whole=True)
    until(lambda: len(training()) > 9 or stack()["state"] == "restored")
    finish_now()  # a busy machine would find no time for the network otherwise
    until(lambda: stack()["state"] == "restored" and any(event["kind"] == "report" for event in events()))
    take("restored", whole=True)
    page.emulate_media(color_scheme="dark")
    take("dark")
    page.emulate_media(color_scheme="light")
    second = simulate("larva", "--seed", "5", "--drop", "0.15")
    until(lambda: any(alarm["kind"] == "planes-missing" for alarm in status()["alarms"]))
    take("alarm")
    second.wait(_PATIENCE)


def simulate(name: str, *more: str) -> subprocess.Popen[bytes]:
    """Start a virtual microscope."""
    command = [*PROGRAM, "simulate", "--name", name, *STACK, *more]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # noqa: S603 - our own


def status() -> Any:
    """What the service is at."""
    return asked("status")


def stack() -> Any:
    """The only stack of the latest session."""
    return asked(f"sessions/{status()['sessions'][-1]['id']}")["stacks"][0]


def events() -> Any:
    """What happened in the latest session."""
    return asked(f"sessions/{status()['sessions'][-1]['id']}")["events"]


def training() -> list[float]:
    """The points of its latest curve."""
    curves = stack()["training"]
    return next((curve["loss"] for curve in curves if curve["stage"] == "finetune"), [])


def finish_now() -> None:
    """Have the only stack of the latest session restored."""
    address = f"http://{MONITOR}/api/v1/sessions/{status()['sessions'][-1]['id']}/stacks/0/0/finish"
    with suppress(urllib.error.HTTPError):  # it is restored already
        urllib.request.urlopen(urllib.request.Request(address, method="POST"), timeout=30).close()


def planes() -> int:
    """How many planes of the latest session are on disk."""
    sessions = status()["sessions"]
    return int(sessions[-1]["durable"]) if sessions else 0


def asked(path: str) -> Any:
    """Ask the service's HTTP interface."""
    with urllib.request.urlopen(f"http://{MONITOR}/api/v1/{path}", timeout=30) as answer:
        return json.load(answer)


def until(condition: Callable[[], object]) -> None:
    """Wait for a state; a service that does not answer yet has none."""
    end = time.monotonic() + _PATIENCE
    while True:
        try:
            if condition():
                return
        except (OSError, KeyError, IndexError, TypeError):
            pass
        if time.monotonic() > end:
            raise TimeoutError("the service has not come so far")
        time.sleep(0.5)


if __name__ == "__main__":
    main()
