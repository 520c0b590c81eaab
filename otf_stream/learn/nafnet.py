"""NAFNet, the deblurring network, made local so that tiles have no seams.

Parameters carry the names of the published network, so its checkpoints load. One thing differs. The published
channel attention pools over the whole input, so that a voxel's value depends on where the tile is cut: seams.
Here the pooled statistic is that of the *stack*: while training it is the mean over what a batch holds of the stack,
and at inference that of the whole stack, which is measured once training is over. The network is then a finite filter
whose reach is known (:attr:`NAFNet.reach`), and cutting a slice into tiles with that halo, at multiples of
:attr:`NAFNet.multiple`, changes nothing.

Activations run channels-last, in which the layer norm over channels is a plain contiguous reduction.

References
----------
Chen, Chu, Zhang, Sun: Simple Baselines for Image Restoration, ECCV 2022, arXiv:2204.04676.
Chu et al.: Improving Image Restoration by Revisiting Global Information Aggregation, ECCV 2022,
arXiv:2112.04491 (on why pooling over the whole input hurts).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from otf_stream.learn.kernels import LayerNorm, can_normalise
from otf_stream.learn.pointwise import Pointwise
from otf_stream.learn.slices import CHANNELS


class LayerNorm2d(nn.Module):
    """Layer norm over the channels of each pixel. Input and output ``(n, c, h, w)``."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise ``x``."""
        pixels = x.permute(0, 2, 3, 1)
        if can_normalise(pixels):
            normal: Tensor = LayerNorm.apply(pixels, self.weight, self.bias)  # type: ignore[no-untyped-call]
            return normal.permute(0, 3, 1, 2)
        weight, bias = self.weight.to(x.dtype), self.bias.to(x.dtype)
        return functional.layer_norm(pixels, (x.shape[1],), weight, bias, 1e-6).permute(0, 3, 1, 2)


class StackAttention(nn.Sequential):
    """Channel attention whose pooled statistic is the stack's, not the tile's.

    Until a statistic has been measured, as for a checkpoint that was just loaded, it pools over each input like
    the published network does.
    """

    pooled: Tensor

    def __init__(self, channels: int) -> None:
        # Position 1 is the name ("sca.1") that the published checkpoints give the convolution.
        super().__init__(nn.Identity(), nn.Conv2d(channels, channels, 1))
        self.stacks = 1
        """While training, how many stacks a batch is of: as many images of each, one stack after the other."""
        self.measuring = False
        """Whether what is pooled of a batch is kept."""
        # Not persistent: the published checkpoints have no such entry.
        self.register_buffer("pooled", torch.zeros(1, channels, 1, 1), persistent=False)
        self.measured = False
        """Whether there is a statistic of a stack."""

    def settle(self, pooled: Tensor) -> None:
        """Take ``pooled``, ``(1, c, 1, 1)``, for the statistic of the stack."""
        self.pooled.copy_(pooled)
        self.measured = True

    def forward(self, x: Tensor) -> Tensor:
        """Return by what each channel of ``x``, ``(n, c, h, w)``, is to be scaled: one for all images, or one each."""
        if self.training:
            images = len(x) // self.stacks
            pooled = x.mean(dim=(2, 3)).view(self.stacks, images, -1).mean(dim=1)[:, :, None, None]
            if self.measuring:
                self.settle(pooled.detach().float().mean(dim=0, keepdim=True))
            scale: Tensor = self[1](pooled)
            return scale.repeat_interleave(images, dim=0) if self.stacks > 1 else scale
        scale = self[1](self.pooled.to(x.dtype) if self.measured else x.mean(dim=(2, 3), keepdim=True))
        return scale


def _gate(x: Tensor) -> Tensor:
    a, b = x.chunk(2, dim=1)
    return a * b


class NAFBlock(nn.Module):
    """One block: a depthwise 3×3 stage with attention, then a pointwise stage, both gated and residual."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.conv1 = Pointwise(c, 2 * c)
        self.conv2 = nn.Conv2d(2 * c, 2 * c, 3, padding=1, groups=2 * c)
        self.conv3 = Pointwise(c, c)
        self.sca = StackAttention(c)
        self.conv4 = Pointwise(c, 2 * c)
        self.conv5 = Pointwise(c, c)
        self.norm1 = LayerNorm2d(c)
        self.norm2 = LayerNorm2d(c)
        self.beta = nn.Parameter(torch.zeros(1, c, 1, 1))
        self.gamma = nn.Parameter(torch.zeros(1, c, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(n, c, h, w)`` to the same shape."""
        y = _gate(self.conv2(self.conv1(self.norm1(x))))
        x = x + self.conv3(y, before=self.sca(y), after=self.beta)
        y = _gate(self.conv4(self.norm2(x)))
        z: Tensor = self.conv5(y, after=self.gamma)
        return x + z


class NAFNet(nn.Module):
    """A U-shaped network of :class:`NAFBlock`, with a residual from input to output.

    Parameters
    ----------
    img_channel
        Channels of the image: 1 here, 3 for the published checkpoints.
    width
        Channels at full resolution; doubled at each level.
    enc_blk_nums, dec_blk_nums
        Blocks at each level, finest first for the encoder and coarsest first for the decoder.
    middle_blk_num
        Blocks at the coarsest level.
    guide_channels
        Channels of the input, after those of the image, that help to restore and are not restored.
    """

    def __init__(
        self,
        img_channel: int = 1,
        width: int = 16,
        middle_blk_num: int = 1,
        enc_blk_nums: Sequence[int] = (1, 1),
        dec_blk_nums: Sequence[int] = (1, 1),
        guide_channels: int = 0,
    ) -> None:
        super().__init__()
        self.img_channel = img_channel
        self.intro = nn.Conv2d(img_channel + guide_channels, width, 3, padding=1)
        self.ending = nn.Conv2d(width, img_channel, 3, padding=1)
        # A new network is the identity: it can only improve on its input, and keeps its flux from the start.
        nn.init.zeros_(self.ending.weight)
        nn.init.zeros_(self.ending.bias)  # type: ignore[arg-type]
        self.encoders = nn.ModuleList()
        self.decoders = nn.ModuleList()
        self.ups = nn.ModuleList()
        self.downs = nn.ModuleList()
        c = width
        for blocks in enc_blk_nums:
            self.encoders.append(nn.Sequential(*(NAFBlock(c) for _ in range(blocks))))
            self.downs.append(nn.Conv2d(c, 2 * c, 2, 2))
            c *= 2
        self.middle_blks = nn.Sequential(*(NAFBlock(c) for _ in range(middle_blk_num)))
        for blocks in dec_blk_nums:
            self.ups.append(nn.Sequential(Pointwise(c, 2 * c, bias=False), nn.PixelShuffle(2)))
            c //= 2
            self.decoders.append(nn.Sequential(*(NAFBlock(c) for _ in range(blocks))))
        self.multiple = 2 ** len(enc_blk_nums)
        """Height and width of the input must be multiples of this."""
        # A 3×3 convolution at level l reaches 2^l pixels; resampling adds at most one coarse pixel a level.
        levels = [*enumerate(enc_blk_nums), *enumerate(reversed(dec_blk_nums))]
        blocks_reach = sum(n * 2**level for level, n in levels) + middle_blk_num * self.multiple
        reach = 2 + blocks_reach + 2 * self.multiple
        self.reach = -(-reach // self.multiple) * self.multiple
        """How far, in pixels, an output depends on its input: the halo of a tile."""

    def forward(self, x: Tensor) -> Tensor:
        """Restore the image in ``x``.

        Parameters
        ----------
        x
            ``(n, img_channel + guide_channels, h, w)``, ``h`` and ``w`` multiples of :attr:`multiple`.

        Returns
        -------
        Tensor
            ``(n, img_channel, h, w)``.
        """
        y = self.intro(x)
        skips = []
        for encoder, down in zip(self.encoders, self.downs, strict=True):
            y = encoder(y)
            skips.append(y)
            y = down(y)
        y = self.middle_blks(y)
        for decoder, up, skip in zip(self.decoders, self.ups, reversed(skips), strict=True):
            y = decoder(up(y) + skip)
        residual: Tensor = self.ending(y)
        return residual + x[:, : self.img_channel]


def channels_last(network: NAFNet) -> NAFNet:
    """Lay the weights of ``network`` out for channels-last activations."""
    # torch's own annotation of Module.to lacks the keyword.
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network


def deblurring_network() -> NAFNet:
    """Return a new network of the size that deblurs on a CPU: 0.4 M parameters, three levels."""
    blocks = (1, 1, 1)
    return NAFNet(width=16, enc_blk_nums=blocks, middle_blk_num=2, dec_blk_nums=blocks, guide_channels=CHANNELS - 1)


def large_deblurring_network() -> NAFNet:
    """Return a new network of the size that deblurs on a GPU: 2.9 M parameters, six times the arithmetic."""
    return NAFNet(
        width=32, enc_blk_nums=(1, 2, 2), middle_blk_num=4, dec_blk_nums=(2, 2, 1), guide_channels=CHANNELS - 1
    )
