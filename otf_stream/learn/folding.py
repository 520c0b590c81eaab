"""A trained network with fewer passes over memory, for inference.

On a slice, half the time of a NAFNet goes into multiplying and adding what convolutions have made. Much of it is linear
with constants once training is over: the channel attention (its statistic is the stack's), and the scales of the
residual branches. They are folded into the pointwise convolutions beside them. Gates get two contiguous convolutions
instead of the halves of one, which a processor multiplies several times faster. Layer norms keep their affine part: it
is free.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from otf_stream.learn.nafnet import NAFBlock, NAFNet, StackAttention, channels_last
from otf_stream.learn.pointwise import Pointwise


def folded(network: NAFNet) -> NAFNet:
    """Return a copy that computes the same, up to rounding, in less time; it cannot be trained.

    Parameters
    ----------
    network
        Ready for inference. Blocks whose attention has no statistic of a stack stay as they are: theirs depends on what
        they are shown.
    """
    network = copy.deepcopy(network).eval()
    for parent in list(network.modules()):
        for name, child in parent.named_children():
            if isinstance(child, NAFBlock) and child.sca.measured:
                setattr(parent, name, FoldedBlock(child))
    return channels_last(network.requires_grad_(False))


class FoldedBlock(nn.Module):
    """What a :class:`NAFBlock` computes at inference. Input and output ``(n, c, h, w)``."""

    def __init__(self, block: NAFBlock) -> None:
        super().__init__()
        self.norm1, self.norm2 = copy.deepcopy(block.norm1), copy.deepcopy(block.norm2)
        self.first = nn.ModuleList(_halves(block.conv1))
        self.depthwise = nn.ModuleList(_halves(block.conv2))
        self.second = _scaled(block.conv3, before=_attention(block.sca), after=block.beta)
        self.third = nn.ModuleList(_halves(block.conv4))
        self.fourth = _scaled(block.conv5, before=None, after=block.gamma)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``x`` to the same shape."""
        y = self.norm1(x)
        a, b = (depthwise(first(y)) for first, depthwise in zip(self.first, self.depthwise, strict=True))
        x = self.second(a.mul_(b)).add_(x)
        y = self.norm2(x)
        a, b = (third(y) for third in self.third)
        z: Tensor = self.fourth(a.mul_(b))
        return z.add_(x)


def _attention(attention: StackAttention) -> Tensor:
    """Return the constant that attention scales each channel by, ``(c,)``."""
    with torch.no_grad():
        scale: Tensor = attention[1](attention.pooled)
    return scale.flatten()


def _scaled(conv: nn.Conv2d, *, before: Tensor | None, after: Tensor) -> nn.Conv2d:
    """Fold scales of the channels before and after a pointwise convolution into it."""
    conv = copy.deepcopy(conv)
    weight, bias, scale = conv.weight.data, _bias(conv), after.data.flatten()
    if before is not None:
        weight *= before[None, :, None, None]
    weight *= scale[:, None, None, None]
    bias *= scale
    return conv


def _halves(conv: nn.Conv2d) -> list[nn.Conv2d]:
    """Split a convolution, pointwise or of each channel by itself, into one for either half of its output."""
    channels = conv.out_channels // 2
    halves: list[nn.Conv2d] = []
    for weight, bias in zip(conv.weight.data.chunk(2), _bias(conv).chunk(2), strict=True):
        if isinstance(conv, Pointwise):
            halves.append(Pointwise(conv.in_channels, channels))
        else:
            halves.append(nn.Conv2d(channels, channels, 3, padding=1, groups=channels))
        halves[-1].weight.data, halves[-1].bias = weight.clone(), nn.Parameter(bias.clone())
    return halves


def _bias(conv: nn.Conv2d) -> Tensor:
    assert conv.bias is not None  # noqa: S101 - those of a block have one
    return conv.bias.data
