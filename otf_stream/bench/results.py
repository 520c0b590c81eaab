"""Results of a benchmark, written down one by one: a run that was cut off goes on where it stopped."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable, Hashable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any, TypeVar

import torch

from otf_stream.learn.compute import Compute

Result = dict[str, Any]
Key = TypeVar("Key", bound=Hashable)


def machine(compute: Compute) -> str:
    """Say on what figures were taken."""
    card = f"{torch.cuda.get_device_name(compute.device)}, " if compute.device.type == "cuda" else ""
    return (
        f"{card}{os.cpu_count()} cores {platform.machine()}, {torch.get_num_threads()} in use, {compute}, "
        f"torch {torch.__version__}"
    )


def read_results(path: Path) -> list[Result]:
    """Read what earlier runs wrote, JSON lines; nothing where there is no file."""
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()] if path.exists() else []


def run_missing(
    path: Path,
    wanted: Mapping[Key, Callable[[], Result]],
    key: Callable[[Result], Key],
    progress: Callable[[Result], None],
    *,
    at_once: int = 1,
) -> list[Result]:
    """Run what has no result yet, and write down each result as soon as it is there.

    Parameters
    ----------
    path
        Of the results.
    wanted
        What is to be run, by its key.
    key
        Of a result.
    progress
        Is told of new results.
    at_once
        How many to run side by side, in threads.

    Returns
    -------
    list of dict
        The results that are wanted, in that order, those of earlier runs included.
    """
    done = {key(result): result for result in read_results(path)}
    missing = {name: run for name, run in wanted.items() if name not in done}
    for name, result in _in_turn(missing) if at_once == 1 else _side_by_side(missing, at_once):
        done[name] = result
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(result) + "\n")
        progress(result)
    return [done[name] for name in wanted]


def _in_turn(wanted: Mapping[Key, Callable[[], Result]]) -> Iterator[tuple[Key, Result]]:
    for name, run in wanted.items():
        yield name, run()


def _side_by_side(wanted: Mapping[Key, Callable[[], Result]], at_once: int) -> Iterator[tuple[Key, Result]]:
    with ThreadPoolExecutor(at_once, thread_name_prefix="run") as pool:
        running = {pool.submit(run): name for name, run in wanted.items()}
        try:
            for ended in as_completed(running):
                yield running[ended], ended.result()
        finally:
            pool.shutdown(cancel_futures=True)
