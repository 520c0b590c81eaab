"""How fast this machine trains and restores, by the measurements that a worker takes of a stack.

The networks are those that ship. A stack is only planned: what is measured does not depend on what is in it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from otf_stream.acquisition import Acquisition, Sizes, VoxelSize
from otf_stream.config import ServiceConfig
from otf_stream.doctor.capacity import ANISOTROPY, DEPTHS, Speed, depth_of
from otf_stream.learn.checkpoints import network_to_deblur, shipped_network
from otf_stream.learn.compute import Compute, choose_compute
from otf_stream.learn.pairs import PATCH
from otf_stream.learn.slices import CHANNELS
from otf_stream.learn.training import PARTS, Trainer
from otf_stream.restore.methods import Grid
from otf_stream.service.costs import RestoringTime
from otf_stream.service.speed import Speedometer

_STEPS = 3  # the first finds kernels
_ANY_SIDE = 512


class Planned:
    """A stack that is only planned.

    Parameters
    ----------
    planes
        Of the stack.
    """

    def __init__(self, planes: int) -> None:
        self.planes = planes
        self.side = _ANY_SIDE
        """Pixels along y and x; may be changed."""

    @property
    def acquisition(self) -> Acquisition:
        """What is planned."""
        return Acquisition(
            name="planned",
            sizes=Sizes(z=self.planes, y=self.side, x=self.side),
            dtype="uint16",
            voxel_size=VoxelSize(z=ANISOTROPY, y=1.0, x=1.0),
        )

    def grid(self) -> Grid:
        """Where its planes lie."""
        return Grid(range(self.planes), ANISOTROPY, depth_of(self.planes))


def measure(config: ServiceConfig, depths: Sequence[int] = DEPTHS) -> Speed:
    """Measure how fast this machine trains and restores; takes some seconds.

    Parameters
    ----------
    config
        Names the device, the cores and the weights.
    depths
        Planes of the stacks of which it can be told afterwards what restoring takes.

    Raises
    ------
    RuntimeError
        Where the device that is asked for is not there.
    """
    torch.set_num_threads(config.threads or max((os.cpu_count() or 2) - 1, 1))  # as a worker does
    compute = choose_compute(config.device, config.threads)
    stacks = {planes: Planned(planes) for planes in depths}
    deblurring, denoising = network_to_deblur(config.weights), shipped_network("denoise")
    speeds = {planes: Speedometer(deblurring, denoising, stack, compute).measure() for planes, stack in stacks.items()}

    def restoring(planes: int, side: int) -> RestoringTime:
        stacks[planes].side = side
        return speeds[planes].restoring_time(planes)

    return Speed(_named(compute), compute.device.type == "cpu", _step(config, compute), restoring)


def _step(config: ServiceConfig, compute: Compute) -> float:
    """Seconds of a training step; the fastest of a few."""
    images = torch.rand(compute.patches, CHANNELS, PATCH, PATCH, device=compute.device)
    pairs = partial(tuple[Tensor, Tensor], (images, images[:, :1]))
    trainer = Trainer(network_to_deblur(config.weights), pairs, compute, learning_rate=0.0, parts=PARTS)
    took = []
    for _ in range(_STEPS):
        begun = time.perf_counter()
        trainer.step(0.0)
        compute.milestone()()
        took.append(time.perf_counter() - begun)
    return min(took[1:])


def _named(compute: Compute) -> str:
    if compute.device.type == "cpu":
        return f"{compute}, {compute.side_by_side} cores"
    return f"{compute}, {torch.cuda.get_device_name(compute.device)}"
