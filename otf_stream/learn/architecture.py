"""Which NAFNet a set of named tensors is.

The sizes are read off the names and shapes of the entries, and then every entry is asked for. What is missing, unknown
or of another shape is refused by name: a network with a part of it left at random would restore something, and nobody
would know.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from otf_stream.learn.nafnet import NAFNet

_NAMED = 3  # of the entries that are wrong


class CheckpointError(ValueError):
    """A file or its tensors are not those of a NAFNet."""


def single_channel(network: NAFNet) -> NAFNet:
    """Return the network of one channel that does to a grey image what ``network`` does to its colour copy.

    The first layer sees all channels alike, so that its weights for them add up; the last is averaged, as is what it
    makes. For a grey image this is exact: the result is the mean over the channels of what the given network makes.

    Parameters
    ----------
    network
        Of any number of channels; guides remain what they are.

    Returns
    -------
    NAFNet
        A new one.
    """
    state = network.state_dict()
    channels, intro = network.img_channel, state["intro.weight"]
    state["intro.weight"] = torch.cat([intro[:, :channels].sum(1, keepdim=True), intro[:, channels:]], dim=1)
    for name in ("ending.weight", "ending.bias"):
        state[name] = state[name].mean(0, keepdim=True)
    return network_of(state)


def guided(network: NAFNet, guides: int) -> NAFNet:
    """Return a network that does what ``network`` does, given so many more guides, at which it does not look yet."""
    state = network.state_dict()
    intro = state["intro.weight"]
    state["intro.weight"] = torch.cat([intro, intro.new_zeros(len(intro), guides, *intro.shape[2:])], dim=1)
    return network_of(state)


def describe(network: NAFNet) -> dict[str, Any]:
    """Tell the size and shape of a network; JSON can hold it."""
    return {
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "image_channels": network.img_channel,
        "guide_channels": network.intro.in_channels - network.img_channel,
        "width": network.intro.out_channels,
        "levels": len(network.downs),
        "encoder_blocks": _lengths(network.encoders),
        "middle_blocks": len(network.middle_blks),
        "decoder_blocks": _lengths(network.decoders),
    }


def network_of(state: Mapping[str, Tensor]) -> NAFNet:
    """Build the NAFNet that ``state`` belongs to, and load it.

    Raises
    ------
    CheckpointError
        If the entries are not those of a NAFNet, all of them and no others, or not finite.
    """
    if strange := [f"{key!r} ({_kind(value)})" for key, value in state.items() if not _is_plain(key, value)]:
        raise CheckpointError(f"holds what is no plain tensor of floating-point numbers: {_some(strange)}")
    given = {key: tuple(value.shape) for key, value in state.items()}
    sizes = _sizes(given)
    # Nothing is allocated before the shapes are known to be those of the file.
    with torch.device("meta"):
        wanted = {key: tuple(value.shape) for key, value in NAFNet(**sizes).state_dict().items()}
    faults = [
        f"{len(keys)} {fault} ({_some(keys)})"
        for fault, keys in {
            "missing": [key for key in wanted if key not in given],
            "unknown": [repr(key) for key in given if key not in wanted],
            "of another shape": [
                f"{key} is {given[key]}, not {shape}"
                for key, shape in wanted.items()
                if key in given and given[key] != shape
            ],
        }.items()
        if keys
    ]
    if faults:
        raise CheckpointError(f"holds what are not the entries of a NAFNet: {'; '.join(faults)}")
    network = NAFNet(**sizes)
    network.load_state_dict(dict(state))
    if broken := [key for key, value in network.state_dict().items() if not value.isfinite().all()]:
        raise CheckpointError(f"holds values that are not finite: in {_some(broken)}")
    return network


def _sizes(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """Read the arguments of :class:`NAFNet` off the entries' shapes."""
    intro, ending = shapes.get("intro.weight"), shapes.get("ending.bias")
    missing = [key for key in ("intro.weight", "ending.bias") if key not in shapes]
    if intro is None or ending is None:
        raise CheckpointError(
            f"holds what are not the entries of a NAFNet: {len(missing)} missing that all have ({_some(missing)}), "
            f"{len(shapes)} others ({_some([repr(key) for key in shapes])})"
        )
    if len(intro) != 4 or intro[0] < 1 or len(ending) != 1 or not 1 <= ending[0] <= intro[1]:
        raise CheckpointError(
            f"holds what are not the entries of a NAFNet: intro.weight is {intro}, not (width, channels, 3, 3), or "
            f"ending.bias is {ending}, not (channels,)"
        )
    levels = range(_count(shapes, "downs"))
    return {
        "img_channel": ending[0],
        "guide_channels": intro[1] - ending[0],
        "width": intro[0],
        "middle_blk_num": _count(shapes, "middle_blks"),
        "enc_blk_nums": [_count(shapes, f"encoders.{level}") for level in levels],
        "dec_blk_nums": [_count(shapes, f"decoders.{level}") for level in levels],
    }


def _count(keys: Mapping[str, Any], part: str) -> int:
    """How many children a part of the network has among the entries."""
    return len({key[len(part) + 1 :].partition(".")[0] for key in keys if key.startswith(part + ".")})


def _lengths(levels: Any) -> list[int]:
    return [len(blocks) for blocks in levels]


def _is_plain(key: object, value: object) -> bool:
    return (
        isinstance(key, str)
        and isinstance(value, Tensor)
        and value.is_floating_point()
        and value.layout is torch.strided
        and value.device.type == "cpu"
    )


def _kind(value: object) -> str:
    return str(value.dtype) if isinstance(value, Tensor) else type(value).__name__


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
