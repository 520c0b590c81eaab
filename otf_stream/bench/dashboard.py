"""``otf-stream bench dashboard``: what the ingest path loses while browsers look at the dashboard.

A listener and a monitor run as a service runs them. One stack of many planes is published as fast as they are
acknowledged, and while it flows the dashboard is opened and closed: what counts is how much lands while browsers look,
against what landed just before and lands just after. Between stacks, or after a pause, the disk of a shared machine
changes by more than browsers cost. No worker runs: it would take whatever the others leave.

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
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from itertools import product
from multiprocessing import get_context
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import psutil

from otf_stream.bench.ceilings import draw_planes, settle_disk
from otf_stream.bench.ingest import DISTINCT, flowing, machine, processor_seconds
from otf_stream.bench.listening import listening
from otf_stream.bench.pagecache import forgetting
from otf_stream.bench.results import Result
from otf_stream.config import ServiceConfig
from otf_stream.service.monitoring import MonitorProcess
from otf_stream.store.finding import find_sessions
from otf_stream.store.journal import Journal, journal_path
from otf_stream.store.session import delete_session

FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update")
"""With which Chromium runs where nobody is, and asks for nothing of its own."""
_START_S = 60.0
_PAUSE_S = 0.1
_FLOWS_S = 8.0  # that planes flow before anything is measured: memory is got for those that are kept
_OPENED_S = 4.0  # that a page is looked at before anything is measured: it draws everything once
_CLOSED_S = 2.0
_PLANES = 20_000  # that are announced; so many never come
_LATELY_BYTES = 4e9  # of planes that the system keeps in memory, the latest: they are what is looked at
WHERE: dict[str, Sequence[str]] = {"elsewhere": ("chrt", "--idle", "0"), "here": ()}
"""Where browsers are, by what their command begins with."""
# Run by the page: from now on, count; and how many pictures and messages it was.
_COUNT = """() => {
    window.looked = {since: performance.now(), messages: 0};
    performance.setResourceTimingBufferSize(100000);
    window.socket.onAny(() => window.looked.messages++);
}"""
_COUNTED = """() => ({
    pictures: performance.getEntriesByType("resource").filter(
        one => one.initiatorType === "img" && one.startTime > window.looked.since
    ).length,
    messages: window.looked.messages,
})"""


def run_dashboard(
    *,
    side: int,
    seconds: float,
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
    side
        Of the planes, uint16.
    seconds
        That each rate is measured for.
    rounds
        How often everything is measured.
    browsers
        How many look.
    folder
        On the disk that is written to, which needs room for some 30 GB; what is written there is deleted.
    chromium
        The browser's program.
    picture
        Where a picture of what a browser shows while planes come goes.
    progress
        Is told of each round.

    Returns
    -------
    list of dict
        For each round: ``side``, ``seconds``, ``browsers``, ``load``; and under each of `WHERE` the rates in bytes/s,
        ``before``, ``looking`` and ``after``, the ``ratio`` of the second to the mean of the others, what ``monitor``
        and all ``browsers`` used while they looked, in cores, and the ``pictures`` and ``messages`` a second that these
        were sent.

    Raises
    ------
    ModuleNotFoundError
        Where playwright, which drives the browsers, is not installed.
    """
    found: list[Result] = []
    with (
        tempfile.TemporaryDirectory(dir=folder, prefix="otf_stream-bench-") as scratch,
        listening(data := Path(scratch, "data"), Path(scratch, "listener.log")) as (address, _),
        _monitored(data) as (url, monitor),
        _browsers(chromium, Path(scratch), browsers) as started,
    ):
        for number in range(rounds):
            load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
            result: Result = {"side": side, "seconds": seconds, "browsers": browsers, "load": load}
            for where in WHERE:
                with _flowing(address, data, side) as landed:
                    rate = partial(_rate, landed, side * side * 2, seconds)
                    before = rate()
                    with _looking(started[where], url, picture if number == 0 else None):
                        told = _measured(rate, started[where], monitor)
                    after = rate()
                told |= {"before": before, "after": after, "ratio": told["looking"] / statistics.mean([before, after])}
                result[where] = told
            found.append(result)
            said = ", ".join(f"{result[where]['ratio']:.2f} with browsers {where}" for where in WHERE)
            progress(f"{len(found)} of {rounds}: of the rate without browsers, {said}")
    return found


@contextmanager
def _flowing(address: str, data: Path, side: int) -> Iterator[Callable[[], int]]:
    """Publish planes as fast as they are acknowledged; yield what tells how many have landed. They are deleted then."""
    processes = get_context("spawn")
    stop = processes.Event()
    publisher = processes.Process(target=_publish, args=(address, side, stop))
    publisher.start()
    try:
        end = time.monotonic() + _START_S
        while not (stores := find_sessions(data)):
            if time.monotonic() > end or not publisher.is_alive():
                raise RuntimeError("no plane came")
            time.sleep(_PAUSE_S)
        lately = int(_LATELY_BYTES // (2 * side * side))
        with closing(Journal.open(journal_path(stores[0]))) as journal, forgetting(data, lately=lately):
            time.sleep(_FLOWS_S)
            yield journal.count
    finally:
        stop.set()
        publisher.join()
    for path in find_sessions(data):
        delete_session(path)
    settle_disk()


def _publish(address: str, side: int, stop: Event) -> None:
    """Publish planes as fast as they are acknowledged, until it is enough: the body of a process."""
    with flowing(address, draw_planes(DISTINCT, side), _PLANES) as (_, flow):
        for _ in flow:
            if stop.is_set():
                break


def _rate(landed: Callable[[], int], size: int, seconds: float) -> float:
    """Return the bytes/s that land from now on, within so many seconds, or until something has."""
    before, begun = landed(), time.monotonic()
    time.sleep(seconds)
    while (after := landed()) == before:
        if time.monotonic() > begun + seconds + _START_S:
            raise RuntimeError(f"no plane has landed within {_START_S:g} s")
        time.sleep(_PAUSE_S)
    return (after - before) * size / (time.monotonic() - begun)


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
            time.sleep(_PAUSE_S)
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
            time.sleep(_PAUSE_S)
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
def _looking(browsers: Sequence[_Browser], url: str, picture: Path | None) -> Iterator[None]:
    """Have each browser show the dashboard; take a picture of the first in the end."""
    for browser in browsers:
        with browser.page() as page:
            page.goto(url)
            page.wait_for_selector("[data-tile]", state="attached")
    time.sleep(_OPENED_S)
    yield
    for browser in browsers:
        with browser.page() as page:
            if picture is not None and browser is browsers[0]:
                page.screenshot(path=picture)
            page.goto("about:blank")
    time.sleep(_CLOSED_S)


def _measured(rate: Callable[[], float], browsers: Sequence[_Browser], monitor: psutil.Process) -> Result:
    """Measure the rate, and what monitor and browsers use and do meanwhile."""

    def used() -> tuple[float, float]:
        return processor_seconds(monitor), sum(browser.seconds for browser in browsers)

    for browser in browsers:
        with browser.page() as page:
            page.evaluate(_COUNT)
    (monitors, seen), begun = used(), time.monotonic()
    found: Result = {"looking": rate()}
    took, (monitors_after, seen_after) = time.monotonic() - begun, used()
    found |= {"monitor": (monitors_after - monitors) / took, "browsers": (seen_after - seen) / took}
    found |= {"pictures": 0.0, "messages": 0.0}
    for browser in browsers:
        with browser.page() as page:
            for name, count in page.evaluate(_COUNTED).items():
                found[name] += count / took
    return found


def section(results: Sequence[Result], command: str) -> str:
    """Write the section of the documentation from the results."""
    first = results[0]
    alone = [result[where][when] for result in results for where in WHERE for when in ("before", "after")]
    rows = [_row("nobody looks", alone, None)]
    for where in WHERE:
        said = f"{first['browsers']} browsers {where} look"
        rates = [result[where]["looking"] for result in results]
        rows.append(_row(said, rates, [result[where]["ratio"] for result in results]))
    table = "\n".join(rows)

    def usual(name: str) -> float:
        return float(statistics.median(result["elsewhere"][name] for result in results))

    loads = [result["load"] for result in results if result["load"] is not None]
    under = f" Load of the machine at the start of a round: {min(loads):.1f} to {max(loads):.1f}." if loads else ""
    side, seconds, browsers = first["side"], f"{first['seconds']:g}", first["browsers"]
    return f"""Written by `{command}` on {machine()}.

Planes of {side} × {side} pixels of 16 bits, published as fast as they are acknowledged, to a listener beside which the
monitor runs; no worker. {browsers} Chromium show the dashboard with the stack that is coming in. Those *elsewhere*
stand for browsers on other desks: they run on the same machine, on what nobody else wants of its processor
(`chrt --idle`). Those *here* share it as any program does.

| | GB/s | of that without |
|---|---|---|
{table}

Medians of {len(results)} rounds, and the range. In each, {seconds} s without browsers, {seconds} s with them, and
{seconds} s without, of one stack that flows all the time; the share is the median of the shares of the second in the
mean of the others. Of a core, the monitor uses {usual("monitor"):.2f} and all browsers elsewhere together
{usual("browsers"):.2f}. They are sent {usual("pictures"):.1f} pictures and {usual("messages"):.1f} messages a second:
a browser that is slow to draw is told of news less often. The system forgets planes that have landed, but the latest
{_LATELY_BYTES / 1e9:g} GB: a virtual machine gets new memory from its host at half the speed of this.{under}
"""


def _row(said: str, rates: Sequence[float], ratios: Sequence[float] | None) -> str:
    share = f"{statistics.median(ratios):.3f} ({min(ratios):.2f} … {max(ratios):.2f})" if ratios else ""
    rate, least, most = (figure / 1e9 for figure in (statistics.median(rates), min(rates), max(rates)))
    return f"| {said} | {rate:.2f} ({least:.2f} … {most:.2f}) | {share} |"
