"""``otf-stream bench estimates``: how near to the truth blur, haze and noise are estimated from the planes alone.

On every case of the benchmark of quality, and on instruments drawn at random: fine and coarse objectives, thin and
thick sheets, aberrated or not, and some with a wide field, whose pixels are larger than their focus. What the estimate
of the point spread function takes for usual was chosen on other instruments that were drawn in the same way.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache, partial
from pathlib import Path
from statistics import fmean

import numpy as np
import torch
from numpy.typing import NDArray

from otf_stream import __version__
from otf_stream.acquisition import Modality
from otf_stream.bench.cases import HELD_OUT, TUNED_ON, Z_STEPS, Case
from otf_stream.bench.gaussian import MORPHOLOGIES
from otf_stream.bench.results import Result, machine, run_missing
from otf_stream.bench.streaming import recorded
from otf_stream.learn.compute import Compute
from otf_stream.optics.pointspread import Microscope
from otf_stream.optics.psf import split_psf
from otf_stream.service.character import characterise, find_psf
from otf_stream.service.source import StackSource
from simulators.instruments import INSTRUMENTS, PHOTONS
from simulators.microscope import physical_psf, pixel_size
from simulators.phantom import LATERAL_SIGMA

WIDTH_BAR, GAIN_BAR = 0.15, 0.1
"""Of the truth: how far off the axial width, and the gain of the camera, may be."""

_APERTURES: dict[Modality, tuple[float, float]] = {
    "confocal": (0.9, 1.25),
    "multiphoton": (0.8, 1.15),
    "light-sheet": (0.6, 1.1),
    "widefield": (0.8, 1.2),
}
_SHEETS_UM = (1.5, 4.0)
_WIDE_APERTURE = 0.25  # the least of a wide field; the greatest is that of any
_WIDE_SHEETS_UM = (3.0, 10.0)
_WIDE_FOCUS = (0.15, 0.6)  # σ in pixels
_WIDE_Z_STEPS = (2, 3, 4)  # pixels
_DEPTHS_UM = (0.0, 50.0)
_MISMATCHES = (0.0, 0.03)
_FIRST_SEED = 1000  # of samples that no other benchmark has


@dataclass(frozen=True)
class DrawnCase(Case):
    """A stack of an instrument that was drawn at random."""

    microscope: Microscope = field(kw_only=True)

    @property
    def name(self) -> str:
        """Unique among cases."""
        return f"{super().name}-na{self.microscope.numerical_aperture:.3f}"

    @property
    def pixel_um(self) -> float:
        """Lateral pixel size, which samples the focus as finely as all phantoms are."""
        return pixel_size(self.microscope)

    @property
    def psf(self) -> NDArray[np.float32]:
        """The true point spread function, ``(z, y, x)`` on the isotropic grid."""
        return _psf(self.microscope, self.pixel_um)


@dataclass(frozen=True)
class WideCase(DrawnCase):
    """A stack of a wide field: its focus is smaller than its pixels, by how much is not told.

    Parameters
    ----------
    focus
        σ across, in pixels.
    """

    focus: float = field(kw_only=True)

    @property
    def lateral_sigma(self) -> float:
        """σ across, in pixels, of the point spread function in focus."""
        return self.focus

    @property
    def pixel_um(self) -> float:
        """Lateral pixel size."""
        return pixel_size(self.microscope) * LATERAL_SIGMA / self.focus


@lru_cache(maxsize=1)
def _psf(microscope: Microscope, pixel_um: float) -> NDArray[np.float32]:
    return physical_psf(microscope, pixel_um)


def drawn_cases(count: int, *, seed: int) -> list[DrawnCase]:
    """Draw instruments, the modalities in turn, each with a sample, a level of noise and a z step of its own."""
    rng = np.random.default_rng(seed)
    modalities, samples = list(INSTRUMENTS), [*TUNED_ON, *HELD_OUT]
    cases = []
    for index in range(count):
        modality = modalities[index % len(modalities)]
        microscope = Microscope(
            modality,
            float(rng.uniform(*_APERTURES[modality])),
            excitation_um=INSTRUMENTS[modality].microscope.excitation_um,
            sheet_um=float(rng.uniform(*_SHEETS_UM)),
            depth_um=float(rng.uniform(*_DEPTHS_UM)),
            index_mismatch=float(rng.uniform(*_MISMATCHES)),
        )
        noise, z_step = str(rng.choice(list(PHOTONS))), int(rng.choice(Z_STEPS))
        sample = samples[index // len(modalities) % len(samples)]
        cases.append(DrawnCase(modality, noise, z_step, sample, _FIRST_SEED + index, microscope=microscope))
    return cases


def wide_cases(count: int, *, seed: int) -> list[WideCase]:
    """Draw instruments as :func:`drawn_cases` does, of any aperture, and with pixels that are too large for it."""
    rng = np.random.default_rng([seed, 1])
    cases = []
    for drawn in drawn_cases(count, seed=seed):
        aperture = np.exp(rng.uniform(np.log(_WIDE_APERTURE), np.log(_APERTURES[drawn.modality][1])))
        microscope = replace(
            drawn.microscope, numerical_aperture=float(aperture), sheet_um=float(rng.uniform(*_WIDE_SHEETS_UM))
        )
        z_step, focus = int(rng.choice(_WIDE_Z_STEPS)), float(rng.uniform(*_WIDE_FOCUS))
        cases.append(
            WideCase(drawn.modality, drawn.noise, z_step, drawn.sample, drawn.seed, microscope=microscope, focus=focus)
        )
    return cases


def run_estimates(
    cases: Sequence[Case],
    results: Path,
    compute: Compute,
    *,
    progress: Callable[[str], None] = lambda said: None,
) -> list[Result]:
    """Estimate what can be of every case; parameters as :func:`otf_stream.bench.quality.run_cases` has them."""
    return run_missing(
        results,
        {case.name: partial(estimate, case, compute) for case in cases},
        lambda result: str(result["case"]),
        lambda result: progress(line(result)),
    )


def estimate(case: Case, compute: Compute) -> Result:
    """Estimate blur, haze and noise of a case as the service does, from a session store; say what they truly are."""
    true = split_psf(torch.from_numpy(case.psf), case.lateral_sigma)
    _, planes = case.draw()
    with (
        tempfile.TemporaryDirectory() as folder,
        recorded(Path(folder) / "case.ome.zarr", case.acquisition, planes) as store,
    ):
        source = StackSource(store, (0, 0))
        noise = characterise(source).noise
        found = find_psf(source, noise)
    return {
        "case": case.name,
        **asdict(case),
        "drawn": isinstance(case, DrawnCase),
        "origin": found.origin,
        "width": {"estimated": found.psf.width, "true": true.width},
        "haze": {"estimated": 1 - found.psf.core_share, "true": 1 - true.core_share},
        "gain": {"estimated": noise.gain, "true": case.camera.gain},
        "machine": machine(compute),
        "version": __version__,
    }


def line(result: Result) -> str:
    """Tell a result in a line."""
    return f"{result['case']}: width {_off(result, 'width'):+.1%}, gain {_off(result, 'gain'):+.1%}"


def _off(result: Result, what: str) -> float:
    return float(result[what]["estimated"] / result[what]["true"] - 1)


def page(results: Sequence[Result], command: str) -> str:
    """Write the page of the documentation from the results."""
    sections = {
        "Cells of the benchmark of quality": [r for r in results if not r["drawn"] and r["sample"] in TUNED_ON],
        "Its samples held out": [r for r in results if not r["drawn"] and r["sample"] in HELD_OUT],
        "Instruments drawn at random": [r for r in results if r["drawn"] and "focus" not in r],
        "Wide fields: pixels larger than the focus": [r for r in results if "focus" in r],
        "Samples and optics of another simulator": [r for r in results if r["sample"] in MORPHOLOGIES],
    }
    parts = [
        "# What a stack tells of its microscope",
        f"Written by `{command}` on {results[0]['machine']}.",
        "From the planes, the voxel size and the name of the modality alone. The axial width is that of the core of "
        "the point spread function, full at half maximum; haze is the share of the light that is not in the core; the "
        "gain is that of the camera. Errors of width and gain are shares of the truth, those of haze are of all light: "
        "the mean of their sizes, and the worst. What is taken for a usual microscope was chosen on other draws of the "
        "same kind as those drawn at random.",
    ]
    for title, some in sections.items():
        if some:
            parts += [f"## {title}", _table(some), _beyond(some)]
    return "\n\n".join(parts) + "\n"


def _table(results: Sequence[Result]) -> str:
    lines = [
        "| modality | stacks | width, mean | worst | haze, mean | worst | gain, mean | worst |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for modality in INSTRUMENTS:
        some = [result for result in results if result["modality"] == modality]
        if some:
            hazes = [result["haze"]["estimated"] - result["haze"]["true"] for result in some]
            cells = [
                *_mean_and_worst([_off(result, "width") for result in some], ".1%"),
                *_mean_and_worst(hazes, ".3f"),
                *_mean_and_worst([_off(result, "gain") for result in some], ".1%"),
            ]
            lines.append(f"| {modality} | {len(some)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _mean_and_worst(errors: Sequence[float], form: str) -> tuple[str, str]:
    return format(fmean(abs(error) for error in errors), form), format(max(errors, key=abs), "+" + form)


def _beyond(results: Sequence[Result]) -> str:
    """Say of how many stacks the estimate is farther off than it may be, and of which."""
    said = []
    for what, bar in (("width", WIDTH_BAR), ("gain", GAIN_BAR)):
        beyond = [f"{r['case']} ({_off(r, what):+.1%})" for r in results if abs(_off(r, what)) > bar]
        named = f": {', '.join(beyond)}" if beyond else ""
        said.append(f"More than {bar:.0%} off in {what}: {len(beyond)} of {len(results)}{named}.")
    return " ".join(said)
