"""The training curve of a stack, noted in the journal while it is learnt from, so sparsely that training does not wait.

A step takes some milliseconds on a graphics card, so not every step is told of: a note every two seconds is a curve of
150 points after five minutes. What is noted is the mean of losses that have been computed anyhow; a note may be lost in
a power cut, so nobody waits for the disk.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from otf_stream.learn.training import Trainer

_INTERVAL = 2.0  # seconds

Progress = Callable[[str, float], None]
"""Told the stage and its progress, from 0 to 1."""


class Curve:
    """Notes steps and loss now and then.

    Parameters
    ----------
    note
        Takes the figures of one point.
    clock
        Seconds.
    """

    def __init__(self, note: Callable[..., Any] = lambda **point: None, clock: Callable[[], float] = time.monotonic):
        self._note = note
        self._clock = clock
        self._noted = float("-inf")

    def stepped(self, stage: str, trainer: Trainer) -> None:
        """Take note that a step was taken in a stage, ``denoise`` or ``finetune``."""
        now = self._clock()
        if now - self._noted < _INTERVAL or (loss := trainer.recent_loss()) is None:
            return
        self._noted = now
        with suppress(OSError, sqlite3.Error):  # that a disk is full is no reason to learn nothing
            self._note(stage=stage, steps=trainer.steps, loss=loss)
