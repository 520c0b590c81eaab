"""What a NAFNet does to memory, for graphics cards: a block in two passes, and a layer norm that can be trained.

At inference a block is bound by memory: layer norm, convolutions of single pixels, gates and sums each read and write
every pixel, which takes ten times as long as the arithmetic. Here the first pass normalises and expands; the second
convolves each channel, gates, and does everything else that a pixel needs without its neighbours. Sizes of images are
arguments and not compiled in, so that a stack of another size needs no preparation. While training, a layer norm alone
takes a third of the time: torch's own gives every pixel, of 16 channels, a block of 128 threads.

Written in Triton, which comes with torch where there is CUDA on Linux, and needs a C compiler there. Where it does not
work on a card, which is tried once, blocks run operation by operation.
"""

from __future__ import annotations

import warnings
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

_SHAPES = {16: (64, 4), 32: (64, 4), 64: (64, 8), 128: (32, 8)}  # pixels and warps, so that registers suffice

CHANNELS = tuple(_SHAPES)
"""That a block may have; wider ones are found where there are few pixels."""

_EPSILON = 1e-6
_OLDEST_CARD = (8, 0)  # compute capability of those that multiply in bfloat16

try:
    import triton
    import triton.language as tl
except ImportError:  # on a processor, on Windows and on macOS
    triton = None

if triton:

    @triton.jit
    def _normalised(x, channels: tl.constexpr, epsilon: tl.constexpr):
        mean = tl.sum(x, axis=1) / channels
        x = x - mean[:, None]
        scale = 1 / tl.sqrt(tl.sum(x * x, axis=1) / channels + epsilon)
        return x * scale[:, None], mean, scale

    @triton.jit(do_not_specialize=["pixels"])
    def _expand(
        x_at,
        y_at,
        weight_at,
        bias_at,
        pixels,
        channels: tl.constexpr,
        block: tl.constexpr,
        epsilon: tl.constexpr,
    ):
        """``y = normalised(x) @ weight + bias``; weight ``(c, 2c)``."""
        pixel = tl.program_id(0).to(tl.int64) * block + tl.arange(0, block)
        inside = (pixel < pixels)[:, None]
        channel = tl.arange(0, channels)
        x = tl.load(x_at + pixel[:, None] * channels + channel[None, :], mask=inside, other=0.0)
        normal, _mean, _scale = _normalised(x.to(tl.float32), channels, epsilon)
        normal = normal.to(x.dtype)
        for half in range(2):
            column = half * channels + channel
            weight = tl.load(weight_at + channel[:, None] * 2 * channels + column[None, :])
            y = tl.dot(normal, weight, input_precision="ieee") + tl.load(bias_at + column)[None, :]
            tl.store(y_at + pixel[:, None] * 2 * channels + column[None, :], y.to(x.dtype), mask=inside)

    @triton.jit
    def _convolved(
        y_at,
        pixel,
        row,
        column,
        height,
        width,
        channel,
        weight_at,
        bias_at,
        channels: tl.constexpr,
    ):
        """Convolve channels of ``y`` with their own 3 × 3 weights, ``(9, 2c)``; beyond the edges there is nothing."""
        total = tl.load(bias_at + channel)[None, :] + tl.zeros((pixel.shape[0], channel.shape[0]), tl.float32)
        for place in range(9):
            down, right = place // 3 - 1, place % 3 - 1
            there = (row + down >= 0) & (row + down < height) & (column + right >= 0) & (column + right < width)
            at = (pixel + down * width + right)[:, None] * 2 * channels + channel[None, :]
            seen = tl.load(y_at + at, mask=there[:, None], other=0.0)
            weight = tl.load(weight_at + place * 2 * channels + channel)
            total += seen.to(tl.float32) * weight[None, :].to(tl.float32)
        return total

    @triton.jit(do_not_specialize=["pixels", "height", "width"])
    def _contract(
        x_at,
        y_at,
        out_at,
        depthwise_at,
        depthwise_bias_at,
        second_at,
        second_bias_at,
        third_at,
        third_bias_at,
        fourth_at,
        fourth_bias_at,
        pixels,
        height,
        width,
        channels: tl.constexpr,
        block: tl.constexpr,
        chunk: tl.constexpr,
        epsilon: tl.constexpr,
    ):
        """All of a block that comes after the first expansion."""
        pixel = tl.program_id(0).to(tl.int64) * block + tl.arange(0, block)
        within = pixel < pixels
        # Pixels past the last one compute something that nobody keeps.
        column = (pixel % width).to(tl.int32)
        row = tl.where(within, (pixel // width % height).to(tl.int32), -2)
        channel = tl.arange(0, channels)
        a = _convolved(
            y_at, pixel, row, column, height, width, channel, depthwise_at, depthwise_bias_at, channels
        )  # fmt: skip
        b = _convolved(
            y_at, pixel, row, column, height, width, channels + channel, depthwise_at, depthwise_bias_at, channels
        )
        place = pixel[:, None] * channels + channel[None, :]
        x = tl.load(x_at + place, mask=within[:, None], other=0.0)
        second = tl.load(second_at + channel[:, None] * channels + channel[None, :])
        gated = (a * b).to(x.dtype)
        s = (
            x.to(tl.float32)
            + tl.dot(gated, second, input_precision="ieee")
            + tl.load(second_bias_at + channel)[None, :]
        )
        normal, _mean, _scale = _normalised(s, channels, epsilon)
        normal = normal.to(x.dtype)
        s += tl.load(fourth_bias_at + channel)[None, :]
        for start in range(0, channels, chunk):
            some = start + tl.arange(0, chunk)
            third = third_at + channel[:, None] * 2 * channels + some[None, :]
            u = tl.dot(normal, tl.load(third), input_precision="ieee") + tl.load(third_bias_at + some)[None, :]
            v = tl.dot(normal, tl.load(third + channels), input_precision="ieee")
            v += tl.load(third_bias_at + channels + some)[None, :]
            fourth = tl.load(fourth_at + some[:, None] * channels + channel[None, :])
            s += tl.dot((u * v).to(x.dtype), fourth, input_precision="ieee")
        tl.store(out_at + place, s.to(x.dtype), mask=within[:, None])

    @triton.jit(do_not_specialize=["pixels"])
    def _normalise(
        x_at,
        y_at,
        mean_at,
        scale_at,
        weight_at,
        bias_at,
        pixels,
        channels: tl.constexpr,
        block: tl.constexpr,
        epsilon: tl.constexpr,
    ):
        pixel = tl.program_id(0).to(tl.int64) * block + tl.arange(0, block)
        channel = tl.arange(0, channels)
        inside, place = (pixel < pixels)[:, None], pixel[:, None] * channels + channel[None, :]
        x = tl.load(x_at + place, mask=inside, other=0.0).to(tl.float32)
        normal, mean, scale = _normalised(x, channels, epsilon)
        y = normal * tl.load(weight_at + channel)[None, :] + tl.load(bias_at + channel)[None, :]
        tl.store(y_at + place, y.to(y_at.dtype.element_ty), mask=inside)
        tl.store(mean_at + pixel, mean, mask=pixel < pixels)
        tl.store(scale_at + pixel, scale, mask=pixel < pixels)

    @triton.jit(do_not_specialize=["pixels"])
    def _normalise_backward(
        g_at,
        x_at,
        mean_at,
        scale_at,
        weight_at,
        out_at,
        weights_at,
        biases_at,
        pixels,
        channels: tl.constexpr,
        block: tl.constexpr,
    ):
        program = tl.program_id(0).to(tl.int64)
        pixel = program * block + tl.arange(0, block)
        channel = tl.arange(0, channels)
        inside, place = (pixel < pixels)[:, None], pixel[:, None] * channels + channel[None, :]
        g = tl.load(g_at + place, mask=inside, other=0.0).to(tl.float32)
        x = tl.load(x_at + place, mask=inside, other=0.0).to(tl.float32)
        mean = tl.load(mean_at + pixel, mask=pixel < pixels, other=0.0)
        scale = tl.load(scale_at + pixel, mask=pixel < pixels, other=0.0)
        x = (x - mean[:, None]) * scale[:, None]
        tl.store(weights_at + program * channels + channel, tl.sum(g * x, axis=0))
        tl.store(biases_at + program * channels + channel, tl.sum(g, axis=0))
        g = g * tl.load(weight_at + channel)[None, :]
        along = tl.sum(g * x, axis=1) / channels
        g = (g - (tl.sum(g, axis=1) / channels)[:, None] - x * along[:, None]) * scale[:, None]
        tl.store(out_at + place, g.to(out_at.dtype.element_ty), mask=inside)


class LayerNorm(torch.autograd.Function):
    """Layer norm over the last axis, of a power of two channels, in the dtype of its input."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """Normalise ``x``, ``(…, c)``, by ``weight`` and ``bias``, ``(c,)`` float32."""
        x = x.contiguous()
        channels = x.shape[-1]
        pixels, block = x.numel() // channels, _pixels_at_once(channels)
        y, mean = torch.empty_like(x), weight.new_empty(pixels)
        scale = torch.empty_like(mean)
        _normalise[(triton.cdiv(pixels, block),)](
            x, y, mean, scale, weight, bias, pixels, channels=channels, block=block, epsilon=_EPSILON
        )
        ctx.save_for_backward(x, mean, scale, weight)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the gradients of all three."""
        x, mean, scale, weight = ctx.saved_tensors
        channels = x.shape[-1]
        pixels, block = x.numel() // channels, _pixels_at_once(channels)
        programs = triton.cdiv(pixels, block)
        weights, out = weight.new_empty(programs, channels), torch.empty_like(x)
        biases = torch.empty_like(weights)
        _normalise_backward[(programs,)](
            gradients[0].contiguous(), x, mean, scale, weight, out, weights, biases, pixels,
            channels=channels, block=block,
        )  # fmt: skip
        return out, weights.sum(0), biases.sum(0)


def can_normalise(x: Tensor) -> bool:
    """Whether :class:`LayerNorm` is for ``x``, ``(…, c)``: only what is computed coarsely is differentiated once."""
    once = x.is_cuda and x.dtype == torch.bfloat16 and x.shape[-1] & (x.shape[-1] - 1) == 0
    return once and works_on_card(x.dtype)


@cache
def works_on_card(dtype: torch.dtype) -> bool:
    """Try once whether everything here works on the graphics card that is there; where it does not, warn."""
    if not triton or torch.cuda.get_device_capability() < _OLDEST_CARD:
        return False
    try:
        # Whoever asks first may be one who differentiates nothing.
        with torch.inference_mode(False), torch.enable_grad(), torch.autocast("cuda", enabled=False):
            _try_all(dtype)
    except Exception as error:  # no compiler, too little shared memory, another Triton than this was written for
        warnings.warn(f"networks run slower than they could: {type(error).__name__}: {error}", stacklevel=2)
        return False
    return True


def _try_all(dtype: torch.dtype) -> None:
    for channels in CHANNELS:
        x, square = torch.zeros(1, 4, 4, channels, device="cuda", dtype=dtype), (channels, channels)
        weights = [x.new_zeros(size) for size in (square, (channels, 2 * channels), square)]
        biases = [torch.zeros(length, device="cuda") for length in (channels, 2 * channels, channels)]
        depthwise = torch.zeros(9, 2 * channels, device="cuda"), biases[1]
        y = expanded(x, weights[1], biases[1])
        contracted(x, y, (*depthwise, *(part for pair in zip(weights, biases, strict=True) for part in pair)))
    pixels = torch.zeros(4, 16, device="cuda", dtype=dtype, requires_grad=True)
    LayerNorm.apply(pixels, torch.ones(16, device="cuda"), torch.zeros(16, device="cuda")).sum().backward()
    torch.cuda.synchronize()


def _pixels_at_once(channels: int) -> int:
    return max(2048 // channels, 1)


def expanded(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Normalise pixels over their channels and convolve them.

    Parameters
    ----------
    x
        ``(n, h, w, c)``, contiguous.
    weight
        ``(c, 2c)``, of the same dtype.
    bias
        ``(2c,)``, float32.

    Returns
    -------
    Tensor
        ``(n, h, w, 2c)``.
    """
    channels = x.shape[-1]
    pixels = x.numel() // channels
    y = x.new_empty(*x.shape[:-1], 2 * channels)
    block, warps = _SHAPES[channels]
    _expand[(triton.cdiv(pixels, block),)](
        x, y, weight, bias, pixels, channels=channels, block=block, epsilon=_EPSILON, num_warps=warps
    )
    return y


def contracted(x: Tensor, y: Tensor, weights: tuple[Tensor, ...]) -> Tensor:
    """Do all of a block that comes after the expansion of ``x`` to ``y``.

    Parameters
    ----------
    x, y
        ``(n, h, w, c)`` and ``(n, h, w, 2c)``, contiguous.
    weights
        Of the convolution of each channel, ``(9, 2c)`` float32, and its bias; then of three convolutions of single
        pixels, ``(c, c)``, ``(c, 2c)`` and ``(c, c)`` in the dtype of ``x``, each with its bias. Biases are float32.

    Returns
    -------
    Tensor
        ``(n, h, w, c)``.
    """
    _, height, width, channels = x.shape
    pixels = x.numel() // channels
    out, (block, warps) = torch.empty_like(x), _SHAPES[channels]
    _contract[(triton.cdiv(pixels, block),)](
        x,
        y,
        out,
        *weights,
        pixels,
        height,
        width,
        channels=channels,
        block=block,
        chunk=min(channels, 32),
        epsilon=_EPSILON,
        num_warps=warps,
    )
    return out
