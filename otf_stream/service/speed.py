"""How fast the networks run on this device, and what restoring a stack will therefore take.

A network does the same to every pixel, so that a few small images tell, measured in a fraction of a second: what is
spent on measuring is not spent on learning. They are as many as are computed side by side when a stack is restored,
since cores share what they are fed by. A graphics card is measured with as many as go through it together: fewer take
it as long.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Protocol, Self

import torch
from torch import Tensor

from otf_stream.acquisition import Acquisition
from otf_stream.learn.checkpoints import Shipped, shipped_network
from otf_stream.learn.compute import Compute, is_out_of_memory
from otf_stream.learn.denoise import NEIGHBOURS
from otf_stream.learn.folding import folded
from otf_stream.learn.nafnet import NAFNet
from otf_stream.learn.pairs import PATCH
from otf_stream.learn.slices import CHANNELS, shown
from otf_stream.learn.training import PARTS, Trainer, apply_network, padded_pixels, with_statistics
from otf_stream.restore.deblurring import pixels_through
from otf_stream.restore.methods import Grid
from otf_stream.service.costs import WRITTEN_PER_SECOND, RestoringTime

_PIXELS, _SIDE = 2**15, 128  # of the slice, and of the plane, that speed is measured on
_RUNS = 3
_BETTER = 0.95  # of the time a pixel takes, that a larger size must not exceed
_LATELY = 30.0  # seconds


def warm_up(compute: Compute) -> None:
    """Do what is slow the first time, before a stack has to wait for it: find kernels, and compile some."""
    inputs: dict[Shipped, int] = {"denoise": 2 + 2 * NEIGHBOURS, "deblur": CHANNELS}
    if compute.device.type != "cpu":
        inputs["deblur-large"] = CHANNELS
    for name, channels in inputs.items():
        images = torch.zeros(compute.patches, channels, PATCH, PATCH, device=compute.device)
        pairs = partial(tuple[Tensor, Tensor], (images, images[:, :1]))
        trainer = Trainer(shipped_network(name), pairs, compute, learning_rate=0.0, parts=PARTS)
        trainer.step(0.0)
        _seconds_of_pixel(folded(trainer.network([images]), compute), images.clone, compute)


def at_best_size(compute: Compute, sizes: Sequence[int]) -> Compute:
    """Measure how many pixels go through the deblurring network together at best; larger sizes need be 5 % better.

    Parameters
    ----------
    compute
        Device and precision.
    sizes
        To choose from, ascending. Where the memory is too small for one, that and the larger ones are left out.
    """
    image = torch.zeros(1, CHANNELS, _SIDE, _SIDE, device=compute.device)
    ready = folded(with_statistics(shipped_network("deblur"), [image], compute), compute)
    best, least = replace(compute, pixels=sizes[0] // 2), float("inf")
    for pixels in sizes:
        try:
            images = image.repeat(max(pixels // _SIDE**2, 1), 1, 1, 1)
            seconds = _seconds_of_pixel(ready, images.clone, compute)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            break
        if seconds < _BETTER * least:
            best, least = replace(compute, pixels=pixels), seconds
    return best


class Sized(Protocol):
    """A stack, there or only planned, as far as its size goes."""

    @property
    def acquisition(self) -> Acquisition:
        """What was announced."""

    def grid(self) -> Grid:
        """Where its planes lie."""


class Speedometer:
    """Tells how long restoring a stack will take, by how fast its networks were when that was measured last.

    Parameters
    ----------
    network, denoising
        What slices and planes will go through; how far they are trained does not matter.
    source
        The stack.
    compute
        Device and precision.
    """

    def __init__(self, network: NAFNet, denoising: NAFNet, source: Sized, compute: Compute) -> None:
        self._network, self._denoising = network, denoising
        self._source = source
        self._compute = compute
        self._of_slices = self._of_planes = 0.0
        self._measured = float("-inf")

    def measure(self) -> Self:
        """Measure how fast the networks are now; where the memory is too small for as many pixels, with fewer."""
        while True:
            try:
                return self._measure()
            except (RuntimeError, MemoryError) as error:
                self._compute = self._compute.with_smaller_images(error)

    def _measure(self) -> Self:
        grid, device = self._source.grid(), self._compute.device
        matrices = grid.imaging(torch.ones(1), device), grid.interpolation(device)
        width = max(_PIXELS // grid.depth, 32)
        many = 1 if device.type == "cpu" else max(self._compute.pixels // (grid.depth * width), 1)
        lines = torch.ones(many, len(grid.planes), width, device=device)
        planes = torch.zeros(many, 2 * NEIGHBOURS + 2, _SIDE, _SIDE, device=device)
        compute = self._compute
        slices, noisy = (partial(shown, *matrices, lines)), planes.clone
        self._of_slices = _seconds_of_pixel(_ready(self._network, CHANNELS, compute), slices, compute)
        self._of_planes = _seconds_of_pixel(_ready(self._denoising, planes.shape[1], compute), noisy, compute)
        self._measured = time.monotonic()
        return self

    def measured_lately(self) -> Self:
        """Measure anew if that was long ago: what else the machine does changes."""
        return self.measure() if time.monotonic() - self._measured > _LATELY else self

    def restoring_time(self, to_denoise: int) -> RestoringTime:
        """Return how many seconds restoring will take, writing included, by what was measured.

        Parameters
        ----------
        to_denoise
            So many of the planes are to be denoised yet.
        """
        sizes, depth = self._source.acquisition.sizes, self._source.grid().depth
        across = self._of_slices * sizes.y * pixels_through(self._network, depth, sizes.x, self._compute.pixels)
        along = self._of_slices * sizes.x * pixels_through(self._network, depth, sizes.y, self._compute.pixels)
        denoised = self._of_planes * to_denoise * padded_pixels(self._denoising, sizes.y, sizes.x)
        return RestoringTime(across + denoised + depth * sizes.y * sizes.x / WRITTEN_PER_SECOND, along)


def _ready(network: NAFNet, channels: int, compute: Compute) -> NAFNet:
    # Whatever its statistics are, it is as fast; those of patches need no kernels that training does not.
    patches = torch.zeros(compute.patches, channels, PATCH, PATCH, device=compute.device)
    return folded(with_statistics(network, [patches], compute), compute)


def _seconds_of_pixel(ready: NAFNet, images: Callable[[], Tensor], compute: Compute) -> float:
    """Seconds to make images and run the network on them, divided by their pixels, edges included."""
    made = images()
    pixels = len(made) * padded_pixels(ready, *made.shape[-2:]) * compute.side_by_side

    def run(_: int) -> float:
        return float(apply_network(ready, images(), compute).sum())  # waits for the device

    runs = []
    for _ in range(1 + _RUNS):  # the first one prepares kernels
        begun = time.perf_counter()
        list(compute.map(run, range(compute.side_by_side)))
        runs.append(time.perf_counter() - begun)
    return min(runs[1:]) / pixels
