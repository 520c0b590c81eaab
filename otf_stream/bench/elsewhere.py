"""Rivals that live in environments of their own: arrays go to a script of ours there, one comes back."""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray


def run_elsewhere(python: Path, script: str, *, seconds: float, **given: Any) -> NDArray[np.float32]:
    """Run ``python script IN.npz OUT.npy SECONDS THREADS`` and return what it wrote.

    Parameters
    ----------
    python
        Interpreter of the environment.
    script
        File name of a script beside this module.
    seconds
        That it may train.
    given
        Arrays and numbers, by the names that the script reads. It is told to use as many cores as ours do.

    Raises
    ------
    subprocess.CalledProcessError
        If it fails.
    """
    threads = str(torch.get_num_threads())
    cores = dict.fromkeys(("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"), threads)
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "in.npz", Path(folder) / "out.npy"
        np.savez(source, **given)
        place = Path(__file__).with_name(script)
        command = [str(python), str(place), str(source), str(target), str(seconds), threads]
        # In the folder, since careamics leaves its checkpoints where it runs.
        subprocess.run(command, check=True, capture_output=True, cwd=folder, env=os.environ | cores)  # noqa: S603 - ours
        return np.asarray(np.load(target), np.float32)
