"""Commands that make and show networks: ``pretrain``, ``weights import``, ``weights show``.

A file of weights is replaced only when asked to, and its card is written with it: where it came from can be told.
"""

from __future__ import annotations

import json as jsonlib
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from otf_stream.cli.options import Device, Json, Overwrite, Seed
from otf_stream.cli.terminal import errors_told, print_json, progress_bar, say

app = typer.Typer(name="weights", help="Bring in published weights, and look at those of a file.", no_args_is_help=True)


def pretrain(
    network: Annotated[
        Literal["denoise", "deblur", "deblur-large"],
        typer.Argument(help="Which network. Those that deblur learn from what denoise cleaned; the large is for GPUs."),
    ],
    out: Annotated[Path, typer.Argument(help="The new weights, NAME.safetensors; the model card lands beside them.")],
    steps: Annotated[int, typer.Option(help="Training steps; some six a second on one slow core.", min=1)] = 9000,
    scenes: Annotated[int, typer.Option(help="Drawn scenes that are in use at a time.", min=1)] = 96,
    together: Annotated[int, typer.Option(help="Scenes that a step learns from.", min=1)] = 1,
    renewals: Annotated[int, typer.Option(help="How often each scene is replaced by a new one.", min=1)] = 2,
    learning_rate: Annotated[float, typer.Option(help="The highest.", min=0)] = 3e-3,
    processes: Annotated[
        int, typer.Option(help="That draw scenes; none: this one does. Changes no weight.", min=0)
    ] = 0,
    start: Annotated[Path | None, typer.Option(help="Weights to go on from; new ones, if not given.")] = None,
    lateral: Annotated[
        float,
        typer.Option(
            help="Share, in eighths, of lateral planes beside axial slices in what deblurring learns.", min=0, max=1
        ),
    ] = 0.25,
    device: Device = "auto",
    seed: Seed = 0,
    threads: Annotated[int | None, typer.Option(help="Processor cores to use; all, if not given.", min=1)] = None,
    overwrite: Overwrite = False,
) -> None:
    """Pre-train a network on drawn scenes, as those that ship were; their cards tell the steps, scenes and seed."""
    import torch

    from otf_stream.learn.architecture import describe
    from otf_stream.learn.checkpoints import Shipped, load_weights, save_weights, shipped_network
    from otf_stream.learn.compute import choose_compute
    from otf_stream.learn.denoise import denoising_network
    from otf_stream.learn.modelcard import card_text, model_card
    from otf_stream.learn.nafnet import NAFNet, deblurring_network, large_deblurring_network
    from otf_stream.learn.pretrain import pretrain as train
    from otf_stream.learn.scene_pairs import axial_pairs, noisy_pairs

    with errors_told():
        _check_weights_name(out, overwrite=overwrite)
        if together > scenes:
            raise ValueError(f"--together {together} is more than --scenes {scenes}; give at most as many")
        compute = choose_compute(device)
        torch.set_num_threads(threads or torch.get_num_threads())
        torch.manual_seed(seed)
        make_new: dict[Shipped, Callable[[], NAFNet]] = {
            "denoise": denoising_network,
            "deblur": deblurring_network,
            "deblur-large": large_deblurring_network,
        }
        new, before = load_weights(start) if start else (make_new[network](), None)
        if start and describe(new) != describe(make_new[network]()):
            raise ValueError(
                f"--start {start} holds no network of the sizes of {network}; give weights of that network"
            )
        deblurs = network != "denoise"
        make_pairs = axial_pairs(shipped_network("denoise"), compute, lateral=lateral) if deblurs else noisy_pairs
        reports = []
        command = (
            f"otf-stream pretrain {network} {out.name} --steps {steps} --scenes {scenes} --together {together} "
            f"--renewals {renewals} --learning-rate {learning_rate:g} --seed {seed} --device {compute.device.type} "
            f"--threads {torch.get_num_threads()}"
            + (f" --start {start.name}" if start else "")
            + (f" --lateral {lateral:g}" if deblurs else "")
        )
        with progress_bar() as bar:
            task = bar.add_task("steps", total=steps)
            for report, trained in train(
                new, make_pairs, compute, steps=steps, seed=seed, scenes=scenes, together=together,
                renewals=renewals, learning_rate=learning_rate, processes=processes,
                progress=lambda done: bar.update(task, completed=round(done * steps)),
            ):  # fmt: skip
                reports.append(report)
                card = model_card(
                    trained, reports, command=command, steps=steps, scenes=scenes, together=together, seed=seed,
                    compute=compute, before=before,
                )  # fmt: skip
                save_weights(trained, out, card)
                out.with_suffix(".md").write_text(card_text(network, card), encoding="utf-8")
                say.print(f"step {report.steps}: {report.gain_db:+.2f} dB over the input on unseen scenes")
    typer.echo(f"weights: {out}\ncard:    {out.with_suffix('.md')}")


@app.command("import")
def import_weights(
    checkpoint: Annotated[Path, typer.Argument(metavar="CHECKPOINT.pth", help="Of a NAFNet, as it is published.")],
    out: Annotated[Path, typer.Argument(metavar="OUT.safetensors", help="The new weights.")],
    overwrite: Overwrite = False,
) -> None:
    """Turn a published NAFNet into weights for images of one channel; nothing in its file is run."""
    from otf_stream.learn.architecture import describe
    from otf_stream.learn.checkpoints import import_checkpoint, save_weights

    with errors_told():
        _check_weights_name(out, overwrite=overwrite)
        network, card = import_checkpoint(checkpoint)
        save_weights(network, out, card)
    typer.echo(f"weights: {out}\n{_lines(describe(network))}")


@app.command("show")
def show_weights(
    path: Annotated[Path, typer.Argument(metavar="FILE.safetensors", help="What pretrain or weights import wrote.")],
    json: Json = False,
) -> None:
    """Print the size of a network and the card of its training."""
    from otf_stream.learn.architecture import describe
    from otf_stream.learn.checkpoints import load_weights

    with errors_told():
        network, card = load_weights(path)
    if json:
        print_json({"network": describe(network), "card": card})
    else:
        typer.echo(f"network\n{_lines(describe(network))}\ncard\n{_lines(card)}")


def _check_weights_name(out: Path, *, overwrite: bool) -> None:
    if out.suffix != ".safetensors":
        raise ValueError(f"{out} does not end in .safetensors; give it that ending")
    if out.exists() and not overwrite:
        raise FileExistsError(17, "the file exists; give --overwrite to replace it", str(out))


def _lines(values: dict[str, Any]) -> str:
    """Return a line for each key, its value as JSON."""
    width = max(map(len, values), default=0)
    return "\n".join(f"  {key.ljust(width)}  {jsonlib.dumps(value)}" for key, value in values.items())
