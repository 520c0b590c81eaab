"""One stack through all stages, from its first durable planes to a restored volume with its provenance.

It always ends in a complete volume. Whatever keeps a stack from being learned from (no contrast, too few planes, no
time, a failure) is a reason, not an error: the stack is interpolated, and the provenance gives the reason. What is
decided on the way, and the figures behind it, is noted in the journal.
"""

from __future__ import annotations

import sqlite3
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from otf_stream.acquisition import StackIndex
from otf_stream.learn.compute import Compute
from otf_stream.optics.haze import HazeField
from otf_stream.restore.fidelity import Fidelity
from otf_stream.restore.methods import (
    Grid,
    clean_richardson_lucy,
    interpolate,
    richardson_lucy,
)
from otf_stream.restore.regions import Method
from otf_stream.restore.turns import OutOfTimeError, Turn, Work
from otf_stream.service.ahead import may_go_ahead
from otf_stream.service.budget import Schedule, Watch
from otf_stream.service.character import Character, FoundPsf, characterise, find_psf, uncharacterised, usual_psf
from otf_stream.service.costs import WRITERS, Costs
from otf_stream.service.curve import Curve, Progress
from otf_stream.service.demand import Demand
from otf_stream.service.landing import landing, scaled, writing
from otf_stream.service.learning import FEWEST_PLANES, Learned, learn
from otf_stream.service.memory import Lesson, Memory
from otf_stream.service.network import Land, NetworkPath
from otf_stream.service.provenance import LIGHT_LOST, provenance, timing
from otf_stream.service.settings import Settings
from otf_stream.service.source import StackSource
from otf_stream.service.speed import Speedometer
from otf_stream.service.start import networks_to_start_from
from otf_stream.service.tidying import tidy_up
from otf_stream.store.restored import RestoredWriter
from otf_stream.store.session import SessionStore

_POLL = 0.1
_MOST_LIGHT_LOST = 0.25
_MOST_UNEXPLAINED = 0.25
_NO_TIME = (
    "no time to restore with the network before the deadline: interpolated; a longer budget, or a machine that has "
    "less to do, helps"
)


class EmptyStackError(RuntimeError):
    """Not one plane of a stack arrived, so there is nothing to restore."""


class Restoration:
    """The restoration of one stack, from its first planes on, by turns.

    Parameters
    ----------
    store
        The session; its planes may still be arriving.
    stack
        Which of its stacks, ``(t, c)``.
    settings
        Method, budget and seed.
    compute
        Device and precision.
    progress
        Is told the stage and how far it is, from 0 to 1.
    others
        What other stacks ask of the device now.
    patient
        Wait for room where the disk is full, rather than raise.
    memory
        Of earlier time points, from whose networks this one starts; what is learnt of it is added.
    costs
        Of the device; what this stack costs is added.
    claim
        Returns whether nobody else is writing the volume, and from then on will.

    Notes
    -----
    Where learning fails for whatever reason, which is noted in the journal, the stack is interpolated.
    """

    def __init__(
        self,
        store: SessionStore,
        stack: StackIndex,
        settings: Settings,
        compute: Compute,
        *,
        progress: Progress = lambda stage, done: None,
        others: Callable[[], Sequence[Demand]] = lambda: (),
        patient: bool = False,
        memory: Memory | None = None,
        costs: Costs | None = None,
        claim: Callable[[], bool] = lambda: True,
    ) -> None:
        self._claim = claim
        self.source = StackSource(store, stack, silence=settings.silence)
        self._costs = costs or Costs(on_processor=compute.device.type == "cpu")
        self.schedule = Schedule(
            settings.budget,
            self.source.arrivals,
            costs=self._costs,
            interpolating=lambda: self._costs.interpolating(self.source.voxels),
            others=others,
            ahead=lambda: may_go_ahead(self.source),
        )
        self._store = store
        self._settings = settings
        self._compute = compute
        self._progress = progress
        self._memory = memory or Memory()
        self._writing = partial(writing, store.journal, patient=patient)
        self._timings: dict[str, float] = {}
        self._began_to_land = 0.0
        self._network = self._new_path()
        self._work = self._restoring()
        self.provenance: dict[str, Any] | None = None
        """As it is written beside the volume, once that is done."""

    def turn(self) -> Turn | None:
        """Go on for a moment; return how the turn ended, None once the stack is restored.

        Raises
        ------
        EmptyStackError
            If the arrivals closed before the stack had a plane.
        OSError
            If the disk is full (where it is not waited for room) or fails.
        """
        with self.schedule.turn():
            try:
                if self.schedule.is_over():
                    self.schedule.watch = Watch.NOTHING  # what can be had without going on is seen to the end
                    return self._work.throw(OutOfTimeError)
                return next(self._work)
            except StopIteration as done:
                self.provenance = done.value
                return None

    def heed(self, *, paused: bool, finishing: bool) -> None:
        """Do as was asked from the next turn on.

        Parameters
        ----------
        paused
            Let learning wait. Deadlines stand, and what is not learning goes on.
        finishing
            Learn no more, and restore with the planes and networks that there are.
        """
        schedule = self.schedule
        if finishing and not schedule.finishing:
            schedule.finishing = self.source.finishing = True
            self._decide("finish now", "somebody asked for it")
        if paused != schedule.paused:
            schedule.paused = paused
            self._decide("pause learning" if paused else "resume learning", "somebody asked for it")

    def _new_path(self) -> NetworkPath:
        return NetworkPath(
            self.source, self._settings, self.schedule, self._compute, room=self._writing, decide=self._decide
        )

    def demand(self) -> Demand:
        """Return what the stack asks of the device."""
        return self.schedule.demand()

    def _restoring(self) -> Work[dict[str, Any]]:
        if self._settings.method != "interpolate":  # what is quickest anyhow has no last moment
            self.schedule.watch = Watch.LAST_MOMENT
        try:
            return (yield from self._through_the_stages([]))
        except (EmptyStackError, OSError, sqlite3.Error):
            raise
        except OutOfTimeError:
            self._decide("interpolate", "this is the last moment, or the network is too slow")
            failed = _NO_TIME
        except Exception as error:
            method = self._settings.method
            if method == "interpolate":
                raise
            self._note("failure", trace=traceback.format_exc())
            failed = f"restoring with method {method} failed ({type(error).__name__}: {error}): interpolated"
        self._network = self._new_path()  # what was put aside is not needed any more
        self.schedule.watch, self._settings = Watch.NOTHING, replace(self._settings, method="interpolate")
        return (yield from self._through_the_stages([failed]))

    def _through_the_stages(self, failures: Sequence[str]) -> Work[dict[str, Any]]:
        """Take the stack through the stages; its provenance tells of earlier ``failures``."""
        source, settings, schedule = self.source, self._settings, self.schedule
        begun, reasons = time.monotonic(), list(failures)
        yield from self._planes(FEWEST_PLANES)
        self._timings.setdefault("wait", time.monotonic() - begun)
        self._progress("characterise", 0.0)
        with self._timed("learn"):
            earlier = self._memory.recall(self._store.session, source.stack)
            taught = yield from self._learning(reasons, earlier)
        with self._timed("ahead"):
            if taught:
                yield from self._network.arriving(*taught)
            yield from self._planes(None)
            learned = (yield from self._network.arrived(*taught)) if taught else None
        with self._timed("restore"):
            character = learned.character if learned else self._characterised(reasons)
            found = learned.found if learned else self._psf(character, reasons)
            yield Turn.READY
            grid = source.grid()  # Planes that come later than this are not in the volume.
            if learned:
                yield from learned.stack.taking(at_once=True)
            if learned and learned.trust.best != "network":
                reasons.append(
                    f"on held-out planes the network gained {learned.trust.network:+.1f} dB over interpolation, "
                    f"Richardson–Lucy {learned.trust.richardson_lucy:+.1f} dB: {learned.trust.best} was used"
                )
            while not self._claim():
                yield Turn.WAITING
            yield from self._writing(lambda: self._store.journal.set_state(source.stack, "restoring"))
            tidy_up(source)
            writer = yield from self._writing(
                lambda: RestoredWriter.create(self._store, dtype=source.acquisition.dtype)
            )
            land = partial(self._landing, grid, found, character, writer)
            ahead = self._network.ahead
            method, field, fidelity = yield from self._restored(grid, learned, found, character, land)
            # What is left of planes without haze is divided by the core's share of the light, and so are errors in it.
            bearable = min(LIGHT_LOST / (field.core_share if field else 1.0), _MOST_LIGHT_LOST)
            ratio = fidelity.flux_ratio
            told_ratio = f"the network made {ratio:.2f} times the light of the planes"
            if learned and abs(ratio - 1) > bearable:
                if abs(ratio - 1) <= _MOST_LIGHT_LOST:  # brightness as a whole is what slices tell it least of
                    reasons.append(f"{told_ratio}: all of the volume was scaled to theirs")
                    background = character.noise.offset
                    fidelity = yield from land(scaled(writer, source.stack, grid, background, 1 / ratio), field)
                elif settings.budget.steps is None:
                    # Light must not be lost: no sharpness is worth it.
                    reasons.append(
                        f"{told_ratio}, more than {_MOST_LIGHT_LOST:.0%} off, though it gained "
                        f"{learned.trust.network:+.1f} dB on held-out planes: interpolated; a longer budget may help"
                    )
                    method, learned = interpolate(grid), None
                    fidelity = yield from land(method, None)
            if learned and fidelity.unexplained > _MOST_UNEXPLAINED:
                reasons.append(
                    f"imaged again, the volume misses {fidelity.unexplained:.0%} of what the planes show, beyond "
                    f"their noise, though the network gained {learned.trust.network:+.1f} dB on held-out planes: "
                    "interpolated; blur and haze of this stack are other than those of a microscope"
                )
                method, learned = interpolate(grid), None
                fidelity = yield from land(method, None)
            if learned and learned.trust.best == "network" and schedule.yz_through == 0:
                reasons.append("time for XZ slices alone: YZ slices did not go through the network")
        with self._timed("pyramid"):
            yield from self._writing(lambda: writer.finish(source.stack, threads=WRITERS))
        self._learn_costs(learned, method)
        told = provenance(
            source,
            settings,
            self._compute,
            method=method.name,
            grid=grid,
            character=character,
            found=found,
            fidelity=fidelity,
            learned=learned,
            earlier=earlier,
            yz_slices=schedule.yz_through if learned and learned.trust.best == "network" else None,
            ahead=ahead if learned else 0.0,
            warnings=reasons,
            timing=timing(source, schedule, self._timings),
        )

        def sign() -> None:
            writer.write_provenance(source.stack, told)
            told_when = told["timing"]
            self._note(
                "restored",
                method=method.name,
                warnings=told["warnings"],
                deadline=told_when["deadline"],
                in_hand_s=round(told_when["deadline"] - told_when["restored"], 3),
                since_first_plane_s=told_when["since_first_plane_s"],
                since_last_plane_s=told_when["since_last_plane_s"],
            )
            self._store.journal.finish_stack(source.stack, len(grid.planes))

        yield from self._writing(sign)
        if source.is_last:
            self._memory.forget(self._store.session, source.stack)
        elif learned and learned.denoiser_steps and learned.trust.best == "network":
            lesson = Lesson(source.stack, learned.denoiser.network, learned.network, learned.weights)
            self._memory.keep(self._store.session, lesson)
        self._progress("restored", 1.0)
        return told

    def _planes(self, wanted: int | None) -> Work[None]:
        """Wait until ``wanted`` planes are durable, or no more will come."""
        while True:
            arrivals = self.source.arrivals()
            if arrivals.complete and arrivals.received == 0:
                t, c = self.source.stack
                raise EmptyStackError(f"no plane of stack t={t} c={c} arrived")
            if arrivals.complete or (wanted is not None and arrivals.received >= wanted):
                return
            yield Turn.WAITING

    def _learning(self, reasons: list[str], earlier: Lesson | None) -> Work[tuple[Learned, Speedometer] | None]:
        """Learn where the method asks for it and the stack allows it; otherwise add to the reasons why not."""
        source, settings, schedule, compute = self.source, self._settings, self.schedule, self._compute
        store = self._store
        if not settings.learns:
            return None
        planes = source.arrivals().received
        if planes < FEWEST_PLANES:
            reasons.append(f"{planes} planes are too few to learn from (at least {FEWEST_PLANES}): interpolated")
            return None
        if not schedule.worth_learning(source.voxels):
            raise OutOfTimeError
        character = characterise(source)
        torch.manual_seed(settings.seed)
        start = networks_to_start_from(source, settings, earlier, schedule, compute)
        speed = start.speed
        schedule.reserve(lambda: speed.measured_lately().restoring_time(len(source.extent)))
        while character.scale <= 0 and not source.arrivals().complete:
            yield Turn.WAITING  # the first planes lie outside the sample
            character = characterise(source)
        if character.scale <= 0 and (character := characterise(source)).scale <= 0:
            reasons.append("the stack has no contrast, every pixel is alike: interpolated")
            return None
        self._decide("learn", start.why)
        finetune = settings.method != "pretrained"
        learned = yield from learn(
            source,
            start.deblurring,
            character,
            schedule,
            speed,
            compute,
            seed=settings.seed,
            progress=self._progress,
            finetune=finetune,
            measured=settings.psf,
            layers=settings.layers,
            denoising=start.denoising,
            curve=Curve(partial(store.journal.note_in_passing, "training", stack=list(source.stack))),
            room=self._writing,
        )
        self._decide("stop learning", schedule.why_no_longer, steps=learned.steps)
        self._note(
            "training",
            stage="examined",
            steps=learned.steps,
            gain_db=round(learned.trust.network, 3),
            richardson_lucy_gain_db=round(learned.trust.richardson_lucy, 3),
        )
        if schedule.finishing:
            reasons.append(f"learning ended after {learned.steps} steps, as somebody asked")
        elif finetune and learned.steps == 0:
            reasons.append("no time to fine-tune before the deadline: the pre-trained network was used as it is")
        return replace(learned, weights=start.weights), speed

    def _restored(
        self, grid: Grid, learned: Learned | None, found: FoundPsf, character: Character, land: Land
    ) -> Work[tuple[Method, HazeField | None, Fidelity]]:
        """Restore and land; return the way it was done, the haze that was taken away, and what came of it."""
        field: HazeField | None = None
        if learned and learned.trust.best != "interpolate":
            planes = learned.clean(grid)
            field = planes.field
            if learned.trust.best == "network":
                method, fidelity = yield from self._network.restored(learned, planes, land)
                return method, field, fidelity
            method = clean_richardson_lucy(planes)
        elif learned is None and self._settings.method == "richardson-lucy":
            method = richardson_lucy(grid, found.psf.kernel, character.origin)
        else:
            method = interpolate(grid)
        self.schedule.watch = Watch.LAST_MOMENT if method.name == "richardson-lucy" else Watch.NOTHING
        return method, field, (yield from land(method, field))

    def _landing(
        self,
        grid: Grid,
        found: FoundPsf,
        character: Character,
        writer: RestoredWriter,
        method: Method,
        field: HazeField | None,
    ) -> Work[Fidelity]:
        source = self.source
        step = 1.0 if source.acquisition.numpy_dtype.kind in "ui" else 0.0
        fidelity = Fidelity(grid, character.noise, found.psf.kernel, field, step=step)
        self._decide("land", f"method {method.name}")
        self._began_to_land = self.schedule.spent
        yield from landing(source, grid, method, fidelity, writer, self._compute, self._landed, self._writing)
        return fidelity

    def _landed(self, stage: str, share: float) -> None:
        self.schedule.landed = share
        self._progress(stage, share)

    def _characterised(self, reasons: list[str]) -> Character:
        """Characterise a stack that was not learnt from; to interpolate it, that may fail."""
        try:
            return characterise(self.source)
        except OSError:
            raise
        except Exception as error:
            if self._settings.method != "interpolate":
                raise
            reasons.append(f"noise could not be estimated ({type(error).__name__}: {error})")
            return uncharacterised()

    def _psf(self, character: Character, reasons: list[str]) -> FoundPsf:
        """Find the point spread function of a stack that was not learnt from; a usual one if that fails."""
        measured: Path | None = self._settings.psf
        try:
            return find_psf(self.source, character.noise, measured)
        except OSError:
            raise
        except Exception as error:
            reasons.append(f"blur could not be estimated ({type(error).__name__}: {error})")
            return usual_psf(self.source)

    def _learn_costs(self, learned: Learned | None, method: Method) -> None:
        """Let the next stacks know what this one cost."""
        spent, voxels = self.schedule.spent, self.source.voxels
        if learned:
            landed, taken = spent - self.schedule.measured_at, spent - self.schedule.trained
            measured = self.schedule.measured(self.schedule.yz_through)
            self._costs.restored(voxels, measured=measured, landed=landed, taken=taken)
        elif method.name == "interpolate":
            self._costs.interpolated(voxels, spent - self._began_to_land)

    def _decide(self, what: str, why: str, **figures: float) -> None:
        """Note a decision in the journal, and the figures behind it. That it takes none is no reason to stop."""
        if self._settings.budget.steps is None:
            figures |= self.schedule.figures()
        rounded = {name: round(value, 3) for name, value in figures.items()}
        with suppress(OSError, sqlite3.Error):
            self._note("decision", decision=what, reason=why, **rounded)

    def _note(self, kind: str, **detail: Any) -> None:
        self._store.journal.note(kind, stack=list(self.source.stack), **detail)

    @contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        """Take the time that the stack has the device during a stage."""
        before = self.schedule.spent
        yield
        self._timings[stage] = self.schedule.spent - before


def expected_demand(source: StackSource, settings: Settings, costs: Costs) -> Demand:
    """Return what a stack that has not been begun will ask of the device."""
    arrivals, voxels = source.arrivals(), source.voxels
    last = arrivals.last(time.time())
    deadline = settings.budget.deadline(arrivals.first, last)
    return Demand(deadline, costs.restoring(voxels), costs.interpolating(voxels), arrived=last)


def restore_stack(
    store: SessionStore,
    stack: StackIndex,
    settings: Settings,
    compute: Compute,
    *,
    progress: Progress = lambda stage, done: None,
    others: Callable[[], Sequence[Demand]] = lambda: (),
    patient: bool = False,
    memory: Memory | None = None,
    costs: Costs | None = None,
) -> dict[str, Any]:
    """Restore one stack, from its first planes on, and land the volume in its session store.

    Parameters
    ----------
    store, stack, settings, compute, progress, others, patient, memory, costs
        As those of :class:`Restoration`.

    Returns
    -------
    dict
        The provenance, as it is written beside the volume.

    Raises
    ------
    EmptyStackError
        If the arrivals closed before the stack had a plane.
    OSError
        If the disk is full (where it is not waited for room) or fails.
    """
    restoration = Restoration(
        store,
        stack,
        settings,
        compute,
        progress=progress,
        others=others,
        patient=patient,
        memory=memory,
        costs=costs,
    )
    while restoration.provenance is None:
        if restoration.turn() is Turn.WAITING:
            time.sleep(_POLL)
    return restoration.provenance
