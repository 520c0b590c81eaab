"""The card of pre-trained weights: on what, how long, on which machine, and how well they do on images never seen."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

import torch

from otf_stream import __version__
from otf_stream.learn.checkpoints import Shipped
from otf_stream.learn.compute import Compute
from otf_stream.learn.nafnet import NAFNet
from otf_stream.learn.pretrain import Report


def model_card(
    network: NAFNet,
    reports: Sequence[Report],
    *,
    command: str,
    steps: int,
    scenes: int,
    together: int,
    seed: int,
    compute: Compute,
    before: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Gather what a user of the weights should know; JSON can hold it.

    ``command`` is what reproduces them, and ``before`` the card of what training went on from.
    """
    return {
        "before": before,
        "command": command,
        "parameters": sum(p.numel() for p in network.parameters()),
        "steps": steps,
        "scenes": scenes,
        "together": together,
        "seed": seed,
        "compute": str(compute),
        "device": torch.cuda.get_device_name(compute.device) if compute.device.type == "cuda" else "",
        "threads": torch.get_num_threads(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "versions": {"otf_stream": __version__, "torch": torch.__version__},
        "validation": [asdict(report) for report in reports],
    }


_PURPOSE: dict[Shipped, str] = {
    "denoise": """turns a noisy plane, its neighbours and a map of the noise into the plane without its noise. Every
stack fine-tunes it, by recorruption and by rehearsing.""",
    "deblur": """turns the axial slices of a stack, denoised, freed of haze, deconvolved and interpolated, into what a
microscope as sharp along z as across would see; taught on such slices of drawn samples (`--lateral` tells the share of
lateral planes, made to look like them, beside). Every stack fine-tunes it on its own planes.""",
    "deblur-large": "does what deblur does, on a graphics card, with seven times the parameters.",
}


def card_text(name: Shipped, card: dict[str, Any]) -> str:
    """Write a card as Markdown."""
    rows = "\n".join(f"| {r['steps']} | {r['seconds']:.0f} | {r['gain_db']:+.2f} |" for r in card["validation"])
    device = f" ({card['device']})" if card.get("device") else ""
    began = "".join(f"\n- **Before**: {_told(earlier)}" for earlier in _went_on_from(card))
    taken, most = card["validation"][-1]["steps"], card["steps"]
    steps = f"{most} steps" if taken == most else f"{taken} of {most} steps (it was ended then)"
    return f"""# The pre-trained network: {name}

A NAFNet of {card["parameters"]:,} parameters that {_PURPOSE[name]}

- **Data**: samples drawn by rule in three dimensions (`otf_stream/learn/samples.py`): dead leaves, clouds, filaments,
  membranes and cells; seen through the physical point spread functions of confocal, multiphoton, light-sheet and
  widefield microscopes with random apertures, aberrations, z steps and noise (`otf_stream/learn/scenes.py`). No
  recording, no download.
- **Schedule**: {steps}, each of 8 patches of 64 × 64 pixels from each of {card["together"]} of
  {card["scenes"]} scenes at a time, AdamW, cosine; running mean of the weights.{began}
- **Seed**: {card["seed"]}. **Reproduce**: `{card["command"]}`
- **Hardware**: {card["machine"]}, {card["threads"]} thread(s), {card["compute"]}{device};
  torch {card["versions"]["torch"]}.
- **Limits**: samples without preferred direction; fixed patterns of the camera, reflections and scatter were never
  shown to it.

PSNR over that of what it corrects (the noisy plane, the deconvolved slice), mean over scenes never trained on:

| steps | seconds | gain (dB) |
|---|---|---|
{rows}
"""


def _went_on_from(card: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Go back through the cards of what training went on from, the last first."""
    while card := card.get("before") or {}:
        yield card


def _told(card: dict[str, Any]) -> str:
    """Tell how weights came about that training went on from."""
    if not card.get("validation"):
        return "weights of which no training is told."
    last, together = card["validation"][-1], card.get("together", 1)
    reproduce = f"\n  **Reproduce**: `{card['command']}`" if card.get("command") else ""
    return f"""{last["steps"]} of {card["steps"]} steps of 8 patches from each of {together} of {card["scenes"]}
  scenes, seed {card["seed"]}, in {last["seconds"]:.0f} s on {card.get("device") or card["machine"]}, torch
  {card["versions"]["torch"]}: {last["gain_db"]:+.2f} dB.{reproduce}"""
