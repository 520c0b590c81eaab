"""One way to train a network whose time is bounded by a clock.

The learning rate follows *progress*, a number from 0 to 1 that the caller takes from a step count or from the
time that is left, so that training always ends annealed. A running mean of the weights is what gets used: it is good
at any moment, also when the end comes early.
"""

from __future__ import annotations

import copy
import gc
import math
import warnings
from collections.abc import Callable, Collection, Iterable, Sequence
from queue import SimpleQueue
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from otf_stream.learn.adamw import AdamW
from otf_stream.learn.compute import Compute
from otf_stream.learn.nafnet import NAFNet, StackAttention, channels_last

Pairs = Callable[[], tuple[Tensor, Tensor]]
"""Draws one batch: input ``(n, c, y, x)``, with guides after the image, and target ``(n, 1, y, x)``."""

Loss = Callable[[Tensor, Tensor], Tensor]
"""Of what a network made and what it should have made, ``(n, 1, y, x)`` each; a scalar."""

PARTS = 2
"""Of a batch when a stack is learnt from, whatever the number of cores: steps that are counted give one result."""

_WARM_UP = 0.03
_STATISTICS = 4  # batches
_AVERAGING = 0.99
_RECENT = 20  # steps
_FAINTEST_ERROR = 1e-7


def psnr_loss(restored: Tensor, clean: Tensor) -> Tensor:
    """Logarithm of the mean squared error of a batch: a stack with little noise weighs as much as one with a lot.

    For pre-training, where one scene has a hundred times the noise of the next. On a single stack the squared error
    itself is what counts.
    """
    return (restored - clean).square().mean().add(_FAINTEST_ERROR).log()


class Trainer:
    """Trains a network on batches from ``pairs``.

    Parameters
    ----------
    network
        Trained in place.
    pairs
        Draws the batches; may be replaced by better ones at any time.
    compute
        Device and precision.
    learning_rate
        The highest, reached after the warm-up; may be replaced together with ``pairs``.
    loss
        What is made small.
    parts
        Into how many parts a batch is divided; a processor computes them side by side. Attention looks at the
        statistics of a part, so that each may be of another stack, and the loss is the mean of theirs.
    layers
        Names of the layers to train, as :func:`layers_of` has them; all if None. The others stay bit for bit as they
        are, and below the first trained layer nothing is differentiated.

    Raises
    ------
    ValueError
        If the network has no layer of such a name, or none is to be trained.
    """

    def __init__(
        self,
        network: NAFNet,
        pairs: Pairs,
        compute: Compute,
        *,
        learning_rate: float,
        loss: Loss = functional.mse_loss,
        layers: Collection[str] | None = None,
        parts: int = 1,
    ) -> None:
        self._compute = compute
        self._loss = loss
        self.pairs = pairs
        self._network = channels_last(network.to(compute.device)).train()
        _train_only(self._network, layers)
        self._mean = copy.deepcopy(self._network)
        self._trained, self._averaged = _trained(self._network), _trained(self._mean)
        # Another device than a processor computes all parts at once, and waits for nothing until it is asked.
        self._parts, stacks = (parts, 1) if compute.device.type == "cpu" else (1, parts)
        for attention in _attentions(self._network):
            attention.stacks = stacks
        self._stacks = stacks
        self._recorded: Callable[..., Any] | None = None
        self._replicas = [self._network, *(_replica(self._network) for _ in range(self._parts - 1))]
        self.learning_rate = learning_rate
        self._optimiser = AdamW(self._trained)
        self.steps = 0
        self._losses: list[Tensor] = []
        self._last = compute.milestone()

    @property
    def losses(self) -> list[float]:
        """The loss of every step."""
        return torch.stack(self._losses).tolist() if self._losses else []

    def recent_loss(self) -> float | None:
        """The mean loss of the last steps, the newest left out; None before the second."""
        known = self._losses[-_RECENT:-1]  # the newest may still be computed
        return float(torch.stack(known).mean()) if known else None

    def step(self, progress: float) -> None:
        """Take one step.

        Parameters
        ----------
        progress
            From 0 at the first step to 1 at the last.
        """
        degraded, clean = self.pairs()
        parts = zip(self._replicas, degraded.chunk(self._parts), clean.chunk(self._parts), strict=True)
        # One part needs no threads.
        compute_all = map if self._parts == 1 else self._compute.map
        found = list(compute_all(self._gradients, parts))
        for parameter, gradient in zip(self._trained, _mean([gradients for _, gradients in found]), strict=True):
            parameter.grad = gradient
        nn.utils.clip_grad_norm_(self._trained, 1.0)
        self._optimiser.step(self.learning_rate * _schedule(progress))
        self.steps += 1
        keep = min(_AVERAGING, self.steps / (self.steps + 9))
        with torch.no_grad():
            torch._foreach_lerp_(self._averaged, self._trained, 1 - keep)
        self._losses.append(torch.stack([loss for loss, _ in found]).mean())
        # One step is prepared while the last one is computed; were it more, nobody would know how long one takes.
        self._last()
        self._last = self._compute.milestone()

    def _gradients(self, part: tuple[NAFNet, Tensor, Tensor]) -> tuple[Tensor, Sequence[Tensor]]:
        """Return the loss of a part of a batch, and its gradients."""
        network, degraded, clean = part
        degraded = degraded.contiguous(memory_format=torch.channels_last)
        if self._compute.device.type == "cuda":
            restored = self._on_card(degraded)
        else:
            with self._compute.autocast():
                restored = network(degraded)
        stacks = zip(restored.float().chunk(self._stacks), clean.chunk(self._stacks), strict=True)
        loss = torch.stack([self._loss(made, wanted) for made, wanted in stacks]).mean()
        gradients = torch.autograd.grad(loss, self._trained)
        return loss.detach(), gradients

    def _on_card(self, degraded: Tensor) -> Tensor:
        """Run the network with few launches, which is what a graphics card waits for where images are small."""
        with torch.autocast("cuda", dtype=self._compute.dtype, cache_enabled=False):
            if self._recorded is None:
                self._recorded = self._record(degraded)
            made: Tensor = self._recorded(degraded)
            return made

    def _record(self, degraded: Tensor) -> Callable[..., Any]:
        # What is recorded here is repeated on another stream, of which newer torch warns once a process.
        if hasattr(torch.autograd.graph, "set_warn_on_accumulate_grad_stream_mismatch"):
            torch.autograd.graph.set_warn_on_accumulate_grad_stream_mismatch(False)
        try:
            with self._compute.alone():
                recorded: Callable[..., Any] = torch.cuda.make_graphed_callables(_Forward(self._network), (degraded,))
                return recorded
        except RuntimeError as error:
            warnings.warn(f"training runs slower than it could, step by step: {error}", stacklevel=2)
            return self._network

    def forget(self) -> None:
        """Give back the memory of what was recorded, which otherwise waits for a collection of garbage."""
        if self._recorded is not None:
            self._recorded = None
            gc.collect()

    def prepare(self) -> None:
        """Do what else the first step does: where launches are waited for, the network is recorded to be repeated."""
        if self._compute.device.type == "cuda":
            self._on_card(self.pairs()[0].contiguous(memory_format=torch.channels_last))

    def network(self, inputs: Iterable[Tensor] | None = None) -> NAFNet:
        """Return a copy of the averaged network, ready for inference.

        Parameters
        ----------
        inputs
            Batches of what the network will be given, ``(n, c, y, x)``, on which the statistics of its attention are
            measured; some batches of pairs if None.
        """
        if inputs is None:
            inputs = (self.pairs()[0] for _ in range(_STATISTICS))
        return with_statistics(self._mean, inputs, self._compute)


class _Forward(nn.Module):
    """A network whose own way to be called stays as it is when this is recorded."""

    def __init__(self, network: NAFNet) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = self.network(x)
        return made


def layers_of(network: nn.Module) -> dict[str, list[nn.Parameter]]:
    """Return the layers of a network by name, each with its parameters.

    A layer is a module that owns parameters itself, named by its path: a convolution ``encoders.0.0.conv1``, a layer
    norm ``encoders.0.0.norm1``; ``encoders.0.0`` is what a block owns beside its modules, ``beta`` and ``gamma``.
    Every parameter belongs to exactly one.
    """
    owned = {name: list(module.parameters(recurse=False)) for name, module in network.named_modules()}
    return {name: parameters for name, parameters in owned.items() if parameters}


def _train_only(network: nn.Module, layers: Collection[str] | None) -> None:
    """Let the parameters of these layers, or of all, take a gradient, and no others."""
    there = layers_of(network)
    unknown = sorted(set(layers or ()) - there.keys())
    if unknown or (layers is not None and not layers):
        problem = (
            f"the network has no layer {', '.join(map(repr, unknown))}" if unknown else "no layer is to be trained"
        )
        raise ValueError(f"{problem}; among its {len(there)} layers are {', '.join(map(repr, list(there)[:6]))}")
    for name, parameters in there.items():
        for parameter in parameters:
            parameter.requires_grad_(layers is None or name in layers)


def _mean(gradients: Sequence[Sequence[Tensor]]) -> list[Tensor]:
    """Return the mean over parts of a batch of the gradient of each parameter."""
    mean = list(gradients[0])
    for others in gradients[1:]:
        torch._foreach_add_(mean, list(others))
    torch._foreach_div_(mean, len(gradients))
    return mean


def _replica(network: NAFNet) -> NAFNet:
    """Return a network of the same parameters, with statistics of its own."""
    replica = copy.deepcopy(network)
    for module, twin in zip(network.modules(), replica.modules(), strict=True):
        for name, parameter in module.named_parameters(recurse=False):
            twin.register_parameter(name, parameter)
    return replica


def _trained(network: nn.Module) -> list[Tensor]:
    return [parameter for parameter in network.parameters() if parameter.requires_grad]


def with_statistics(network: NAFNet, batches: Iterable[Tensor], compute: Compute) -> NAFNet:
    """Return a copy of a network, ready for inference on the stack that ``batches``, ``(n, c, y, x)``, come from.

    Its channel attention looks at the statistics of the stack, and these are measured on the batches, of any size.
    """
    network = copy.deepcopy(network).to(compute.device).train()
    idle = SimpleQueue[NAFNet]()
    for _ in range(compute.side_by_side):
        idle.put(_replica(network))

    def statistics(batch: Tensor) -> list[Tensor]:
        replica = idle.get()
        for attention in _attentions(replica):
            attention.stacks, attention.measuring = 1, True
        with torch.no_grad(), compute.autocast():
            replica(_fitting(replica, batch))
        found = [attention.pooled.clone() for attention in _attentions(replica)]
        idle.put(replica)
        return found

    found = zip(*compute.map_resident(statistics, batches), strict=True)
    for attention, pooled in zip(_attentions(network), found, strict=False):
        attention.settle(torch.stack(pooled).mean(dim=0))
    return network.eval()


def _attentions(network: NAFNet) -> list[StackAttention]:
    return [module for module in network.modules() if isinstance(module, StackAttention)]


def apply_network(network: NAFNet, images: Tensor, compute: Compute) -> Tensor:
    """Run a network over whole images of any size.

    Edges are mirrored up to the next multiple that the network asks for, and no further: the patches that it was taught
    with ended as well, and beyond an end it expects nothing. With four pixels mirrored on each side, three denoised
    stacks had 0.1 to 1 % more squared error, nearly all of it in the outermost two pixels.

    Parameters
    ----------
    images
        ``(n, c, y, x)``, float32, normalised, guides after the image.

    Returns
    -------
    Tensor
        ``(n, 1, y, x)``, float32.
    """
    height, width = images.shape[-2:]
    with torch.inference_mode(), compute.autocast():
        restored: Tensor = network(_fitting(network, images)).float()
    return restored[..., :height, :width]


def padded_pixels(network: NAFNet, height: int, width: int) -> int:
    """Return how many pixels an image has once :func:`apply_network` has mirrored its edges."""
    below, right = _missing(network, height, width)
    return (height + below) * (width + right)


def _fitting(network: NAFNet, images: Tensor) -> Tensor:
    """Mirror images ``(n, c, y, x)`` at their lower and right edges up to the multiple that the network asks for."""
    height, width = images.shape[-2:]
    below, right = _missing(network, height, width)
    fits = below < height and right < width  # sides too short for that repeat their edge
    padded = functional.pad(images, (0, right, 0, below), mode="reflect" if fits else "replicate")
    return padded.contiguous(memory_format=torch.channels_last)


def _missing(network: NAFNet, height: int, width: int) -> tuple[int, int]:
    """How many pixels along y and x there are up to the next multiple that the network asks for."""
    return -height % network.multiple, -width % network.multiple


def _schedule(progress: float) -> float:
    """Linear warm-up, then half a cosine down to 2 % of the peak."""
    if progress < _WARM_UP:
        return max(progress / _WARM_UP, 0.05)
    fraction = min((progress - _WARM_UP) / (1 - _WARM_UP), 1.0)
    return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * fraction))
