"""The network's way to a volume: slabs before the last plane, XZ slices, as many YZ slices as there is time for.

What is through is kept from one stage to the next. A volume of XZ slices is always there to fall back on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

from otf_stream.learn.compute import Compute
from otf_stream.optics.haze import HazeField
from otf_stream.restore.deblurring import Deblurring
from otf_stream.restore.fidelity import Fidelity
from otf_stream.restore.methods import CleanPlanes
from otf_stream.restore.regions import Method
from otf_stream.restore.turns import OutOfTimeError, Room, Turn, Work
from otf_stream.service.ahead import go_ahead, may_go_ahead
from otf_stream.service.budget import Schedule, Watch
from otf_stream.service.character import find_psf
from otf_stream.service.learning import Learned, time_left
from otf_stream.service.settings import Settings
from otf_stream.service.source import StackSource
from otf_stream.service.speed import Speedometer

Land = Callable[[Method, HazeField | None], Work[Fidelity]]
"""Restores by a method into the store, and tells what came of it."""


class Decide(Protocol):
    """Notes a decision, its reason, and figures behind it."""

    def __call__(self, what: str, why: str, **figures: float) -> None:
        """Note it."""


class NetworkPath:
    """The slices of one stack on their way through its network.

    Parameters
    ----------
    source, settings, schedule, compute
        The stack, how it is to be restored, its time, and where.
    room
        Puts slices aside, and may wait for the disk to have room.
    decide
        Is told of decisions.
    """

    def __init__(
        self,
        source: StackSource,
        settings: Settings,
        schedule: Schedule,
        compute: Compute,
        *,
        room: Room,
        decide: Decide,
    ) -> None:
        self._source, self._settings, self._schedule, self._compute = source, settings, schedule, compute
        self._room = room
        self._decide = decide
        self._deblurring: Deblurring | None = None

    @property
    def ahead(self) -> float:
        """Share of the volume whose XZ slices were through before the last plane, and are in it."""
        return self._deblurring.across / self._deblurring.depth if self._deblurring else 0.0

    def arriving(self, learned: Learned, speed: Speedometer) -> Work[None]:
        """Restore slabs while planes still come, where that is worth it."""
        source, schedule = self._source, self._schedule
        worth = learned.trust.best == "network" and self._settings.budget.steps is None and may_go_ahead(source)
        if not worth or source.arrivals().complete:
            return
        before = schedule.watch
        schedule.reserve(lambda: time_left(speed, learned.stack), anew=True)
        schedule.watch, deblurring = Watch.NO_HOPE, self._new_deblurring(learned)

        def told(stop: int) -> None:
            self._decide(
                "slab ahead", "its planes are there, and after the last one there is too little time", stop=stop
            )

        yield from go_ahead(source, learned, deblurring, told)
        if deblurring.across:
            self._deblurring = deblurring
        else:
            schedule.watch = before

    def arrived(self, learned: Learned, speed: Speedometer) -> Work[Learned]:
        """Denoise the last planes, and see what all planes tell of the blur, where no slab is restored already."""
        schedule = self._schedule
        yield from learned.stack.taking(at_once=True)
        if self._deblurring and schedule.begin_anew():
            self._decide("slabs anew", "there is time after all")
            self._deblurring = None
        if self._deblurring:
            return learned
        found = learned.found
        if (
            self._settings.psf is None and learned.stack.seen > learned.planes
        ):  # of more planes, the blur is told better
            found = find_psf(self._source, learned.character.noise)
            yield Turn.READY
        schedule.reserve(lambda: time_left(speed, learned.stack), anew=True)  # most has been denoised meanwhile
        schedule.watch = Watch.NO_HOPE
        yield Turn.READY
        return replace(learned, found=found)

    def restored(self, learned: Learned, planes: CleanPlanes, land: Land) -> Work[tuple[Method, Fidelity]]:
        """Run XZ slices through the network, then as many YZ slices as there is time for, and land."""
        schedule, name = self._schedule, "finetune" if learned.steps else "pretrained"
        deblurring = self._deblurring or self._new_deblurring(learned)
        self._decide("XZ slices", f"method {name}")
        yield from deblurring.go_across(planes)
        step = schedule.decide_yz_step()
        self._decide(f"YZ slices, every {step}" if step else "no YZ slices", "what XZ slices took")
        if step:
            try:
                method = replace(deblurring.method(planes, step), name=name)
                return method, (yield from land(method, planes.field))
            except OutOfTimeError:
                schedule.give_up_yz()
                self._decide("no YZ slices", "they took too long")
        schedule.watch = Watch.NOTHING  # this is all but done
        method = replace(deblurring.method(planes, 0), name=name)
        return method, (yield from land(method, planes.field))

    def _new_deblurring(self, learned: Learned) -> Deblurring:
        sizes = self._source.acquisition.sizes
        return Deblurring(
            learned.network,
            self._compute,
            (self._source.grid().depth, sizes.y, sizes.x),
            self._source.scratch,
            room=self._room,
            passed=self._schedule.passed,
        )
