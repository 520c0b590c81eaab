"""Weights on disk: whole, with their card, and nothing but tensors."""

import hashlib
import os
import pickle
import re
import zipfile

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from otf_stream.learn.architecture import describe, single_channel
from otf_stream.learn.checkpoints import (
    CheckpointError,
    digest,
    import_checkpoint,
    load_checkpoint,
    load_weights,
    network_to_deblur,
    save_weights,
    shipped_network,
)
from otf_stream.learn.nafnet import NAFNet, deblurring_network
from otf_stream.learn.slices import CHANNELS


def test_weights_come_back_with_their_card(tmp_path):
    network = deblurring_network()
    torch.nn.init.normal_(network.ending.weight)
    save_weights(network, tmp_path / "w.safetensors", {"steps": 3, "validation": [0.5]})
    loaded, card = load_weights(tmp_path / "w.safetensors")
    assert card == {"steps": 3, "validation": [0.5]}
    image = torch.rand(1, CHANNELS, 32, 32)
    assert torch.equal(loaded.eval()(image), network.eval()(image))
    assert [path.name for path in tmp_path.iterdir()] == ["w.safetensors"]
    (tmp_path / "plain").touch()
    assert (tmp_path / "w.safetensors").stat().st_mode == (tmp_path / "plain").stat().st_mode


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
    shipped = shipped_network("deblur").state_dict()
    assert {name: value.shape for name, value in shipped.items()} == {
        name: value.shape for name, value in deblurring_network().state_dict().items()
    }
    assert float(shipped["ending.weight"].abs().max()) > 0  # it was trained


def colour_network(**sizes):
    """A network whose every entry matters: as new, its blocks and its last layer do nothing."""
    network = NAFNet(**{"img_channel": 3, "width": 8, "enc_blk_nums": (1, 2), "dec_blk_nums": (2, 1), **sizes})
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return network.eval()


def outputs(network, image):
    with torch.no_grad():
        return network.double().eval()(image)


@pytest.mark.parametrize("sizes", [{}, {"enc_blk_nums": (1, 1, 2), "dec_blk_nums": (1, 1, 1)}, {"img_channel": 1}])
def test_a_grey_image_in_all_channels_gives_what_the_single_channel_gives(sizes):
    colour = colour_network(**sizes)
    grey = single_channel(colour)
    image = torch.randn(2, 1, 32, 48, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    made = outputs(colour, image.expand(-1, colour.img_channel, -1, -1))
    assert made.std() > 2 * image.std()  # the layers have their say
    torch.testing.assert_close(outputs(grey, image), made.mean(1, keepdim=True), rtol=1e-5, atol=1e-5)
    assert describe(grey)["image_channels"] == 1


def test_guides_stay_when_channels_become_one():
    colour = colour_network(guide_channels=2)
    image, guides = torch.randn(1, 1, 32, 32, dtype=torch.float64), torch.randn(1, 2, 32, 32, dtype=torch.float64)
    made = outputs(colour, torch.cat([image.expand(-1, 3, -1, -1), guides], 1)).mean(1, keepdim=True)
    grey = single_channel(colour)
    torch.testing.assert_close(outputs(grey, torch.cat([image, guides], 1)), made, rtol=1e-5, atol=1e-5)
    assert describe(grey)["guide_channels"] == 2


def test_a_colour_checkpoint_comes_in_with_a_card(tmp_path):
    path = tmp_path / "NAFNet-GoPro.pth"
    torch.save({"params": colour_network().half().state_dict()}, path)
    network, card = import_checkpoint(path)
    assert card["imported_from"] == path.name
    assert card["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert card["image_channels_of_source"] == 3
    save_weights(network, tmp_path / "w.safetensors", card)
    loaded, card_on_disk = load_weights(tmp_path / "w.safetensors")
    assert card_on_disk == card
    assert (
        describe(loaded)
        == describe(network)
        == {
            "parameters": sum(p.numel() for p in network.parameters()),
            "image_channels": 1,
            "guide_channels": 0,
            "width": 8,
            "levels": 2,
            "encoder_blocks": [1, 2],
            "middle_blocks": 1,
            "decoder_blocks": [2, 1],
        }
    )


class _Command:
    """Unpickled by a reader that trusts the file, it makes a file: ``ran``."""

    def __reduce__(self):
        return os.system, ("echo > ran",)


def _whole(path, content, **options):
    torch.save(content, path, **options)


def _cut(path, content, **options):
    torch.save(content, path, **options)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _pickled(path, content, protocol):
    path.write_bytes(pickle.dumps(content, protocol))


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("place", ["alone", "beside", "within"])
@pytest.mark.parametrize("write", ["zip", "legacy", "pickle"])
def test_what_a_checkpoint_would_run_is_not_run(tmp_path, monkeypatch, write, place, protocol):
    monkeypatch.chdir(tmp_path)
    state = colour_network().state_dict()
    content = {
        "alone": _Command(),
        "beside": {"params": state, "optimizer": _Command()},
        "within": {"params": {**state, "intro.bias": _Command()}},
    }[place]
    path = tmp_path / "evil.pth"
    if write == "pickle":
        _pickled(path, content if place == "alone" else {"params": _Command()}, protocol)
    else:
        _whole(path, content, pickle_protocol=protocol, _use_new_zipfile_serialization=write == "zip")
    with pytest.raises(CheckpointError, match=r"evil\.pth is .*tensors.*; give the whole") as caught:
        load_checkpoint(path)
    assert "weights_only" not in str(caught.value)  # torch's advice would run it
    if protocol == 2 and write != "pickle":
        assert f"'{os.system.__module__}.system' would have to be run" in str(caught.value)
    assert not (tmp_path / "ran").exists()
    with path.open("rb") as file:  # the trap is a real one
        if write == "pickle":
            pickle.load(file)  # noqa: S301
            assert (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("write", "said"),
    [
        (lambda path: path.write_bytes(b""), "is empty"),
        (lambda path: path.write_text("<!DOCTYPE html>\n<p>Sign in"), "begins with b'<!DOCTYPE html>"),
        (lambda path: path.write_bytes(bytes(range(255, 127, -1)) * 9), "begins with b'"),
        (lambda path: _cut(path, {"w": torch.zeros(5000)}), "cut short"),
        (lambda path: _cut(path, {"w": torch.zeros(5000)}, _use_new_zipfile_serialization=False), "cut short"),
        (lambda path: zipfile.ZipFile(path, "w").close(), "zip archive"),
        (lambda path: _pickled(path, {"a": 1}, 4), "pickle of something else"),
        (lambda path: _whole(path, [1, 2]), "type list, no state dict"),
        (lambda path: _whole(path, {"params": "none"}), "type str, no state dict"),
        (lambda path: _whole(path, {"state_dict": {"lr": 0.1, "w": torch.zeros(2)}}), "'lr' (float)"),
        (lambda path: _whole(path, {3: torch.zeros(2)}), "3 (torch.float32)"),
        (lambda path: _whole(path, {"w": torch.zeros(2, dtype=torch.int64)}), "'w' (torch.int64)"),
        (lambda path: _whole(path, {"params": {"w": np.zeros(3)}}), "numpy"),
        (lambda path: _whole(path, torch.nn.Conv2d(1, 1, 3)), "torch.nn.modules.conv.Conv2d"),
    ],
)
def test_what_is_no_checkpoint_of_tensors_is_named(tmp_path, write, said):
    path = tmp_path / "some.pth"
    write(path)
    with pytest.raises(CheckpointError, match=re.escape(said)) as caught:
        load_checkpoint(path)
    assert str(caught.value).startswith(f"{path} ")
    assert "give the whole .pth file" in str(caught.value)
    assert "\n" not in str(caught.value)


def changed(**entries):
    """The entries of a network, some of them other, or taken out where None is given."""
    state = {**colour_network().state_dict(), **{name.replace("__", "."): value for name, value in entries.items()}}
    return {name: value for name, value in state.items() if value is not None}


@pytest.mark.parametrize(
    ("state", "said"),
    [
        (changed(intro__bias=None), ["1 missing (intro.bias)"]),
        (changed(intro__weight=None), ["1 missing that all have (intro.weight)", "'intro.bias'", "others"]),
        (changed(decoders__0__1__beta=None), ["1 missing (decoders.0.1.beta)"]),
        (changed(ups__0__0__weight=None, encoders__1__0__gamma=None), ["2 missing", "ups.0.0.weight"]),
        (changed(extra=torch.zeros(2)), ["1 unknown ('extra')"]),
        (changed(**{f"extra{i}": torch.zeros(2) for i in range(9)}), ["9 unknown ('extra0', 'extra1', 'extra2' and 6"]),
        (changed(ending__weight=torch.zeros(3, 8, 5, 5)), ["1 of another shape", "(3, 8, 5, 5), not (3, 8, 3, 3)"]),
        (changed(intro__weight=torch.zeros(3, 3)), ["intro.weight is (3, 3)"]),
        (changed(intro__weight=torch.zeros(8, 2, 3, 3)), ["intro.weight is (8, 2, 3, 3)", "ending.bias is (3,)"]),
        (changed(intro__weight=torch.zeros(0, 3, 3, 3)), ["intro.weight is (0, 3, 3, 3)"]),
        (changed(intro__weight=torch.zeros(1).expand(10**8, 3, 3, 3)), ["of another shape", "intro.bias is (8,)"]),
        (changed(intro__bias=torch.full((8,), torch.nan)), ["not finite: in intro.bias"]),
        ({f"module.{k}": v for k, v in changed().items()}, ["2 missing that all have", "'module.intro.weight'"]),
    ],
)
def test_entries_that_do_not_fit_are_named_and_counted(tmp_path, state, said):
    path = tmp_path / "some.pth"
    torch.save({"params": state}, path)
    with pytest.raises(CheckpointError, match=r"not the entries of a NAFNet|not finite") as caught:
        load_checkpoint(path)
    for words in said:
        assert words in str(caught.value)


def test_files_that_are_not_there_and_folders(tmp_path):
    for load in (load_checkpoint, load_weights):
        with pytest.raises(FileNotFoundError):
            load(tmp_path / "none")
        with pytest.raises(IsADirectoryError):
            load(tmp_path)


@pytest.mark.parametrize("card", ["{", "3", "[]"])
def test_a_card_that_is_none_is_refused(tmp_path, card):
    state = {name: value.numpy() for name, value in deblurring_network().state_dict().items()}
    save_file(state, tmp_path / "w.safetensors", metadata={"card": card})
    with pytest.raises(CheckpointError, match=r"w\.safetensors has a card that is no JSON object.*; give weights"):
        load_weights(tmp_path / "w.safetensors")


def test_weights_cut_short_are_refused(tmp_path):
    path = tmp_path / "w.safetensors"
    save_weights(deblurring_network(), path, {})
    for kept in (0, 4, path.stat().st_size // 2):
        path.write_bytes(path.read_bytes()[:kept])
        with pytest.raises(CheckpointError, match=r"w\.safetensors is no safetensors file"):
            load_weights(path)


def test_weights_that_cannot_be_written_leave_nothing(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"w\.safetensors"):
        save_weights(deblurring_network(), tmp_path / "none" / "w.safetensors", {})
    (tmp_path / "taken.safetensors").mkdir()
    with pytest.raises(OSError, match="taken"):
        save_weights(deblurring_network(), tmp_path / "taken.safetensors", {})
    assert [path.name for path in tmp_path.iterdir()] == ["taken.safetensors"]


def test_imported_networks_are_given_guides_and_do_what_they_did(tmp_path):
    torch.manual_seed(0)
    plain = NAFNet(width=4, enc_blk_nums=(1,), middle_blk_num=1, dec_blk_nums=(1,)).eval()
    torch.nn.init.normal_(plain.ending.weight)
    save_weights(plain, tmp_path / "plain.safetensors", {})
    network = network_to_deblur(tmp_path / "plain.safetensors").eval()
    slices = torch.rand(2, CHANNELS, 16, 16)
    torch.testing.assert_close(network(slices), plain(slices[:, :1]))
    assert digest(tmp_path / "plain.safetensors") != digest()


def test_a_network_for_other_channels_is_refused(tmp_path):
    save_weights(NAFNet(width=4, guide_channels=5), tmp_path / "w.safetensors", {})
    with pytest.raises(CheckpointError, match=r"w\.safetensors holds .* with 5 guide\(s\).*pretrain deblur"):
        network_to_deblur(tmp_path / "w.safetensors")


def test_the_shipped_network_is_one_to_deblur():
    assert network_to_deblur().intro.in_channels == CHANNELS
