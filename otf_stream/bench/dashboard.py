"""``otf-stream bench dashboard``: what the ingest path loses while browsers look at the dashboard.

A listener and a monitor run as a service runs them. Planes are published as fast as they are acknowledged, before the
browsers look, while they do, and after, since the disk of a shared machine changes from minute to minute; what counts
is the ratio within a round. No worker runs: it would take whatever the others leave.

The browsers stand for those on other desks. They have to run here, where they draw with the processor, so they get
what nobody else wants of it: the lowest priority.
"""

from __future__ import annotations

import os
import shlex
import shutil
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
from otf_stream.bench.ingest import DISTINCT, machine, published
from otf_stream.bench.listening import listening
from otf_stream.bench.results import Result
from otf_stream.config import ServiceConfig
from otf_stream.service.monitoring import MonitorProcess
from otf_stream.store.journal import journal_path, remove_journal
from otf_stream.store.session import find_sessions

_FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update")
_START_S = 60.0
_SEEN_S = 3.0  # that a page is looked at before planes come
_PUMP_MS = 20.0


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
        For each round: ``alone``, the rates before and after, and ``watched``, in bytes/s; ``ratio`` of the latter to
        the mean of the former; ``monitor_cpu`` in s, and ``answers``, what the browsers were sent meanwhile, by kind;
        ``planes``, ``side``, ``browsers``, ``load``.

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
            with _looking(started, url) as watching:
                used = _processor(monitor)
                watched = _rate(address, data, drawn, planes, watching.pump)
                used = _processor(monitor) - used
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
                    "watched": watched,
                    "ratio": watched / statistics.mean([before, after]),
                    "monitor_cpu": used,
                    "answers": dict(watching.answers),
                }
            )
            progress(f"{len(found)} of {rounds}: {found[-1]['ratio']:.2f} of the rate without browsers")
    return found


def _rate(address: str, data: Path, drawn: Planes, planes: int, look: Callable[[], object]) -> float:
    """Publish a stack and delete it; return the rate in bytes/s."""
    took, _ = published(address, drawn, planes, look)
    for path in find_sessions(data):
        shutil.rmtree(path)
        remove_journal(journal_path(path))
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
def _browsers(chromium: str, folder: Path, count: int) -> Iterator[list[Any]]:
    """Start browsers that wait until nobody else wants the processor."""
    from playwright.sync_api import sync_playwright

    patient = folder / "patient"
    patient.write_text(f'#!/bin/sh\nexec nice -n 19 {shlex.quote(chromium)} "$@"\n', encoding="utf-8")
    patient.chmod(0o700)
    with sync_playwright() as playwright:
        started = [playwright.chromium.launch(executable_path=patient, args=list(_FLAGS)) for _ in range(count)]
        try:
            yield started
        finally:
            for browser in started:
                browser.close()


@dataclass
class _Watching:
    """Pages that are open, and what they were sent."""

    pages: list[Any] = field(default_factory=list)
    answers: Counter[str] = field(default_factory=Counter)

    def pump(self) -> None:
        """Let what came be noticed."""
        self.pages[0].wait_for_timeout(_PUMP_MS)


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


def _processor(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def section(results: Sequence[Result], command: str) -> str:
    """Write the section of the documentation from the results."""
    first = results[0]
    ratios = [result["ratio"] for result in results]
    alone = [rate for result in results for rate in result["alone"]]
    seconds = [result["planes"] * first["side"] ** 2 * 2 / result["watched"] for result in results]
    busy = statistics.median(result["monitor_cpu"] / took for result, took in zip(results, seconds, strict=True))
    pictures, messages = (
        statistics.median(result["answers"].get(kind, 0) / took for result, took in zip(results, seconds, strict=True))
        for kind in ("pictures", "messages")
    )
    rows = [
        f"| {name} | {statistics.median(rates) / 1e9:.2f} ({min(rates) / 1e9:.2f} … {max(rates) / 1e9:.2f}) |"
        for name, rates in (
            ("nobody looks", alone),
            (f"{first['browsers']} browsers look", [r["watched"] for r in results]),
        )
    ]
    table = "\n".join(rows)
    loads = [result["load"] for result in results if result["load"] is not None]
    under = f" Load of the machine at the start of a round: {min(loads):.1f} to {max(loads):.1f}." if loads else ""
    return f"""Written by `{command}` on {machine()}.

{first["planes"]} planes of {first["side"]} × {first["side"]} pixels of 16 bits, published as fast as they are
acknowledged, to a listener beside which the monitor runs. {first["browsers"]} Chromium at the lowest priority, on the
same machine, show the dashboard with the stack that is coming in. No worker runs.

| | GB/s |
|---|---|
{table}

With browsers, the rate is **{statistics.median(ratios):.3f}** of that without ({min(ratios):.2f} … {max(ratios):.2f};
median of the ratios of {len(results)} rounds, each measured without, with and without). Meanwhile the monitor uses
{busy:.2f} of a core, and sends {pictures:.1f} pictures and {messages:.1f} messages a second to all browsers
together.{under}
"""
