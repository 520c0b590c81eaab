"""The lateral planes that training draws from: a bounded pool that grows while planes arrive.

Patches are gathered on the device with one indexing operation a batch; a crop at a time in Python would cost more
than the network does.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

_CAPACITY = 48 * 2**20  # pixels: 192 MiB of float32, some 50 planes of 1000 × 1000


class PlanePool:
    """Planes of one stack on the computing device, in normalised intensity.

    Parameters
    ----------
    smallest
        Planes smaller than this along y or x are mirrored at their edges, so that patches fit.
    capacity
        Pixels.
    expected
        Planes that will be added one by one. For them there is room from the start, of which memory is taken as they
        come: to move the pool with each would take twice its memory.
    """

    def __init__(self, device: torch.device, *, smallest: int, capacity: int = _CAPACITY, expected: int = 0) -> None:
        self._device = device
        self._smallest = smallest
        self._capacity = capacity
        self._expected = expected
        self._held: Tensor | None = None
        self._length = 0
        self._seen = 0

    def __len__(self) -> int:
        return self._length

    @property
    def planes(self) -> Tensor:
        """The planes, ``(n, c, y, x)``."""
        if self._held is None:
            raise ValueError("no plane has been added to the pool yet; add one before drawing patches")
        return self._held[: self._length]

    def add(self, planes: Tensor, generator: torch.Generator) -> None:
        """Add ``planes``, ``(n, c, y, x)``. Past the capacity each may replace one; all are equally likely to stay.

        They are the pool's from then on: the first ones are not copied, unless more are expected.
        """
        planes = _mirrored(planes.to(self._device), self._smallest)
        room = max(self._capacity // planes[0].numel(), 1)
        fitting = planes[: max(room - self._length, 0)]
        self._append(fitting, min(self._expected, room))
        self._seen += len(fitting)
        for plane in planes[len(fitting) :]:
            self._seen += 1
            slot = int(torch.randint(self._seen, (), generator=generator, device=generator.device))
            if slot < room:
                self.planes[slot] = plane

    def _append(self, planes: Tensor, expected: int) -> None:
        length = self._length + len(planes)
        if self._held is None and length >= expected:
            self._held = planes
        else:
            if self._held is None or length > len(self._held):
                held = planes.new_empty(max(length, expected), *planes.shape[1:])
                held[: self._length] = planes[:0] if self._held is None else self.planes
                self._held = held
            self._held[self._length : length] = planes
        self._length = length

    def patches(self, n: int, height: int, width: int, generator: torch.Generator) -> Tensor:
        """Draw random patches, ``(n, c, height, width)``, as :func:`random_patches` does."""
        return random_patches(self.planes, n, height, width, generator)


def random_window(height: int, width: int, most: int, generator: torch.Generator) -> tuple[slice, slice]:
    """Draw where a window of at most ``most`` × ``most`` pixels lies in a plane; where all fits, nothing is drawn."""

    def draw(side: int) -> slice:
        free = max(side - most, 0)
        start = int(torch.randint(free + 1, (), generator=generator, device=generator.device)) if free else 0
        return slice(start, start + min(side, most))

    return draw(height), draw(width)


@dataclass(frozen=True)
class Windows:
    """Where patches lie in planes.

    Parameters
    ----------
    plane, rows, columns
        Index of each pixel, ``(n, height, width)`` or what can be spread to it.
    turned
        Whether the rows of a patch run along the columns of its plane, ``(n, 1, 1)``.
    """

    plane: Tensor
    rows: Tensor
    columns: Tensor
    turned: Tensor

    def of(self, planes: Tensor) -> Tensor:
        """Cut them out of planes, ``(m, c, y, x)``: patches, ``(n, c, height, width)``."""
        return planes[self.plane, :, self.rows, self.columns].permute(0, 3, 1, 2)


def random_patches(
    planes: Tensor, n: int, height: int, width: int, generator: torch.Generator, *, turned: bool = True
) -> Tensor:
    """Draw random patches, ``(n, c, height, width)``, of planes ``(m, c, y, x)``, as :func:`random_windows` does."""
    return random_windows(planes, n, height, width, generator, turned=turned).of(planes)


def random_windows(
    planes: Tensor, n: int, height: int, width: int, generator: torch.Generator, *, turned: bool = True
) -> Windows:
    """Draw where random patches lie, each mirrored at random and turned if its axes may be exchanged.

    Parameters
    ----------
    planes
        ``(m, c, y, x)``.
    n, height, width
        How many, and of what size: at most the smallest side of a plane, where they are turned.
    generator
        Source of randomness, on the device of ``planes``.
    turned
        Whether y and x may be exchanged.
    """
    count, _, length, breadth = planes.shape
    device = planes.device
    rows, columns = torch.arange(height, device=device)[:, None], torch.arange(width, device=device)

    def draw(high: int) -> Tensor:
        return torch.randint(high, (n, 1, 1), generator=generator, device=device)

    high, wide = (max(height, width),) * 2 if turned else (height, width)
    which, top, left = draw(count), draw(length - high + 1), draw(breadth - wide + 1)
    flip_y, flip_x, turn = draw(2) > 0, draw(2) > 0, draw(2) > (0 if turned else 1)
    # Turned, the rows of the patch run along the columns of the plane.
    i, j = torch.where(turn, columns, rows), torch.where(turn, rows, columns)
    i, j = torch.where(flip_y, high - 1 - i, i), torch.where(flip_x, wide - 1 - j, j)
    return Windows(which, top + i, left + j, turn)


def _mirrored(planes: Tensor, smallest: int) -> Tensor:
    """Mirror planes at their lower and right edges until both sides are ``smallest``."""
    while min(planes.shape[-2:]) < smallest:
        grow = [max(min(smallest - n, n - 1), 0) for n in planes.shape[-2:]]
        if not any(grow):  # a side of one pixel has nothing to mirror
            grow = [max(smallest - n, 0) for n in planes.shape[-2:]]
            return functional.pad(planes, (0, grow[1], 0, grow[0]), mode="replicate")
        planes = functional.pad(planes, (0, grow[1], 0, grow[0]), mode="reflect")
    return planes
