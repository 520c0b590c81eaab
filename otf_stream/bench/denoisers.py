"""``otf-stream bench denoisers``: families of self-supervised denoising, compared in equal time.

All that are ours train one network, :func:`otf_stream.learn.denoise.denoising_network`, on the same noisy planes with
the same neighbours beside them, and differ in nothing but what they are asked to predict. Two that start from the
shipped weights show what pre-training is worth, and how best to go on from it; N2V2 from careamics what others reach.

References
----------
Krull, Buchholz, Jug: Noise2Void, CVPR 2019 (blind spot).
Huang et al.: Neighbor2Neighbor, CVPR 2021 (neighbour sub-sampling).
Pang, Zheng, Quan, Ji: Recorrupted-to-Recorrupted, CVPR 2021 (recorruption).
Zhang et al.: IDR, CVPR 2022 (rehearsal: the planes as they are denoised so far, with noise drawn anew).
Lehtinen et al.: Noise2Noise, ICML 2018 (plane to plane: the next plane is nearly the same sample).
Höck et al.: N2V2, ECCV workshops 2022.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch
from torch import Tensor

from otf_stream import __version__
from otf_stream.bench.cases import Case
from otf_stream.bench.contenders import version_of_ours
from otf_stream.bench.elsewhere import run_elsewhere
from otf_stream.bench.results import Result, machine, read_results, run_missing
from otf_stream.learn.checkpoints import shipped_network
from otf_stream.learn.compute import Compute
from otf_stream.learn.denoise import (
    BEGINNING,
    PATCH,
    REHEARSING_RATE,
    Ask,
    Denoiser,
    denoiser_trainer,
    denoising_network,
    neighbourhoods,
    recorrupted,
    rehearse,
    renoised,
    with_noise_map,
)
from otf_stream.learn.nafnet import NAFNet
from otf_stream.learn.planes import PlanePool
from otf_stream.learn.training import Trainer, with_statistics
from otf_stream.optics.noise import NoiseModel, estimate_noise
from otf_stream.restore.evaluate import psnr

_BATCH = 8
_LEARNING_RATE = 2e-3  # from scratch
_MASKED = 0.015
_BRIGHT = 99.9
_STATISTICS = 8
_UNASKED = float("nan")

_NAMES = {
    "noisy": "the noisy planes",
    "blind spot": "blind spot, from scratch",
    "sub-sampling": "neighbour sub-sampling, from scratch",
    "plane to plane": "plane to plane, from scratch",
    "recorruption": "recorruption, from scratch",
    "pre-trained": "pre-trained, as it is",
    "pre-trained + recorruption": "pre-trained, then recorruption",
    "pre-trained + rehearsal": "pre-trained, then rehearsal",
    "pre-trained + both": "pre-trained, then recorruption, then rehearsal: the service's",
    "n2v2": "N2V2 (careamics)",
}


def blind_spot(patches: Tensor, noise: NoiseModel, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Ask for pixels that were replaced by one of their neighbours; all others count for nothing."""
    centre = patches[:, :1]
    device = centre.device
    hidden = torch.rand(centre.shape, generator=generator, device=device) < _MASKED
    at = torch.randint(8, centre.shape, generator=generator, device=device)
    offsets = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if (dy, dx) != (0, 0)]
    around = torch.stack([centre.roll(offset, (2, 3)) for offset in offsets])
    given = torch.where(hidden, around.gather(0, at[None])[0], centre)
    return with_noise_map(torch.cat([given, patches[:, 1:]], 1), noise), torch.where(hidden, centre, _UNASKED)


def sub_sampling(patches: Tensor, noise: NoiseModel, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Ask for one pixel of each square of four, given another of them."""
    n, channels, height, width = patches.shape
    squares = patches.unfold(2, 2, 2).unfold(3, 2, 2).reshape(n, channels, height // 2, width // 2, 4)
    shape = (n, 1, height // 2, width // 2, 1)
    first = torch.randint(4, shape, generator=generator, device=patches.device)
    turn = torch.randint(1, 4, shape, generator=generator, device=patches.device)
    given = squares.gather(-1, first.expand(n, channels, -1, -1, 1))[..., 0]
    return with_noise_map(given, noise), squares[:, :1].gather(-1, (first + turn) % 4)[..., 0]


def plane_to_plane(patches: Tensor, noise: NoiseModel, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Ask for the plane before or after, given the plane itself and those on the other side."""
    before, after = patches[:, 1:2], patches[:, 2:3]
    forward = torch.rand((len(patches), 1, 1, 1), generator=generator, device=patches.device) < 0.5
    asked, other = torch.where(forward, after, before), torch.where(forward, before, after)
    # What is asked for must not be given: the other side takes its place.
    given = torch.cat([patches[:, :1], other, other, patches[:, 3:]], dim=1)
    return with_noise_map(given, noise), asked


FAMILIES: dict[str, Ask] = {
    "blind spot": blind_spot,
    "sub-sampling": sub_sampling,
    "plane to plane": plane_to_plane,
    "recorruption": recorrupted,
}


def asked_error(restored: Tensor, asked: Tensor) -> Tensor:
    """Mean squared error over the pixels that were asked for, which are not NaN."""
    there = ~asked.isnan()
    return (restored - asked)[there].square().mean()


def run_denoisers(
    cases: Sequence[Case],
    results: Path,
    compute: Compute,
    *,
    seconds: float,
    n2v2_python: Path | None,
    progress: Callable[[str], None] = lambda said: None,
) -> list[Result]:
    """Compare on every case; parameters as :func:`compare` and :func:`otf_stream.bench.quality.run_cases` have them."""
    version = version_of_ours()
    known = {_key(result)[:-1]: result for result in read_results(results) if result["machine"] == machine(compute)}
    wanted = {
        (*asked, True): partial(
            compare, case, compute, seconds=seconds, n2v2_python=n2v2_python, known=known.get(asked)
        )
        for case in cases
        for asked in [(case.name, seconds, version, n2v2_python is not None)]
    }
    return run_missing(results, wanted, _key, lambda result: progress(line(result)))


def _key(result: Result) -> tuple[str, float, str, bool, bool]:
    """Return what a result is of, and whether every way is in it: what came since is run alone."""
    ways = result["psnr"].keys()
    return result["case"], result["seconds"], result.get("ours", ""), "n2v2" in ways, _NAMES.keys() - ways <= {"n2v2"}


def compare(
    case: Case, compute: Compute, *, seconds: float, n2v2_python: Path | None, known: Result | None = None
) -> Result:
    """Denoise the planes of a case in every way, and judge against the planes without noise.

    Parameters
    ----------
    case
        Which stack.
    compute
        Where ours run.
    seconds
        Training time of each.
    n2v2_python
        Interpreter of an environment with careamics; without one, N2V2 is left out.
    known
        What an earlier run on this machine reached, which is not run again.
    """
    truth = case.expected()
    planes = case.camera.expose(truth, seed=case.seed)
    light = torch.from_numpy(planes.astype(np.float32))
    noise = estimate_noise(planes)
    scale = float(np.percentile(planes, _BRIGHT)) - noise.offset
    clean: dict[str, np.ndarray[Any, Any]] = {"noisy": planes.astype(np.float32)}
    reached: dict[str, float] = dict(known["psnr"]) if known else {}
    steps: dict[str, int] = dict(known["steps"]) if known else {}

    for name in [name for name in _NAMES if name not in reached]:
        generator = compute.generator(case.seed)
        torch.manual_seed(case.seed)
        pool = PlanePool(compute.device, smallest=PATCH)
        pool.add(neighbourhoods((light - noise.offset) / scale), generator)
        unit = noise.rescaled(noise.offset, scale)
        trainer: Trainer | None = None

        def denoised(denoiser: Denoiser, generator: torch.Generator = generator) -> PlanePool:
            made = PlanePool(compute.device, smallest=PATCH)
            made.add(neighbourhoods((denoiser(light) - noise.offset) / scale), generator)
            return made

        begun = time.monotonic()
        if name == "n2v2" and n2v2_python:
            clean[name] = run_elsewhere(n2v2_python, "n2v2.py", seconds=seconds, planes=planes)
        elif name == "pre-trained":
            clean[name] = _as_shipped(pool, noise, scale, compute, generator)(light).cpu().numpy()
        elif name in FAMILIES:
            trainer = _trainer(denoising_network(), FAMILIES[name], pool, unit, compute, generator, _LEARNING_RATE)
        elif name == "pre-trained + recorruption":
            trainer = denoiser_trainer(shipped_network("denoise"), pool, unit, compute, generator)
        elif name == "pre-trained + rehearsal":
            made = denoised(_as_shipped(pool, noise, scale, compute, generator))
            trainer = _trainer(shipped_network("denoise"), renoised, made, unit, compute, generator, REHEARSING_RATE)
        elif name == "pre-trained + both":
            trainer = denoiser_trainer(shipped_network("denoise"), pool, unit, compute, generator)
        if trainer:
            rehearses = name != "pre-trained + both"
            while (done := (time.monotonic() - begun) / seconds) < 1 or not trainer.steps:
                if done >= BEGINNING and not rehearses:
                    rehearses = True
                    made = denoised(Denoiser(trainer.network(), noise, scale, compute))
                    rehearse(trainer, made, unit, compute, generator)
                trainer.step(min(done, 1.0))
            steps[name] = trainer.steps
            clean[name] = Denoiser(trainer.network(), noise, scale, compute)(light).cpu().numpy()
    return {
        "case": case.name,
        "seconds": seconds,
        "psnr": {name: psnr(volume, truth) for name, volume in clean.items()} | reached,
        "steps": steps,
        "ours": version_of_ours(),
        "machine": machine(compute),
        "version": __version__,
    }


def _as_shipped(
    pool: PlanePool, noise: NoiseModel, scale: float, compute: Compute, generator: torch.Generator
) -> Denoiser:
    unit = noise.rescaled(noise.offset, scale)
    given = [with_noise_map(pool.patches(_BATCH, PATCH, PATCH, generator), unit) for _ in range(_STATISTICS)]
    return Denoiser(with_statistics(shipped_network("denoise"), given, compute), noise, scale, compute)


def _trainer(
    network: NAFNet,
    ask: Ask,
    pool: PlanePool,
    noise: NoiseModel,
    compute: Compute,
    generator: torch.Generator,
    learning_rate: float,
) -> Trainer:
    def pairs() -> tuple[Tensor, Tensor]:
        return ask(pool.patches(_BATCH, PATCH, PATCH, generator), noise, generator)

    return Trainer(network, pairs, compute, learning_rate=learning_rate, loss=asked_error)


def line(result: Result) -> str:
    """Tell a result in a line."""
    return f"{result['case']}: " + "  ".join(f"{name} {value:.2f}" for name, value in result["psnr"].items()) + " dB"


def page(results: Sequence[Result], command: str) -> str:
    """Write the page of the documentation from the results."""
    names = [name for name in _NAMES if all(name in result["psnr"] for result in results)]
    rows = [
        f"| {_NAMES[name]} | "
        + " | ".join(f"{result['psnr'][name]:.2f}" for result in results)
        + f" | {fmean(result['psnr'][name] for result in results):.2f} |"
        for name in names
    ]
    cases = " | ".join(result["case"] for result in results)
    return f"""# Denoising

Written by `{command}` on {results[0]["machine"]}; {results[0]["seconds"]:g} s of training each.

PSNR in dB of the planes against the same planes without noise, one gain and one offset fitted; the peak is the 99.9 −
0.1 percentile of those. All but N2V2 are one network on the same patches, given the planes before and after as well;
N2V2 is careamics' own, on single planes, with its defaults.

| | {cases} | mean |
|---{"|---" * (len(results) + 1)}|
{chr(10).join(rows)}
"""
