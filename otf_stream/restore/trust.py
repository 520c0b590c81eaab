"""Whether the network may be trusted with this stack.

There is no truth of a stack on the stage, but there are lateral planes that the network was not trained on. Blurred and
sampled like axial slices, they are given to the network, to Richardson–Lucy and to interpolation, and what comes out is
held against what they were. Who is beaten there has no business in the volume.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from otf_stream.learn.compute import Compute
from otf_stream.learn.folding import folded
from otf_stream.learn.nafnet import NAFNet
from otf_stream.learn.pairs import AxialPairs

_BATCHES = 6
_FAINTEST = 1e-12


@dataclass(frozen=True)
class Trust:
    """What held-out lateral planes say: gain over linear interpolation, in dB of the squared error.

    Parameters
    ----------
    network
        Of the deblurring network.
    richardson_lucy
        Of Richardson–Lucy along z with the estimated kernel.
    planes
        How many planes were held out; 0 where the stack has too few to spare one, and the training planes were asked.
    """

    network: float
    richardson_lucy: float
    planes: int

    @property
    def best(self) -> Literal["network", "richardson-lucy", "interpolate"]:
        """Who comes nearest."""
        if self.network >= max(self.richardson_lucy, 0.0):
            return "network"
        return "richardson-lucy" if self.richardson_lucy > 0 else "interpolate"


def examine(network: NAFNet, pairs: AxialPairs, compute: Compute, *, planes: int) -> Trust:
    """Compare the ways to restore on pairs of held-out planes.

    Parameters
    ----------
    network
        Ready for inference.
    pairs
        Of planes that it was not trained on.
    compute
        Where it runs.
    planes
        How many planes those are.
    """
    ready = folded(network, compute)

    def misses(pair: tuple[Tensor, Tensor]) -> list[float]:
        slices, clean = pair
        with torch.inference_mode(), compute.autocast():
            restored = ready(slices.contiguous(memory_format=torch.channels_last)).float()
        # The network's first guess is Richardson–Lucy, and its guide is interpolation.
        return [float((volume - clean).square().mean()) for volume in (slices[:, 1:], restored, slices[:, :1])]

    batches = (pairs() for _ in range(_BATCHES))
    missed = torch.tensor(list(compute.map_resident(misses, batches)), dtype=torch.float64).sum(dim=0)
    gain = 10 * torch.log10(missed[0].clamp(min=_FAINTEST) / missed[1:].clamp(min=_FAINTEST))
    return Trust(float(gain[0]), float(gain[1]), planes)
