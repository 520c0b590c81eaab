"""A convolution of single pixels is one, however it is computed."""

import pytest
import torch
from torch.nn import functional

from otf_stream.learn.pointwise import Pointwise


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize("bias", [True, False])
def test_it_is_a_convolution(layout, bias):
    torch.manual_seed(0)
    conv = Pointwise(5, 7, bias=bias)
    x = torch.rand(2, 5, 6, 9).to(memory_format=layout).requires_grad_()
    y = conv(x)
    torch.testing.assert_close(y, functional.conv2d(x, conv.weight, conv.bias))
    assert y.is_contiguous(memory_format=torch.channels_last)
    y.square().sum().backward()
    seen, weights = x.grad.clone(), conv.weight.grad.clone()
    x.grad = conv.weight.grad = None
    functional.conv2d(x, conv.weight, conv.bias).square().sum().backward()
    torch.testing.assert_close(x.grad, seen)
    torch.testing.assert_close(conv.weight.grad, weights)


@pytest.mark.parametrize("images", [1, 2])
@pytest.mark.parametrize("bias", [True, False])
def test_scales_before_and_after_it_are_those_of_the_channels(images, bias):
    torch.manual_seed(0)
    conv = Pointwise(5, 7, bias=bias)
    given = [torch.rand(2, 5, 6, 9), torch.rand(images, 5, 1, 1), torch.rand(1, 7, 1, 1)]
    folded, plain = ([tensor.clone().requires_grad_() for tensor in given] for _ in range(2))
    x, before, after = plain
    expected = functional.conv2d(x * before, conv.weight, conv.bias) * after
    found = conv(folded[0], before=folded[1], after=folded[2])
    torch.testing.assert_close(found, expected)
    gradients = [
        torch.autograd.grad(y.square().sum(), [*of, *conv.parameters()])
        for y, of in ((found, folded), (expected, plain))
    ]
    for mine, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(mine, theirs)
