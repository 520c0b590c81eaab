"""The card of pre-trained weights: on what, how long, on which machine, and how well they do on images never seen."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import torch

from otf_stream import __version__
from otf_stream.learn.compute import Compute
from otf_stream.learn.nafnet import NAFNet
from otf_stream.learn.pretrain import Report


def model_card(
    network: NAFNet, reports: Sequence[Report], *, steps: int, seed: int, compute: Compute
) -> dict[str, Any]:
    """Gather what a user of the weights should know; JSON can hold it."""
    return {
        "parameters": sum(p.numel() for p in network.parameters()),
        "steps": steps,
        "seed": seed,
        "compute": str(compute),
        "threads": torch.get_num_threads(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "versions": {"otf_stream": __version__, "torch": torch.__version__},
        "validation": [asdict(report) for report in reports],
    }


def card_text(card: dict[str, Any], command: str) -> str:
    """Write a card as Markdown; ``command`` is what reproduces the weights."""
    rows = "\n".join(f"| {r['steps']} | {r['seconds']:.0f} | {r['gain_db']:+.2f} |" for r in card["validation"])
    return f"""# The pre-trained deblurring network

A NAFNet of {card["parameters"]:,} parameters that turns the denoised, linearly interpolated axial slices of a stack
into what lateral planes of the same sample look like. Every stack fine-tunes it; it is not meant to be used alone.

- **Data**: images drawn by rule (`otf_stream/learn/imagery.py`): dead leaves, fractal fields, filaments, membranes and
  cells, under many z steps, Gaussian blurs and residues of noise (`otf_stream/learn/pretrain.py`). No recording, no
  download.
- **Schedule**: {card["steps"]} steps of 8 patches of 64 × 64 pixels, AdamW, cosine; running mean of the weights.
- **Seed**: {card["seed"]}. **Reproduce**: `{command}`
- **Hardware**: {card["machine"]}, {card["threads"]} thread(s), {card["compute"]}; torch {card["versions"]["torch"]}.
- **Limits**: one-photon ghosts, aberrations and one-sided tails were never shown to it.

PSNR over linear interpolation, mean over scenes that were never trained on:

| steps | seconds | gain (dB) |
|---|---|---|
{rows}
"""
