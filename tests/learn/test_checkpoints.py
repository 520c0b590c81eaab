"""Weights on disk: whole, with their card, and nothing but tensors."""

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from otf_stream.learn.checkpoints import CheckpointError, load_weights, save_weights, shipped_network
from otf_stream.learn.nafnet import NAFNet, deblurring_network


def test_weights_come_back_with_their_card(tmp_path):
    network = deblurring_network()
    torch.nn.init.normal_(network.ending.weight)
    save_weights(network, tmp_path / "w.safetensors", {"steps": 3, "validation": [0.5]})
    loaded, card = load_weights(tmp_path / "w.safetensors")
    assert card == {"steps": 3, "validation": [0.5]}
    image = torch.rand(1, 1, 32, 32)
    assert torch.equal(loaded.eval()(image), network.eval()(image))
    assert [path.name for path in tmp_path.iterdir()] == ["w.safetensors"]


def test_what_is_no_network_is_refused(tmp_path):
    (tmp_path / "text.safetensors").write_text("no weights")
    with pytest.raises(CheckpointError, match="no safetensors file"):
        load_weights(tmp_path / "text.safetensors")
    save_file({"intro.weight": np.zeros((4, 1, 3, 3), np.float32)}, tmp_path / "part.safetensors")
    with pytest.raises(CheckpointError, match="not the entries of a NAFNet"):
        load_weights(tmp_path / "part.safetensors")
    with pytest.raises(FileNotFoundError):
        load_weights(tmp_path / "none.safetensors")


def test_any_size_loads(tmp_path):
    network = NAFNet(width=8, enc_blk_nums=(1, 2), middle_blk_num=3, dec_blk_nums=(2, 1))
    save_weights(network, tmp_path / "w.safetensors", {})
    loaded = load_weights(tmp_path / "w.safetensors")[0]
    assert loaded.multiple == 4
    assert sum(p.numel() for p in loaded.parameters()) == sum(p.numel() for p in network.parameters())


def test_what_ships_is_the_network_that_the_card_tells_of():
    shipped = shipped_network().state_dict()
    assert {name: value.shape for name, value in shipped.items()} == {
        name: value.shape for name, value in deblurring_network().state_dict().items()
    }
    assert float(shipped["ending.weight"].abs().max()) > 0  # it was trained
