"""Acquisitions that nobody announced: each place becomes a growing session as soon as its first planes tell enough.

Without a plan nobody knows how many planes, channels and places will come, where z begins, or how far apart planes are.
A session has to know the z step before its first plane, so planes are held until they tell it. The session is then
announced as growing, and grows with what comes. Hooks keep what is held in memory, so that there is a bound to it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

from otf_stream.acquire.hooks.growing import GrowingPlace, Plane
from otf_stream.acquire.hooks.stream import Place, Stream, in_words, place_name
from otf_stream.acquisition import Acquisition

_HELD_BYTES = 256 << 20  # of planes in memory that wait for the z step
_PLACES = 8  # among how many places to share the memory, where nobody knows how many there will be


class Unplanned:
    """The places of an acquisition of unknown length, each a session of ``stream`` as soon as enough is known.

    Parameters
    ----------
    stream
        Where the planes go.
    name
        What to call the acquisition in messages.
    describe
        Describes what is acquired at a place, from its first plane and what is known; None if more has to be known.
    remedy
        What the user can do where planes do not tell enough.
    from_first
        As for `GrowingPlace`.
    in_memory
        Whether planes that are held are in memory, so that there can not be many of them.

    Attributes
    ----------
    refused
        Why a place is not streamed.
    """

    def __init__(
        self,
        stream: Stream,
        name: str,
        describe: Callable[[Plane, GrowingPlace], Acquisition | None],
        *,
        remedy: str,
        from_first: bool = False,
        in_memory: bool = True,
    ) -> None:
        self.refused: dict[Place, str] = {}
        self._stream = stream
        self._name = name
        self._describe = describe
        self._remedy = remedy
        self._from_first = from_first
        self._in_memory = in_memory
        self._places: dict[Place, GrowingPlace] = {}

    @property
    def held(self) -> int:
        """How many planes are held, because they are of no stack that is known."""
        return sum(len(place.held) for place in self._places.values())

    def take(self, plane: Plane) -> None:
        """Take a plane, and send it as soon as that can be."""
        for due in self.admit([plane]):
            self.send(due)

    def admit(self, planes: Iterable[Plane]) -> list[Plane]:
        """Take planes as they come; return those that can be sent now, those that were held among them."""
        due: list[Plane] = []
        news: dict[Place, GrowingPlace] = {}
        for plane in planes:
            place = plane.place
            if self._stream.is_open(place):
                due.append(plane)
            elif place in self.refused:
                self._stream.lose(self.refused[place])
            else:
                news[place] = self._places.setdefault(place, GrowingPlace(from_first=self._from_first))
                news[place].held.append(plane)
        for place, growing in news.items():
            due += self._begun(place, growing)
        return due

    def send(self, plane: Plane) -> None:
        """Hand a plane to its session, which is open."""
        growing = self._places[plane.place]
        try:
            t, c, z = growing.index(plane)
        except ValueError as error:
            self._stream.lose(f"{self._name}: {error}; {self._remedy}")
            return
        try:
            pixels = plane.read()
            self._stream.name_channels(plane.place, growing.names)
        except Exception as error:  # each compression has errors of its own
            self._stream.lose(f"{self._name}: {error}")
            return
        self._stream.frame(plane.place, pixels, t=t, c=c, z=z, taken=plane.taken)

    def give_up(self) -> None:
        """Lose the planes that are still held: no more will come to tell where they belong."""
        for place, growing in self._places.items():
            if growing.held:
                self._give_up(place, growing)

    def _begun(self, place: Place, growing: GrowingPlace) -> list[Plane]:
        """Open the session of a place if enough is known, and return the planes that were held."""
        first = growing.held[0]
        try:
            acquisition = self._describe(first, growing) if growing.known() else None
            if acquisition is None:
                if self._in_memory and self.held * _bytes(first) > _HELD_BYTES:
                    self._give_up(place, growing)
                return []
            share = _PLACES if self._in_memory and not first.alone else 1
            self._stream.open(place, acquisition, places=share)
        except Exception as error:
            self._refuse(place, growing, f"{self._name} is not streamed: {in_words(error)}")
            return []
        growing.names = list(acquisition.channels)
        held, growing.held = growing.held, []
        return held

    def _give_up(self, place: Place, growing: GrowingPlace) -> None:
        self._refuse(
            place,
            growing,
            f"{self._name} is not streamed: {len(growing.held)} planes came without two heights of a stack among them, "
            f"so that the z step is not known; {self._remedy}",
        )

    def _refuse(self, place: Place, growing: GrowingPlace, why: str) -> None:
        self.refused[place] = why
        held, growing.held = growing.held, []
        for _ in held:
            self._stream.lose(why)


def unplanned_name(name: str, plane: Plane) -> str:
    """Return what to call the acquisition at the place of a plane, where nobody knows how many places there will be."""
    if plane.alone:
        return name
    # Each has its number from the first on.
    another = (plane.place[0] + 1, plane.place[1] if plane.tile is None else 1)
    return place_name(name, plane.place, [plane.place, another])


def _bytes(plane: Plane) -> int:
    return math.prod(plane.shape) * plane.dtype.itemsize
