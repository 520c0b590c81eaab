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

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(n, in_channels, h, w)`` to ``(n, out_channels, h, w)``."""
        if x.device.type != "cpu":
            return functional.linear(x.permute(0, 2, 3, 1), self.weight.flatten(1), self.bias).permute(0, 3, 1, 2)
        n, c, h, w = x.shape
        rows = x.permute(0, 2, 3, 1).reshape(n * h, 1, w, c)  # neither copies what is channels-last
        convolved = super().forward(rows.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return convolved.reshape(n, h, w, self.out_channels).permute(0, 3, 1, 2)
