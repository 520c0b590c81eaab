"""Weights on disk: our own, which ship inside the package, and published NAFNet checkpoints.

Ours are safetensors with the card of their training in the header. Of a ``.pth`` only tensors are read
(``weights_only``): a checkpoint is data from a stranger, and a pickle could run code. The architecture is read off
the shapes and names, so no option has to repeat what the file says.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from otf_stream.learn.nafnet import NAFNet

_CARD = "card"


class CheckpointError(ValueError):
    """The file holds no NAFNet."""


def save_weights(network: NAFNet, path: Path, card: Mapping[str, Any]) -> None:
    """Write the weights of a network, and how it came about, to a ``.safetensors`` file.

    Parameters
    ----------
    network
        Of any size.
    path
        Replaced where it exists, at once and whole.
    card
        What JSON can hold.
    """
    state = {name: value.contiguous().float().cpu() for name, value in network.state_dict().items()}
    partial = path.with_name(path.name + ".partial")
    save_file(state, partial, metadata={_CARD: json.dumps(card)})
    partial.replace(path)


def load_weights(path: Path) -> tuple[NAFNet, dict[str, Any]]:
    """Load a network and its card from a ``.safetensors`` file.

    Raises
    ------
    CheckpointError
        If the file is none, or holds no NAFNet.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping
    except SafetensorError as error:
        raise CheckpointError(f"{path} is no safetensors file: {error}") from error
    card: dict[str, Any] = json.loads(metadata.get(_CARD, "{}"))
    return network_of(state), card


def shipped_network() -> NAFNet:
    """Return the pre-trained deblurring network that ships with the package."""
    with as_file(files("otf_stream.learn") / "weights" / "deblur.safetensors") as path:
        return load_weights(path)[0]


def load_checkpoint(path: Path) -> NAFNet:
    """Load a NAFNet from a ``.pth`` file.

    Parameters
    ----------
    path
        A state dict, as it is or under ``params``, ``params_ema`` or ``state_dict``.

    Raises
    ------
    CheckpointError
        If the file is no checkpoint, or not one of a NAFNet.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # torch raises its pickle module's and its zip reader's own
        raise CheckpointError(f"{path} is no torch checkpoint of plain tensors: {error}") from error
    for key in ("params_ema", "params", "state_dict"):
        if isinstance(content, Mapping) and key in content:
            content = content[key]
    if not isinstance(content, Mapping) or not all(isinstance(v, Tensor) for v in content.values()):
        raise CheckpointError(f"{path} holds no state dict; give the .pth file of a NAFNet")
    return network_of(content)


def network_of(state: Mapping[str, Tensor]) -> NAFNet:
    """Build the NAFNet that ``state`` belongs to, and load it.

    Raises
    ------
    CheckpointError
        If the entries are not those of a NAFNet.
    """
    try:
        width, channels = state["intro.weight"].shape[:2]
        levels = sum(key.startswith("downs.") and key.endswith(".weight") for key in state)
        network = NAFNet(
            img_channel=channels,
            width=width,
            middle_blk_num=_blocks(state, "middle_blks")[""],
            enc_blk_nums=[_blocks(state, "encoders")[str(level)] for level in range(levels)],
            dec_blk_nums=[_blocks(state, "decoders")[str(level)] for level in range(levels)],
        )
        network.load_state_dict(dict(state))
    except (KeyError, RuntimeError, ValueError) as error:
        raise CheckpointError(f"these are not the entries of a NAFNet: {error}") from error
    return network


def _blocks(state: Mapping[str, Tensor], part: str) -> Counter[str]:
    """Count the blocks at each level of a part of the network; every block has one ``beta``."""
    return Counter(
        key.removeprefix(part).strip(".").rpartition(".beta")[0].rpartition(".")[0]
        for key in state
        if key.startswith(part + ".") and key.endswith(".beta")
    )
