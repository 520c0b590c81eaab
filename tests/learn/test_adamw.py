"""Steps are those of torch's own class, to the last bit, and do without what that imports."""

import subprocess
import sys

import torch
from torch import nn

from otf_stream.learn.adamw import AdamW

LEARN = """
import sys, torch
from otf_stream.learn.compute import choose_compute
from otf_stream.learn.nafnet import NAFNet
from otf_stream.learn.training import Trainer, apply_network

compute, images = choose_compute("cpu"), torch.rand(2, 1, 16, 16)
trainer = Trainer(NAFNet(width=8), lambda: (images, images), compute, learning_rate=1e-3)
trainer.step(0.5)
apply_network(trainer.network(), images, compute)
print(*{"torch._dynamo", "sympy"} & sys.modules.keys())
"""


def parameters():
    drawn = torch.Generator().manual_seed(1)
    kernels = torch.randn(7, 5, 3, 3, generator=drawn).to(memory_format=torch.channels_last)
    return [nn.Parameter(kernels), nn.Parameter(torch.randn(11, generator=drawn))]


def test_it_steps_as_torch_does():
    ours, theirs = parameters(), parameters()
    optimiser = AdamW(ours)
    reference = torch.optim.AdamW(theirs, betas=(0.9, 0.95), weight_decay=1e-4, fused=True)
    drawn = torch.Generator().manual_seed(2)
    for step in range(20):
        for mine, its in zip(ours, theirs, strict=True):
            mine.grad = torch.randn(mine.shape, generator=drawn)
            its.grad = mine.grad.clone()
        reference.param_groups[0]["lr"] = 1e-3 * (step + 1)
        optimiser.step(1e-3 * (step + 1))
        reference.step()
    for mine, its, drawn_first in zip(ours, theirs, parameters(), strict=True):
        assert torch.equal(mine, its)
        assert not torch.equal(mine, drawn_first)


def test_who_learns_does_without_a_compiler():
    done = subprocess.run([sys.executable, "-c", LEARN], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
