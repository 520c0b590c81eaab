"""Streams what pymmcore-plus acquires: connects to the engine's events, and hands each frame to a publisher.

The engine calls its listeners in the camera's thread, and an acquisition stops if they take their time. So a frame is
only handed over; sending is the publisher's business, and waiting for the last acknowledgements is done in a thread of
this hook. The acquisition goes on even if streaming fails, because the planes may also be saved elsewhere; what
failed is raised at the end, when nothing can be lost by it.

pymmcore-plus itself is not imported: the core that is passed in brings all that is needed.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from otf_stream.acquire.publisher import Publisher
from otf_stream.acquisition import Acquisition, Modality, Optics, PixelType, Sizes, VoxelSize

if TYPE_CHECKING:
    from pymmcore_plus import CMMCorePlus
    from useq import MDAEvent, MDASequence

log = logging.getLogger(__name__)

_PIXEL_TYPES: dict[int, PixelType] = {1: "uint8", 2: "uint16"}
_UNEVEN = 0.01  # of a z step: the positions of a stage are rounded


@contextmanager
def streaming(
    core: CMMCorePlus,
    address: str,
    *,
    name: str,
    pixel_size_um: float | None = None,
    modality: Modality = "unknown",
    optics: Optics = Optics(),  # noqa: B008  frozen
) -> Iterator[Stream]:
    """Stream every sequence that ``core`` runs within the block.

    Leaving the block waits until all planes are durable, or says which are not. It ends a sequence that still runs in
    another thread as aborted: join the thread that ``core.run_mda`` returns before.

    Parameters
    ----------
    core, address, name, pixel_size_um, modality, optics
        As for `Stream`.

    Raises
    ------
    otf_stream.acquire.publisher.PublishError
        If the listener refuses the session or planes.
    TimeoutError
        If the listener cannot be reached; the planes are kept in files, and the message says where.

    Examples
    --------
    >>> with streaming(core, "tcp://restoration-pc:8421", name="embryo"):  # doctest: +SKIP
    ...     core.mda.run(useq.MDASequence(z_plan={"range": 40, "step": 1.2}))
    """
    stream = Stream(core, address, name=name, pixel_size_um=pixel_size_um, modality=modality, optics=optics)
    stream.connect()
    try:
        yield stream
    except BaseException:
        # What the body raised matters more than what became of the stream.
        try:
            stream.disconnect()
        except Exception:
            log.exception("streaming %s failed", name)
        raise
    stream.disconnect()


class Stream:
    """Streams the sequences of a core between `connect` and `disconnect`; `streaming` is the usual way to have one.

    Each sequence becomes a session of its own. A cancelled or failed one is closed as aborted: the planes that were
    taken are kept.

    Parameters
    ----------
    core
        Whose acquisition engine is listened to.
    address
        Of the listener, ``tcp://HOST:PORT``.
    name
        What to call the acquisitions.
    pixel_size_um
        Lateral pixel size in the sample; as configured in the core if not given.
    modality, optics
        What is known of the microscope.

    Attributes
    ----------
    sessions
        Ids of the sessions that were opened, in order.
    """

    def __init__(
        self,
        core: CMMCorePlus,
        address: str,
        *,
        name: str,
        pixel_size_um: float | None = None,
        modality: Modality = "unknown",
        optics: Optics = Optics(),  # noqa: B008  frozen
    ) -> None:
        self.sessions: list[str] = []
        self._core = core
        self._address = address
        self._described: dict[str, Any] = {"modality": modality, "optics": optics}
        self._name = name
        self._pixel_size_um = pixel_size_um
        self._publisher: Publisher | None = None
        self._cancelled = False
        self._closing: list[threading.Thread] = []
        self._failures: list[Exception] = []
        self._sent: list[int] = []

    @property
    def sent(self) -> int:
        """How many planes went out in the sessions that have ended."""
        return sum(self._sent)

    def connect(self) -> None:
        """Listen to the engine from now on."""
        events = self._core.mda.events
        events.sequenceStarted.connect(self._started)
        events.frameReady.connect(self._frame)
        events.sequenceCanceled.connect(self._canceled)
        events.sequenceFinished.connect(self._finished)

    def disconnect(self) -> None:
        """Listen no longer, and wait until all planes are durable.

        Raises
        ------
        Exception
            The first thing that went wrong; see `streaming`.
        """
        events = self._core.mda.events
        events.sequenceStarted.disconnect(self._started)
        events.frameReady.disconnect(self._frame)
        events.sequenceCanceled.disconnect(self._canceled)
        events.sequenceFinished.disconnect(self._finished)
        self._end_unfinished()
        while self._closing:
            self._closing.pop().join()
        if self._failures:
            failure = self._failures[0]
            self._failures.clear()
            raise failure

    def _started(self, sequence: MDASequence, metadata: object = None) -> None:
        # An error here stops the sequence before its first frame, which is the time to hear of it.
        acquisition = describe(
            self._core, sequence, name=self._name, pixel_size_um=self._pixel_size_um, **self._described
        )
        self._end_unfinished()
        self._cancelled = False
        self._publisher = Publisher(self._address, acquisition)
        self.sessions.append(self._publisher.session)

    def _frame(self, image: np.ndarray, event: MDAEvent, metadata: object = None) -> None:
        publisher = self._publisher  # Another thread may disconnect.
        if publisher is None:
            return
        index = {str(axis): number for axis, number in event.index.items()}
        try:
            publisher.publish(image, t=index.get("t", 0), c=index.get("c", 0), z=index["z"])
        except Exception as error:
            if not self._failures:
                log.error("plane %s is not streamed: %s", index, error)
            self._failures.append(error)

    def _canceled(self, sequence: MDASequence) -> None:
        self._cancelled = True

    def _end_unfinished(self) -> None:
        """End a sequence that has not said that it finished: the engine is silent if its own clean-up fails."""
        if self._publisher is not None:
            self._cancelled = True
            self._finished()

    def _finished(self, sequence: MDASequence | None = None) -> None:
        publisher, self._publisher = self._publisher, None
        if publisher is None:
            return
        status = getattr(self._core.mda, "status", None)  # Older engines do not tell.
        aborted = self._cancelled or str(getattr(status, "finish_reason", None)) == "errored"
        thread = threading.Thread(target=self._close, args=(publisher, aborted), name=f"closing {self._name}")
        self._closing.append(thread)
        thread.start()

    def _close(self, publisher: Publisher, aborted: bool) -> None:
        try:
            if aborted:
                publisher.abort()
            else:
                publisher.close()
        except Exception as error:
            log.error("session %s of %s: %s", publisher.session, self._name, error)
            self._failures.append(error)
        finally:
            self._sent.append(publisher.sent)


def describe(
    core: CMMCorePlus,
    sequence: MDASequence,
    *,
    name: str,
    pixel_size_um: float | None = None,
    modality: Modality = "unknown",
    optics: Optics = Optics(),  # noqa: B008  frozen
) -> Acquisition:
    """Describe the acquisition that ``sequence`` is on ``core``.

    Parameters
    ----------
    core, name, pixel_size_um, modality, optics
        As for `Stream`.
    sequence
        With a z plan of even steps; time points and channels as wanted; one position.

    Returns
    -------
    Acquisition

    Raises
    ------
    ValueError
        If the sequence has no z-stack, uneven z steps or several positions, the pixel size is unknown, or the camera's
        images are not single ones of 8 or 16 bits.
    """
    sizes = {str(axis): length for axis, length in sequence.sizes.items()}
    if sizes.get("p", 0) > 1 or sizes.get("g", 0) > 1 or any(p.sequence for p in sequence.stage_positions):
        raise ValueError(
            f"the sequence visits {sizes.get('p', 0) or 1} positions with {sizes.get('g', 0) or 1} tiles, but a "
            "session is one place; run one sequence for each position, without sub-sequences or a grid"
        )
    pixel_size = core.getPixelSizeUm() if pixel_size_um is None else pixel_size_um
    if not pixel_size > 0:
        raise ValueError(
            f"the pixel size is {pixel_size} µm, so not known; give it as pixel_size_um, "
            "or calibrate it in Micro-Manager (Devices, Pixel Size Calibration)"
        )
    channels = tuple(channel.config for channel in sequence.channels)
    return Acquisition(
        name=name,
        sizes=Sizes(
            t=sizes.get("t", 0) or 1,
            c=len(channels) or 1,
            z=sizes.get("z", 0) or 1,
            y=core.getImageHeight(),
            x=core.getImageWidth(),
        ),
        dtype=_pixel_type(core),
        voxel_size=VoxelSize(z=_z_step(sequence), y=pixel_size, x=pixel_size),
        channels=channels,
        modality=modality,
        optics=optics,
    )


def _z_step(sequence: MDASequence) -> float:
    positions = np.array([float(z) for z in sequence.z_plan or ()])
    if len(positions) < 2:
        raise ValueError(
            f"the sequence has {len(positions)} z positions, but a stack has at least 2; give it a z_plan, "
            "such as {'range': 40, 'step': 1.2}"
        )
    steps = np.diff(positions)
    step = float(steps.mean())
    if step == 0 or np.abs(steps - step).max() > _UNEVEN * abs(step):
        raise ValueError(
            f"the z positions lie {steps.min():g} to {steps.max():g} µm apart, but a stack has even steps; "
            "give a z_plan with one step"
        )
    return abs(step)


def _pixel_type(core: CMMCorePlus) -> PixelType:
    cameras, components, size = core.getNumberOfCameraChannels(), core.getNumberOfComponents(), core.getBytesPerPixel()
    if cameras != 1 or components != 1 or size not in _PIXEL_TYPES:
        raise ValueError(
            f"the camera gives {cameras} images of {components} components and {size} bytes a pixel; "
            "choose one camera and grey values of 8 or 16 bits (its PixelType property)"
        )
    return _PIXEL_TYPES[size]
