"""Which planes of a session there are, kept in step with its journal at a cost that does not grow with its length.

A time-lapse of days has millions of planes, so they are never counted twice: what is known of a stack is kept, and
asked anew only while planes of it may come. New stacks are looked for past the last ones; since planes may come in any
order, all are gone through now and then, and whenever the arrivals are closed.
"""

from __future__ import annotations

from bisect import insort
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice, pairwise

from otf_stream.acquisition import Acquisition, StackIndex
from otf_stream.monitor.state import Gap
from otf_stream.store.journal import Journal, Presence, StackState

MOST_GAPS = 100
_BACK = 2  # time points before the last one, where stacks are looked for: channels need not begin in order
_ALL = 30.0  # seconds after which all stacks are gone through again
_OVER = frozenset(("restored", "failed"))
_PATIENCE_S = 3.0  # with a plane while later ones are there; many land at a time, and a disk may stall


@dataclass(frozen=True)
class Known:
    """What is known of a stack that has a plane: its planes, its state, how many are missing, and whether it is one.

    While planes may come, those are missing that were passed by, in ``within``. A single plane is no stack.
    """

    presence: Presence
    state: StackState
    within: range
    missing: int
    is_stack: bool


class Planes:
    """The planes of one session that there are and those that are missing, by stack."""

    def __init__(self) -> None:
        self.acquisition: Acquisition
        self.known: dict[StackIndex, Known] = {}
        """What is known of every stack that has a plane, and of single planes."""
        self.durable = 0
        """How many planes are on disk."""
        self.latest: float | None = None
        """When the latest plane came, in UNIX seconds."""
        self.states: Counter[str] = Counter()
        """How many stacks are in which state, of those that have a plane."""
        self.pending: set[StackIndex] = set()
        """Stacks that have a plane and are neither restored nor given up."""
        self.over = False
        self._passed_by = 0
        self._order: list[StackIndex] = []
        self._open: set[StackIndex] = set()  # those of which planes may come
        self._awaited: set[StackIndex] = set()  # those with planes that will count as missing if they do not come soon
        self._stored: dict[StackIndex, StackState] = {}
        self._depths: dict[int, tuple[int, int]] = {}
        self._gaps: dict[StackIndex, tuple[tuple[Presence, range], list[Gap]]] = {}
        self._all, self._partly = float("-inf"), False

    def is_due(self, now: float) -> bool:
        """Whether there is something to look at, though nobody has written since the last look."""
        return bool(self._awaited) or (self._partly and now - self._all > _ALL)

    def look(self, journal: Journal, now: float, *, closed: bool, changed: Iterable[StackIndex]) -> None:
        """Look at what is new in a journal.

        Parameters
        ----------
        journal
            Of the session.
        now
            In seconds.
        closed
            Whether no further planes are expected.
        changed
            Stacks that events tell of.
        """
        self.acquisition, depths = journal.acquisition, dict(self._depths)
        stored, turned = journal.stored_states(), closed != self.over
        new = self._new(journal, now, turned)
        self.over = closed
        count = {stack for stack in changed if stack in self.known} | self._open | new
        count |= {stack for stack, _ in stored.items() ^ self._stored.items() if stack in self.known}
        self._stored = stored
        for stack in count:
            self._count(journal, stack, now)
        if turned or depths != self._depths:  # what that means for stacks of which nothing else has changed
            for stack in self.known.keys() - count:
                known = self.known[stack]
                self._take(stack, known.presence, known.within, known.missing)

    def forget(self) -> None:
        """Count everything anew at the next look: planes were taken out."""
        self._open |= self.known.keys()
        self._all = float("-inf")

    def _new(self, journal: Journal, now: float, turned: bool) -> set[StackIndex]:
        again = turned or now - self._all > _ALL
        if again:
            self._all = now
        self._partly = not again
        last = self._order[-1][0] if self._order else -1
        found = journal.places() if again else journal.places((max(last - _BACK, -1), -1))
        return {stack for stack in found if stack not in self.known}

    def _count(self, journal: Journal, stack: StackIndex, now: float) -> None:
        presence = journal.presence(stack)
        if presence.planes:
            self.latest = max(self.latest or 0.0, presence.latest)
            lowest, highest = self._depths.get(stack[1], (presence.lowest, presence.highest))
            self._depths[stack[1]] = min(lowest, presence.lowest), max(highest, presence.highest)
        passed_by = journal.passed_by(stack, now - _PATIENCE_S) if presence.holes else (range(0), 0)
        self._take(stack, presence, *passed_by)

    def _take(self, stack: StackIndex, presence: Presence, within: range, passed_by: int) -> None:
        """Put what is known of a stack in place of what was, in all that is counted over stacks."""
        if (was := self.known.get(stack)) is None:
            insort(self._order, stack)
        else:
            self.durable -= was.presence.planes
            self._passed_by -= was.missing
            self.states[was.state] -= was.is_stack
        state: StackState = self._stored.get(stack, "arriving")
        extent, growing = self.extent(stack), self.acquisition.growing
        complete = not growing and presence.planes == len(extent)
        if state == "arriving" and (complete or self.over):
            state = "arrived"
        over = self.over or state in _OVER
        if over:
            within, passed_by = extent, len(extent) - presence.planes
        is_stack = presence.planes > 1 if growing else len(extent) > 1 and self.acquisition.plans(stack)
        self.known[stack] = Known(presence, state, within, passed_by, is_stack)
        self.durable += presence.planes
        self._passed_by += passed_by
        self.states[state] += is_stack
        _put(self.pending, stack, is_stack and state not in _OVER)
        _put(self._open, stack, not complete and state not in _OVER)
        _put(self._awaited, stack, not over and presence.holes > passed_by)

    @property
    def expected(self) -> int:
        """How many planes were announced; of a growing session, how many its stacks seem to have."""
        if not self.acquisition.growing:
            return self.acquisition.planned
        return sum(len(self.extent(stack)) for stack in self.known)

    @property
    def missing(self) -> int:
        """How many planes will not come any more, or were passed by."""
        if self.over and not self.acquisition.growing:
            return self.acquisition.planned - self.durable
        return self._passed_by

    def extent(self, stack: StackIndex) -> range:
        """Along z, the planes that a stack is to have; where nobody knows, those that its channel ever had."""
        if not self.acquisition.growing:
            return self.acquisition.planes_of(stack[1])
        lowest, highest = self._depths.get(stack[1], (0, -1))
        return range(lowest, highest + 1)

    def latest_done(self, most: int) -> list[StackIndex]:
        """List the last stacks, at most so many, that are restored or given up."""
        done = (stack for stack in reversed(self._order) if self.known[stack].is_stack and stack not in self.pending)
        return list(islice(done, most))

    def gaps(self, journal: Journal) -> list[Gap]:
        """List where planes are missing, the first `MOST_GAPS` of them."""
        return list(islice(self._all_gaps(journal), MOST_GAPS))

    def _all_gaps(self, journal: Journal) -> Iterator[Gap]:
        growing = self.acquisition.growing
        whole = islice(_planned(self.acquisition), MOST_GAPS + len(self.known)) if self.over and not growing else None
        for stack in sorted(self.known.keys() | set(whole)) if whole else self._order:
            if known := self.known.get(stack):
                yield from self._gaps_of(stack, known, journal) if known.missing else ()
            elif extent := self.extent(stack):
                yield Gap(t=stack[0], c=stack[1], first=extent[0], last=extent[-1])

    def _gaps_of(self, stack: StackIndex, known: Known, journal: Journal) -> list[Gap]:
        found, now = self._gaps.get(stack), (known.presence, known.within)
        if found and found[0] == now:
            return found[1]
        within = known.within
        ends = [within.start - 1, *(z for z in journal.planes_of(stack) if z in within), within.stop]
        gaps = [Gap(t=stack[0], c=stack[1], first=a + 1, last=b - 1) for a, b in pairwise(ends) if b - a > 1]
        self._gaps[stack] = now, gaps
        return gaps


def _planned(acquisition: Acquisition) -> Iterator[StackIndex]:
    """Yield every ``(t, c)`` of which planes were announced, in order."""
    for t in range(acquisition.sizes.t):
        for c in range(acquisition.sizes.c):
            if acquisition.plans((t, c)):
                yield t, c


def _put(stacks: set[StackIndex], stack: StackIndex, wanted: bool) -> None:
    """Have a stack in a set, or not."""
    if wanted:
        stacks.add(stack)
    else:
        stacks.discard(stack)
