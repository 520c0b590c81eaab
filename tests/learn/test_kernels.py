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


@pytest.mark.skipif(find_spec("triton") is None, reason="Triton is not installed")
def test_the_two_passes_are_a_block():
    shapes = [(16, 9, 23), (32, 1, 5), (64, 8, 8), (128, 3, 4)]
    done = subprocess.run(
        [sys.executable, "-c", COMPARE, json.dumps(shapes)],
        env={"TRITON_INTERPRET": "1", "PATH": "/usr/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert max(json.loads(done.stdout)) < 1e-5
