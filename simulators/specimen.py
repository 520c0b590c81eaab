"""A sample under an instrument: drawn and imaged without noise when it is set up, exposed frame by frame.

What takes long is done once: each position and channel has a structure of its own, imaged through the physical point
spread function at every voxel. An exposure then only picks the plane, applies the faults and adds the camera's noise.

Time is what the sample goes through. A time point begins when something is exposed that was exposed in this one
before; the sample bleaches with every exposure. So it needs no word from the software that runs the microscope, and
any script finds the same sample: its n-th look at a plane always gives the same frame.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from otf_stream.acquisition import Modality
from simulators.faults import Faults, Light, hot_light, stripe_shadows
from simulators.instruments import INSTRUMENTS, Instrument, instrument_psf
from simulators.microscope import through_optics
from simulators.phantom import Volume, cells, seen_isotropically
from simulators.scenes import View
from simulators.tissues import foam, vesicles

CHANNELS = {"FITC": cells, "Rhodamine": vesicles, "Cy5": foam}
"""What each channel shows, by its label."""

# What a stream of random numbers is for; the first of its seeds after that of the specimen.
_SAMPLE, _NOISE, _DROPS, _HOT, _STRIPES = range(5)


@dataclass(frozen=True)
class Setup:
    """An instrument and what stands under it.

    Parameters
    ----------
    modality
        Kind of instrument, of `simulators.instruments.INSTRUMENTS`.
    planes
        Depth of the sample in planes of the instrument's z step; the first lies at stage position 0.
    side
        Pixels of the camera, along y and x.
    channels
        How many; which is in `CHANNELS`.
    positions
        How many samples, side by side.
    room
        Pixels by which each sample reaches beyond the field of view on every side: for drift, or for tiles. Past that,
        and past its planes, it continues as its mirror image.
    faults
        What is wrong.
    seed
        Of the samples, the noise and the faults.

    Raises
    ------
    ValueError
        If there is no such instrument, or not that much of something.
    """

    modality: Modality = "confocal"
    planes: int = 32
    side: int = 256
    channels: int = 1
    positions: int = 1
    room: int = 0
    faults: Faults = Faults()  # noqa: RUF009  frozen
    seed: int = 0

    def __post_init__(self) -> None:
        if self.modality not in INSTRUMENTS:
            raise ValueError(f"no instrument is {self.modality}; choose from {', '.join(INSTRUMENTS)}")
        if not 1 <= self.channels <= len(CHANNELS):
            raise ValueError(f"channels is {self.channels}, but there are 1 to {len(CHANNELS)}: {', '.join(CHANNELS)}")
        if self.planes < 2 or self.side < 8 or self.positions < 1 or self.room < 0 or self.seed < 0:
            raise ValueError(
                f"planes must be at least 2, side 8, positions 1, room and seed 0, but they are {self.planes}, "
                f"{self.side}, {self.positions}, {self.room} and {self.seed}"
            )

    @property
    def instrument(self) -> Instrument:
        """The instrument."""
        return INSTRUMENTS[self.modality]

    @property
    def channel_names(self) -> tuple[str, ...]:
        """Label of each channel."""
        return tuple(CHANNELS)[: self.channels]

    @property
    def positions_um(self) -> tuple[tuple[float, float], ...]:
        """Stage position ``(x, y)`` of each sample's middle: in a row, a sample's width between them."""
        apart = math.ceil(2 * (self.side + 2 * self.room) * self.instrument.pixel_um)
        return tuple((float(apart * position), 0.0) for position in range(self.positions))

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape ``(z, y, x)`` of a sample in voxels of the isotropic grid."""
        width = self.side + 2 * self.room
        return (self.planes - 1) * self.instrument.z_step + 1, width, width


class Specimen:
    """Samples under an instrument: a scene for a virtual microscope.

    Parameters
    ----------
    setup
        What stands there.
    progress
        Called with how many samples are ready, of each position and channel.

    Attributes
    ----------
    light
        What the optics pass of each position and channel, ``(z, y, x)`` on the isotropic grid, without noise or faults.
    exposed, dropped
        Frames so far, and those of them that got lost.
    time_point
        The present one, from 0.
    """

    def __init__(self, setup: Setup, *, progress: Callable[[int], object] = lambda ready: None) -> None:
        self.setup = setup
        self.exposed = self.dropped = self.time_point = 0
        self._hot = hot_light(self.shape, setup.faults.hot_pixels, seed=[setup.seed, _HOT])
        self._shadows = [
            stripe_shadows(setup.side, setup.faults.stripes, seed=[setup.seed, _STRIPES, position])
            for position in range(setup.positions)
        ]
        psf = instrument_psf(setup.modality)
        self.light: dict[tuple[int, int], Volume] = {}
        for position in range(setup.positions):
            for channel in range(setup.channels):
                self.light[position, channel] = through_optics(self._draw(position, channel), psf)
                progress(len(self.light))
        self._exposures: Counter[tuple[int, int]] = Counter()
        self._seen: set[tuple[int, ...]] = set()

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the camera."""
        return self.setup.side, self.setup.side

    @property
    def dtype(self) -> np.dtype:
        """uint16."""
        return np.dtype(np.uint16)

    @property
    def pixel_um(self) -> float:
        """Lateral pixel size."""
        return self.setup.instrument.pixel_um

    @property
    def channels(self) -> tuple[str, ...]:
        """Label of each channel."""
        return self.setup.channel_names

    def expose(self, view: View) -> NDArray[np.uint16] | None:
        """Photograph what is in view, once.

        Returns
        -------
        ndarray or None
            uint16 ``(y, x)``; None if the frame got lost.
        """
        faults, seed = self.setup.faults, self.setup.seed
        position, off_y, off_x = self._field(view)
        looked_at = (position, view.channel, round(1000 * view.z_um), off_y, off_x)
        if looked_at in self._seen:
            self.time_point += 1
            self._seen.clear()
        self._seen.add(looked_at)
        # Numbers of a seed must not be negative.
        frame = [self.time_point, *(number % 2**32 for number in looked_at)]
        faded = (1 - faults.bleaching) ** self._exposures[position, view.channel]
        self._exposures[position, view.channel] += 1
        self.exposed += 1
        if np.random.default_rng([seed, _DROPS, *frame]).uniform() < faults.dropped:
            self.dropped += 1
            return None
        rows, columns = self._pixels(off_y, off_x, self.time_point)
        light = _plane(self.light[position, view.channel], view.z_um / self.pixel_um)[rows[:, None], columns]
        light = light * (np.float32(faded) * self._shadows[position]) + self._hot
        return self.setup.instrument.camera.expose(light, seed=[seed, _NOISE, *frame])

    def truth(self, position: int, channel: int, time_point: int = 0) -> Volume:
        """Draw what a microscope as sharp along z as it is across it would see from the middle of a position.

        Returns
        -------
        ndarray
            float32 ``(z, y, x)`` on the isotropic grid, in the unit of `simulators.phantom.phantom`; unbleached.
        """
        rows, columns = self._pixels(0, 0, time_point)
        truth = seen_isotropically(self._draw(position, channel))
        return np.ascontiguousarray(truth[:, rows[:, None], columns])

    def _draw(self, position: int, channel: int) -> Volume:
        draw = CHANNELS[self.channels[channel]]
        seeds = np.random.SeedSequence([self.setup.seed, _SAMPLE, position, channel])
        return draw(self.setup.shape, seed=int(seeds.generate_state(1)[0]))

    def _field(self, view: View) -> tuple[int, int, int]:
        """Return the sample that is nearest, and how many pixels the view lies off its middle, along y and x."""
        away = [(view.x_um - x, view.y_um - y) for x, y in self.setup.positions_um]
        position = min(range(len(away)), key=lambda p: math.hypot(*away[p]))
        x, y = away[position]
        return position, round(y / self.pixel_um), round(x / self.pixel_um)

    def _pixels(self, off_y: int, off_x: int, time_point: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Rows and columns of the sample that a view shows. What drifts towards larger x is seen from further left."""
        drifted = round(self.setup.faults.drift_um * time_point / self.pixel_um)
        middle = self.setup.room + np.arange(self.setup.side)
        width = self.setup.shape[1]
        return _mirrored(middle + off_y, width), _mirrored(middle + off_x - drifted, width)


def _mirrored(index: NDArray[np.int64], length: int) -> NDArray[np.int64]:
    """Fold indices beyond an axis back into it, as at a mirror in the middle of its first and last voxel."""
    period = 2 * (length - 1)
    folded = index % period
    return np.minimum(folded, period - folded)


def _plane(volume: Volume, at: float) -> Light:
    """Return the plane at any height, in voxels: between two of them, what lies between."""
    below = math.floor(round(at, 3))
    above = np.float32(round(at, 3) - below)
    low, high = _mirrored(np.array([below, below + 1]), len(volume))
    plane: Light = volume[low] if above == 0 else (1 - above) * volume[low] + above * volume[high]
    return plane
