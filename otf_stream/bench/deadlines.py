"""Whether the service keeps its promise under whatever load: many acquisitions at once, and other programs beside it.

Sizes, paces, channels, beginnings and the load are drawn at random, by a seed. A volume that comes late is a broken
promise; one that was interpolated because there was no time is a kept one, if it says so.
"""

from __future__ import annotations

import multiprocessing
import random
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np

from otf_stream.acquire.publisher import Publisher
from otf_stream.bench.results import Result, machine
from otf_stream.bench.streaming import Stack, await_restored, described, drawn, paced, running_service
from otf_stream.learn.compute import Compute
from otf_stream.store.finding import find_sessions
from otf_stream.store.restored import read_provenance
from otf_stream.store.session import SessionStore

_PLANES, _SIDES, _RATES, _CHANNELS = (6, 40), (96, 256), (1.0, 20.0), (1, 3)
_LOADS = (0, 2)  # busy processes beside the service
_PATIENCE_S = 900.0


@dataclass(frozen=True)
class Drawn:
    """One acquisition: when it begins, the shape of its stacks, its pace in planes a second, and its channels."""

    begins: float
    shape: tuple[int, int, int]
    rate: float
    channels: int

    def cut(self, sample: Stack) -> Stack:
        """Cut a stack of this shape out of a larger one."""
        return np.ascontiguousarray(sample[tuple(slice(side) for side in self.shape)])


def run_deadlines(
    compute: Compute,
    *,
    stacks: int,
    minutes: float,
    budget_s: float,
    tail_s: float,
    seed: int,
    threads: int | None,
    progress: Callable[[str], None] = lambda said: None,
) -> list[Result]:
    """Stream random acquisitions through a service.

    Parameters
    ----------
    compute
        Named in the results.
    stacks
        How many, counted by channel.
    minutes
        Time over which they begin.
    budget_s, tail_s
        Of the service.
    seed
        Of all that is drawn.
    threads
        Of the worker.
    progress
        Is told what goes on.

    Returns
    -------
    list of dict
        One for each stack.
    """
    acquisitions = _draw(stacks, minutes * 60, seed)
    _, sample = drawn(max(a.shape[0] for a in acquisitions), max(a.shape[1] for a in acquisitions), seed=300)
    stop = threading.Event()
    load = threading.Thread(target=_load, args=(random.Random(seed), stop))  # noqa: S311 - no secret
    with running_service(budget_s=budget_s, tail_s=tail_s, threads=threads) as (service, data):
        load.start()
        try:
            sending = [
                threading.Thread(target=_send, args=(service.address, f"a{index:02d}", acquisition, sample))
                for index, acquisition in enumerate(acquisitions)
            ]
            for thread in sending:
                thread.start()
            for thread in sending:
                thread.join()
            await_restored(service, data, patience=_PATIENCE_S, progress=progress)
        finally:
            stop.set()
            load.join()
        return _results(data, acquisitions, compute)


def _draw(stacks: int, seconds: float, seed: int) -> list[Drawn]:
    dice = random.Random(seed)  # noqa: S311 - no secret
    acquisitions: list[Drawn] = []
    left = stacks
    while left:
        channels = min(dice.randint(*_CHANNELS), left)
        planes, side = dice.randint(*_PLANES), dice.randint(*_SIDES)
        acquisitions.append(Drawn(dice.uniform(0, seconds), (planes, side, side), dice.uniform(*_RATES), channels))
        left -= channels
    return sorted(acquisitions, key=lambda acquisition: acquisition.begins)


def _send(address: str, name: str, acquisition: Drawn, sample: Stack) -> None:
    """Publish the planes of an acquisition, channel after channel at each z."""
    time.sleep(acquisition.begins)
    stack = acquisition.cut(sample)
    order = [(z, c) for z in range(len(stack)) for c in range(acquisition.channels)]
    with Publisher(address, described(name, stack, channels=acquisition.channels)) as publisher:
        for z, c in paced(order, acquisition.rate * acquisition.channels):
            publisher.publish(stack[z], c=c, z=z)


def _load(dice: random.Random, stop: threading.Event) -> None:
    """Keep from none to two processes busy, another number every half minute or so."""
    spawn = multiprocessing.get_context("spawn")
    while not stop.is_set():
        busy: list[BaseProcess] = [spawn.Process(target=_spin, daemon=True) for _ in range(dice.randint(*_LOADS))]
        for process in busy:
            process.start()
        stop.wait(dice.uniform(10, 50))
        for process in busy:
            process.kill()
            process.join()


def _spin() -> None:
    numbers = np.random.default_rng(0).random(2**20)
    while True:
        np.sort(numbers)


def _results(data: Path, acquisitions: Sequence[Drawn], compute: Compute) -> list[Result]:
    found = []
    for path in sorted(find_sessions(data)):
        with closing(SessionStore.open(path)) as store:
            previews: list[dict[str, Any]] = [e.detail for e in store.journal.events() if e.kind == "preview"]
            acquisition = acquisitions[int(path.name[1 : path.name.index(".")])]
            for t, c in store.journal.stacks():
                said = read_provenance(path)[f"t{t}c{c}"]
                timing = said["timing"]
                found.append(
                    {
                        "session": path.name,
                        "channel": c,
                        "state": store.journal.state((t, c)),
                        "shape": list(acquisition.shape),
                        "planes_per_second": acquisition.rate,
                        "method": said["method"],
                        "warnings": said["warnings"],
                        "steps": (said["training"] or {}).get("steps", 0),
                        "preview_s": next((p["since_last_plane_s"] for p in previews if p["stack"] == [t, c]), None),
                        "in_hand_s": timing["deadline"] - timing["restored"],
                        "late": timing["late"],
                        "machine": machine(compute),
                    }
                )
    return found


def section(results: Sequence[Result], command: str, *, minutes: float, budget_s: float, tail_s: float) -> str:
    """Write a section of the page on performance."""
    methods = sorted({r["method"] for r in results})
    rows = []
    for method in methods:
        those = [r for r in results if r["method"] == method]
        in_hand = sorted(r["in_hand_s"] for r in those)
        told = sum(any("no time" in warning for warning in r["warnings"]) for r in those)
        rows.append(
            f"| {method} | {len(those)} | {sum(r['late'] for r in those)} | {in_hand[0]:.0f} s | "
            f"{in_hand[len(in_hand) // 2]:.0f} s | {told} |"
        )
    previews = sorted(r["preview_s"] for r in results if r["preview_s"] is not None)
    complete = sum(r["state"] == "restored" for r in results)
    seen = (
        f"Previews came {previews[len(previews) // 2]:.1f} s (median) and {previews[-1]:.1f} s (at most) after the "
        f"last plane, {len(previews)} of {len(results)}; the others were restored before."
        if previews
        else "No stack waited for a preview."
    )
    return f"""Written by `{command}` on {results[0]["machine"]}.

{len(results)} stacks of {_PLANES[0]} to {_PLANES[1]} planes with sides of {_SIDES[0]} to {_SIDES[1]} pixels, one to
{_CHANNELS[1]} channels an acquisition, at {_RATES[0]:g} to {_RATES[1]:g} planes/s a channel, beginning at random over
{minutes:g} minutes, beside {_LOADS[0]} to {_LOADS[1]} busy processes. Budget {budget_s:g} s from the first plane,
{tail_s:g} s from the last.

Complete: {complete} of {len(results)}; late: {sum(r["late"] for r in results)}.

| method in the end | stacks | late | least time in hand | median | said that there was no time |
|---|---|---|---|---|---|
{chr(10).join(rows)}

{seen}
"""
