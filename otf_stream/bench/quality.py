"""``otf-stream bench quality``: how near to the truth each way to restore comes, case by case.

Every result is written down as soon as it is there, and a run that was cut off goes on where it stopped: the whole
benchmark takes hours. The page is written from those results alone. Rivals do not change with our method: where it, or
its networks, became other ones, cases are restored anew by it alone, and compared with what the rivals reached before.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from otf_stream import __version__
from otf_stream.bench.cases import HELD_OUT, TUNED_ON, Case
from otf_stream.bench.contenders import care, interpolated, ours, richardson_lucy, version_of_ours
from otf_stream.bench.gaussian import MORPHOLOGIES
from otf_stream.bench.results import Result, machine, read_results, run_missing
from otf_stream.learn.compute import Compute
from otf_stream.restore.evaluate import psnr, ssim
from simulators.phantom import Volume

_NAMES = {
    "linear": "linear interpolation",
    "cubic": "cubic interpolation",
    "richardson-lucy": "Richardson–Lucy, true PSF, best iteration",
    "care": "CARE (csbdeep), true PSF",
    "otf_stream": "otf_stream",
}


def run_cases(
    cases: Sequence[Case],
    results: Path,
    compute: Compute,
    *,
    seconds: float,
    care_python: Path | None,
    pictures: Path | None = None,
    progress: Callable[[str], None] = lambda said: None,
) -> list[Result]:
    """Restore every case in every way, and judge.

    Parameters
    ----------
    cases
        What to restore.
    results
        JSON lines, one a case and version of ours; cases that are there already are not run again.
    compute
        Where our method runs.
    seconds
        Budget of our method, and training time of CARE.
    care_python
        Interpreter of an environment with csbdeep; without one, CARE is left out.
    pictures
        Folder for a picture a case; none if None.
    progress
        Is told what was found.

    Returns
    -------
    list of dict
        The results, those of earlier runs included.
    """
    version = version_of_ours()
    earlier = {(r["case"], r["budget"]): r for r in read_results(results) if "care" in r["psnr"] or not care_python}
    return run_missing(
        results,
        {
            (case.name, seconds, version): partial(
                _run, case, compute, seconds, care_python, pictures, earlier.get((case.name, seconds))
            )
            for case in cases
        },
        lambda result: (result["case"], result["budget"], result.get("ours", "")),
        lambda result: progress(_line(result)),
    )


def _run(
    case: Case,
    compute: Compute,
    seconds: float,
    care_python: Path | None,
    pictures: Path | None,
    earlier: Result | None,
) -> Result:
    truth, planes = case.draw()
    volumes: dict[str, Volume] = {}
    took: dict[str, float] = {}

    def timed(name: str, restore: Callable[[], Any]) -> Any:
        begun = time.monotonic()
        volume, *more = restore()
        took[name], volumes[name] = time.monotonic() - begun, volume
        return more

    timed("linear", lambda: (interpolated(case, planes, order=1),))
    timed("cubic", lambda: (interpolated(case, planes, order=3),))
    if earlier:
        iterations = earlier["richardson_lucy_iterations"]
    else:
        (iterations,) = timed("richardson-lucy", lambda: richardson_lucy(case, planes, truth))
        if care_python:
            timed("care", lambda: (care(case, planes, seconds=seconds, python=care_python),))
    (provenance,) = timed("otf_stream", lambda: ours(case, planes, method="auto", seconds=seconds, compute=compute))
    if pictures:
        draw(pictures / f"{case.name}.png", volumes, truth)
    before = earlier or {"psnr": {}, "ssim": {}, "seconds": {}}
    return {
        "case": case.name,
        **asdict(case),
        "psnr": before["psnr"] | {name: psnr(volume, truth) for name, volume in volumes.items()},
        "ssim": before["ssim"] | {name: ssim(volume, truth) for name, volume in volumes.items()},
        "seconds": before["seconds"] | took,
        "budget": seconds,
        "ours": version_of_ours(),
        "richardson_lucy_iterations": iterations,
        "provenance": {key: provenance[key] for key in ("method", "warnings", "flux_ratio", "residual")},
        "gain": {"estimated": provenance["noise"]["gain"], "true": case.camera.gain},
        "axial_width": {"estimated": provenance["axial_blur"]["width"], "true": case.axial_width},
        "machine": machine(compute),
        "version": __version__,
    }


def _line(result: Result) -> str:
    figures = "  ".join(f"{name} {value:.2f}" for name, value in result["psnr"].items())
    return f"{result['case']}: {figures} dB ({result['provenance']['method']})"


def page(results: Iterable[Result], command: str, pictures: Sequence[str] = ()) -> str:
    """Write the page of the documentation from the results."""
    results = list(results)
    parts = [
        "# Restoration quality",
        f"Written by `{command}` on {results[0]['machine']}; budget {results[0]['budget']:g} s a stack, "
        f"32 planes of 256 × 256; {len(results)} cases.",
        "PSNR over the whole volume, one gain and one offset fitted; the peak is the truth's 99.9 − 0.1 percentile. "
        "SSIM is the mean over XZ and YZ slices. Richardson–Lucy and CARE are given the true point spread function; "
        "otf_stream the planes, the voxel size and the name of the modality. What rivals reached is of the run in "
        "which a case was restored first, since it does not change with our method.",
    ]
    sections = {
        "Cells, which methods were tuned on": TUNED_ON,
        "Samples held out": HELD_OUT,
        "Samples and optics of another simulator": MORPHOLOGIES,
    }
    for title, kinds in sections.items():
        some = [result for result in results if result["sample"] in kinds]
        if some:
            parts += [f"## {title}", _summary(some), _by_kind(some), _table(some), _estimates(some)]
    parts += [f"![{name}]({name})" for name in pictures]
    return "\n\n".join(parts) + "\n"


def _summary(results: Sequence[Result]) -> str:
    names = _everywhere(results)
    lines = [
        "| mean over the cases | PSNR (dB) | ours above it (dB) | worst case (dB) | SSIM |",
        "|---|---|---|---|---|",
    ]
    for name in names:
        above = [result["psnr"]["otf_stream"] - result["psnr"][name] for result in results]
        lines.append(
            f"| {_NAMES[name]} | {fmean(r['psnr'][name] for r in results):.2f} | {fmean(above):+.2f} "
            f"| {min(above):+.2f} | {fmean(r['ssim'][name] for r in results):.3f} |"
        )
    return "\n".join(lines)


def _everywhere(results: Sequence[Result]) -> list[str]:
    """Return the ways in which every case was restored."""
    return [name for name in _NAMES if all(name in result["psnr"] for result in results)]


def _by_kind(results: Sequence[Result]) -> str:
    """Tell how far ours is above the others, in dB, for each modality, noise and z step by itself."""
    names = [name for name in _everywhere(results) if name != "otf_stream"]
    lines = ["| ours above, in dB | cases | " + " | ".join(names) + " |", "|---" * (len(names) + 2) + "|"]
    for key, called in (("modality", "{}"), ("noise", "{} noise"), ("z_step", "z step {}")):
        for value in dict.fromkeys(result[key] for result in results):
            some = [result["psnr"] for result in results if result[key] == value]
            above = [f"{fmean(reached['otf_stream'] - reached[name] for reached in some):+.2f}" for name in names]
            lines.append(f"| {called.format(value)} | {len(some)} | " + " | ".join(above) + " |")
    return "\n".join(lines)


def _table(results: Sequence[Result]) -> str:
    names = [name for name in _NAMES if any(name in result["psnr"] for result in results)]
    lines = ["| case | " + " | ".join(names) + " | method |", "|---" * (len(names) + 2) + "|"]
    for result in results:
        figures = [f"{result['psnr'][n]:.2f}" if n in result["psnr"] else "" for n in names]
        lines.append(f"| {result['case']} | " + " | ".join(figures) + f" | {result['provenance']['method']} |")
    return "\n".join(lines)


def _estimates(results: Sequence[Result]) -> str:
    """Say how near to the truth noise and blur were estimated, and how long all of it took."""
    said = []
    for key, name in (("axial_width", "axial width"), ("gain", "gain of the camera")):
        off = {r["case"]: r[key]["estimated"] / r[key]["true"] - 1 for r in results}
        worst = max(off, key=lambda case: abs(off[case]))
        mean = fmean(abs(value) for value in off.values())
        said.append(f"The {name} was estimated within {mean:.1%} on average, at worst {off[worst]:+.1%} ({worst}).")
    longest = max(r["seconds"]["otf_stream"] for r in results)
    return "\n".join([*said, f"otf_stream took at most {longest:.0f} s, reading and writing included."])


def draw(path: Path, volumes: dict[str, Volume], truth: Volume) -> None:
    """Draw the middle XZ slice of every volume and of the truth, on one scale."""
    from matplotlib.figure import Figure

    from otf_stream.restore.evaluate import fit_gain_offset

    shown = {**volumes, "truth": truth}
    rows, width, title = (len(shown) + 1) // 2, 5.0, 0.3  # inches
    height = width * truth.shape[0] / truth.shape[2] + title
    figure = Figure(figsize=(2 * width, rows * height), layout="tight")
    axes = figure.subplots(rows, 2).ravel()
    low, high = np.percentile(truth, [0.1, 99.9])
    for axis, (name, volume) in zip(axes, shown.items(), strict=False):
        gain, offset = fit_gain_offset(volume, truth)
        axis.imshow(gain * volume[:, truth.shape[1] // 2] + offset, cmap="gray", vmin=low, vmax=high)
        axis.set_title(name, fontsize=8)
    for axis in axes:
        axis.set_axis_off()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
