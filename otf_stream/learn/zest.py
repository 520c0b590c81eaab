"""ZEST: which layers of a pre-trained network are worth fine-tuning on a stack, told from one batch of its pairs.

Every layer is scored by zero-cost proxies: figures that one batch gives without any training. Each proxy is a weak
judge with a scale of its own, so only the order into which it puts the layers counts, and the orders are added up.
A layer is what :func:`otf_stream.learn.training.layers_of` says it is: what is selected is what a
:class:`~otf_stream.learn.training.Trainer` trains. Scores are taken on a copy of the network, so that its weights,
gradients and statistics stay as they are, and in float32: second derivatives in bfloat16 are mostly rounding.

References
----------
Abdelfattah, Mehrotra, Dudziak, Lane: Zero-Cost Proxies for Lightweight NAS, ICLR 2021, arXiv:2101.08134.
Lee, Chen, Tajwar et al.: Surgical Fine-Tuning Improves Adaptation to Distribution Shifts, ICLR 2023, arXiv:2210.11466
(on why some layers are better trained than all).
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from otf_stream.learn.compute import Compute
from otf_stream.learn.nafnet import LayerNorm2d, NAFBlock, NAFNet, channels_last
from otf_stream.learn.pointwise import Pointwise
from otf_stream.learn.training import Loss, layers_of

PROXIES = ("gradient_norm", "snip", "grasp", "fisher", "weight_gradient", "synflow", "weight_mean", "weight_variance")
"""What layers are scored by; :func:`score_layers` says what each is."""

SHARE = 0.3
"""Of the parameters: how much is trained unless told otherwise."""

_WEIGHTS: Mapping[str, float] = {"gradient_norm": 1.0, "snip": 1.0, "fisher": 1.0}
"""How much the order of each proxy counts: not at all where it is not named, and below 0 low scores are preferred.

Not fitted. Those count that look at the loss of this stack and are large where training a layer, in whichever
direction, changes it. The others have a sign or look at the weights alone.
"""

_GROWTH: Mapping[str, float] = {"gradient_norm": 0.5, "weight_mean": 0.0, "weight_variance": 0.0}
"""The power of the number of parameters with which a proxy grows when all are alike; 1, as a sum does, if not named."""

_ByParameter = Mapping[nn.Parameter, Tensor]


@dataclass(frozen=True)
class LayerScores:
    """What the proxies say of one layer.

    Parameters
    ----------
    name
        Path of the module in the network.
    parameters
        How many it owns.
    proxies
        Scores by name, each over all parameters of the layer; see :func:`score_layers`.
    """

    name: str
    parameters: int
    proxies: Mapping[str, float]


def select_layers(
    network: NAFNet,
    batch: tuple[Tensor, Tensor],
    compute: Compute,
    *,
    loss: Loss = functional.mse_loss,
    share: float = SHARE,
) -> tuple[str, ...]:
    """Select the layers to fine-tune.

    Parameters
    ----------
    network
        Left as it is.
    batch
        Input ``(n, c, y, x)``, with guides after the image, and target ``(n, 1, y, x)``.
    compute
        Where to score.
    loss
        What training will make small, of a batch or of a single patch.
    share
        Of the parameters, above 0 and at most 1, that may be trained.

    Returns
    -------
    tuple of str
        Names, the most promising first. The same network and batch give the same on the same machine.
    """
    return within_share(rank_layers(score_layers(network, batch, compute, loss=loss, proxies=_WEIGHTS)), share)


def within_share(ranked: Sequence[LayerScores], share: float) -> tuple[str, ...]:
    """Take layers in the given order as long as they fit into a share of all their parameters.

    One that does not fit is passed over, and smaller ones after it may still be taken. Where none fits, the first is.

    Raises
    ------
    ValueError
        If ``share`` is not above 0 and at most 1.
    """
    if not 0 < share <= 1:
        raise ValueError(f"the share of the parameters to train is {share}; it must be above 0 and at most 1")
    room = share * sum(layer.parameters for layer in ranked)
    taken = []
    for layer in ranked:
        if layer.parameters <= room:
            room -= layer.parameters
            taken.append(layer.name)
    return tuple(taken) or tuple(layer.name for layer in ranked[:1])


def rank_layers(scores: Iterable[LayerScores]) -> list[LayerScores]:
    """Order layers, the most promising first.

    Room is given out by the parameter, so what counts is what one parameter of a layer promises: each proxy is divided
    by the power of their number with which it grows. It then ranks the layers from 0 to 1, like scores alike, and the
    sum of the ranks, weighted with ``_WEIGHTS``, is the order. Where sums are equal, the order of ``scores`` stays.
    """
    from scipy.stats import rankdata  # takes half a second of a worker's start, and nothing else there needs it

    scores = list(scores)
    sums = [0.0] * len(scores)
    for proxy, weight in _WEIGHTS.items():
        of_a_parameter = [layer.proxies[proxy] / layer.parameters ** _GROWTH.get(proxy, 1.0) for layer in scores]
        ranks = (rankdata(of_a_parameter) - 1) / max(len(scores) - 1, 1)
        sums = [total + weight * float(rank) for total, rank in zip(sums, ranks, strict=True)]
    return [scores[i] for i in sorted(range(len(scores)), key=lambda i: -sums[i])]


def score_layers(
    network: NAFNet,
    batch: tuple[Tensor, Tensor],
    compute: Compute,
    *,
    loss: Loss = functional.mse_loss,
    proxies: Collection[str] = PROXIES,
) -> list[LayerScores]:
    """Score every layer of a network, by weights *w*, gradient *g* and Hessian *H* of the loss.

    ``gradient_norm``
        ``√Σg²``: how fast the loss falls along the layer's own gradient.
    ``snip``
        ``Σ|w·g|``: by how much the loss would change without each weight (Lee, Ajanthan, Torr: SNIP, ICLR 2019,
        arXiv:1810.02340).
    ``grasp``
        ``−Σ(Hg)·w``: how much of the gradient's norm rests on the layer (Wang, Zhang, Grosse: Picking Winning Tickets
        Before Training by Preserving Gradient Flow, ICLR 2020, arXiv:2002.07376).
    ``fisher``
        ``Σ mean(gᵢ²)`` over the patches *i*, each looked at alone: the trace of the empirical Fisher information. Other
        than in ``gradient_norm``, patches that pull in opposite directions do not cancel. This form chooses weights to
        train (Sung, Nair, Raffel: Training Neural Networks with Fixed Sparse Masks, NeurIPS 2021, arXiv:2111.09839);
        the form with activations chooses channels to prune, and ``beta`` and ``gamma`` have no activation of their own.
    ``weight_gradient``
        ``Σw·g``: positive where the loss falls as the layer shrinks.
    ``synflow``
        The layer's share of the flow of weights from input to output; see :func:`flow_shares`.
    ``weight_mean``, ``weight_variance``
        Of the weights.

    Parameters
    ----------
    network, batch, loss
        As for :func:`select_layers`. The network is looked at as in training, its attention pools over its input.
    compute
        The device; precision is float32 in any case.
    proxies
        Which ones to compute. ``grasp`` takes as long as all the others.

    Returns
    -------
    list of LayerScores
        In the order of :func:`~otf_stream.learn.training.layers_of`; every parameter belongs to exactly one.
    """
    degraded, clean = (
        images.to(compute.device, torch.float32).contiguous(memory_format=torch.channels_last) for images in batch
    )
    twin = channels_last(_twin(network, torch.float32)).to(compute.device).train()
    with torch.enable_grad():
        gradients, curvatures = _derivatives(twin, degraded, clean, loss, curved="grasp" in proxies)
        squares = _squares(twin, degraded, clean, loss)
    flows = flow_shares(network, degraded.shape[1:])
    scores = []
    for name, owned in layers_of(twin).items():
        # In float64: a sum of many small float32 depends on their order.
        of_each = ((p, gradients[p], curvatures[p], squares[p]) for p in owned)
        w, g, Hg, gg = (
            torch.cat([t.detach().flatten().double() for t in group]) for group in zip(*of_each, strict=True)
        )
        found = {
            "gradient_norm": g.norm(),
            "snip": (w * g).abs().sum(),
            "grasp": -(Hg * w).sum(),
            "fisher": gg.sum(),
            "weight_gradient": (w * g).sum(),
            "synflow": flows[name],
            "weight_mean": w.mean(),
            "weight_variance": w.var(correction=0),
        }
        scores.append(LayerScores(name, len(w), {proxy: float(found[proxy]) for proxy in proxies}))
    return scores


def _derivatives(
    network: nn.Module, degraded: Tensor, clean: Tensor, loss: Loss, *, curved: bool
) -> tuple[_ByParameter, _ByParameter]:
    """Return the gradient *g* and, if ``curved``, the product *Hg*; zeros if not."""
    parameters = list(network.parameters())
    gradients = torch.autograd.grad(loss(network(degraded), clean), parameters, create_graph=curved)
    products: Sequence[Tensor] = [torch.zeros_like(g) for g in gradients]
    if curved:
        # The gradient of g·c is Hc where c is held constant.
        along = torch.stack([(g * g.detach()).sum() for g in gradients]).sum()
        products = torch.autograd.grad(along, parameters, allow_unused=True, materialize_grads=True)
    return dict(zip(parameters, gradients, strict=True)), dict(zip(parameters, products, strict=True))


def _squares(network: nn.Module, degraded: Tensor, clean: Tensor, loss: Loss) -> _ByParameter:
    """Return the mean over the patches of their own squared gradients."""
    squares = {parameter: torch.zeros_like(parameter) for parameter in network.parameters()}
    for one, target in zip(degraded[:, None], clean[:, None], strict=True):
        own, _ = _derivatives(network, one, target, loss, curved=False)
        for parameter, g in own.items():
            squares[parameter] += g.square() / len(degraded)
    return squares


def flow_shares(network: NAFNet, shape: Sequence[int]) -> dict[str, float]:
    """Return, layer by layer, the share of the synaptic flow that passes through its parameters.

    The flow *R* is what comes out of the network for an input of ones when every parameter is replaced by its
    magnitude; the flow through a parameter *w* is ``w·∂R/∂w``. It is a sum over paths only where the network is linear
    and nothing is negative. Layer norm subtracts a mean, and gates and attention multiply activations: from block to
    block the flow would be raised to a power, past any float. They are replaced by what is linear and keeps every
    parameter on a path: layer norm by its scale and shift, a gate by the sum of its halves, attention by the sum of its
    input and its scale. Along a chain of layers all shares are the same; they differ where flow goes around a layer.

    Parameters
    ----------
    network
        Left as it is.
    shape
        Of one input: channels, y, x.

    Returns
    -------
    dict
        By name of the layer, at least 0. No data is used.

    References
    ----------
    Tanaka, Kunin, Yamins, Ganguli: Pruning neural networks without any data by iteratively conserving synaptic flow,
    NeurIPS 2020, arXiv:2006.05467.
    """
    # On a long path magnitudes grow past the range of float32.
    twin = _twin(network, torch.float64).eval()
    for parameter in twin.parameters():
        parameter.data.abs_()
    for module in twin.modules():
        if isinstance(module, LayerNorm2d):
            module.register_forward_hook(_scaled)
        elif isinstance(module, NAFBlock):
            module.conv3.register_forward_hook(_attended, with_kwargs=True)
            module.conv2.register_forward_hook(_summed)
            module.conv4.register_forward_hook(_summed)
    with torch.enable_grad():
        flow = twin(twin.intro.weight.new_ones(1, *shape)).sum()
        flow.backward()
    return {
        name: sum(float((p.detach() * p.grad).sum() / flow.detach()) for p in owned if p.grad is not None)
        for name, owned in layers_of(twin).items()
    }


def _scaled(norm: LayerNorm2d, given: tuple[Tensor], _: Tensor) -> Tensor:
    return given[0] * norm.weight[:, None, None] + norm.bias[:, None, None]


def _attended(convolution: Pointwise, given: tuple[Tensor], scales: dict[str, Tensor], _: Tensor) -> Tensor:
    # Past the hook, which would be called again.
    return Pointwise.forward(convolution, given[0] + scales["before"], after=scales["after"])


def _summed(convolution: nn.Module, given: tuple[Tensor], made: Tensor) -> Tensor:
    # The gate that follows multiplies the first half with the second.
    a, b = made.chunk(2, dim=1)
    return torch.cat([a + b, torch.ones_like(a)], dim=1)


def _twin(network: NAFNet, dtype: torch.dtype) -> NAFNet:
    """Return a copy whose every parameter takes a gradient, and has none yet."""
    return copy.deepcopy(network).to(dtype).requires_grad_()
