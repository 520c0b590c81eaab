"""``otf-stream bench dashboard``: what the ingest path loses while browsers look at the dashboard.

A listener and a monitor run as a service runs them. Planes are published as fast as they are acknowledged, before the
browsers look, while they do, and after, since the disk of a shared machine changes from minute to minute; what counts
is the ratio within a round. No worker runs: it would take whatever the others leave.

Browsers that stand for those on other desks have to run here, where they draw with the processor. They get what nobody
else wants of it: Linux runs them only while a core is idle. What the same browsers cost that share the machine with the
service as any program does is measured beside it.
"""

from __future__ import annotations

import os
import shlex
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import psutil

from otf_stream.bench.ceilings import Planes, draw_planes, settle_disk
from otf_stream.bench.ingest import DISTINCT, machine, processor_seconds, published
from otf_stream.bench.listening import listening
from otf_stream.bench.results import Result
from otf_stream.config import ServiceConfig
from otf_stream.service.monitoring import MonitorProcess
from otf_stream.store.finding import find_sessions
from otf_stream.store.session import delete_session

FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update")
"""With which Chromium runs where nobody is, and asks for nothing of its own."""
_START_S = 60.0
_SEEN_S = 10.0  # that a page is looked at before planes come: it loads and draws everything once
WHERE: dict[str, Sequence[str]] = {"elsewhere": ("chrt", "--idle", "0"), "here": ()}
"""Where browsers are, by what their command begins with."""
# Run by the page: from now on, count; and how many pictures and messages it was.
_COUNT = """() => {
    window.looked = {since: performance.now(), messages: 0};
    performance.setResourceTimingBufferSize(100000);
    window.socket.onAny(() => window.looked.messages++);
}"""
_COUNTED = """() => [
    performance.getEntriesByType("resource").filter(
        one => one.initiatorType === "img" && one.startTime > window.looked.since
    ).length,
    window.looked.messages,
]"""


def run_dashboard(
    *,
    planes: int,
    side: int,
    rounds: int,
    browsers: int,
    folder: Path,
    chromium: str,
    picture: Path | None = None,
    progress: Callable[[str], None] = lambda said: None,
) -> list[Result]:
    """Measure the ingest path without and with browsers that look.

    Parameters
    ----------
    planes, side
        Size of the stack, uint16.
    rounds
        How often everything is measured.
    browsers
        How many look.
    folder
        On the disk that is written to; what is written there is deleted.
    chromium
        The browser's program.
    picture
        Where a picture of what a browser shows while planes come goes.
    progress
        Is told of each round.

    Returns
    -------
    list of dict
        For each round: ``alone``, the rates before and after, in bytes/s; ``planes``, ``side``, ``browsers``, ``load``;
        and under each of `WHERE` the ``rate`` while browsers look that are there, the ``ratio`` to the mean of the
        former, ``monitor_cpu`` and ``browsers_cpu`` in s, and how many ``pictures`` and ``messages`` they were sent.

    Raises
    ------
    ModuleNotFoundError
        Where playwright, which drives the browsers, is not installed.
    """
    drawn = draw_planes(DISTINCT, side)
    found: list[Result] = []
    with (
        tempfile.TemporaryDirectory(dir=folder, prefix="otf_stream-bench-") as scratch,
        listening(data := Path(scratch, "data"), Path(scratch, "listener.log")) as (address, _),
        _monitored(data) as (url, monitor),
        _browsers(chromium, Path(scratch), browsers) as started,
    ):
        for _ in range(rounds):
            load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
            before = _rate(address, data, drawn, planes)
            watched: dict[str, Result] = {}
            for where in WHERE:
                with _looking(started[where], url) as watched[where]:
                    used = processor_seconds(monitor)
                    watched[where]["rate"] = _rate(address, data, drawn, planes)
                    watched[where]["monitor_cpu"] = processor_seconds(monitor) - used
            if picture is not None:  # as it is when planes come, and not while something is measured
                with started["here"][0].page() as page:
                    page.goto(url)
                    _rate(address, data, drawn, planes, partial(page.screenshot, path=picture))
                    page.goto("about:blank")
            after = _rate(address, data, drawn, planes)
            found.append(
                {
                    "planes": planes,
                    "side": side,
                    "browsers": browsers,
                    "load": load,
                    "alone": [before, after],
                    **{
                        where: {**result, "ratio": result["rate"] / statistics.mean([before, after])}
                        for where, result in watched.items()
                    },
                }
            )
            told = ", ".join(f"{found[-1][where]['ratio']:.2f} with browsers {where}" for where in WHERE)
            progress(f"{len(found)} of {rounds}: of the rate without browsers, {told}")
    return found


def _rate(address: str, data: Path, drawn: Planes, planes: int, look: Callable[[], object] = lambda: None) -> float:
    """Publish a stack and delete it; return the rate in bytes/s."""
    took, _ = published(address, drawn, planes, look)
    for path in find_sessions(data):
        delete_session(path)
    settle_disk()
    return planes * drawn[0].nbytes / took


@contextmanager
def _monitored(data: Path) -> Iterator[tuple[str, psutil.Process]]:
    """Run the monitor as a service does; yield where it answers, and its process."""
    monitoring = MonitorProcess(ServiceConfig(data=data, monitor="127.0.0.1:*"), get_context("spawn"))
    monitoring.prepare()
    process = monitoring.start()
    try:
        end = time.monotonic() + _START_S
        while monitoring.url is None:
            if time.monotonic() > end or not process.is_alive():
                raise RuntimeError("the monitor did not start")
            time.sleep(0.1)
            monitoring.heard()
        yield monitoring.url, psutil.Process(process.pid)
    finally:
        process.terminate()
        process.join()


class _Browser:
    """A Chromium with a page, which nobody steers while it is measured: what steers it takes the processor's time too.

    Parameters
    ----------
    chromium
        The command that starts it.
    folder
        For what it keeps.
    playwright
        That asks it, before and after, what it was sent.
    """

    def __init__(self, chromium: Sequence[str], folder: Path, playwright: Any) -> None:
        self._playwright = playwright
        flags = (*FLAGS, "--headless=new", "--remote-debugging-port=0", f"--user-data-dir={folder}")
        self._process = subprocess.Popen(  # noqa: S603 - the program that the user named
            [*chromium, *flags, "--window-size=1920,1080", "about:blank"], stderr=subprocess.DEVNULL
        )
        told = folder / "DevToolsActivePort"
        end = time.monotonic() + _START_S
        while not (told.is_file() and (port := told.read_text(encoding="utf-8").partition("\n")[0])):
            if time.monotonic() > end or self._process.poll() is not None:
                self.close()
                raise RuntimeError(f"{shlex.join(chromium)} did not start")
            time.sleep(0.1)
        self._address = f"http://127.0.0.1:{port}"

    @contextmanager
    def page(self) -> Iterator[Any]:
        """Yield its page, as playwright knows it, and leave it alone afterwards."""
        steered = self._playwright.chromium.connect_over_cdp(self._address)
        yield steered.contexts[0].pages[0]
        steered.close()  # lets go of it; the browser goes on

    @property
    def seconds(self) -> float:
        """Of processor time that all of its processes have used."""
        own = psutil.Process(self._process.pid)
        return sum(processor_seconds(one) for one in (own, *own.children(recursive=True)))

    def close(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.wait()


@contextmanager
def _browsers(chromium: str, folder: Path, count: int) -> Iterator[dict[str, list[_Browser]]]:
    """Start browsers of each kind."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright, ExitStack() as started:
        browsers: dict[str, list[_Browser]] = {where: [] for where in WHERE}
        for where, number in product(WHERE, range(count)):
            browser = _Browser([*WHERE[where], chromium], folder / f"{where} {number}", playwright)
            browsers[where].append(browser)
            started.callback(browser.close)
        yield browsers


@contextmanager
def _looking(browsers: Sequence[_Browser], url: str) -> Iterator[Result]:
    """Open the dashboard in each browser; give what they took and were sent, in the end, from when all was drawn."""
    found: Result = {}
    for browser in browsers:
        with browser.page() as page:
            page.goto(url)
            page.wait_for_selector("[data-tile]", state="attached")
    time.sleep(_SEEN_S)
    for browser in browsers:
        with browser.page() as page:
            page.evaluate(_COUNT)
    took = sum(browser.seconds for browser in browsers)
    yield found
    found["browsers_cpu"] = sum(browser.seconds for browser in browsers) - took
    found["pictures"] = found["messages"] = 0
    for browser in browsers:
        with browser.page() as page:
            pictures, messages = page.evaluate(_COUNTED)
            found["pictures"] += pictures
            found["messages"] += messages
            page.goto("about:blank")


def section(results: Sequence[Result], command: str) -> str:
    """Write the section of the documentation from the results."""
    first = results[0]
    size = first["planes"] * first["side"] ** 2 * 2
    rows = [_row("nobody looks", [rate for result in results for rate in result["alone"]], None)]
    for where in WHERE:
        said = f"{first['browsers']} browsers {where} look"
        rates = [result[where]["rate"] for result in results]
        rows.append(_row(said, rates, [result[where]["ratio"] for result in results]))
    table = "\n".join(rows)

    looked_at = [result["elsewhere"] for result in results]

    def each_second(name: str) -> float:
        return float(statistics.median(found[name] * found["rate"] / size for found in looked_at))

    loads = [result["load"] for result in results if result["load"] is not None]
    under = f" Load of the machine at the start of a round: {min(loads):.1f} to {max(loads):.1f}." if loads else ""
    return f"""Written by `{command}` on {machine()}.

{first["planes"]} planes of {first["side"]} × {first["side"]} pixels of 16 bits, published as fast as they are
acknowledged, to a listener beside which the monitor runs; no worker. {first["browsers"]} Chromium show the dashboard
with the stack that is coming in. Those *elsewhere* stand for browsers on other desks: they run on the same machine, on
what nobody else wants of its processor (`chrt --idle`). Those *here* share it as any program does.

| | GB/s | of that without |
|---|---|---|
{table}

Medians of {len(results)} rounds, and the range; the share is the median of the shares in each round, which is measured
without, with, and without. Of a core, the monitor uses {each_second("monitor_cpu"):.2f} and all browsers elsewhere
together {each_second("browsers_cpu"):.2f}; they are sent {each_second("pictures"):.1f} pictures and
{each_second("messages"):.1f} messages a second.{under}
"""


def _row(said: str, rates: Sequence[float], ratios: Sequence[float] | None) -> str:
    share = f"{statistics.median(ratios):.3f} ({min(ratios):.2f} … {max(ratios):.2f})" if ratios else ""
    rate, least, most = (figure / 1e9 for figure in (statistics.median(rates), min(rates), max(rates)))
    return f"| {said} | {rate:.2f} ({least:.2f} … {most:.2f}) | {share} |"
