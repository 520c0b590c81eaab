"""The networks that a stack starts from: what was learnt of the time point before, a user's own, or shipped ones.

Two networks to deblur ship. The larger one restores better and takes six times the arithmetic, which only a graphics
card has to spare: it is taken there where restoring with it leaves enough of the time after the last plane.
"""

from __future__ import annotations

from dataclasses import dataclass

from otf_stream.learn.checkpoints import Shipped, digest, network_to_deblur, shipped_network
from otf_stream.learn.compute import Compute
from otf_stream.learn.nafnet import NAFNet
from otf_stream.service.budget import Schedule
from otf_stream.service.memory import Lesson
from otf_stream.service.settings import Settings
from otf_stream.service.source import StackSource
from otf_stream.service.speed import Speedometer


@dataclass(frozen=True)
class Start:
    """Networks to start from, how fast they are, the SHA-256 of the weights of that which deblurs, and why these."""

    deblurring: NAFNet
    denoising: NAFNet
    speed: Speedometer
    weights: str
    why: str


def networks_to_start_from(
    source: StackSource, settings: Settings, earlier: Lesson | None, schedule: Schedule, compute: Compute
) -> Start:
    """Choose the networks.

    Parameters
    ----------
    source, settings, compute
        The stack, how it is to be restored, and where.
    earlier
        What was learnt of another time point of the same channel, if anything was.
    schedule
        Says what there is time for.

    Raises
    ------
    CheckpointError
        If a user's own network cannot be used.
    """

    def start(deblurring: NAFNet, denoising: NAFNet, weights: str, why: str) -> Start:
        return Start(deblurring, denoising, Speedometer(deblurring, denoising, source, compute), weights, why)

    if earlier:
        return start(earlier.deblurring, earlier.denoising, earlier.weights, "warm start")
    denoising = shipped_network("denoise")
    if settings.weights or compute.device.type == "cpu":
        network = network_to_deblur(settings.weights)
        return start(network, denoising, digest(settings.weights), "from the pre-trained networks")

    def shipped(name: Shipped) -> Start:
        return start(shipped_network(name), denoising, digest(shipped=name), f"from the pre-trained network {name}")

    large = shipped("deblur-large")
    affordable = schedule.affords(lambda: large.speed.measure().restoring_time(len(source.extent)))
    return large if affordable else shipped("deblur")
