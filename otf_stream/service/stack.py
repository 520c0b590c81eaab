"""One stack from its first planes to its restored volume: the eight stages in order.

``serve`` and ``restore`` both come here. Whatever happens, the stack ends in a complete volume: where learning
cannot be done (too few planes, no contrast, no time) the planes are interpolated, and the provenance says so.
"""

from __future__ import annotations

import platform
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from otf_stream import __version__
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
from otf_stream.service.learning import FIRST_PLANES, Learned, Progress, attuned, learn, restoring_time
from otf_stream.service.source import StackSource
from otf_stream.store.disk import is_full
from otf_stream.store.restored import BLOCK, RestoredWriter
from otf_stream.store.session import SessionStore

Written = TypeVar("Written")

_POLL = 0.1
_ROOM_POLL = 5.0
_FEWEST_PLANES = 5
_SATURATED = 1e-3
_DISAGREEMENT = 1.5
_LIGHT_LOST, _MOST_LIGHT_LOST = 0.03, 0.25


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
    """

    method: MethodName = "auto"
    budget: Budget = field(default_factory=Budget)
    seed: int = 0
    psf: Path | None = None
    weights: Path | None = None
    layers: LayerChoice = "all"


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
        return _restore(store, stack, settings, compute, progress, waiting, patient, [])
    except (EmptyStackError, OSError):
        raise
    except Exception as error:
        if settings.method == "interpolate":
            raise
        store.journal.note("failure", stack=list(stack), trace=traceback.format_exc())
        failed = f"restoring with method {settings.method} failed ({type(error).__name__}: {error}): interpolated"
        plain = replace(settings, method="interpolate")
        return _restore(store, stack, plain, compute, progress, waiting, patient, [failed])


def _restore(
    store: SessionStore,
    stack: StackIndex,
    settings: Settings,
    compute: Compute,
    progress: Progress,
    waiting: Callable[[], int],
    patient: bool,
    failures: Sequence[str],
) -> dict[str, Any]:
    """Take a stack through the stages; its provenance tells of earlier ``failures``."""
    source = StackSource(store, stack)
    timings: dict[str, float] = {}
    with _timed(timings, "wait"):
        _await_planes(source, FIRST_PLANES)
    schedule = Schedule(settings.budget, source.arrivals, waiting=waiting)
    progress("characterise", 0.0)
    with _timed(timings, "learn"):
        character, reasons = _characterised(source, after_failure=bool(failures))
        learned = _learn_if_possible(source, character, schedule, settings, compute, progress, reasons)
    _await_planes(source, source.acquisition.sizes.z)
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
        bearable = min(_LIGHT_LOST / (field.core_share if field else 1.0), _MOST_LIGHT_LOST)
        if learned and settings.budget.steps is None and abs(fidelity.flux_ratio - 1) > bearable:
            # Light must not be lost: no sharpness is worth it.
            reasons.append(f"the network made {fidelity.flux_ratio:.2f} times the light of the planes: interpolated")
            method, learned = interpolate(grid), None
            fidelity = written(lambda: land(method, None))
    with _timed(timings, "pyramid"):
        written(lambda: writer.finish(stack))
    warnings = [*failures, *reasons, *_warnings(source), *(_doubts(fidelity) if learned else [])]
    timing = _timing(source, schedule, timings)
    if timing["late"] and settings.budget.steps is None:
        warnings.append(
            f"late by {timing['restored'] - timing['deadline']:.1f} s: the machine was busier than measured"
        )
    provenance = {
        "method": method.name,
        "warnings": warnings,
        "missing_planes": sorted(set(range(source.acquisition.sizes.z)) - set(grid.planes)),
        "flux_ratio": fidelity.flux_ratio,
        "residual": fidelity.residual,
        "noise": {**asdict(character.noise), "grain": list(character.noise.grain)},
        "axial_blur": _blur(found),
        "training": _training(learned),
        "trust": _trust(learned),
        "settings": _told(settings),
        "timing": timing,
        "versions": _versions(),
        "compute": {"device": str(compute), "threads": torch.get_num_threads(), "machine": platform.machine()},
    }

    def sign() -> None:
        writer.write_provenance(stack, provenance)
        store.journal.note("restored", stack=list(stack), method=method.name, warnings=warnings)
        store.journal.set_state(stack, "restored")

    written(sign)
    progress("restored", 1.0)
    return provenance


def _await_planes(source: StackSource, wanted: int) -> None:
    """Wait until ``wanted`` planes are durable or no more will come."""
    while True:
        arrivals = source.arrivals()
        if arrivals.complete and arrivals.received == 0:
            raise EmptyStackError(f"no plane of stack t={source.stack[0]} c={source.stack[1]} arrived")
        if arrivals.complete or arrivals.received >= min(wanted, arrivals.expected):
            return
        time.sleep(_POLL)


def _learn_if_possible(
    source: StackSource,
    character: Character,
    schedule: Schedule,
    settings: Settings,
    compute: Compute,
    progress: Progress,
    reasons: list[str],
) -> Learned | None:
    """Learn where the method asks for it and the stack allows it; otherwise add to the reasons why not."""
    if settings.method not in ("auto", "finetune", "pretrained"):
        return None
    arrivals = source.arrivals()
    planes = arrivals.received if arrivals.complete else arrivals.expected
    if planes < _FEWEST_PLANES:
        reasons.append(f"{planes} planes are too few to learn from (at least {_FEWEST_PLANES}): interpolated")
        return None
    torch.manual_seed(settings.seed)
    network, weights = network_to_deblur(settings.weights), digest(settings.weights)
    schedule.reserve(lambda: restoring_time(network, shipped_network("denoise"), source, compute))
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
    )
    _await_planes(source, source.acquisition.sizes.z)
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
        field = learned.stack.haze(found, grid.planes)
        kernel = found.psf.kernel
        if learned.trust.best == "richardson-lucy":
            return clean_richardson_lucy(grid, learned.denoiser, field, kernel, character.origin), field
        deblurred = deblur(
            grid,
            learned.denoiser,
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
        writer.write(source.stack, (region.y, region.x), volume.cpu().numpy())


def _warnings(source: StackSource) -> list[str]:
    """What a user of the volume should know about its raw planes."""
    warnings = []
    sizes, there = source.acquisition.sizes, source.planes()
    if missing := sizes.z - len(there):
        warnings.append(f"{missing} of {sizes.z} planes never came: bridged from their neighbours")
    if source.unreadable:
        warnings.append("pixels that were not numbers (NaN or infinite) were replaced by their plane's median")
    dtype = source.acquisition.numpy_dtype
    if dtype.kind in "ui":
        planes = source.read(there[:: max(len(there) // 8, 1)])
        share = float((planes >= np.iinfo(dtype).max).mean())
        if share > _SATURATED:
            warnings.append(f"{share:.1%} of the pixels are saturated: their true intensity is unknown")
    if source.acquisition.voxel_size.anisotropy < 1:
        warnings.append(
            "the z step is smaller than the pixel: the isotropic grid samples z more coarsely than the planes"
        )
    return warnings


def _doubts(fidelity: Fidelity) -> list[str]:
    """What speaks against the network, from figures that need no truth."""
    doubts = []
    if abs(fidelity.flux_ratio - 1) > _LIGHT_LOST:
        doubts.append(
            f"the volume has {fidelity.flux_ratio:.2f} times the light of the raw planes: the network was trained too "
            "little (give it more time or steps), or haze was taken away that was none, or not all of it"
        )
    if fidelity.residual > _DISAGREEMENT:
        doubts.append(
            f"the volume, imaged again, differs from the raw planes by {fidelity.residual:.1f} standard deviations of "
            "the estimated noise: the noise is stronger than estimated, or the blur is another"
        )
    return doubts


def _blur(found: FoundPsf) -> dict[str, Any]:
    blur = found.blur
    return {
        "width": found.psf.width,
        "lateral_sigma": found.psf.lateral_sigma,
        "beyond_lateral_sigma": blur.sigma,
        "spread": blur.spread,
        "origin": found.origin,
        "core_share": found.psf.core_share,
    }


def _training(learned: Learned | None) -> dict[str, Any] | None:
    if learned is None:
        return None
    tail = learned.losses[-20:]
    return {
        "denoiser_steps": learned.denoiser_steps,
        "steps": learned.steps,
        "final_loss": sum(tail) / max(len(tail), 1),
        "parameters": sum(p.numel() for p in learned.network.parameters()),
        "weights_sha256": learned.weights,
        "layers": [] if learned.steps == 0 else "all" if learned.layers is None else list(learned.layers),
    }


def _told(settings: Settings) -> dict[str, Any]:
    files = {"psf": settings.psf, "weights": settings.weights}
    return {**asdict(settings), **{name: path and str(path) for name, path in files.items()}}


def _trust(learned: Learned | None) -> dict[str, Any] | None:
    if learned is None:
        return None
    return {
        "network_gain_db": learned.trust.network,
        "richardson_lucy_gain_db": learned.trust.richardson_lucy,
        "held_out_planes": learned.trust.planes,
    }


def _timing(source: StackSource, schedule: Schedule, timings: dict[str, float]) -> dict[str, Any]:
    arrivals, now = source.arrivals(), time.time()
    return {
        "stages_s": {stage: round(seconds, 3) for stage, seconds in timings.items()},
        "first_plane": arrivals.first,
        "last_plane": arrivals.latest,
        "restored": now,
        "since_first_plane_s": round(now - arrivals.first, 3),
        "since_last_plane_s": round(now - arrivals.latest, 3),
        "deadline": schedule.deadline,
        "late": now > schedule.deadline,
    }


def _versions() -> dict[str, str]:
    return {
        "otf_stream": __version__,
        "python": platform.python_version(),
        **{package: version(package) for package in ("numpy", "torch", "zarr")},
    }


@contextmanager
def _timed(timings: dict[str, float], stage: str) -> Iterator[None]:
    begun = time.monotonic()
    yield
    timings[stage] = time.monotonic() - begun
