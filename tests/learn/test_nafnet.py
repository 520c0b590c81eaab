"""NAFNet: the published names, a reach that is true, and tiles without seams."""

import pytest
import torch

from otf_stream.learn.checkpoints import CheckpointError, load_checkpoint
from otf_stream.learn.compute import choose_compute
from otf_stream.learn.nafnet import NAFNet, StackAttention
from otf_stream.learn.training import with_statistics

CPU = choose_compute("cpu")

BLOCK = ["beta", "gamma", "sca.1.weight", "sca.1.bias"] + [
    f"{name}.{kind}"
    for name in ("conv1", "conv2", "conv3", "conv4", "conv5", "norm1", "norm2")
    for kind in ("weight", "bias")
]


def published_names(encoder, middle, decoder):
    """The entries of megvii-research/NAFNet's checkpoints, as their README's configurations have them."""
    names = [f"{part}.{kind}" for part in ("intro", "ending") for kind in ("weight", "bias")]
    for level, blocks in enumerate(encoder):
        names += [f"downs.{level}.{kind}" for kind in ("weight", "bias")]
        names += [f"encoders.{level}.{i}.{name}" for i in range(blocks) for name in BLOCK]
    for level, blocks in enumerate(decoder):
        names += [f"ups.{level}.0.weight"]
        names += [f"decoders.{level}.{i}.{name}" for i in range(blocks) for name in BLOCK]
    return set(names + [f"middle_blks.{i}.{name}" for i in range(middle) for name in BLOCK])


def awake(network, seed=0):
    """Give the residual branches weight: at the start beta and gamma are zero and hide every block."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return network


def measured(network):
    return with_statistics(network, [torch.randn(4, 1, 64, 64, generator=torch.Generator().manual_seed(1))], CPU)


@pytest.mark.parametrize(
    ("encoder", "middle", "decoder"), [((1, 1, 1, 28), 1, (1, 1, 1, 1)), ((2, 2, 4, 8), 12, (2, 2, 2, 2))]
)
def test_entries_are_those_of_the_published_checkpoints(encoder, middle, decoder):
    network = NAFNet(img_channel=3, width=8, enc_blk_nums=encoder, middle_blk_num=middle, dec_blk_nums=decoder)
    assert set(network.state_dict()) == published_names(encoder, middle, decoder)


def test_a_published_style_checkpoint_loads(tmp_path):
    original = awake(NAFNet(img_channel=3, width=8, enc_blk_nums=(1, 2), middle_blk_num=3, dec_blk_nums=(2, 1)))
    torch.save({"params": original.state_dict()}, tmp_path / "NAFNet.pth")
    image = torch.randn(1, 3, 32, 32)
    loaded = load_checkpoint(tmp_path / "NAFNet.pth").eval()
    torch.testing.assert_close(loaded(image), original.eval()(image))


def test_other_files_are_refused(tmp_path):
    (tmp_path / "text.pth").write_text("not a checkpoint")
    with pytest.raises(CheckpointError, match=r"text\.pth"):
        load_checkpoint(tmp_path / "text.pth")
    torch.save({"conv.weight": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match="NAFNet"):
        load_checkpoint(tmp_path / "other.pth")


@pytest.mark.parametrize(
    "shape",
    [
        {"enc_blk_nums": (1,), "dec_blk_nums": (1,)},
        {"enc_blk_nums": (1, 1), "dec_blk_nums": (2, 1), "middle_blk_num": 2},
    ],
)
def test_nothing_beyond_the_reach_matters(shape):
    network = measured(awake(NAFNet(width=4, **shape)))
    side = 2 * network.reach + 4 * network.multiple
    image = torch.randn(1, 1, side, side, generator=torch.Generator().manual_seed(2), requires_grad=True)
    for centre in (side // 2, side // 2 + network.multiple - 1):
        (gradient,) = torch.autograd.grad(network(image)[0, 0, centre, centre], image)
        rows = gradient[0, 0].abs().sum(1).nonzero()
        assert (rows - centre).abs().max() <= network.reach


def test_tiles_with_a_halo_have_no_seams():
    network = measured(awake(NAFNet(width=4)))
    halo = network.reach
    image = torch.randn(1, 1, 32, 64 + 2 * halo, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        whole = network(image)[..., halo : halo + 64]
        left = network(image[..., : 32 + 2 * halo])[..., halo : halo + 32]
        right = network(image[..., 32:])[..., halo : halo + 32]
    torch.testing.assert_close(torch.cat([left, right], -1), whole, rtol=1e-4, atol=1e-4)


def test_attention_looks_at_each_stack_of_a_batch_by_itself():
    network = awake(NAFNet(width=4)).train()
    images = torch.rand(6, 1, 16, 16, generator=torch.Generator().manual_seed(4))
    alone = [network(stack) for stack in images.chunk(3)]
    for module in network.modules():
        if isinstance(module, StackAttention):
            module.stacks = 3
    torch.testing.assert_close(network(images), torch.cat(alone))
