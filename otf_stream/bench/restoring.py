"""How fast volumes are restored, where the time goes, and how time and memory grow with the size of a stack.

The ceiling is the rate of a large matrix product in the precision of the networks, measured in the same run. Growth
is measured in processes of their own, since the peak of a process's memory never falls.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from uuid import uuid4

import numpy as np
import torch
from isal.isal_zlib import crc32
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from otf_stream.bench.results import Result, machine
from otf_stream.bench.streaming import MODALITY, Z_STEP, described
from otf_stream.learn.checkpoints import Shipped, shipped_network
from otf_stream.learn.compute import Compute
from otf_stream.learn.denoise import NEIGHBOURS
from otf_stream.learn.folding import folded
from otf_stream.learn.nafnet import NAFNet
from otf_stream.learn.slices import CHANNELS
from otf_stream.learn.training import apply_network, with_statistics
from otf_stream.restore.deblurring import slices_at_once
from otf_stream.service.budget import Budget
from otf_stream.service.settings import Settings
from otf_stream.service.stack import restore_stack
from otf_stream.store.session import SessionStore

_MATRIX = 2048
_REPEATS = 7
_DEPTH, _WIDTH = 125, 512
_CUBE = 16  # voxels
_KINDS = {
    "convolution": ("conv",),
    "layer norm": ("layer_norm", "native_layer_norm"),
    "copies and layouts": ("copy", "contiguous", "clone", "to", "cat", "pad", "reflection"),
    "pooling and shuffling": ("pool", "mean", "shuffle"),
    "gates and sums": ("mul", "add", "sub", "div", "lerp"),
}


def run_throughput(compute: Compute) -> list[Result]:
    """Measure both networks on what they are given when a stack of 125 × 512 × 512 voxels is restored.

    Returns
    -------
    list of dict
        One for the denoiser, one for the deblurring network.
    """
    ceiling = matrix_rate(compute)
    found = []
    shown: dict[Shipped, tuple[int, int, int]] = {
        "denoise": (1, 2 + 2 * NEIGHBOURS, _WIDTH),
        "deblur": (slices_at_once(_DEPTH, _WIDTH, compute.pixels), CHANNELS, _DEPTH),
    }
    for name, (batch, channels, side) in shown.items():
        images = torch.rand(batch, channels, side, _WIDTH, device=compute.device)
        network = folded(with_statistics(shipped_network(name), [images], compute), compute)
        seconds = _median(partial(_applied, network, images, compute))
        pixels = batch * side * _WIDTH
        with FlopCounterMode(display=False) as counted:
            apply_network(network, images, compute)
        work = counted.get_total_flops()
        found.append(
            {
                "network": name,
                "pixels_per_second": pixels / seconds,
                "operations_per_pixel": work / pixels,
                "rate": work / seconds,
                "ceiling": ceiling,
                "share": work / seconds / ceiling,
                "spent": _spent(network, images, compute),
                "machine": machine(compute),
            }
        )
    return found


def _applied(network: NAFNet, images: torch.Tensor, compute: Compute) -> float:
    return float(apply_network(network, images, compute).sum())  # waits for the device


def matrix_rate(compute: Compute) -> float:
    """Measure the operations per second of a large matrix product in the precision of the networks."""
    a = torch.rand(_MATRIX, _MATRIX, device=compute.device, dtype=compute.dtype)
    return 2 * _MATRIX**3 / _median(lambda: float((a @ a)[0, 0]))


def _median(run: Callable[[], object]) -> float:
    run()
    taken = []
    for _ in range(_REPEATS):
        begun = time.perf_counter()
        run()
        taken.append(time.perf_counter() - begun)
    return statistics.median(taken)


def _spent(network: NAFNet, images: torch.Tensor, compute: Compute) -> dict[str, float]:
    """Return the share of the time that each kind of operation takes."""
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if compute.device.type == "cuda" else [])]
    with profile(activities=activities) as profiled:
        apply_network(network, images, compute)
    spent: defaultdict[str, float] = defaultdict(float)
    for event in profiled.key_averages():
        kind = next((k for k, parts in _KINDS.items() if any(part in event.key for part in parts)), "the rest")
        on_device = getattr(event, "self_device_time_total", 0.0)
        spent[kind] += on_device if compute.device.type == "cuda" else event.self_cpu_time_total
    whole = sum(spent.values())
    return {kind: spent[kind] / whole for kind in sorted(spent, key=lambda kind: -spent[kind])}


def run_growth(
    compute: Compute, *, planes: int, sides: Sequence[int], progress: Callable[[str], None] = lambda said: None
) -> list[Result]:
    """Restore stacks of growing sides, each in a process of its own.

    Returns
    -------
    list of dict
        Seconds and peak memory of each, by its voxels.
    """
    found = []
    for side in sides:
        command = [sys.executable, "-m", "otf_stream.bench.restoring", str(planes), str(side), str(compute.device.type)]
        command.append(str(torch.get_num_threads()))
        done = subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603 - ourselves
        found.append(json.loads(done.stdout.splitlines()[-1]))
        progress(f"{found[-1]}")
    return found


def _restore_alone(planes: int, side: int, compute: Compute) -> Result:
    """Restore a stack with networks that are hardly trained: what is measured is not training."""
    rng = np.random.default_rng(0)
    settings = Settings(budget=Budget(steps=1))
    with tempfile.TemporaryDirectory() as folder:
        described_as = described("grown", np.broadcast_to(np.uint16(0), (planes, side, side)))
        with closing(SessionStore.create(Path(folder) / "grown.ome.zarr", described_as, session=uuid4().hex)) as store:
            for z in range(planes):  # one at a time: the memory of restoring is what is measured
                plane = rng.poisson(_cubes(z, side)).astype(np.uint16) + 100
                store.write_planes([((0, 0, z), plane.data, crc32(plane.data))])
            store.journal.close_arrivals("finished")
            del plane
            begun = time.perf_counter()
            told = restore_stack(store, (0, 0), settings, compute)
            seconds = time.perf_counter() - begun
    if told["method"] not in ("finetune", "pretrained"):
        raise RuntimeError(f"the stack was restored by the method {told['method']}, no network: {told['warnings']}")
    voxels = ((planes - 1) * Z_STEP + 1) * side**2
    return {
        "planes": planes,
        "side": side,
        "voxels": voxels,
        "seconds": seconds,
        "stages_s": told["timing"]["stages_s"],
        "peak_mb": _peak_mb(),
        "method": told["method"],
    }


def _cubes(z: int, side: int) -> np.ndarray:
    """Return a plane of cubes, blurred along z: neither blur nor noise cost more in one size than in another."""
    layer, through = divmod(z, _CUBE // Z_STEP)

    def pattern(layer: int) -> np.ndarray:
        coarse = np.random.default_rng(layer).random((side // _CUBE, side // _CUBE))
        return coarse.repeat(_CUBE, axis=0).repeat(_CUBE, axis=1)

    share = through * Z_STEP / _CUBE
    return np.asarray(50 * ((1 - share) * pattern(layer) + share * pattern(layer + 1)) + 5)


def _peak_mb() -> float:
    """Return the most memory that the process has had; what getrusage tells begins with that of its parent."""
    status = Path("/proc/self/status").read_text("utf-8")
    return next(float(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmHWM"))


def section(throughput: Sequence[Result], growth: Sequence[Result], command: str) -> str:
    """Write a section of the page on performance."""
    rates = [
        f"| {r['network']} | {r['pixels_per_second'] / 1e6:.2f} | {r['operations_per_pixel'] / 1e3:.0f} | "
        f"{r['rate'] / 1e9:.0f} | {r['ceiling'] / 1e9:.0f} | {r['share']:.0%} | "
        f"{', '.join(f'{kind} {share:.0%}' for kind, share in list(r['spent'].items())[:5])} |"
        for r in throughput
    ]
    first = growth[0]
    sizes = [
        f"| {g['planes']} × {g['side']} × {g['side']} | {g['voxels'] / first['voxels']:.1f} | {g['seconds']:.0f} s | "
        f"{g['seconds'] / first['seconds'] / (g['voxels'] / first['voxels']):.2f} | {g['peak_mb']:.0f} MB |"
        for g in growth
    ]
    return f"""Written by `{command}` on {throughput[0]["machine"]}.

A voxel is denoised once for every plane, and deblurred twice, in XZ and in YZ slices. The ceiling is a matrix product
of {_MATRIX} × {_MATRIX} in the precision of the networks.

| network | million pixels/s | thousand operations a pixel | Gop/s | ceiling, Gop/s | share | time goes into |
|---|---|---|---|---|---|---|
{chr(10).join(rates)}

How time and memory grow ({MODALITY}, z step {Z_STEP} pixels, hardly any training, each size in a process of its own).
Times of linear growth would be 1.

| planes | voxels, times the first | time | time over linear | peak memory |
|---|---|---|---|---|
{chr(10).join(sizes)}
"""


if __name__ == "__main__":
    from otf_stream.learn.compute import choose_compute

    torch.set_num_threads(int(sys.argv[4]))
    chosen = choose_compute("cuda" if sys.argv[3] == "cuda" else "cpu", int(sys.argv[4]))
    print(json.dumps(_restore_alone(int(sys.argv[1]), int(sys.argv[2]), chosen)))
