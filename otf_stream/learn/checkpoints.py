"""Weights on disk: our own, which ship inside the package, and published NAFNet checkpoints.

Ours are safetensors with the card of their training in the header. Of a ``.pth`` only tensors are read
(``weights_only``): a checkpoint is data from a stranger, and a pickle could run code. The architecture is read off
the shapes and names, so no option has to repeat what the file says.
"""

from __future__ import annotations

import hashlib
import json
import re
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from importlib.resources import as_file, files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from otf_stream import __version__
from otf_stream.learn.architecture import CheckpointError, guided, network_of, single_channel
from otf_stream.learn.nafnet import NAFNet
from otf_stream.learn.slices import CHANNELS

_CARD = "card"
_OURS = "give weights that `otf-stream pretrain` or `otf-stream weights import` wrote"
_PUBLISHED = (
    "give the whole .pth file of a NAFNet as github.com/megvii-research/NAFNet publishes it, or the state dict, alone, "
    "of one of your own"
)

Shipped = Literal["deblur", "deblur-large", "denoise"]
"""The networks that ship, by what they do."""


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

    Raises
    ------
    OSError
        If the file cannot be written; then there is none, or still the former one.
    """
    state = {name: value.contiguous().float().cpu() for name, value in network.state_dict().items()}
    partial = path.with_name(path.name + ".partial")
    try:
        # Its own writer would make a file that no other user, such as that of a service, can read.
        partial.write_bytes(save(state, metadata={_CARD: json.dumps(card)}))
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def load_weights(path: Path) -> tuple[NAFNet, dict[str, Any]]:
    """Load a network and its card from a ``.safetensors`` file.

    Raises
    ------
    CheckpointError
        If the file is none, or holds no NAFNet.
    OSError
        If it cannot be read.
    """
    path.open("rb").close()  # the errors of safetensors do not name the file
    with _blamed_on(path, _OURS):
        try:
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
                state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping
        except SafetensorError as error:
            raise CheckpointError(f"is no safetensors file: {error}") from error
        return network_of(state), _card(metadata.get(_CARD, "{}"))


def shipped_network(name: Shipped) -> NAFNet:
    """Return a pre-trained network that ships with the package."""
    with as_file(_shipped(name)) as path:
        return load_weights(path)[0]


def network_to_deblur(path: Path | None = None) -> NAFNet:
    """Return the network that a stack starts from.

    Parameters
    ----------
    path
        Weights that `save_weights` wrote, of a network of one channel: with the guides of the shipped one, or without
        any, as imported ones are. The shipped ones if None.

    Raises
    ------
    CheckpointError
        As for `load_weights`, if the file cannot be read, or if the network takes other channels than it will be shown.
    """
    if path is None:
        return shipped_network("deblur")
    try:
        network, _ = load_weights(path)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read ({error.strerror or error}); {_OURS}") from error
    guides = network.intro.in_channels - network.img_channel
    if network.img_channel != 1 or guides not in (0, CHANNELS - 1):
        raise CheckpointError(
            f"{path} holds a network for {network.img_channel} channel(s) with {guides} guide(s); to deblur it takes "
            f"1 channel with {CHANNELS - 1} guide, or none: give weights from `otf-stream pretrain deblur` or "
            "`otf-stream weights import`"
        )
    return network if guides else guided(network, CHANNELS - 1)


def digest(path: Path | None = None, *, shipped: Shipped = "deblur") -> str:
    """Return the SHA-256 of a file of weights, or of shipped ones."""
    with nullcontext(path) if path else as_file(_shipped(shipped)) as file:
        return hashlib.sha256(file.read_bytes()).hexdigest()


def _shipped(name: Shipped) -> Traversable:
    return files("otf_stream.learn") / "weights" / f"{name}.safetensors"


def load_checkpoint(path: Path) -> NAFNet:
    """Load a NAFNet from a ``.pth`` file.

    Parameters
    ----------
    path
        A state dict, as it is or under ``params_ema``, ``params`` or ``state_dict``. Nothing in the file is run.

    Raises
    ------
    CheckpointError
        If the file is no checkpoint, holds more than tensors, or not those of a NAFNet. It names what is wrong.
    OSError
        If it cannot be read.
    """
    with _blamed_on(path, _PUBLISHED):
        content = _tensors_in(path)
        for key in ("params_ema", "params", "state_dict"):
            if isinstance(content, Mapping) and key in content:
                content = content[key]
        if not isinstance(content, Mapping):
            raise CheckpointError(f"holds an object of type {type(content).__name__}, no state dict")
        return network_of(content)


def import_checkpoint(path: Path) -> tuple[NAFNet, dict[str, Any]]:
    """Load a NAFNet from a ``.pth`` file for images of a single channel, with a card that says where it is from.

    Parameters
    ----------
    path
        As for `load_checkpoint`.

    Returns
    -------
    network : NAFNet
        See `single_channel`.
    card : dict
        Name and SHA-256 of the file, and the channels of the network in it.

    Raises
    ------
    CheckpointError, OSError
        As for `load_checkpoint`.
    """
    network = load_checkpoint(path)
    card = {
        "imported_from": path.name,
        "sha256": digest(path),
        "image_channels_of_source": network.img_channel,
        "versions": {"otf_stream": __version__, "torch": torch.__version__},
    }
    return single_channel(network), card


@contextmanager
def _blamed_on(path: Path, remedy: str) -> Iterator[None]:
    """Complete what is wrong with a file by which, and what to do."""
    try:
        yield
    except CheckpointError as error:
        raise CheckpointError(f"{path} {error}; {remedy}") from error


def _card(text: str) -> dict[str, Any]:
    try:
        card = json.loads(text)
    except json.JSONDecodeError:
        card = None
    if not isinstance(card, dict):
        raise CheckpointError(f"has a card that is no JSON object: {text[:40]!r}")
    return card


def _tensors_in(path: Path) -> Any:
    """Read a ``.pth`` file, running nothing of it."""
    path.open("rb").close()  # what torch makes of damaged files may be an OSError as well
    try:
        with warnings.catch_warnings():
            # Of pickle protocols and of programs, both of which end in an error.
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises its pickle module's and its zip reader's own
        raise CheckpointError(_no_tensors(path, str(error))) from error


def _no_tensors(path: Path, error: str) -> str:
    """Say why a file could not be read as tensors. Torch's own ``error`` advises to run what is in the file."""
    if wanted := re.search(r"GLOBAL (\S+)", error):
        return f"is no checkpoint of plain tensors: to load it, {wanted[1]!r} would have to be run, which was not done"
    with path.open("rb") as file:
        start = file.read(16)
    if not start:
        return "is empty"
    if zipfile.is_zipfile(path):
        return "is a zip archive, but no torch checkpoint of plain tensors"
    if start.startswith(b"PK"):
        return "is a zip archive that was cut short"
    if start.startswith(b"\x80"):
        return "is a pickle of something else than plain tensors, or was cut short"
    return f"is no torch checkpoint: it begins with {start!r}"
