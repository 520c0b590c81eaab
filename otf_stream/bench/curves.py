"""``otf-stream bench curves``: how good a volume is after how many seconds, by where training starts and what trains.

Every point is a whole restoration in its own budget, writing included, through the code that serves microscopes: a
short budget is not a long one that was stopped, since its schedule anneals in time.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from itertools import product
from pathlib import Path
from statistics import fmean

import torch

from otf_stream import __version__
from otf_stream.bench.cases import Case
from otf_stream.bench.contenders import interpolated, ours, version_of_ours
from otf_stream.bench.results import Result, machine, run_missing
from otf_stream.config import LayerChoice, MethodName
from otf_stream.learn.checkpoints import save_weights
from otf_stream.learn.compute import Compute
from otf_stream.learn.nafnet import deblurring_network
from otf_stream.restore.evaluate import psnr

_WAYS: dict[str, tuple[MethodName, LayerChoice]] = {
    "scratch": ("finetune", "all"),
    "pre-trained": ("pretrained", "all"),
    "zest": ("finetune", "zest"),
    "all": ("finetune", "all"),
}
_NAMES = {
    "linear": "linear interpolation",
    "scratch": "from scratch, all layers",
    "pre-trained": "pre-trained, as it is",
    "zest": "pre-trained, ZEST's layers",
    "all": "pre-trained, all layers",
}


def run_curves(
    cases: Sequence[Case],
    results: Path,
    compute: Compute,
    *,
    budgets: Sequence[float],
    progress: Callable[[str], None] = lambda said: None,
) -> list[Result]:
    """Restore every case in every way with every budget.

    Parameters
    ----------
    cases
        What to restore.
    results
        JSON lines, one a restoration; what is there already, of the same version of ours, is not run again.
    compute
        Where.
    budgets
        Seconds. A network that is not fine-tuned is run with the longest only.
    progress
        Is told what was found.
    """
    version = version_of_ours()
    wanted = {
        (case.name, way, budget, version): partial(_run, case, way, budget, compute)
        for case, way, budget in product(cases, _WAYS, sorted(budgets))
        if way != "pre-trained" or budget == max(budgets)
    }
    return run_missing(
        results,
        wanted,
        lambda result: (result["case"], result["way"], result["budget"], result.get("ours", "")),
        lambda result: progress(
            f"{result['case']}, {_NAMES[result['way']]}, {result['budget']:g} s: {result['psnr']:.2f} dB "
            f"({result['method']}, {result['steps']} steps)"
        ),
    )


def _run(case: Case, way: str, budget: float, compute: Compute) -> Result:
    method, layers = _WAYS[way]
    truth, planes = case.draw()
    with tempfile.TemporaryDirectory() as folder:
        weights = None
        if way == "scratch":
            torch.manual_seed(case.seed)
            weights = Path(folder) / "new.safetensors"
            save_weights(deblurring_network(), weights, {})
        volume, provenance = ours(
            case, planes, method=method, seconds=budget, compute=compute, weights=weights, layers=layers
        )
    return {
        "case": case.name,
        "way": way,
        "budget": budget,
        "psnr": psnr(volume, truth),
        "linear": psnr(interpolated(case, planes, order=1), truth),
        "took": provenance["timing"]["since_first_plane_s"],
        "method": provenance["method"],
        "steps": (provenance["training"] or {}).get("steps", 0),
        "ours": version_of_ours(),
        "machine": machine(compute),
        "version": __version__,
    }


def page(results: Sequence[Result], command: str, picture: str) -> str:
    """Write the page of the documentation from the results."""
    budgets = sorted({result["budget"] for result in results})
    gains = _gains(results)
    rows = [
        f"| {_NAMES[way]} | " + " | ".join(_cell(gains[way].get(budget)) for budget in budgets) + " |" for way in _WAYS
    ]
    return f"""# Quality over time

Written by `{command}` on {results[0]["machine"]}.

Gain in PSNR over linear interpolation, in dB, mean over {len({r["case"] for r in results})} stacks of 32 planes of
256 × 256, by the seconds that a stack may take from its first plane to the volume on the disk.

| | {" | ".join(f"{budget:g} s" for budget in budgets)} |
|---{"|---" * len(budgets)}|
{chr(10).join(rows)}

![PSNR over seconds]({picture})
"""


def _gains(results: Sequence[Result]) -> dict[str, dict[float, float]]:
    """Mean gain over the cases, by way and budget."""
    found: dict[str, dict[float, list[float]]] = {way: {} for way in _WAYS}
    for result in results:
        found[result["way"]].setdefault(result["budget"], []).append(result["psnr"] - result["linear"])
    return {way: {budget: fmean(gains) for budget, gains in of.items()} for way, of in found.items()}


def _cell(gain: float | None) -> str:
    return "" if gain is None else f"{gain:+.2f}"


def draw(path: Path, results: Sequence[Result]) -> None:
    """Draw the curves of every case."""
    from matplotlib.figure import Figure

    cases = list(dict.fromkeys(result["case"] for result in results))
    figure = Figure(figsize=(4 * len(cases), 3.4))
    for axis, case in zip(figure.subplots(1, len(cases), squeeze=False)[0], cases, strict=True):
        some = [result for result in results if result["case"] == case]
        for way in _WAYS:
            points = sorted((result["budget"], result["psnr"]) for result in some if result["way"] == way)
            if way == "pre-trained":
                axis.axhline(points[0][1], color="gray", ls="--", label=_NAMES[way])
            else:
                axis.plot(*zip(*points, strict=True), marker="o", label=_NAMES[way])
        axis.axhline(some[0]["linear"], color="gray", ls=":", label=_NAMES["linear"])
        axis.set(title=case, xlabel="seconds", ylabel="PSNR (dB)")
    figure.axes[0].legend(fontsize=7)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110, bbox_inches="tight")
