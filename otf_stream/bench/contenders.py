"""The ways to restore that quality is compared over, each a function of one case.

The rivals are given what no microscopist has: Richardson–Lucy the true point spread function and the iteration that is
nearest to the truth, CARE the true blur and training time in which nothing is restored. Ours gets the raw planes, the
voxel size and the modality, and all its time includes restoring and writing.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.fft import irfftn, next_fast_len, rfftn
from scipy.ndimage import zoom

from otf_stream.bench.cases import Case
from otf_stream.bench.elsewhere import run_elsewhere
from otf_stream.bench.streaming import recorded
from otf_stream.config import LayerChoice, MethodName
from otf_stream.learn.checkpoints import digest
from otf_stream.learn.compute import Compute
from otf_stream.restore.evaluate import psnr
from otf_stream.service.budget import Budget
from otf_stream.service.settings import Settings
from otf_stream.service.stack import restore_stack
from otf_stream.store.restored import read_restored
from simulators.phantom import Volume, seen_isotropically

_MOST_ITERATIONS = 300
_EVERY = 5

_REVISION = 10
"""Raised whenever our method makes another volume of the same planes with the same networks."""

Planes = NDArray[np.uint16]


def interpolated(case: Case, planes: Planes, *, order: int) -> Volume:
    """Splines of order 1 or 3 along z, on the exact grid."""
    light = planes.astype(np.float32)
    return np.asarray(zoom(light, (case.depth / len(planes), 1, 1), order=order, mode="nearest"), np.float32)


def ours(
    case: Case,
    planes: Planes,
    *,
    method: MethodName,
    seconds: float,
    compute: Compute,
    weights: Path | None = None,
    layers: LayerChoice = "all",
) -> tuple[Volume, dict[str, Any]]:
    """Restore with this package, through a session store on disk; return the volume and its provenance."""
    with (
        tempfile.TemporaryDirectory() as folder,
        recorded(Path(folder) / "case.ome.zarr", case.acquisition, planes) as store,
    ):
        settings = Settings(method, Budget(total=seconds, tail=0.0), weights=weights, layers=layers)
        provenance = restore_stack(store, (0, 0), settings, compute)
        return read_restored(store.path, (0, 0)).astype(np.float32), provenance


def version_of_ours() -> str:
    """Return what tells our method and the networks that ship from those of before."""
    return "-".join([str(_REVISION), *(digest(shipped=name)[:12] for name in ("denoise", "deblur"))])


def richardson_lucy(case: Case, planes: Planes, truth: Volume) -> tuple[Volume, int]:
    """Deconvolve with the true point spread function; return the iteration nearest to the truth, and its number.

    The estimate is of the sharp sample; like the truth, it is looked at as a microscope sharp along z would see it.
    """
    best: tuple[float, Volume, int] | None = None
    for iteration, estimate in enumerate(_richardson_lucy(case, planes), start=1):
        if iteration % _EVERY and iteration != 1:
            continue
        volume = seen_isotropically(estimate, case.lateral_sigma)
        reached = psnr(volume, truth)
        if best is None or reached > best[0]:
            best = reached, volume, iteration
        elif iteration > best[2] + 2 * _EVERY:
            break
    assert best is not None  # noqa: S101 - there is always a first iteration
    return best[1], best[2]


def _richardson_lucy(case: Case, planes: Planes) -> Iterator[Volume]:
    psf, step, offset = case.psf, case.z_step, case.camera.offset
    light = np.clip(planes.astype(np.float32) - offset, 1e-3, None)
    shape = (case.depth, *planes.shape[1:])
    # Beyond its ends the sample is unknown, and part of the estimate: nothing has to wrap around.
    margins = [n // 2 for n in psf.shape]
    domain = tuple(next_fast_len(n + 2 * m, real=True) for n, m in zip(shape, margins, strict=True))
    inner = tuple(slice(m, m + n) for m, n in zip(margins, shape, strict=True))
    padded = np.zeros(domain, np.float32)
    padded[tuple(slice(n) for n in psf.shape)] = psf
    transfer = rfftn(np.roll(padded, [-m for m in margins], (0, 1, 2)), workers=-1)

    def imaged(sample: Volume) -> Volume:
        return np.asarray(irfftn(rfftn(sample, workers=-1) * transfer, domain, workers=-1)[inner][::step])

    def returned(planes: Volume) -> Volume:
        spread = np.zeros(domain, np.float32)
        spread[inner][::step] = planes
        return np.asarray(irfftn(rfftn(spread, workers=-1) * transfer.conj(), domain, workers=-1))

    norm = np.clip(returned(np.ones_like(light)), 1e-3, None)
    estimate = np.full(domain, light.mean(), np.float32)
    for _ in range(_MOST_ITERATIONS):
        estimate *= np.clip(returned(light / np.clip(imaged(estimate), 1e-3, None)), 0, None) / norm
        yield estimate[inner]


def care(case: Case, planes: Planes, *, seconds: float, python: Path) -> Volume:
    """Train and apply CARE's isotropic network, in the environment of the interpreter ``python``.

    Raises
    ------
    subprocess.CalledProcessError
        If it fails.
    """
    beyond = _beyond_lateral(case.psf, case.lateral_sigma)
    given = {"planes": planes, "psf": beyond, "anisotropy": case.z_step, "depth": case.depth}
    return run_elsewhere(python, "care.py", seconds=seconds, **given)


def _beyond_lateral(psf: NDArray[np.float32], sigma: float) -> NDArray[np.float32]:
    """The blur ``(z, x)`` by which a lateral plane becomes an axial slice, sum 1.

    The plane is blurred already, as much along the axis that plays z as along x; what is left is a ratio of spectra.
    """
    depth, side = psf.shape[0], psf.shape[2]
    seen = psf.sum(axis=1)
    seen /= seen.sum()
    spectrum = np.fft.rfft2(np.fft.ifftshift(seen))
    along = np.exp(-2 * (np.pi * sigma * np.fft.fftfreq(depth)) ** 2)[:, None]
    across = np.exp(-2 * (np.pi * sigma * np.fft.rfftfreq(side)) ** 2)
    ratio = spectrum * (along * across) / ((along * across) ** 2 + 1e-4)
    kernel = np.clip(np.fft.fftshift(np.fft.irfft2(ratio, s=seen.shape)), 0, None)
    return np.asarray(kernel / kernel.sum(), np.float32)
