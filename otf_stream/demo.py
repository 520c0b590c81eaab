"""The whole main job on one machine, with nothing but this package: what ``otf-stream demo`` runs.

A real Micro-Manager core acquires a z-stack of a phantom through a virtual camera, a hook publishes its frames, the
service lands and restores them, and, since the phantom's truth is known, the result is measured against it.
"""

from __future__ import annotations

import shutil
import time
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from otf_stream.acquire.hooks.pymmcore_plus import streaming
from otf_stream.acquire.hooks.stream import Stream
from otf_stream.acquisition import StackIndex
from otf_stream.config import ServiceConfig, method_name
from otf_stream.report.page import write_report
from otf_stream.restore.evaluate import psnr
from otf_stream.restore.methods import interpolated
from otf_stream.service.folder import LOCK
from otf_stream.service.source import StackSource
from otf_stream.service.supervisor import Service
from otf_stream.store.finding import find_sessions
from otf_stream.store.restored import read_provenance, read_restored
from otf_stream.store.session import SessionStore
from simulators.core import acquire_stack, unload, virtual_microscope
from simulators.microscope import image
from simulators.phantom import phantom
from simulators.scenes import Stack

_PLANES = 32
_SIDE = 256
_ANISOTROPY = 4
_PIXEL_UM = 0.2
_PLANES_PER_SECOND = 1.0
_BUDGET_S = 85.0
_TAIL_S = 30.0
_PATIENCE_S = 300.0  # past the deadline; a worker that dies again and again would otherwise be waited for for ever
_OWN = (
    "demo.ome.zarr", "demo.journal.sqlite", "demo.report", "slices.png", "truth.tif", "listener.json", "worker.json",
    LOCK, ".worker",
)  # fmt: skip
_STACK: StackIndex = (0, 0)


class DemoError(RuntimeError):
    """The demo did not end in a restored volume; the message says why."""


@dataclass(frozen=True)
class DemoSummary:
    """What the demo did.

    Parameters
    ----------
    acquired, sent, received, durable, missing
        Planes: exposed by the camera, handed to the network, seen by the listener, on disk, never come.
    megabytes_per_second
        Of pixels, from the first plane to the last; the camera's rate sets it.
    since_first_plane_s, since_last_plane_s
        From that plane to the restored volume.
    psnr_interpolated, psnr_restored
        Against the phantom's truth, in dB.
    method, warnings
        As in the provenance.
    flux_ratio, residual
        As in the provenance: light kept, and agreement with the raw planes in standard deviations of the noise.
    store, report, picture, truth
        What was written.
    """

    acquired: int
    sent: int
    received: int
    durable: int
    missing: int
    megabytes_per_second: float
    since_first_plane_s: float
    since_last_plane_s: float
    psnr_interpolated: float
    psnr_restored: float
    method: str
    warnings: list[str]
    flux_ratio: float
    residual: float
    store: Path
    report: Path
    picture: Path
    truth: Path

    def as_dict(self) -> dict[str, Any]:
        """Return it for JSON."""
        return {name: str(v) if isinstance(v, Path) else v for name, v in asdict(self).items()}

    def as_text(self) -> str:
        """Return it for a human."""
        gain = self.psnr_restored - self.psnr_interpolated
        lines = [
            f"planes    sent {self.sent}  received {self.received}  durable {self.durable}  missing {self.missing}"
            f"  at {self.megabytes_per_second:.2f} MB/s",
            f"restored  {self.since_first_plane_s:.1f} s after the first plane, "
            f"{self.since_last_plane_s:.1f} s after the last ({self.method})",
            f"PSNR      linear interpolation {self.psnr_interpolated:.1f} dB, restored {self.psnr_restored:.1f} dB "
            f"({round(gain, 1) + 0.0:+.1f} dB)",
            f"fidelity  flux x {self.flux_ratio:.3f}, re-imaged volume against raw planes {self.residual:.2f} sigma",
            *(f"warning   {warning}" for warning in self.warnings),
            f"store     {self.store}",
            f"report    {self.report}",
            f"picture   {self.picture}",
        ]
        return "\n".join(lines)


def run_demo(out: Path, *, overwrite: bool, seed: int, console: Console) -> DemoSummary:
    """Acquire, stream and restore a phantom.

    Parameters
    ----------
    out
        Folder for the store, the phantom's truth and the picture.
    overwrite
        Replace what an earlier demo left there.
    seed
        Of the phantom, its noise and the training.
    console
        For progress.

    Raises
    ------
    FileExistsError
        If an earlier demo is there and ``overwrite`` is not set.
    DemoError
        If the stack could not be restored.
    """
    _prepare(out, overwrite)
    console.print("drawing a phantom: nuclei, filaments, membranes")
    truth = phantom(((_PLANES - 1) * _ANISOTROPY + 1, _SIDE, _SIDE), seed=seed)
    raw = image(truth, anisotropy=_ANISOTROPY, seed=seed)
    tifffile.imwrite(out / "truth.tif", truth, photometric="minisblack")
    config = ServiceConfig(
        data=out,
        listen="tcp://127.0.0.1:*",
        monitor="",
        reports="none",
        budget_s=_BUDGET_S,
        tail_s=_TAIL_S,
        device="auto",
        seed=seed,
    )
    with Service(config) as service, _bars(console) as bars:
        sent = _acquire(raw, service.address, bars)
        store_path = _await_restored(service, out, bars)
    return _summarise(store_path, truth, sent, out)


def _prepare(out: Path, overwrite: bool) -> None:
    if out.exists() and any(out.iterdir()):
        if not overwrite:
            raise FileExistsError(17, "an earlier demo is there; give --overwrite to replace it", str(out))
        foreign = [path.name for path in out.iterdir() if not path.name.startswith(_OWN)]
        if foreign:
            raise DemoError(f"{out} holds {foreign[0]}, which no demo wrote, and is left alone; give another --out")
        shutil.rmtree(out)
    out.mkdir(parents=True, exist_ok=True)


def _acquire(raw: np.ndarray, address: str, bars: Progress) -> Stream:
    """Run the z-stack on a real core, its frames streaming; return the stream when all is durable."""
    bar = bars.add_task("acquire and stream", total=len(raw))
    core = virtual_microscope(Stack(raw, z_step_um=_ANISOTROPY * _PIXEL_UM, pixel_um=_PIXEL_UM))

    def show(*frame: object) -> None:
        bars.advance(bar)

    core.mda.events.frameReady.connect(show)
    try:
        with streaming(core, address, name="demo", modality="confocal") as stream:
            acquire_stack(
                core, planes=len(raw), z_step_um=_ANISOTROPY * _PIXEL_UM, planes_per_second=_PLANES_PER_SECOND
            )
    finally:
        unload(core)
    if stream.failures:
        raise DemoError(stream.failures[0])
    return stream


def _await_restored(service: Service, data: Path, bars: Progress) -> Path:
    """Wait for the worker, showing what it does, and return the store."""
    (path,) = find_sessions(data)
    with closing(SessionStore.open(path)) as store:
        bar: TaskID | None = None
        shown = ""
        patience = time.monotonic() + _BUDGET_S + _TAIL_S + _PATIENCE_S
        while (state := store.journal.state(_STACK)) != "restored":
            for message in service.watch():
                bars.console.print(message)
            if state == "failed":
                trace = [str(e.detail.get("trace", "")) for e in store.journal.events() if e.kind == "failure"]
                raise DemoError("the stack could not be restored:\n" + "\n".join(trace))
            if time.monotonic() > patience:
                raise DemoError(f"the stack is not restored {_PATIENCE_S:g} s after its deadline; it is kept in {path}")
            stages = [str(e.detail["stage"]) for e in store.journal.events() if e.kind == "stage"]
            if stages and stages[-1] != shown:
                if bar is not None:
                    bars.update(bar, total=1, completed=1)
                shown = stages[-1]
                bar = bars.add_task(shown, total=None)
            time.sleep(0.1)
        if bar is not None:
            bars.update(bar, total=1, completed=1)
    return path


def _summarise(path: Path, truth: np.ndarray, stream: Stream, out: Path) -> DemoSummary:
    with closing(SessionStore.open(path)) as store:
        source = StackSource(store, _STACK)
        sizes = store.acquisition.sizes
        grid = source.grid()
        raw = source.read(grid.planes)
        durable, (first, last) = len(grid.planes), store.journal.span(_STACK) or (0.0, 0.0)
        (ended,) = (event.detail for event in store.journal.events() if event.kind == "ended")
    provenance = read_provenance(path)["t0c0"]
    restored = read_restored(path, _STACK)
    linear = interpolated(grid, torch.from_numpy(raw)).numpy()
    picture = out / "slices.png"
    draw_slices(picture, linear, restored, truth, method_name(provenance["method"]))
    return DemoSummary(
        acquired=sizes.planes,
        sent=stream.sent,
        received=int(ended["received"]),
        durable=durable,
        missing=sizes.planes - durable,
        megabytes_per_second=raw.size * 2 / 1e6 / max(last - first, 1e-3),
        since_first_plane_s=provenance["timing"]["since_first_plane_s"],
        since_last_plane_s=provenance["timing"]["since_last_plane_s"],
        psnr_interpolated=psnr(linear, truth),
        psnr_restored=psnr(restored, truth),
        method=provenance["method"],
        warnings=provenance["warnings"],
        flux_ratio=provenance["flux_ratio"],
        residual=provenance["residual"],
        store=path,
        report=write_report(path, _STACK),
        picture=picture,
        truth=out / "truth.tif",
    )


def draw_slices(
    path: Path, interpolated: np.ndarray, restored: np.ndarray, truth: np.ndarray, method: str = ""
) -> None:
    """Draw an XZ slice raw, restored and as it truly is, side by side, into a PNG.

    Parameters
    ----------
    path
        Of the PNG.
    interpolated, restored, truth
        ``(z', y, x)`` on the isotropic grid.
    method
        How it was restored, for people.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    middle = truth.shape[1] // 2
    figure = Figure(figsize=(15, 3.2), layout="constrained")
    FigureCanvasAgg(figure)
    panels = {"raw (interpolated)": interpolated, "restored": restored, "truth": truth}
    for axes, (title, volume) in zip(figure.subplots(1, 3), panels.items(), strict=True):
        section = volume[:, middle].astype(np.float32)
        # The raw contrast for both: a restored slice that only looks better stretched is not better.
        contrast = interpolated if title != "truth" else truth
        low, high = np.percentile(contrast[:, middle], (1, 99.8))
        axes.imshow(section, cmap="gray", vmin=low, vmax=high, interpolation="nearest")
        by = f" by {method}" if method and title == "restored" else ""
        axes.set_title(f"{title}{by}, XZ at y = {middle}", fontsize=10)
        axes.set_axis_off()
    figure.savefig(path, dpi=110)


def _bars(console: Console) -> Progress:
    return Progress(TextColumn("{task.description:>20}"), BarColumn(), TimeElapsedColumn(), console=console)
