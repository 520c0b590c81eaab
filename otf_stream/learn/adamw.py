"""AdamW (Loshchilov & Hutter, 2019), as torch computes it, without what torch's class for it brings along.

To make a ``torch.optim.AdamW`` is to import torch's compiler and a computer algebra system, though nothing is compiled
here: a second of a core, and 140 MB, in every process that learns. The function that does the work needs neither.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.optim.adamw import adamw

_BETAS = (0.9, 0.95)
_WEIGHT_DECAY = 1e-4
_EPSILON = 1e-8


class AdamW:
    """Steps down the gradients of some parameters.

    Parameters
    ----------
    parameters
        Changed in place; all on one device.
    """

    def __init__(self, parameters: Sequence[Tensor]) -> None:
        self._parameters = list(parameters)
        self._means = [torch.zeros_like(parameter) for parameter in self._parameters]
        self._squares = [torch.zeros_like(parameter) for parameter in self._parameters]
        self._steps = [torch.zeros((), device=parameter.device) for parameter in self._parameters]

    @torch.no_grad()
    def step(self, learning_rate: float) -> None:
        """Take one step; each parameter has its gradient as ``grad``."""
        gradients = [parameter.grad for parameter in self._parameters if parameter.grad is not None]
        adamw(
            self._parameters, gradients, self._means, self._squares, [], self._steps,
            fused=True, amsgrad=False, beta1=_BETAS[0], beta2=_BETAS[1], lr=learning_rate,
            weight_decay=_WEIGHT_DECAY, eps=_EPSILON, maximize=False,
        )  # fmt: skip
