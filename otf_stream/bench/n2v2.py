"""N2V2 of careamics (0.3.5, which ran beside torch 2.8) on the planes of one stack: a script for its own environment.

Run as ``python n2v2.py IN.npz OUT.npy SECONDS THREADS``; it imports nothing of this package. ``IN.npz`` holds the
``planes``, ``(z, y, x)``.
The settings are careamics' own; the clock, looked at after every batch, ends training, and starts with the first.
"""

# mypy: ignore-errors
import sys
import time
import types

import numpy as np
import pytorch_lightning
import torch
import torchmetrics  # noqa: F401 - must look for torchvision before it is replaced

try:
    import torchvision  # noqa: F401
except ImportError:
    # careamics imports it for networks that are not used here; it has no build for every torch.
    for name in ("torchvision", "torchvision.transforms", "torchvision.transforms.functional"):
        sys.modules[name] = types.ModuleType(name)
    sys.modules["torchvision"].__version__ = "0"
    sys.modules["torchvision"].transforms = sys.modules["torchvision.transforms"]
    sys.modules["torchvision.transforms"].functional = sys.modules["torchvision.transforms.functional"]

from careamics import CAREamist
from careamics.config import create_n2v_config

_PATCH = 64
_BATCH = 16


class _Clock(pytorch_lightning.Callback):
    def __init__(self, seconds):
        self._seconds = seconds
        self._end = None
        self.steps = 0

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        self._end = self._end or time.monotonic() + self._seconds

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        self.steps += 1
        if time.monotonic() > self._end:
            trainer.should_stop = True
            trainer.limit_val_batches = 0


def main(source, target, seconds, threads):
    """Train for so many seconds, denoise, write the planes."""
    torch.set_num_threads(threads)
    pytorch_lightning.seed_everything(0)
    with np.load(source) as given:
        planes = given["planes"].astype(np.float32)
    config = create_n2v_config(
        experiment_name="n2v2", data_type="array", axes="SYX", patch_size=[_PATCH, _PATCH], batch_size=_BATCH,
        num_epochs=100_000, use_n2v2=True,
    )  # fmt: skip
    clock = _Clock(seconds)
    careamist = CAREamist(config, callbacks=[clock], enable_progress_bar=False)
    careamist.train(train_data=planes)
    predicted, _ = careamist.predict(planes, batch_size=4, num_workers=0)
    clean = np.concatenate([np.asarray(part, np.float32).reshape(-1, *planes.shape[1:]) for part in predicted])
    print(f"{clock.steps} steps")
    np.save(target, clean)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], float(sys.argv[3]), int(sys.argv[4]))
