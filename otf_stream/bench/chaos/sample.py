"""What is sent: small stacks that any process can draw again from their seed, to compare with what came of them.

It is drawn with numpy alone, since the process that plays the microscope must start in a moment.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from otf_stream.acquisition import Acquisition, Sizes, VoxelSize

Stack = NDArray[np.uint16]

Z_STEP = 3
"""Distance of planes in pixels."""
_PIXEL_UM = 0.2
_BLOBS = (0.03, 0.06, 0.06)  # highest frequencies of the sample along z, y and x, in cycles a pixel
_OFFSET, _GAIN, _BRIGHTEST = 100, 2, 200


@dataclass(frozen=True)
class Sample:
    """A stack to be sent.

    Parameters
    ----------
    name
        Of the acquisition.
    session
        Id of the session.
    seed
        Of the pixels.
    planes, side
        Number of planes, and their side in pixels.
    """

    name: str
    session: str
    seed: int
    planes: int
    side: int

    @property
    def acquisition(self) -> Acquisition:
        """What is announced."""
        return Acquisition(
            name=self.name,
            sizes=Sizes(z=self.planes, y=self.side, x=self.side),
            dtype="uint16",
            voxel_size=VoxelSize(z=_PIXEL_UM * Z_STEP, y=_PIXEL_UM, x=_PIXEL_UM),
            modality="confocal",
        )

    @property
    def volume_shape(self) -> tuple[int, int, int]:
        """Shape ``(z', y, x)`` of the restored volume."""
        return (Z_STEP * (self.planes - 1) + 1, self.side, self.side)

    def stack(self) -> Stack:
        """Draw the planes ``(z, y, x)``: blobs, with the noise of a camera and no black voxel."""
        rng = np.random.default_rng(self.seed)
        shape = (self.planes, self.side, self.side)
        frequencies = np.meshgrid(*(np.fft.fftfreq(length) for length in shape), indexing="ij")
        passed = np.exp(-sum((f / highest) ** 2 for f, highest in zip(frequencies, _BLOBS, strict=True)))
        blobs = np.fft.ifftn(np.fft.fftn(rng.normal(size=shape)) * passed).real
        light = rng.poisson(np.clip(blobs / blobs.max(), 0, None) * _BRIGHTEST)
        return np.asarray(_OFFSET + _GAIN * light + rng.integers(0, 5, shape), "<u2")

    def as_json(self) -> str:
        """Return it as a line of JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, told: str) -> Self:
        """Read what `as_json` wrote."""
        return cls(**json.loads(told))
