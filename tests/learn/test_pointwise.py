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
