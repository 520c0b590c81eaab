"""What the system keeps of files in memory, and where it gets that memory from.

A virtual machine gives memory that it does not use back to its host, and gets it again page by page, slower than its
disk writes. A physical machine has its memory, and so has a virtual one that has been busy for some time, as in an
acquisition: it uses the same pages again and again. What benchmarks write should find the machine in that state, all
of it: so the system is made to forget what has landed, and nothing is timed that writes before anything has.
"""

from __future__ import annotations

import os
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from otf_stream.store.chunks import chunk_file
from otf_stream.store.finding import find_sessions

_FORGET_S = 0.1


def forget_cached(file: Path) -> None:
    """Let the system drop what it has of a file in memory, where it can be asked to."""
    if hasattr(os, "posix_fadvise"):
        with file.open("rb") as opened:
            os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


@contextmanager
def forgetting(data: Path, *, lately: int = 0) -> Iterator[None]:
    """Have the system forget the planes of first stacks of the sessions in a folder, as they land.

    Parameters
    ----------
    data
        The folder.
    lately
        How many of the latest planes of each stack it keeps: whoever looks at what comes in finds it in memory, as on
        a machine that has some.
    """
    over = threading.Event()
    thread = threading.Thread(target=_forget, args=(data, lately, over), name="forgetting")
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _forget(data: Path, lately: int, over: threading.Event) -> None:
    forgotten: defaultdict[Path, int] = defaultdict(int)
    while not over.wait(_FORGET_S):
        for store in find_sessions(data):
            while chunk_file(store, (0, 0, forgotten[store] + lately)).is_file():
                forget_cached(chunk_file(store, (0, 0, forgotten[store])))
                forgotten[store] += 1
