"""A trained network with fewer passes over memory, for inference.

On a slice, half the time of a NAFNet goes into multiplying and adding what convolutions have made. Much of it is linear
with constants once training is over: the channel attention (its statistic is the stack's), and the scales of the
residual branches. They are folded into the pointwise convolutions beside them. On a processor, gates get two contiguous
convolutions instead of the halves of one, which it multiplies several times faster; layer norms keep their affine part,
since it is free. A graphics card gets blocks of two passes each (:mod:`otf_stream.learn.kernels`).
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from otf_stream.learn.compute import Compute
from otf_stream.learn.kernels import CHANNELS, contracted, expanded, works_on_card
from otf_stream.learn.nafnet import LayerNorm2d, NAFBlock, NAFNet, StackAttention, channels_last
from otf_stream.learn.pointwise import Pointwise


def folded(network: NAFNet, compute: Compute) -> NAFNet:
    """Return a copy that computes the same, up to rounding, in less time; it cannot be trained.

    Parameters
    ----------
    network
        Ready for inference. Blocks whose attention has no statistic of a stack stay as they are: theirs depends on what
        they are shown.
    compute
        Where it will run, and in which precision.
    """
    on_card = compute.device.type == "cuda" and works_on_card(compute.dtype)
    network = copy.deepcopy(network).eval()
    for parent in list(network.modules()):
        for name, child in parent.named_children():
            if isinstance(child, NAFBlock) and child.sca.measured:
                fits = on_card and child.conv3.in_channels in CHANNELS
                setattr(parent, name, FusedBlock(child, compute.dtype) if fits else FoldedBlock(child))
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


class FusedBlock(nn.Module):
    """The same in two passes over the memory of a graphics card.

    Parameters
    ----------
    block
        Its attention has a statistic.
    dtype
        Of what is kept in memory, and multiplied.
    """

    def __init__(self, block: NAFBlock, dtype: torch.dtype) -> None:
        super().__init__()
        second = _scaled(block.conv3, before=_attention(block.sca), after=block.beta)
        fourth = _scaled(block.conv5, before=None, after=block.gamma)
        depthwise = block.conv2.weight.data.flatten(1).T.float().contiguous(), _bias(block.conv2).float()
        self._dtype = dtype
        self._first = _normalising(block.conv1, block.norm1, dtype)
        pointwise = (_matrix(second, dtype), _normalising(block.conv4, block.norm2, dtype), _matrix(fourth, dtype))
        self._others = (*depthwise, *(tensor for pair in pointwise for tensor in pair))

    def forward(self, x: Tensor) -> Tensor:
        """Map ``x`` to the same shape."""
        pixels = x.permute(0, 2, 3, 1).to(self._dtype).contiguous()
        return contracted(pixels, expanded(pixels, *self._first), self._others).permute(0, 3, 1, 2)


def _matrix(conv: nn.Conv2d, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return what a convolution of single pixels multiplies them by, ``(c, c')``, and its bias."""
    return conv.weight.data.flatten(1).T.to(dtype).contiguous(), _bias(conv).float().contiguous()


def _normalising(conv: nn.Conv2d, norm: LayerNorm2d, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Fold the affine part of a layer norm into the convolution of single pixels that follows it."""
    weight = conv.weight.data.flatten(1)
    matrix = (weight * norm.weight.data).T.to(dtype).contiguous()
    return matrix, (_bias(conv) + weight @ norm.bias.data).float().contiguous()


def _attention(attention: StackAttention) -> Tensor:
    """Return the constant that attention scales each channel by, ``(1, c, 1, 1)``."""
    scale: Tensor = attention[1](attention.pooled)
    return scale


def _scaled(conv: Pointwise, *, before: Tensor | None, after: Tensor) -> Pointwise:
    """Fold scales of the channels before and after a pointwise convolution into it."""
    folded = copy.deepcopy(conv)
    weight, bias = conv.scaled(before, after)
    assert bias is not None  # noqa: S101 - those of a block have one
    folded.weight.data, folded.bias = weight.detach(), nn.Parameter(bias.detach())
    return folded


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
