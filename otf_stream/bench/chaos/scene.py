"""Where attacks take place, and right messages of which they are made up."""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

from otf_stream.acquire.keys import KeyFolder
from otf_stream.acquire.protocol import End, Hello, Plane, encode
from otf_stream.acquisition import Acquisition
from otf_stream.bench.chaos.oddities import Frames
from otf_stream.bench.chaos.raw import Answers, Dealer
from otf_stream.bench.chaos.sample import Sample

Messages = list[Frames]


@dataclass
class Scene:
    """Where an attack takes place.

    Parameters
    ----------
    address
        Of the listener.
    data
        Its data folder.
    outside
        The folder around it, where nothing may appear.
    dice
        For whatever is drawn.
    here, microscope
        The listener's keys, and those of a microscope that it lets in; None where it asks for none.
    briefly
        Do less of what takes time.
    may_leave
        Sessions of the attack that are good ones by all rules, and so have stores.
    """

    address: str
    data: Path
    outside: Path
    dice: random.Random
    here: KeyFolder | None
    microscope: KeyFolder | None
    briefly: bool = False
    may_leave: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.last = self.sample("last")  # greets after each exchange
        self.may_leave.add(self.last.session)

    @property
    def seconds(self) -> float:
        """How long an attack lasts that does the same again and again."""
        return 0.5 if self.briefly else 2.0

    def session(self) -> str:
        """Draw the id of a session."""
        return UUID(int=self.dice.getrandbits(128)).hex

    def sample(self, name: str, planes: int = 6) -> Sample:
        """Draw a small stack."""
        return Sample(name, self.session(), self.dice.getrandbits(32), planes, 32)

    def exchange(self, messages: Sequence[Frames]) -> Answers:
        """Send messages as somebody who is let in, and return what came back."""
        with Dealer(self.address) as dealer:
            return dealer.exchange(messages, Hello(session=self.last.session, acquisition=self.last.acquisition))


@dataclass(frozen=True)
class Attack:
    """An attack.

    Parameters
    ----------
    do
        Does it, and returns problems.
    counted
        As what the listener counts it, at least once each.
    secured
        Whether the listener asks for keys.
    settings
        Of the listener.
    """

    do: Callable[[Scene], list[str]]
    counted: tuple[str, ...] = ()
    secured: bool = False
    settings: Mapping[str, Any] = field(default_factory=dict)


def greeting(session: str, acquisition: Acquisition) -> Frames:
    """Return a greeting."""
    return (encode(Hello(session=session, acquisition=acquisition)),)


def plane(session: str, z: int, pixels: bytes, t: int = 0) -> Frames:
    """Return a plane with the right checksum."""
    return encode(Plane(session=session, t=t, c=0, z=z, crc=zlib.crc32(pixels))), pixels


def ending(session: str, planes: int) -> Frames:
    """Return the end of a session."""
    return (encode(End(session=session, reason="finished", planes=planes)),)


def whole(sample: Sample, stop: int) -> Messages:
    """Return a session of the first planes of a sample."""
    planes = [plane(sample.session, z, drawn.tobytes()) for z, drawn in enumerate(sample.stack()[:stop])]
    return [greeting(sample.session, sample.acquisition), *planes, ending(sample.session, stop)]
