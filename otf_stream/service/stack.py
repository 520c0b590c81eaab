"""One stack from its first planes to its restored volume: the eight stages in order.

``serve`` and ``restore`` both come here. Whatever happens, the stack ends in a complete volume: where learning
cannot be done (too few planes, no contrast, no time) the planes are interpolated, and the provenance says so.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from otf_stream.acquisition import StackIndex
from otf_stream.config import LayerChoice, MethodName
from otf_stream.learn.checkpoints import digest, network_to_deblur, shipped_network
from otf_stream.learn.compute import Compute
from otf_stream.restore.fidelity import Fidelity
from otf_stream.restore.methods import Grid, HazeField, clean_richardson_lucy, deblur, interpolate, richardson_lucy
from otf_stream.restore.regions import Method, restore_region, split_into_regions
from otf_stream.service.budget import Budget, Schedule
from otf_stream.service.character import (
    Character,
    FoundPsf,
    characterise,
    find_psf,
    uncharacterised,
    usual_psf,
)
from otf_stream.service.learning import FEWEST_PLANES, Learned, Progress, attuned, learn, restoring_time
from otf_stream.service.memory import Lesson, Memory
from otf_stream.service.provenance import LIGHT_LOST, provenance, timing
from otf_stream.service.source import StackSource
from otf_stream.store.disk import is_full
from otf_stream.store.restored import BLOCK, RestoredWriter
from otf_stream.store.session import SessionStore

Written = TypeVar("Written")

_POLL = 0.1
_ROOM_POLL = 5.0
_MOST_LIGHT_LOST = 0.25


@dataclass(frozen=True)
class Settings:
    """How stacks are restored.

    Parameters
    ----------
    method
        ``auto`` and ``finetune`` fine-tune the pre-trained network on the stack, ``pretrained`` uses it as it is; all
        three denoise the stack by learning from it, and interpolate where that cannot be done.
    budget
        Time, or steps, that a stack may take.
    seed
        Of every draw.
    psf
        File of a measured point spread function; estimated from the stack if None.
    weights
        File of the network to start from; the shipped one if None.
    layers
        Which of its layers are fine-tuned: all, or those that ZEST selects.
    silence
        Seconds without a plane after which a stack is restored from what is there; never if None.
    """

    method: MethodName = "auto"
    budget: Budget = field(default_factory=Budget)
    seed: int = 0
    psf: Path | None = None
    weights: Path | None = None
    layers: LayerChoice = "all"
    silence: float | None = None


class EmptyStackError(RuntimeError):
    """Not one plane of a stack arrived, so there is nothing to restore."""


def restore_stack(
    store: SessionStore,
    stack: StackIndex,
    settings: Settings,
    compute: Compute,
    *,
    progress: Progress = lambda stage, done: None,
    waiting: Callable[[], int] = lambda: 1,
    patient: bool = False,
    memory: Memory | None = None,
) -> dict[str, Any]:
    """Restore one stack, from its first planes on, and land the volume in its session store.

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
    waiting
        How many stacks, this one included, share the device now.
    patient
        Wait for room where the disk is full, rather than raise.
    memory
        Of earlier time points, from whose networks this one starts; what is learnt of it is added.

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

    Notes
    -----
    Where learning fails for whatever other reason, which is noted in the journal, the stack is interpolated.
    """
    try:
        return _restore(store, stack, settings, compute, progress, waiting, patient, memory or Memory(), [])
    except (EmptyStackError, OSError):
        raise
    except Exception as error:
        if settings.method == "interpolate":
            raise
        store.journal.note("failure", stack=list(stack), trace=traceback.format_exc())
        failed = f"restoring with method {settings.method} failed ({type(error).__name__}: {error}): interpolated"
        plain = replace(settings, method="interpolate")
        return _restore(store, stack, plain, compute, progress, waiting, patient, Memory(), [failed])


def _restore(
    store: SessionStore,
    stack: StackIndex,
    settings: Settings,
    compute: Compute,
    progress: Progress,
    waiting: Callable[[], int],
    patient: bool,
    memory: Memory,
    failures: Sequence[str],
) -> dict[str, Any]:
    """Take a stack through the stages; its provenance tells of earlier ``failures``."""
    source = StackSource(store, stack, silence=settings.silence)
    timings: dict[str, float] = {}
    with _timed(timings, "wait"):
        _await_planes(source, FEWEST_PLANES)
    schedule = Schedule(settings.budget, source.arrivals, waiting=waiting)
    progress("characterise", 0.0)
    with _timed(timings, "learn"):
        character, reasons = _characterised(source, after_failure=bool(failures))
        earlier = memory.recall(store.session, stack)
        learned = _learn_if_possible(source, character, schedule, settings, compute, progress, reasons, earlier)
    _await_all_planes(source)
    with _timed(timings, "restore"):
        character = learned.character if learned else _characterised(source, after_failure=bool(failures))[0]
        found = learned.found if learned else _psf(source, character, settings.psf, reasons)
        grid = source.grid()  # Planes that come later than this are not in the volume.
        method, field = _method(settings.method, grid, character, found, learned, compute)
        if learned and learned.trust.best != "network":
            reasons.append(
                f"on held-out planes the network gained {learned.trust.network:+.1f} dB over interpolation, "
                f"Richardson–Lucy {learned.trust.richardson_lucy:+.1f} dB: {method.name} was used"
            )
        written = partial(_with_room, store, patient)
        written(lambda: store.journal.set_state(stack, "restoring"))
        writer = written(lambda: RestoredWriter.create(store, dtype=source.acquisition.dtype))

        def land(method: Method, field: HazeField | None) -> Fidelity:
            step = 1.0 if source.acquisition.numpy_dtype.kind in "ui" else 0.0
            fidelity = Fidelity(grid, character.noise, found.psf.kernel, field, step=step)
            _land(source, grid, method, fidelity, writer, compute, progress)
            return fidelity

        fidelity = written(lambda: land(method, field))
        # What is left of planes without haze is divided by the core's share of the light, and so are errors in it.
        bearable = min(LIGHT_LOST / (field.core_share if field else 1.0), _MOST_LIGHT_LOST)
        if learned and settings.budget.steps is None and abs(fidelity.flux_ratio - 1) > bearable:
            # Light must not be lost: no sharpness is worth it.
            reasons.append(f"the network made {fidelity.flux_ratio:.2f} times the light of the planes: interpolated")
            method, learned = interpolate(grid), None
            fidelity = written(lambda: land(method, None))
    with _timed(timings, "pyramid"):
        written(lambda: writer.finish(stack))
    told = provenance(
        source,
        settings,
        compute,
        method=method.name,
        grid=grid,
        character=character,
        found=found,
        fidelity=fidelity,
        learned=learned,
        earlier=earlier,
        warnings=[*failures, *reasons],
        timing=timing(source, schedule, timings),
    )

    def sign() -> None:
        writer.write_provenance(stack, told)
        store.journal.note("restored", stack=list(stack), method=method.name, warnings=told["warnings"])
        store.journal.finish_stack(stack, len(grid.planes))

    written(sign)
    if learned and learned.steps and learned.trust.best == "network":
        memory.keep(store.session, Lesson(stack, learned.denoiser.network, learned.network, learned.weights))
    progress("restored", 1.0)
    return told


def _await_planes(source: StackSource, wanted: int) -> None:
    """Wait until ``wanted`` planes are durable or no more will come."""
    while True:
        arrivals = source.arrivals()
        if arrivals.complete and arrivals.received == 0:
            raise EmptyStackError(f"no plane of stack t={source.stack[0]} c={source.stack[1]} arrived")
        if arrivals.complete or arrivals.received >= wanted:
            return
        time.sleep(_POLL)


def _await_all_planes(source: StackSource) -> None:
    """Wait until no more planes will come."""
    while not source.arrivals().complete:
        time.sleep(_POLL)


def _learn_if_possible(
    source: StackSource,
    character: Character,
    schedule: Schedule,
    settings: Settings,
    compute: Compute,
    progress: Progress,
    reasons: list[str],
    earlier: Lesson | None,
) -> Learned | None:
    """Learn where the method asks for it and the stack allows it; otherwise add to the reasons why not."""
    if settings.method not in ("auto", "finetune", "pretrained"):
        return None
    planes = source.arrivals().received
    if planes < FEWEST_PLANES:
        reasons.append(f"{planes} planes are too few to learn from (at least {FEWEST_PLANES}): interpolated")
        return None
    torch.manual_seed(settings.seed)
    if earlier:
        network, denoising, weights = earlier.deblurring, earlier.denoising, earlier.weights
    else:
        network, denoising = network_to_deblur(settings.weights), shipped_network("denoise")
        weights = digest(settings.weights)
    schedule.reserve(lambda: restoring_time(network, denoising, source, compute, to_denoise=len(source.extent)))
    while character.scale <= 0 and not source.arrivals().complete:
        time.sleep(_POLL)  # the first planes lie outside the sample
        character = characterise(source)
    if character.scale <= 0 and (character := characterise(source)).scale <= 0:
        reasons.append("the stack has no contrast, every pixel is alike: interpolated")
        return None
    if not schedule.worth_training:
        reasons.append("no time to learn before the deadline: interpolated")
        return None
    finetune = settings.method != "pretrained"
    learned = learn(
        source,
        network,
        character,
        schedule,
        compute,
        seed=settings.seed,
        progress=progress,
        finetune=finetune,
        measured=settings.psf,
        layers=settings.layers,
        denoising=denoising,
    )
    _await_all_planes(source)
    if not schedule.time_to_restore:
        reasons.append("no time to restore with the network before the deadline, the machine is too busy: interpolated")
        return None
    if finetune and learned.steps == 0:
        reasons.append("no time to fine-tune before the deadline: the pre-trained network was used as it is")
    learned.stack.take(at_once=True)
    return replace(attuned(learned, compute), weights=weights)


def _characterised(source: StackSource, *, after_failure: bool) -> tuple[Character, list[str]]:
    """Characterise the stack; where that may be what failed before, do without and say so."""
    try:
        return characterise(source), []
    except OSError:
        raise
    except Exception as error:
        if not after_failure:
            raise
        return uncharacterised(), [f"noise could not be estimated ({type(error).__name__}: {error})"]


def _psf(source: StackSource, character: Character, measured: Path | None, reasons: list[str]) -> FoundPsf:
    """Find the point spread function of a stack that was not learnt from; a usual one if that fails."""
    try:
        return find_psf(source, character.noise, measured)
    except OSError:
        raise
    except Exception as error:
        reasons.append(f"blur could not be estimated ({type(error).__name__}: {error})")
        return usual_psf(source)


def _method(
    choice: MethodName, grid: Grid, character: Character, found: FoundPsf, learned: Learned | None, compute: Compute
) -> tuple[Method, HazeField | None]:
    """Return the way to restore, and the haze that it takes away."""
    if learned and learned.trust.best == "interpolate":
        return interpolate(grid), None
    if learned:
        field, cleaner = learned.stack.haze(found, grid.planes), learned.stack.cleaner(grid.planes)
        kernel = found.psf.kernel
        if learned.trust.best == "richardson-lucy":
            return clean_richardson_lucy(grid, cleaner, field, kernel, character.origin), field
        deblurred = deblur(
            grid,
            cleaner,
            field,
            kernel,
            learned.network,
            compute,
            origin=character.origin,
            scale=learned.scale,
        )
        return replace(deblurred, name="finetune" if learned.steps else "pretrained"), field
    if choice == "richardson-lucy":
        return richardson_lucy(grid, found.psf.kernel, character.origin), None
    return interpolate(grid), None


def _with_room(store: SessionStore, patient: bool, write: Callable[[], Written]) -> Written:
    """Write; where the disk is full and there is patience, write again when there may be room."""
    while True:
        try:
            return write()
        except OSError as error:
            if not (patient and is_full(error)):
                raise
            with suppress(OSError):  # the journal lies on the same disk
                store.journal.note("stage", stage="waiting for room on the disk")
            time.sleep(_ROOM_POLL)


def _land(
    source: StackSource,
    grid: Grid,
    method: Method,
    fidelity: Fidelity,
    writer: RestoredWriter,
    compute: Compute,
    progress: Progress,
) -> None:
    """Restore region by region into the store, and compare each with its raw planes."""
    sizes = source.acquisition.sizes
    regions = list(split_into_regions(grid.depth, sizes.y, sizes.x, block=BLOCK, halo=method.halo))
    for index, region in enumerate(regions):
        progress("restore", index / len(regions))
        raw = torch.from_numpy(source.read(grid.planes, region.halo_y, region.halo_x)).to(compute.device)
        volume = restore_region(method, region, raw)
        y, x = region.inner
        fidelity.add(raw[:, y, x], volume, region)
        # Where the channel has no planes, nothing is known: zeros.
        ends = grid.start, writer.shape[0] - grid.start - grid.depth
        writer.write(source.stack, (region.y, region.x), np.pad(volume.cpu().numpy(), (ends, (0, 0), (0, 0))))


@contextmanager
def _timed(timings: dict[str, float], stage: str) -> Iterator[None]:
    begun = time.monotonic()
    yield
    timings[stage] = time.monotonic() - begun
