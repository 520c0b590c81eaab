"""What the worker is working on at this moment, in memory that the supervisor can read once the worker is dead.

A process that crashes cannot say what it was at, so it says so beforehand, with every turn: a few bytes in shared
memory, which cost some microseconds and outlive it. None of it goes to disk: when a whole machine loses its power, no
stack is to blame. There are two places in it, since previews are written beside the turns, by a thread of their own.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, get_args

from otf_stream.acquisition import StackIndex

Stage = Literal["turn", "preview"]
"""What the worker does to a stack: restore it by turns, or write its preview."""

_STAGES: tuple[Stage, ...] = get_args(Stage)
_NAME = 1024  # bytes; no file system has longer names


class _Place(ctypes.Structure):
    _fields_ = (
        ("busy", ctypes.c_bool),
        ("thread", ctypes.c_uint64),
        ("t", ctypes.c_int64),
        ("c", ctypes.c_int64),
        ("store", ctypes.c_char * _NAME),
    )


@dataclass(frozen=True)
class Whereabout:
    """One thing that the worker was at.

    Parameters
    ----------
    stage
        Whether a turn was being taken or a preview written.
    store
        Name of the session store, ``NAME.ome.zarr``.
    stack
        Which of its stacks, ``(t, c)``.
    thread
        The thread that was at it, as Python numbers threads.
    """

    stage: Stage
    store: str
    stack: StackIndex
    thread: int


class Whereabouts:
    """Where the worker says what it is at, and the supervisor reads it; handed to the worker as it is started."""

    def __init__(self) -> None:
        self._places = multiprocessing.get_context("spawn").RawArray(_Place, len(_STAGES))

    @contextmanager
    def at(self, stage: Stage, store: str, stack: StackIndex) -> Iterator[None]:
        """Say that this thread is at a stack, for as long as the context lasts; one thread per stage."""
        place = self._places[_STAGES.index(stage)]
        place.store, (place.t, place.c), place.thread = store.encode()[:_NAME], stack, threading.get_ident()
        place.busy = True  # at last: who dies before was not at it yet
        try:
            yield
        finally:  # an exception is dealt with by those that it reaches; a crash never comes here
            place.busy = False

    def read(self) -> list[Whereabout]:
        """Return what the worker is at, or was when it died."""
        return [
            Whereabout(stage, place.store.decode(errors="replace"), (place.t, place.c), place.thread)
            for stage, place in zip(_STAGES, self._places, strict=True)
            if place.busy
        ]

    def clear(self) -> None:
        """Forget what the last worker was at."""
        for place in self._places:
            place.busy = False
