"""Convolutions of single pixels, which are half of a NAFNet's arithmetic, at the speed a processor is capable of.

torch hands such a convolution to oneDNN only where it has several threads or at least 16 images; one core with a few
large images gets a plain matrix product after a slow copy of the bias. Here images compute side by side on one core
each, so every row becomes an image of its own: the same pixels in the same memory. On a graphics card such a
convolution is a matrix product, which needs no preparation for every new size and adds the bias on its way.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional


class Pointwise(nn.Conv2d):
    """A 1 × 1 convolution of channels-last images ``(n, c, h, w)``.

    Parameters
    ----------
    in_channels, out_channels, bias
        As of a convolution.
    """

    def __init__(self, in_channels: int, out_channels: int, *, bias: bool = True) -> None:
        super().__init__(in_channels, out_channels, 1, bias=bias)

    def forward(self, x: Tensor, before: Tensor | None = None, after: Tensor | None = None) -> Tensor:
        """Map ``(n, in_channels, h, w)`` to ``(n, out_channels, h, w)``.

        Parameters
        ----------
        x
            Images.
        before
            Scales of their channels, ``(1, in_channels, 1, 1)`` or one of these an image; 1 if None.
        after
            Scales of the channels that are made of them, ``(1, out_channels, 1, 1)``; 1 if None.
        """
        if before is not None and len(before) > 1:
            x, before = x * before, None
        weight, bias = self.scaled(before, after)
        if x.device.type != "cpu":
            return functional.linear(x.permute(0, 2, 3, 1), weight.flatten(1), bias).permute(0, 3, 1, 2)
        n, c, h, w = x.shape
        rows = x.permute(0, 2, 3, 1).reshape(n * h, 1, w, c)  # neither copies what is channels-last
        convolved = functional.conv2d(rows.permute(0, 3, 1, 2), weight, bias).permute(0, 2, 3, 1)
        return convolved.reshape(n, h, w, self.out_channels).permute(0, 3, 1, 2)

    def scaled(self, before: Tensor | None, after: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Return weights and bias that scale channels before and after, ``(1, channels, 1, 1)``, as well."""
        weight, bias = self.weight, self.bias
        if before is not None:
            weight = weight * before
        if after is not None:
            weight = weight * after.transpose(0, 1)
            bias = None if bias is None else bias * after.flatten()
        return weight, bias
