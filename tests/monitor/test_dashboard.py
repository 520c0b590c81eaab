"""The page in a real browser, in front of a real service: an acquisition is followed from first plane to volume.

One service and one browser serve all tests, which go on from each other: the order is that of a day at the microscope.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest
from stacks import small_stack
from waiting import until

from otf_stream.acquire.publisher import Publisher
from otf_stream.acquisition import Acquisition
from otf_stream.bench.dashboard import FLAGS

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright drives the browser")
CHROMIUM = shutil.which("chromium") or "/usr/bin/chromium"
pytestmark = [
    pytest.mark.skipif(not Path(CHROMIUM).is_file(), reason="needs Chromium, Debian's package chromium"),
    pytest.mark.skipif(sys.platform == "win32", reason="stops processes with POSIX signals"),
]
TOKEN = "only-for-this-test-0123456789"  # noqa: S105 - of nothing else
EVIL = "<img src=x onerror='window.harmed = true'>"
PATIENCE = 60_000  # milliseconds


class Service:
    """A running ``otf-stream serve`` that asks for a token."""

    def __init__(self, folder: Path) -> None:
        token, self.log, config = folder / "token", folder / "serve.log", folder / "otf.toml"
        token.touch(0o600)
        token.write_text(TOKEN)
        settings = {
            "data": str(folder / "data"), "listen": "tcp://127.0.0.1:*", "monitor": "127.0.0.1:*", "budget_s": 600,
            "monitor_token_file": str(token), "disk_reserve_gb": 0, "threads": 1,
        }  # fmt: skip
        config.write_text("".join(f"{name} = {json.dumps(value)}\n" for name, value in settings.items()))
        with self.log.open("wb") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "otf_stream.cli", "serve", "--config", config],
                stdout=subprocess.DEVNULL,
                stderr=file,
                cwd=folder,
                env={**os.environ, "NO_COLOR": "1", "PYTHONIOENCODING": "utf-8"},
            )

    def told(self, pattern: str) -> str:
        """Wait until it says something."""
        said = lambda: re.search(pattern, " ".join(self.log.read_text(encoding="utf-8").split()))  # noqa: E731
        until(lambda: said() or self.process.poll() is not None)
        found = said()
        assert found, self.log.read_text(encoding="utf-8")
        return found[1]

    @property
    def address(self) -> str:
        return self.told(r"listening on (tcp://[\d.]+:\d+)")

    @property
    def url(self) -> str:
        return self.told(r"monitor on (http://[\d.]+:\d+)")

    def ask(self, path: str) -> Any:
        """Ask its HTTP interface."""
        request = urllib.request.Request(self.url + path, headers={"Authorization": f"Bearer {TOKEN}"})  # noqa: S310
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
            return json.load(answer)

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            self.process.wait(60)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    service = Service(tmp_path_factory.mktemp("service"))
    try:
        yield service
    finally:
        service.stop()
    assert "Traceback" not in service.log.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(service: Service) -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        page = browser.new_page(viewport={"width": 1920, "height": 1080}, color_scheme="light")
        page.set_default_timeout(PATIENCE)
        sync_api.expect.set_options(timeout=PATIENCE)
        page.asked, page.wrong = [], []
        page.on("request", lambda request: page.asked.append(request.url))
        page.on("pageerror", lambda error: page.wrong.append(str(error)))
        page.on("console", lambda said: said.type == "error" and page.wrong.append(said.text))
        page.goto(f"{service.url}/?token={TOKEN}")
        yield page
        browser.close()


@pytest.fixture(scope="module")
def stack() -> np.ndarray:
    return small_stack(12, 48)


def acquisition(name: str, **more: Any) -> Acquisition:
    sizes = {"t": 1, "c": 1, "z": 12, "y": 48, "x": 48} | more.pop("sizes", {})
    return Acquisition(name=name, sizes=sizes, dtype="uint16", voxel_size={"z": 0.8, "y": 0.2, "x": 0.2}, **more)


def tile(page: Any, name: str) -> Any:
    return page.locator(f"[data-tile={name}]")


def count(page: Any, name: str) -> Any:
    return page.locator(f"[data-count={name}]")


def image(page: Any, view: str) -> Any:
    return page.locator(f"[data-view={view}]")


def asked(page: Any, view: str) -> dict[str, str]:
    """What the slice that is shown was asked for with."""
    return {
        name: values[0] for name, values in parse_qs(urlsplit(image(page, view).get_attribute("src")).query).items()
    }


def knob(page: Any, control: str) -> Any:
    """What has the focus of a slider; the lower of two."""
    return page.locator(f"[data-control={control}] [tabindex='0']").first


def is_drawn(page: Any, view: str) -> None:
    page.wait_for_function(
        "view => { const i = document.querySelector(`[data-view=${view}]`); return i.complete && i.naturalWidth > 8 }",
        arg=view,
    )


def show(page: Any, name: str) -> None:
    """Choose a session by its row."""
    page.locator(".sessions .line", has_text=name).click()
    sync_api.expect(page.locator(".names .h1")).to_contain_text(name)


def test_nobody_sees_anything_without_the_token(service):
    for path in ("/", "/?token=wrong", "/api/v1/status", "/_nicegui_ws/socket.io/?EIO=4&transport=polling"):
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(service.url + path, timeout=30)  # noqa: S310
        refused.value.close()
        assert refused.value.code == 401


def test_an_empty_service_says_how_to_begin(page, service):
    assert "token" not in page.url
    sync_api.expect(page.get_by_text("No acquisition yet")).to_be_visible()
    sync_api.expect(page.get_by_text("otf-stream replay")).to_be_visible()
    sync_api.expect(page.get_by_text(f'streaming(core, "{service.address}"')).to_be_visible()
    sync_api.expect(page.locator(".chip", has_text="Worker on cpu")).to_be_visible()  # it takes its time to start


def test_an_acquisition_is_followed_from_its_first_plane_to_its_volume(page, service, stack):
    with Publisher(service.address, acquisition("embryo")) as publisher:
        for z in range(7):
            publisher.publish(stack[z], z=z)
        sync_api.expect(count(page, "durable")).to_have_text("7")
        sync_api.expect(tile(page, "arriving")).to_contain_text("Yes, so far")
        sync_api.expect(page.locator(".names")).to_contain_text("arriving")
        is_drawn(page, "xy-raw")
        assert asked(page, "xy-raw")["at"] == "6"  # the newest plane
        before = asked(page, "xz-raw")["v"]
        sync_api.expect(tile(page, "in-time").locator(".number")).to_have_text(re.compile(r"\d:\d\d"))
        for z in range(7, 12):
            publisher.publish(stack[z], z=z)
    sync_api.expect(tile(page, "arriving")).to_contain_text("Yes, all are here")
    assert asked(page, "xz-raw")["v"] != before
    sync_api.expect(page.locator(".planes")).to_contain_text("No gaps")
    # It would learn for minutes: let it wait, go on, and then finish now, by keys.
    sync_api.expect(page.locator(".links")).to_contain_text("decision t0 c0  learn")
    page.keyboard.press("p")
    sync_api.expect(page.get_by_role("button", name="Resume learning")).to_be_visible()
    assert service.ask("/api/v1/sessions")[0]["paused"]
    page.keyboard.press("p")
    sync_api.expect(page.get_by_role("button", name="Pause learning")).to_be_visible()
    page.keyboard.press("f")
    sync_api.expect(page.locator(".names")).to_contain_text("restored")
    sync_api.expect(tile(page, "in-time")).to_contain_text("early")
    sync_api.expect(tile(page, "any-good")).to_contain_text("made by")
    for view in ("xy-raw", "xz-raw", "yz-raw", "xy-restored", "xz-restored", "yz-restored"):
        is_drawn(page, view)
    sync_api.expect(page.get_by_role("link", name="Open the report")).to_be_visible()
    sync_api.expect(page.locator(".links .mono")).to_contain_text("embryo.ome.zarr")


def test_sliders_and_contrast_say_what_is_shown(page):
    slider = knob(page, "xy")
    slider.press("Home")
    page.wait_for_function("() => document.querySelector('[data-view=xy-raw]').src.includes('at=0&')")
    slider.press("End")
    sync_api.expect(page.locator(".slices")).to_contain_text("plane 12 of 12")
    page.wait_for_function("() => document.querySelector('[data-view=xy-restored]').src.includes('at=44&')")
    for view in ("xy-raw", "xy-restored"):
        is_drawn(page, view)
    knob(page, "xz").press("Home")
    page.wait_for_function("() => document.querySelector('[data-view=xz-restored]').src.includes('at=0&')")
    before = asked(page, "xy-raw")
    sync_api.expect(page.get_by_role("switch", name="automatic")).to_be_checked()
    knob(page, "contrast").press("ArrowRight")
    sync_api.expect(page.get_by_role("switch", name="automatic")).not_to_be_checked()
    page.wait_for_function(
        "low => !document.querySelector('[data-view=xy-raw]').src.includes(`low=${low}&`)", arg=before["low"]
    )
    after = asked(page, "xy-restored")
    assert (after["low"], after["high"]) != (before["low"], before["high"])
    assert after["low"] == asked(page, "yz-raw")["low"]


def test_cancelling_is_asked_back_and_names_stay_names(page, service, stack):
    two = acquisition("risky", sizes={"c": 2}, channels=(EVIL, "DAPI"))
    with Publisher(service.address, two) as publisher:
        for z in range(12):
            publisher.publish(stack[z], c=0, z=z)
        sync_api.expect(page.locator(".sessions .line.current")).to_contain_text("risky")  # it follows
        sync_api.expect(page.locator(".names .h1")).to_contain_text(EVIL)
        page.keyboard.press("x")
        sync_api.expect(page.get_by_role("alertdialog")).to_contain_text("Cancel channel <img")
        page.get_by_role("button", name="No, leave it").click()
        sync_api.expect(page.get_by_role("alertdialog")).to_be_hidden()
        page.get_by_role("button", name="Cancel stack").click()
        page.get_by_role("button", name="Cancel the stack").click()
        page.locator(".stacks .line", has_text="not restored").click()
        sync_api.expect(tile(page, "in-time")).to_contain_text("Cancelled")
    assert not page.evaluate("() => Boolean(window.harmed)")
    assert page.locator("img[src=x]").count() == 0


def test_what_is_missing_raises_an_alarm_and_is_shown(page, service, stack):
    with Publisher(service.address, acquisition("gappy")) as publisher:
        for z in (0, 1, 2, 5, 6):
            publisher.publish(stack[z], z=z)
        show(page, "gappy")
        sync_api.expect(tile(page, "arriving")).to_contain_text("No: 2 missing")
        sync_api.expect(page.locator(".gaps")).to_have_text("Missing: z 3–4")
        sync_api.expect(page.locator(".alarm", has_text="2 of 12 planes of gappy are missing")).to_be_visible()
        page.keyboard.press("a")
        page.wait_for_function("() => document.activeElement.getAttribute('aria-label') === 'Alarms'")
        for z in (3, 4):
            publisher.publish(stack[z], z=z)
        sync_api.expect(tile(page, "arriving")).to_contain_text("Yes, so far")
        sync_api.expect(page.locator(".alarm", has_text="gappy")).to_be_hidden()


def test_a_listener_that_does_not_answer_is_an_alarm(page, service):
    pid = service.ask("/api/v1/status")["listener"]["pid"]
    os.kill(pid, signal.SIGSTOP)
    try:
        sync_api.expect(page.locator(".alarm", has_text="the listener is not at work")).to_be_visible()
        sync_api.expect(page.locator(".chip.bad")).to_contain_text("Listener is down")
    finally:
        os.kill(pid, signal.SIGCONT)
    sync_api.expect(page.locator(".alarm", has_text="the listener is not at work")).to_be_hidden()


def test_it_is_light_or_dark_and_tells_its_keys(page):
    brightness = "() => getComputedStyle(document.body).backgroundColor.match(/\\d+/g).reduce((a, b) => a + +b, 0)"
    assert page.evaluate(brightness) > 600
    page.emulate_media(color_scheme="dark")
    page.wait_for_function(f"() => ({brightness})() < 150")
    page.keyboard.press("d")  # light, whatever the system has
    page.wait_for_function(f"() => ({brightness})() > 600")
    page.keyboard.press("?")
    sync_api.expect(page.get_by_role("dialog").get_by_text("next, previous session")).to_be_visible()
    page.keyboard.press("?")
    sync_api.expect(page.get_by_role("dialog").get_by_text("next, previous session")).to_be_hidden()


def test_it_asked_nobody_but_its_service_and_nothing_went_wrong(page, service):
    others = {
        url for url in page.asked if not url.startswith((service.url, service.url.replace("http", "ws"), "data:"))
    }
    assert not others
    assert not page.wrong


def test_a_service_that_is_gone_is_told(page, service):
    service.stop()
    sync_api.expect(page.locator("#popup")).to_be_visible()
    sync_api.expect(page.locator("#popup")).to_contain_text("onnection")
