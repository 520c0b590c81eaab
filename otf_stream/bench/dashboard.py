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
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
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
from otf_stream.store.session import delete_session, find_sessions

_FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update")
_START_S = 60.0
_SEEN_S = 10.0  # that a page is looked at before planes come: it loads and draws everything once
_PUMP_S = 1.0  # between looks at what came
WHERE = {"elsewhere": "chrt --idle 0", "here": ""}
"""Where browsers are, by the command that starts them so."""


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
        former, ``monitor_cpu`` in s, and ``answers``, what the browsers were sent meanwhile, by kind.

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
            before = _rate(address, data, drawn, planes, lambda: None)
            watched: dict[str, Result] = {}
            for where in WHERE:
                with _looking(started[where], url) as watching:
                    used = processor_seconds(monitor)
                    rate = _rate(address, data, drawn, planes, watching.pump)
                    watched[where] = {"rate": rate, "monitor_cpu": processor_seconds(monitor) - used}
                    watched[where]["answers"] = dict(watching.answers)
                    if picture is not None:  # as it is when planes come, and not while something is measured
                        _rate(address, data, drawn, planes, partial(watching.pages[-1].screenshot, path=picture))
            after = _rate(address, data, drawn, planes, lambda: None)
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


def _rate(address: str, data: Path, drawn: Planes, planes: int, look: Callable[[], object]) -> float:
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


@contextmanager
def _browsers(chromium: str, folder: Path, count: int) -> Iterator[dict[str, list[Any]]]:
    """Start browsers of each kind."""
    from playwright.sync_api import sync_playwright

    started: dict[str, list[Any]] = {}
    with sync_playwright() as playwright:
        try:
            for where, command in WHERE.items():
                program = folder / where
                program.write_text(f'#!/bin/sh\nexec {command} {shlex.quote(chromium)} "$@"\n', encoding="utf-8")
                program.chmod(0o700)
                launch = partial(playwright.chromium.launch, executable_path=program, args=list(_FLAGS))
                started[where] = [launch() for _ in range(count)]
            yield started
        finally:
            for browser in (one for browsers in started.values() for one in browsers):
                browser.close()


@dataclass
class _Watching:
    """Pages that are open, and what they were sent."""

    pages: list[Any] = field(default_factory=list)
    answers: Counter[str] = field(default_factory=Counter)
    pumped: float = 0.0

    def pump(self) -> None:
        """Let what came be noticed, now and then: it takes the processor's time too."""
        if time.monotonic() > self.pumped + _PUMP_S:
            self.pages[0].wait_for_timeout(1)
            self.pumped = time.monotonic()


@contextmanager
def _looking(browsers: Sequence[Any], url: str) -> Iterator[_Watching]:
    """Open the dashboard in each browser, and count what is sent to them from when all is drawn."""
    watching = _Watching()

    def image(request: Any) -> None:
        if request.resource_type == "image":
            watching.answers["pictures"] += 1

    def told(socket: Any) -> None:
        socket.on("framereceived", lambda _: watching.answers.update(["messages"]))

    for browser in browsers:
        page = browser.new_page(viewport={"width": 1920, "height": 1080})
        page.on("requestfinished", image)
        page.on("websocket", told)
        page.goto(url)
        page.wait_for_selector("[data-tile]", state="attached")
        watching.pages.append(page)
    watching.pages[0].wait_for_timeout(_SEEN_S * 1e3)
    watching.answers.clear()
    yield watching
    for page in watching.pages:
        page.close()


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

    def each_second(figures: Sequence[float]) -> float:
        took = [size / found["rate"] for found in looked_at]
        return float(statistics.median(figure / seconds for figure, seconds in zip(figures, took, strict=True)))

    busy = each_second([found["monitor_cpu"] for found in looked_at])
    pictures, messages = (
        each_second([found["answers"].get(kind, 0) for found in looked_at]) for kind in ("pictures", "messages")
    )
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
without, with, and without. The monitor uses {busy:.2f} of a core, and sends
{pictures:.1f} pictures and {messages:.1f} messages a second to all browsers elsewhere together.{under}
"""


def _row(said: str, rates: Sequence[float], ratios: Sequence[float] | None) -> str:
    share = f"{statistics.median(ratios):.3f} ({min(ratios):.2f} … {max(ratios):.2f})" if ratios else ""
    rate, least, most = (figure / 1e9 for figure in (statistics.median(rates), min(rates), max(rates)))
    return f"| {said} | {rate:.2f} ({least:.2f} … {most:.2f}) | {share} |"
