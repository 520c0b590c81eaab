"""Which device computes, and in which precision.

Half the bytes are twice the speed for a network that is bound by memory; bfloat16 keeps the range of float32, so
nothing needs scaling. It is used only where the hardware has it: emulated, it is slower than float32.

On a processor, images that have nothing to do with each other are computed side by side, one core each. Cores that
share one image wait for each other at every operation, and all of them wait for one that another program has taken.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import cache
from threading import Barrier, Semaphore
from typing import TypeVar

import numpy as np
import torch
from threadpoolctl import threadpool_limits
from torch import Tensor

from otf_stream.config import DeviceName
from otf_stream.heap import keep_memory

_FEWEST_PIXELS = 2**13  # with less memory than these take, other things fail
_COPYING_BESIDE, _DEVICE_PIXELS, _DEVICE_PATCHES = 2, 2**22, 32


Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Compute:
    """A device, and how it is used.

    Parameters
    ----------
    device, dtype
        Where networks run, and the precision of their convolutions.
    side_by_side
        How many batches of images are computed at the same time: one a core, or so that there is always one on the
        device while another is read, brought there and back, and written.
    pixels
        Of the images that go through a network together, at best.
    patches
        That a training step learns from.
    """

    device: torch.device
    dtype: torch.dtype
    side_by_side: int = 1
    pixels: int = 2**17  # whose activations stay in the cache of a CPU core
    patches: int = 8

    def map(self, function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        """Yield what ``function`` makes of each item, in their order; several are computed at a time.

        Results do not depend on how many.
        """
        if self.side_by_side == 1:
            yield from map(function, items)
            return
        pool, running = _pool(self.side_by_side), deque[Future[Result]]()
        for item in items:
            if len(running) == self.side_by_side:
                yield running.popleft().result()
            running.append(pool.submit(self._beside_others, function, item))
        while running:
            yield running.popleft().result()

    def map_resident(self, function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        """Do the same for items that are on the device already.

        One thread keeps a graphics card busy with them, and each thread has to find its kernels for itself.
        """
        return self.map(function, items) if self.device.type == "cpu" else map(function, items)

    def _beside_others(self, function: Callable[[Item], Result], item: Item) -> Result:
        with _gate(self.side_by_side):
            return function(item)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Have the device for oneself: what is recorded to be repeated must be nothing else."""
        with ExitStack() as all_of_them:
            for _ in range(self.side_by_side):
                all_of_them.enter_context(_gate(self.side_by_side))
            yield

    def upload(self, array: np.ndarray) -> Tensor:
        """Bring an array to the device; to another than the processor, without waiting until it is there."""
        tensor = torch.from_numpy(array)
        return tensor if self.device.type == "cpu" else tensor.pin_memory().to(self.device, non_blocking=True)

    def milestone(self) -> Callable[[], object]:
        """Return what waits until the device has done all that has been asked of it so far."""
        if self.device.type == "cpu":
            return lambda: None  # it never runs behind
        event = torch.cuda.Event()  # type: ignore[no-untyped-call]
        event.record()
        return event.synchronize

    def with_smaller_images(self, error: Exception) -> Compute:
        """Return what takes less memory than what failed with ``error``.

        Raises
        ------
        Exception
            That error, where it was not for want of memory, or it is not images that take it.
        """
        if not is_out_of_memory(error) or self.pixels <= _FEWEST_PIXELS:
            raise error
        return replace(self, pixels=self.pixels // 2)

    def autocast(self) -> torch.autocast:
        """Return the context in which networks run."""
        return torch.autocast(self.device.type, dtype=self.dtype, enabled=self.dtype != torch.float32)

    def generator(self, seed: int) -> torch.Generator:
        """Return a generator on this device."""
        return torch.Generator(self.device).manual_seed(seed)

    def __str__(self) -> str:
        return f"{self.device} in {str(self.dtype).removeprefix('torch.')}"


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a computation failed for want of memory, of the device or of the machine."""
    # Of the machine's own memory torch says so in words alone.
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)


def use_one_core() -> None:
    """Let this thread, or a process that has just one, compute on one core."""
    torch.set_num_threads(1)
    torch.get_num_threads()  # without this, a thread's first operation takes the number that all have by then


@cache
def _gate(batches: int) -> Semaphore:
    """Return what lets so many batches through at a time."""
    return Semaphore(batches)


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    """Start threads that use one core each; the others keep as many as they have."""
    mine = torch.get_num_threads()
    pool = ThreadPoolExecutor(threads, "compute", initializer=use_one_core)
    meet = Barrier(threads)
    wait([pool.submit(meet.wait) for _ in range(threads)])
    torch.set_num_threads(mine)  # some libraries have one number for all threads
    return pool


def choose_compute(choice: DeviceName = "auto", cores: int | None = None) -> Compute:
    """Choose device and precision.

    Parameters
    ----------
    choice
        ``auto`` takes a CUDA device where there is one.
    cores
        Of the processor, where there is no other device; all if None.

    Raises
    ------
    RuntimeError
        Where ``cuda`` is asked for and this torch sees no such device.
    """
    # NumPy's matrices are small here. Shared by all cores they take five times as long beside two busy processes.
    threadpool_limits(1, user_api="blas")
    cuda = torch.cuda.is_available()
    if choice == "cuda" and not cuda:
        raise RuntimeError(
            f"--device cuda: torch {torch.__version__} sees no CUDA device here; "
            "use --device cpu, or install a CUDA build of torch and the driver"
        )
    if choice == "cpu" or not cuda:
        keep_memory()
        fast = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
        return Compute(torch.device("cpu"), torch.bfloat16 if fast else torch.float32, cores or os.cpu_count() or 1)
    precision = torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float32
    return Compute(torch.device("cuda"), precision, _COPYING_BESIDE, _DEVICE_PIXELS, _DEVICE_PATCHES)
