"""CARE's isotropic network on one stack: a script for an environment of its own, which has csbdeep and tensorflow.

Run as ``python care.py IN.npz OUT.npy SECONDS …``; it imports nothing of this package. ``IN.npz`` holds ``planes``
``(z, y, x)``, the ``psf`` ``(z, x)`` by which a lateral plane becomes an axial slice, the ``anisotropy`` (whole) and
the ``depth`` of the isotropic grid. CARE gets the true PSF, and its training time does not include restoring: more
than it would have at the microscope. Its own resampling along z moves the grid; the planes are interpolated linearly
on the exact grid instead.
"""

# mypy: ignore-errors
import os
import sys
import tempfile
import time

os.environ["TF_USE_LEGACY_KERAS"] = "1"
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import numpy as np
import tensorflow as tf
from csbdeep.data import RawData, anisotropic_distortions, create_patches
from csbdeep.models import Config, IsotropicCARE

_PATCH = 64
_PATCHES = 1024
_STEPS_PER_EPOCH = 10  # the clock is looked at after each


class _Clock(tf.keras.callbacks.Callback):
    def __init__(self, seconds):
        super().__init__()
        self._end = time.monotonic() + seconds

    def on_epoch_end(self, epoch, logs=None):
        if time.monotonic() > self._end:
            self.model.stop_training = True


def main(source, target, seconds):
    """Train for so many seconds, restore, write the volume."""
    begun = time.monotonic()
    with np.load(source) as given:
        planes, psf = given["planes"].astype(np.float32), given["psf"].astype(np.float32)
        anisotropy, depth = int(given["anisotropy"]), int(given["depth"])
    np.random.seed(0)  # noqa: NPY002 - csbdeep draws from the global generator
    tf.random.set_seed(0)
    distortion = anisotropic_distortions(
        subsample=anisotropy, psf=psf, psf_axes="YX", crop_threshold=0.2 if planes.shape[1] > 128 else 0.5
    )
    # The noise of the planes is in the target and, as in csbdeep's own example, in the input.
    x, y, axes = create_patches(
        RawData.from_arrays([planes], [planes], axes="ZYX"),
        patch_size=(1, _PATCH, _PATCH),
        n_patches_per_image=_PATCHES,
        transforms=[distortion],
        verbose=False,
    )
    z = axes.index("Z")
    x, y = (np.moveaxis(np.take(a, 0, axis=z), 1, -1) for a in (x, y))
    held = 16
    config = Config(
        "YXC", 1, 1, unet_n_depth=2, unet_n_first=32, train_epochs=100_000, train_steps_per_epoch=_STEPS_PER_EPOCH,
        train_batch_size=16, train_tensorboard=False, train_reduce_lr=None, train_checkpoint=None,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        model = IsotropicCARE(config, "care", basedir=folder)
        model.prepare_for_training()
        model.callbacks.append(_Clock(seconds - (time.monotonic() - begun)))
        model.train(x[held:], y[held:], validation_data=(x[:held], y[:held]))
        position = np.clip(np.arange(depth) / anisotropy, 0, len(planes) - 1)
        below = np.minimum(position.astype(int), len(planes) - 2)
        weight = (position - below)[:, None, None].astype(np.float32)
        upsampled = planes[below] * (1 - weight) + planes[below + 1] * weight
        np.save(target, model.predict(upsampled, "ZYX", factor=1, batch_size=4))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], float(sys.argv[3]))
