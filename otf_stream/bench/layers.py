"""``otf-stream bench layers``: which layers to fine-tune, judged by what they gain in equal time.

From the same weights and on the same batches, the layers that ZEST selects are trained beside random ones and the last
ones of the same share, and all. Steps are taken in turn, always by the contender that has used least time, so that
whatever else the machine does falls upon all alike. Selecting counts as time of ZEST's.

Pairs are made from planes that are known without noise and haze: what is compared is training, and all else is kept
out. Gains are measured on planes that nobody trains on.
"""

from __future__ import annotations

import copy
import random
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import cache, partial
from itertools import accumulate, product
from pathlib import Path
from statistics import median
from types import MappingProxyType

import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor

from otf_stream import __version__
from otf_stream.bench.cases import Case
from otf_stream.bench.contenders import version_of_ours
from otf_stream.bench.results import Result, machine, run_missing
from otf_stream.learn.checkpoints import shipped_network
from otf_stream.learn.compute import Compute
from otf_stream.learn.nafnet import NAFNet
from otf_stream.learn.pairs import AxialPairs, patch_side
from otf_stream.learn.planes import PlanePool
from otf_stream.learn.training import Trainer, layers_of, with_statistics
from otf_stream.learn.zest import LayerScores, select_layers, within_share
from otf_stream.optics.psf import AxialBlur, split_psf
from simulators.phantom import LATERAL_SIGMA

_NAMES = {"none": "no layer", "last": "last", "random": "random", "zest": "ZEST", "all": "all layers"}
_LEARNING_RATE = 2e-3  # the service's
_WARM_UP = 0.5  # seconds that do not count: the first steps prepare kernels
_HELD_OUT = 8  # planes at the end of the stack
_APART = 2  # planes between those to train on and those held out
_JUDGED = 8  # batches
_STATISTICS = 8  # batches
_LEFT_SIGMA = 1.5  # pixels: a denoiser takes what is finer than this out of the noise
_BRIGHT = 99.9


def run_layers(
    cases: Sequence[Case],
    results: Path,
    compute: Compute,
    *,
    seconds: float,
    share: float,
    seeds: int,
    progress: Callable[[str], None] = lambda said: None,
) -> list[Result]:
    """Train in every way, on every case, with every seed.

    Parameters
    ----------
    cases
        What to train on.
    results
        JSON lines, one a case and seed. What is there already, of the same seconds, share and version of ours, is not
        run again.
    compute
        Where to train.
    seconds
        Training time of each contender.
    share
        Of the parameters, that may be trained where not all or none are.
    seeds
        How many; each draws other pairs and other random layers.
    progress
        Is told what was found.

    Returns
    -------
    list of dict
        The results, those of earlier runs included.
    """

    def told(result: Result) -> None:
        figures = "  ".join(f"{name} {value:+.2f}" for name, value in result["gain"].items())
        progress(f"{result['case']}, seed {result['seed']}: {figures} dB")

    version = version_of_ours()
    wanted = {
        (case.name, seed, seconds, share, version): partial(
            _run, case, compute, seconds=seconds, share=share, seed=seed
        )
        for case, seed in product(cases, range(seeds))
    }
    return run_missing(results, wanted, _key, told)


def _key(result: Result) -> tuple[str, int, float, float, str]:
    return result["case"], result["seed"], result["seconds"], result["share"], result.get("ours", "")


def _run(case: Case, compute: Compute, *, seconds: float, share: float, seed: int) -> Result:
    network = shipped_network("deblur").to(compute.device)
    training, held_out = _sources(case, compute)
    judge = held_out(case.seed)
    judged = [judge() for _ in range(_JUDGED)]
    race({"all": _trainer(network, training(seed), compute, None)}, _WARM_UP)
    begun = time.perf_counter()
    selected = select_layers(network, training(seed)(), compute, share=share)
    selecting = time.perf_counter() - begun
    chosen: dict[str, Collection[str] | None] = {
        "last": last_layers(network, share),
        "random": random_layers(network, share, seed),
        "zest": selected,
        "all": None,
    }
    trainers = {name: _trainer(network, training(seed), compute, layers) for name, layers in chosen.items()}
    race(trainers, seconds, {"zest": selecting})
    pairs = training(seed)
    ready = {"none": with_statistics(network, (pairs()[0] for _ in range(_STATISTICS)), compute)}
    ready |= {name: trainer.network() for name, trainer in trainers.items()}
    sizes = _sizes(network)
    return {
        "case": case.name,
        "modality": case.modality,
        "seed": seed,
        "seconds": seconds,
        "share": share,
        "gain": {name: gain(one, judged, compute) for name, one in ready.items()},
        "steps": {name: trainer.steps for name, trainer in trainers.items()},
        "trained": {
            name: sum(sizes[layer] for layer in (sizes if layers is None else layers)) / sum(sizes.values())
            for name, layers in chosen.items()
        },
        "selected": list(selected),
        "selecting": selecting,
        "layers": forward_order(network),
        "ours": version_of_ours(),
        "machine": machine(compute),
        "version": __version__,
    }


def _trainer(network: NAFNet, pairs: AxialPairs, compute: Compute, layers: Collection[str] | None) -> Trainer:
    return Trainer(copy.deepcopy(network), pairs, compute, learning_rate=_LEARNING_RATE, layers=layers)


def _sources(case: Case, compute: Compute) -> tuple[Callable[[int], AxialPairs], Callable[[int], AxialPairs]]:
    """Return what makes, of a seed, a source of pairs: from planes to train on, and from planes held out.

    The blur is that of the case's microscope. The errors are what a denoiser that averages over a focus would leave of
    the camera's noise.
    """
    clean, errors = _planes(case)
    blur = AxialBlur(split_psf(torch.from_numpy(case.psf), LATERAL_SIGMA).kernel.to(compute.device))

    def source(planes: slice, seed: int) -> AxialPairs:
        generator = compute.generator(seed)
        pool = PlanePool(compute.device, smallest=patch_side(case.z_step))
        pool.add(clean[planes, None], generator)
        return AxialPairs(pool, errors[planes].to(compute.device), blur, case.z_step, generator)

    return partial(source, slice(-_HELD_OUT - _APART)), partial(source, slice(-_HELD_OUT, None))


@cache
def _planes(case: Case) -> tuple[Tensor, Tensor]:
    """Draw clean planes and the errors of denoised ones, ``(z, y, x)`` each, normalised."""
    clean = case.draw()[0][:: case.z_step]
    camera = case.camera
    light = (camera.expose(clean, seed=case.seed).astype(np.float32) - camera.offset) / (camera.gain * camera.photons)
    errors = gaussian_filter(light - clean, (0, _LEFT_SIGMA, _LEFT_SIGMA))
    scale = np.percentile(clean, _BRIGHT).astype(np.float32)
    return torch.from_numpy(clean / scale), torch.from_numpy(errors / scale)


def race(trainers: Mapping[str, Trainer], seconds: float, used: Mapping[str, float] = MappingProxyType({})) -> None:
    """Train each for so many seconds, step by step in turn; some may have used part of theirs before."""
    spent = {name: used.get(name, 0.0) for name in trainers}
    while min(spent.values()) < seconds:
        name = min(spent, key=spent.__getitem__)
        begun = time.perf_counter()
        trainers[name].step(spent[name] / seconds)
        spent[name] += time.perf_counter() - begun


def gain(network: NAFNet, batches: Iterable[tuple[Tensor, Tensor]], compute: Compute) -> float:
    """PSNR of what a network makes over that of what it is given, in dB."""
    before = after = 0.0
    with torch.inference_mode(), compute.autocast():
        for degraded, clean in batches:
            before += float((degraded[:, :1] - clean).square().mean())
            after += float((network(degraded).float() - clean).square().mean())
    return float(10 * np.log10(before / after))


def forward_order(network: NAFNet) -> list[str]:
    """Names of the layers in the order in which an image passes them."""
    network = copy.deepcopy(network).eval()
    passed: list[str] = []
    for name in layers_of(network):
        network.get_submodule(name).register_forward_hook(lambda module, given, made, name=name: passed.append(name))
    side = network.multiple
    with torch.no_grad():
        network(next(network.parameters()).new_zeros(1, network.intro.in_channels, side, side))
    return passed


def random_layers(network: NAFNet, share: float, seed: int) -> tuple[str, ...]:
    """Draw layers that fit into a share of the parameters."""
    layers = [LayerScores(name, size, {}) for name, size in _sizes(network).items()]
    random.Random(seed).shuffle(layers)  # noqa: S311 - nothing to keep secret
    return within_share(layers, share)


def last_layers(network: NAFNet, share: float) -> tuple[str, ...]:
    """Take the last layers, without a gap, that fit into a share of the parameters; the very last in any case."""
    sizes, order = _sizes(network), forward_order(network)[::-1]
    room = share * sum(sizes.values())
    filled = accumulate(sizes[name] for name in order)
    return tuple(name for name, size in zip(order, filled, strict=True) if size <= room) or tuple(order[:1])


def _sizes(network: NAFNet) -> dict[str, int]:
    return {name: sum(p.numel() for p in owned) for name, owned in layers_of(network).items()}


def page(results: Sequence[Result], command: str, picture: str) -> str:
    """Write the page of the documentation from the results."""
    first, seeds = results[0], len({result["seed"] for result in results})

    def row(title: str, told: Callable[[str], str]) -> str:
        return f"| {title} | " + " | ".join(told(name) for name in _NAMES) + " |"

    table = [row("modality", _NAMES.__getitem__), "|---" * (len(_NAMES) + 1) + "|"]
    for modality, some in _by_modality(results).items():
        table.append(row(modality, partial(_gains, some)))
    table.append(row("parameters trained", lambda name: f"{100 * _middle(results, 'trained', name):.0f} %"))
    table.append(row("steps", lambda name: f"{_middle(results, 'steps', name):.0f}"))
    parts = [
        "# Which layers to fine-tune",
        f"Written by `{command}` on {first['machine']}: {first['seconds']:g} s of training for each, {seeds} seed(s), "
        f"at most {100 * first['share']:g} % of the parameters where not all or none are trained. Selecting took ZEST "
        f"{median(result['selecting'] for result in results):.1f} s of its time.",
        "Gain over the input on held-out planes of the same stack, in dB: median over the seeds, lowest and highest. "
        "All start from the weights that ship, with the same pairs and the same learning rate. *No layer* only takes "
        "on the statistics of the stack.",
        "\n".join(table),
        "## What ZEST selects",
        "In which part of the seeds each layer is selected; layers in the order in which an image passes them.",
        f"![Selected layers]({picture})",
    ]
    return "\n\n".join(parts) + "\n"


def _middle(results: Iterable[Result], figure: str, name: str) -> float:
    return float(median(result[figure].get(name, 0) for result in results))


def _gains(results: Sequence[Result], name: str) -> str:
    gains = [result["gain"][name] for result in results]
    return f"{median(gains):.2f} ({min(gains):.2f} … {max(gains):.2f})"


def _by_modality(results: Iterable[Result]) -> dict[str, list[Result]]:
    found: dict[str, list[Result]] = {}
    for result in results:
        found.setdefault(result["modality"], []).append(result)
    return found


def draw(path: Path, results: Sequence[Result]) -> None:
    """Draw which layers are selected: layers down, modalities across."""
    from matplotlib.figure import Figure

    layers: list[str] = results[0]["layers"]
    columns = _by_modality(results)
    picked = np.array(
        [[np.mean([layer in r["selected"] for r in some]) for some in columns.values()] for layer in layers]
    )
    figure = Figure(figsize=(2.5 + 0.6 * len(columns), 1.5 + 0.16 * len(layers)))
    axis = figure.subplots()
    image = axis.imshow(picked, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    axis.set_xticks(range(len(columns)), list(columns), fontsize=8, rotation=45, ha="left")
    axis.xaxis.tick_top()
    axis.set_yticks(range(len(layers)), layers, fontsize=6)
    figure.colorbar(image, ax=axis, label="part of the seeds", shrink=0.3)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130, bbox_inches="tight")
