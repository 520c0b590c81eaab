"""The provenance of a restored stack: how its volume came about, and what its user should know.

It is written beside the volume as JSON, so all of it is plain numbers, strings and lists. Warnings are sentences for a
microscopist; whatever was not done as planned is among them.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from typing import Any

import numpy as np
import torch

from otf_stream import __version__
from otf_stream.learn.compute import Compute
from otf_stream.restore.fidelity import Fidelity
from otf_stream.restore.methods import Grid
from otf_stream.service.budget import Schedule
from otf_stream.service.character import Character, FoundPsf
from otf_stream.service.learning import Learned
from otf_stream.service.memory import Lesson
from otf_stream.service.settings import Settings
from otf_stream.service.source import StackSource

LIGHT_LOST = 0.03
"""The share of the light that may be lost or won without a warning."""
_SATURATED = 1e-3
_DISAGREEMENT = 1.5


def provenance(
    source: StackSource,
    settings: Settings,
    compute: Compute,
    *,
    method: str,
    grid: Grid,
    character: Character,
    found: FoundPsf,
    fidelity: Fidelity,
    learned: Learned | None,
    earlier: Lesson | None,
    yz_slices: float | None,
    ahead: float,
    warnings: Sequence[str],
    timing: dict[str, Any],
) -> dict[str, Any]:
    """Put together all that is to be told of a restored stack.

    Parameters
    ----------
    source, settings, compute
        What was restored, how and on what.
    method
        Name of the method in the end.
    grid
        The planes that the volume was made of.
    character, found
        Noise and point spread function.
    fidelity
        The volume against its planes.
    learned, earlier
        What was learnt of the stack, and of the time point that it started from, if the volume came of it.
    yz_slices
        Which share of the YZ slices went through the network, beside all XZ slices; None where the network had no part.
    ahead
        Which share of the volume was restored before the last plane had come.
    warnings
        Those that are known; more are added.
    timing
        As from `timing`.
    """
    late = []
    if timing["late"] and settings.budget.steps is None:
        late.append(f"late by {timing['restored'] - timing['deadline']:.1f} s: the machine was busier than measured")
    return {
        "method": method,
        "warnings": [*warnings, *_warnings(source), *(doubts(fidelity) if learned else []), *late],
        "missing_planes": sorted(set(source.extent) - set(grid.planes)),
        "flux_ratio": fidelity.flux_ratio,
        "unexplained": fidelity.unexplained,
        "residual": fidelity.residual,
        "noise": {**asdict(character.noise), "grain": list(character.noise.grain)},
        "axial_blur": _blur(found),
        "training": _training(learned, earlier),
        "yz_slices": yz_slices,
        "ahead": round(ahead, 3),
        "trust": _trust(learned),
        "settings": _told(settings),
        "timing": timing,
        "versions": _versions(),
        "compute": {"device": str(compute), "threads": torch.get_num_threads(), "machine": platform.machine()},
    }


def timing(source: StackSource, schedule: Schedule, timings: dict[str, float]) -> dict[str, Any]:
    """Tell when the planes came, how long each stage took, and whether the volume is late."""
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


def _warnings(source: StackSource) -> list[str]:
    """What a user of the volume should know about its raw planes."""
    warnings = []
    extent, there = source.extent, source.planes()
    if missing := len(set(extent) - set(there)):
        warnings.append(f"{missing} of {len(extent)} planes never came: bridged from their neighbours")
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


def doubts(fidelity: Fidelity) -> list[str]:
    """What speaks against the network, from figures that need no truth."""
    doubts = []
    if abs(fidelity.flux_ratio - 1) > LIGHT_LOST:
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


def _training(learned: Learned | None, earlier: Lesson | None) -> dict[str, Any] | None:
    if learned is None:
        return None
    tail = learned.losses[-20:]
    return {
        "denoiser_steps": learned.denoiser_steps,
        "steps": learned.steps,
        "final_loss": sum(tail) / max(len(tail), 1),
        "parameters": sum(p.numel() for p in learned.network.parameters()),
        "weights_sha256": learned.weights,
        "started_from": "t{}c{}".format(*earlier.stack) if earlier else None,
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


def _versions() -> dict[str, str]:
    return {
        "otf_stream": __version__,
        "python": platform.python_version(),
        **{package: version(package) for package in ("numpy", "torch", "zarr")},
    }
