"""Messages that nobody should send, drawn by hypothesis: from random bytes to what is wrong in one field only.

Whatever is to reach the checks behind the checksum is sealed with a right one. The sessions are few, and the planes of
most acquisitions tiny, so that messages meet sessions that are open, closed or none, and planes that are there already.
A batch is drawn at once and can be drawn again from its seed.
"""

from __future__ import annotations

import zlib
from typing import Any

import msgpack
from hypothesis import HealthCheck, Phase, Verbosity, given, seed, settings
from hypothesis import strategies as st

from otf_stream.acquire.protocol import MAX_HEADER_BYTES, MAX_ITEMS, VERSION

Frames = tuple[bytes, ...]
Fields = dict[Any, Any]

SESSIONS = tuple(f"{number:032x}" for number in range(1, 13))
_SIDES = (1, 4, 16)
_PLANES = 6

_numbers = st.integers(-(2**63), 2**64 - 1) | st.sampled_from([0, 1, 2**31, 2**32 - 1, 2**32, 2**63 - 1, 2**64 - 1])
_texts = st.text(st.characters(codec="utf-8"), max_size=30)
_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | _numbers | st.floats() | _texts | st.binary(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_texts, inner, max_size=4),
    max_leaves=8,
)
_sessions = st.sampled_from(SESSIONS)
_few = st.integers(0, _PLANES - 1)


def sealed(packed: bytes) -> bytes:
    """Return a header frame whose checksum is right."""
    return packed + zlib.crc32(packed).to_bytes(4, "little")


def header(fields: Fields) -> bytes:
    """Return the header frame of some fields, right or wrong."""
    return sealed(msgpack.packb(fields))


def _pixels(number: int, side: int) -> bytes:
    return bytes((number + i) % 256 for i in range(2 * side * side))


def _side(session: str) -> int:
    """Return the side of planes that a session has unless it is to be wrong."""
    return _SIDES[int(session, 16) % len(_SIDES)]


def _hello(session: str, name: str, growing: bool) -> Fields:
    side = _side(session)
    return {
        "v": VERSION,
        "type": "hello",
        "session": session,
        "acquisition": {
            "name": name,
            "sizes": {"t": 2, "c": 1, "z": _PLANES, "y": side, "x": side},
            "dtype": "uint16",
            "voxel_size": {"z": 0.5, "y": 0.1, "x": 0.1},
            "growing": growing,
        },
    }


def _plane(session: str, t: int, z: int, number: int) -> tuple[Fields, bytes]:
    pixels = _pixels(number, _side(session))
    place = {"t": t, "c": 0, "z": z, "crc": zlib.crc32(pixels)}
    return {"v": VERSION, "type": "plane", "session": session, **place}, pixels


def _anything(session: str, sizes: dict[str, int], dtype: str, growing: bool) -> Fields:
    """Return a greeting that announces whatever sizes."""
    fields = _hello(session, "anything", growing)
    fields["acquisition"] |= {"sizes": sizes, "dtype": dtype}
    return fields


_names = st.sampled_from(["cells", "a b", "x.y"]) | st.text("ab. /\\\0", max_size=8)
_lengths = st.sampled_from([0, 1, 2, 7, 1000, 1_000_000, 1_000_001, 2**32, -1, 2**64 - 1])
_sizes = st.fixed_dictionaries({axis: _lengths for axis in "zyx"}, optional={axis: _lengths for axis in "tc"})
_planes = st.builds(_plane, _sessions, st.integers(0, 2), _few, st.integers(0, 2))
_hellos = st.builds(_hello, _sessions, _names, st.booleans())
_ends = st.builds(
    lambda s, n: {"v": VERSION, "type": "end", "session": s, "reason": "aborted", "planes": n}, _sessions, _few
)
_short: st.SearchStrategy[Fields] = st.one_of(
    _hellos,
    _ends,
    st.builds(lambda session: {"v": VERSION, "type": "ping", "session": session}, _sessions),
    st.builds(lambda session: {"v": VERSION, "type": "pong", "session": session, "credit": 4}, _sessions),
    st.builds(lambda s, p: {"v": VERSION, "type": "ack", "session": s, "planes": p, "credit": 1}, _sessions,
              st.lists(st.tuples(_few, _few, _few), max_size=3)),
)  # fmt: skip
_right: st.SearchStrategy[Frames] = st.one_of(
    st.builds(lambda plane: (header(plane[0]), plane[1]), _planes), st.builds(lambda fields: (header(fields),), _short)
)
_types = st.sampled_from(["hello", "plane", "end", "ping", "welcome", "ack", "ended", "pong", "error", "", "HELLO"])


def _flipped(frames: Frames, frame: int, bits: list[int]) -> Frames:
    """Flip bits of one frame."""
    frame %= len(frames)
    flipped = bytearray(frames[frame])
    for bit in bits:
        if flipped:
            flipped[bit // 8 % len(flipped)] ^= 1 << bit % 8
    return (*frames[:frame], bytes(flipped), *frames[frame + 1 :])


def _edited(fields: Fields, which: int, key: str | None, value: Any, nested: bool) -> bytes:
    """Drop a field, or set one, perhaps of the acquisition, and seal what is left."""
    inner = fields.get("acquisition") if nested else None
    edited = dict(inner) if isinstance(inner, dict) else dict(fields)
    chosen = sorted(edited)[which % len(edited)] if key is None else key
    if value is None:
        edited.pop(chosen, None)
    else:
        edited[chosen] = value
    return header(fields | {"acquisition": edited} if isinstance(inner, dict) else edited)


def _deep(opening: bytes, depth: int) -> bytes:
    """Return a header of lists or maps in each other, down to some depth."""
    return sealed(opening * depth + b"\xc0")


def _huge(item: Any, count: int) -> bytes:
    return header({"v": VERSION, "type": "ack", "session": SESSIONS[0], "planes": [item] * count, "credit": 1})


_edit = st.builds(
    _edited, _short | st.builds(lambda plane: plane[0], _planes), st.integers(0, 9),
    st.none() | st.sampled_from(["v", "type", "session", "extra"]),
    st.none() | _types | _values | st.dictionaries(_texts, _values, max_size=3), st.booleans(),
)  # fmt: skip
_bombs: st.SearchStrategy[bytes] = st.one_of(
    st.builds(_deep, st.sampled_from([b"\x91", b"\x81\xa1a", b"\x81\xa1v\x81\xa1v"]), st.integers(1, 20_000)),
    st.builds(_huge, st.sampled_from([0, (0, 0, 0), "x"]), st.sampled_from([MAX_ITEMS, MAX_ITEMS + 1, 60_000])),
    st.builds(lambda size: header({"v": VERSION, "type": "x" * size}),
              st.sampled_from([70_000, MAX_HEADER_BYTES - 20, MAX_HEADER_BYTES, MAX_HEADER_BYTES + 1])),
    # What is announced and does not come: lists, maps, strings, bytes and extensions of up to 4 GiB.
    st.builds(lambda kind, size, rest: sealed(bytes([kind]) + size.to_bytes(4, "big") + rest),
              st.sampled_from([0xDD, 0xDF, 0xDB, 0xC6, 0xC9]), st.integers(0, 2**32 - 1), st.binary(max_size=30)),
)  # fmt: skip
_EVERY: st.SearchStrategy[Frames] = st.one_of(
    _right,
    st.builds(lambda fields: (header(fields),), _hellos),
    st.builds(lambda fields: (header(fields),), _ends),
    st.builds(tuple, st.lists(st.binary(max_size=100), min_size=1, max_size=4)),
    st.builds(_flipped, _right, st.integers(0, 1), st.lists(st.integers(0, 2**14), min_size=1, max_size=4)),
    st.builds(lambda edited, rest: (edited, *rest), _edit, st.lists(st.binary(max_size=40), max_size=1)),
    st.builds(lambda frames, rest: (*frames, *rest), _right, st.lists(st.binary(max_size=40), min_size=1, max_size=3)),
    st.builds(lambda plane, size: (header(plane[0]), plane[1][:size])[: 2 if size else 1], _planes, st.integers(0, 40)),
    st.builds(lambda value: (header(value),), _values),
    st.builds(lambda bomb: (bomb,), _bombs),
    st.builds(lambda fields: (header(fields),), st.builds(
        _anything, _sessions, _sizes, st.sampled_from(["uint8", "float32"]), st.booleans())),
)  # fmt: skip


def odd_messages(number: int, count: int) -> list[Frames]:
    """Draw messages, each a tuple of at least one frame.

    Parameters
    ----------
    number
        The seed; the same one gives the same messages, of the same version of hypothesis.
    count
        How many.
    """
    drawn: list[Frames] = []

    @seed(number)
    @settings(
        max_examples=count,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
        verbosity=Verbosity.quiet,
    )
    @given(_EVERY)
    def draw(message: Frames) -> None:
        drawn.append(message)

    more = 0
    while len(drawn) < count:
        seed(number + (more << 32))(draw)()
        more += 1
    return drawn[:count]
