"""What was learnt of earlier time points: the networks that the next one starts from.

A sample changes little between two time points, so a network that has seen one is nearer to the next than the
pre-trained one. Only the networks are kept, a few megabytes a channel, and only in the process that learnt them: after
a crash the next time point starts from the pre-trained networks, which costs time and nothing else.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from dataclasses import dataclass

from otf_stream.acquisition import StackIndex
from otf_stream.learn.nafnet import NAFNet

_CHANNELS = 64  # the most recent ones


@dataclass(frozen=True)
class Lesson:
    """The networks that were learnt of ``stack``; ``weights`` is the SHA-256 of what deblurring once started from."""

    stack: StackIndex
    denoising: NAFNet
    deblurring: NAFNet
    weights: str


class Memory:
    """Keeps the latest networks of every channel of every session."""

    def __init__(self) -> None:
        self._lessons: OrderedDict[tuple[str, int], Lesson] = OrderedDict()

    def keep(self, session: str, lesson: Lesson) -> None:
        """Remember what was learnt of a stack."""
        channel = (session, lesson.stack[1])
        self._lessons[channel] = lesson
        self._lessons.move_to_end(channel)
        while len(self._lessons) > _CHANNELS:
            self._lessons.popitem(last=False)

    def forget(self, session: str, stack: StackIndex) -> None:
        """Forget a channel of which no more will come."""
        self._lessons.pop((session, stack[1]), None)

    def recall(self, session: str, stack: StackIndex) -> Lesson | None:
        """Return a copy, to be trained further, of what was learnt of another time point of the same channel."""
        lesson = self._lessons.get((session, stack[1]))
        return None if lesson is None or lesson.stack == stack else copy.deepcopy(lesson)
