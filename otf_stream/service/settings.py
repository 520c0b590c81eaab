"""How stacks are restored: what a user chooses, once for all stacks of a service or a recording."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from otf_stream.config import LayerChoice, MethodName, ServiceConfig
from otf_stream.service.budget import Budget


@dataclass(frozen=True)
class Settings:
    """How stacks are restored.

    Parameters
    ----------
    method
        ``auto`` and ``finetune`` fine-tune the pre-trained network on the stack, ``pretrained`` uses it as it is; all
        three denoise the stack by learning from it, and interpolate where that cannot be done.
    budget
        Time, or steps, that a stack may take.
    seed
        Of every draw.
    psf
        File of a measured point spread function; estimated from the stack if None.
    weights
        File of the network to start from; the shipped one if None.
    layers
        Which of its layers are fine-tuned: all, or those that ZEST selects.
    silence
        Seconds without a plane after which a stack is restored from what is there; never if None.
    """

    method: MethodName = "auto"
    budget: Budget = field(default_factory=Budget)
    seed: int = 0
    psf: Path | None = None
    weights: Path | None = None
    layers: LayerChoice = "all"
    silence: float | None = None

    @property
    def learns(self) -> bool:
        """Whether a network has a part in it."""
        return self.method in ("auto", "finetune", "pretrained")

    @classmethod
    def of(cls, config: ServiceConfig) -> Self:
        """Return those of a service."""
        return cls(
            method=config.method,
            budget=Budget(total=config.budget_s, tail=config.tail_s),
            seed=config.seed,
            psf=config.psf,
            weights=config.weights,
            layers=config.layers,
            silence=config.silence_s,
        )
