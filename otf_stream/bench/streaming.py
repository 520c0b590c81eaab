"""What benchmarks of the running service share: samples that a microscope sees, planes at its pace, and the wait."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TypeVar
from uuid import uuid4

import numpy as np
import torch
from isal.isal_zlib import crc32
from numpy.typing import NDArray

from otf_stream.acquisition import Acquisition, Modality, Sizes, VoxelSize
from otf_stream.config import ServiceConfig
from otf_stream.monitor.lookout import overview
from otf_stream.restore.evaluate import psnr
from otf_stream.restore.methods import Grid, interpolated
from otf_stream.service.supervisor import Service
from otf_stream.store.session import SessionStore
from simulators.instruments import INSTRUMENTS, instrument_psf
from simulators.microscope import through_optics
from simulators.phantom import cells, seen_isotropically

MODALITY: Modality = "confocal"
Z_STEP = INSTRUMENTS[MODALITY].z_step
"""Distance of planes in pixels."""

Volume = NDArray[np.float32]
Stack = NDArray[np.uint16]
Item = TypeVar("Item")


def drawn(planes: int, side: int, *, seed: int, moved: tuple[int, int, int] = (0, 0, 0)) -> tuple[Volume, Stack]:
    """Return the truth ``(z', y, x)`` and the planes ``(z, y, x)`` of a confocal stack of cells.

    Parameters
    ----------
    planes, side
        Number of planes, and their side in pixels.
    seed
        Of the sample and of the noise.
    moved
        Voxels by which the sample has moved; then the noise is another too.
    """
    sample = cells(((planes - 1) * Z_STEP + 1, side, side), seed=seed)
    sample = np.roll(sample, moved, axis=(0, 1, 2))
    seen = through_optics(sample, instrument_psf(MODALITY))[::Z_STEP]
    return seen_isotropically(sample), INSTRUMENTS[MODALITY].camera.expose(seen, seed=seed + sum(moved))


def described(name: str, stack: Stack, *, time_points: int = 1, channels: int = 1, z_step: int = Z_STEP) -> Acquisition:
    """Describe an acquisition of such stacks, as its microscope would; ``z_step`` is in pixels."""
    planes, y, x = stack.shape
    pixel = INSTRUMENTS[MODALITY].pixel_um
    return Acquisition(
        name=name,
        sizes=Sizes(t=time_points, c=channels, z=planes, y=y, x=x),
        dtype="uint16",
        voxel_size=VoxelSize(z=pixel * z_step, y=pixel, x=pixel),
        modality=MODALITY,
    )


def linear_psnr(stack: Stack, truth: Volume) -> float:
    """PSNR of the planes, interpolated linearly, in dB."""
    grid = Grid(range(len(stack)), float(Z_STEP), len(truth))
    return psnr(interpolated(grid, torch.from_numpy(stack.astype(np.float32))).numpy(), truth)


@contextmanager
def recorded(path: Path, acquisition: Acquisition, stack: Stack) -> Iterator[SessionStore]:
    """Open a new session store, at ``path``, in which all planes of one stack have arrived."""
    with closing(SessionStore.create(path, acquisition, session=uuid4().hex)) as store:
        for z, plane in enumerate(stack):
            pixels = np.ascontiguousarray(plane)
            store.write_planes([((0, 0, z), pixels.data, crc32(pixels.data))])
        store.journal.close_arrivals("finished")
        yield store


@contextmanager
def running_service(*, budget_s: float, tail_s: float, threads: int | None) -> Iterator[tuple[Service, Path]]:
    """Run a service over a folder that is deleted at the end; yield both."""
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder)
        config = ServiceConfig(
            data=data,
            listen="tcp://127.0.0.1:*",
            monitor="",
            budget_s=budget_s,
            tail_s=tail_s,
            threads=threads,
            disk_reserve_gb=0,
        )
        with Service(config) as service:
            yield service, data


def paced(items: Iterable[Item], per_second: float) -> Iterator[Item]:
    """Yield each item when it is due, the first at once."""
    begun = time.monotonic()
    for number, item in enumerate(items):
        time.sleep(max(begun + number / per_second - time.monotonic(), 0))
        yield item


def await_restored(
    service: Service, data: Path, *, patience: float, progress: Callable[[str], None] = lambda said: None
) -> None:
    """Wait until every stack of every session is restored.

    Raises
    ------
    RuntimeError
        If that takes longer than ``patience`` seconds.
    """
    end, told = time.monotonic() + patience, ""
    while not all(session.done for session in overview(data)):
        for message in service.watch():
            progress(message)
        said = ", ".join(f"{session.store.name}: {session.states}" for session in overview(data))
        if said != told:
            told = said
            progress(said)
        if time.monotonic() > end:
            raise RuntimeError(f"not all stacks are restored {patience:g} s after the last plane: {told}")
        time.sleep(0.5)
