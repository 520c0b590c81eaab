"""The passes of a graphics card: in Triton's interpreter, they compute what a block does."""

import json
import subprocess
import sys
from importlib.util import find_spec

import pytest

COMPARE = """
import json, sys
import torch
from otf_stream.learn.compute import Compute
from otf_stream.learn.folding import FusedBlock
from otf_stream.learn.nafnet import NAFBlock

apart = []
for channels, height, width in json.loads(sys.argv[1]):
    generator = torch.Generator().manual_seed(channels)
    block = NAFBlock(channels)
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.2)
    block.sca.settle(torch.rand(1, channels, 1, 1, generator=generator))
    images = torch.randn(2, channels, height, width, generator=generator)
    with torch.no_grad():
        expected, found = block.eval()(images), FusedBlock(block, torch.float32)(images)
    apart.append(float((found - expected).abs().max() / expected.abs().max()))
print(json.dumps(apart))
"""


NORMS = """
import torch
from torch.nn import functional
from otf_stream.learn.kernels import LayerNorm

generator = torch.Generator().manual_seed(0)
for shape in ((2, 3, 5, 16), (300, 64), (1, 4)):
    given = [torch.randn(size, generator=generator) for size in (shape, shape[-1:], shape[-1:])]
    mine, theirs = ([tensor.clone().requires_grad_() for tensor in given] for _ in range(2))
    found = LayerNorm.apply(*mine)
    expected = functional.layer_norm(theirs[0], shape[-1:], *theirs[1:], eps=1e-6)
    torch.testing.assert_close(found, expected)
    weights = torch.randn(shape, generator=generator)
    for gradient in zip(*(torch.autograd.grad((y * weights).sum(), x) for y, x in ((found, mine), (expected, theirs)))):
        torch.testing.assert_close(*gradient, rtol=1e-4, atol=1e-4)
"""


def interpreted(program, *arguments):
    return subprocess.run(
        [sys.executable, "-c", program, *arguments],
        env={"TRITON_INTERPRET": "1", "PATH": "/usr/bin"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.skipif(find_spec("triton") is None, reason="Triton is not installed")
def test_a_layer_norm_has_the_gradients_of_one():
    done = interpreted(NORMS)
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(find_spec("triton") is None, reason="Triton is not installed")
def test_the_two_passes_are_a_block():
    shapes = [(16, 9, 23), (32, 1, 5), (64, 8, 8), (128, 3, 4)]
    done = interpreted(COMPARE, json.dumps(shapes))
    assert done.returncode == 0, done.stderr
    assert max(json.loads(done.stdout)) < 1e-5
