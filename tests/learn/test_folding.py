"""A folded network computes what the network computes, and leaves that as it was."""

from dataclasses import replace

import pytest
import torch

from otf_stream.learn.compute import choose_compute
from otf_stream.learn.denoise import denoising_network
from otf_stream.learn.folding import FoldedBlock, folded
from otf_stream.learn.nafnet import NAFNet, deblurring_network
from otf_stream.learn.training import apply_network, with_statistics

CPU = replace(choose_compute("cpu"), dtype=torch.float32)  # short floats round off more than what is to be told apart


def unlike_a_new_one(network):
    """Give every parameter a value that is neither 0 nor 1."""
    generator = torch.Generator().manual_seed(0)
    for parameter in network.parameters():
        parameter.data += 0.3 * torch.randn(parameter.shape, generator=generator)
    return network


@pytest.mark.parametrize("make", [deblurring_network, denoising_network])
def test_computes_the_same(make):
    torch.manual_seed(0)
    network = unlike_a_new_one(make())
    images = torch.rand(2, network.intro.in_channels, 40, 56)
    ready = with_statistics(network, [images], CPU)
    expected = apply_network(ready, images, CPU)
    assert float(expected.std()) > 0.1
    fewer = folded(ready, CPU)
    assert sum(isinstance(module, FoldedBlock) for module in fewer.modules()) == len(
        [name for name, _ in ready.named_modules() if name.endswith(".sca")]
    )
    torch.testing.assert_close(
        apply_network(fewer, images, CPU), expected, rtol=1e-4, atol=1e-4 * float(expected.std())
    )
    assert torch.equal(apply_network(ready, images, CPU), expected)
    assert (fewer.reach, fewer.multiple) == (ready.reach, ready.multiple)


def test_attention_that_looks_at_its_input_stays():
    network = NAFNet(width=4, enc_blk_nums=(1,), middle_blk_num=1, dec_blk_nums=(1,)).eval()
    images = torch.rand(1, 1, 16, 16)
    assert not any(isinstance(module, FoldedBlock) for module in folded(network, CPU).modules())
    assert torch.equal(apply_network(folded(network, CPU), images, CPU), apply_network(network, images, CPU))
