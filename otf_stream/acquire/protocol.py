"""The messages of the wire protocol, and nothing else: no sockets, no threads, no files.

A message is one msgpack map and its checksum (the header frame), and for a plane one more frame with its raw pixels,
which this module never touches: they go from the camera's memory to the disk without being parsed. The header has a
checksum because a bit that flips in it would put a plane elsewhere. Everything that comes over the wire is checked
here, once, against a frozen and bounded description, so that no other code meets a surprising type. `decode` raises
`ProtocolError` on whatever it is given, and nothing else.

The messages are described for other languages in ``docs/protocol.md``.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Literal

import msgpack
from isal.isal_zlib import crc32
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from otf_stream.acquisition import Acquisition, PlaneIndex

VERSION = 2
MAX_HEADER_BYTES = 1 << 20
MAX_ITEMS = 20_000
"""The longest list that a header may hold."""
MAX_RUNS = 10_000
MAX_MISSING = 1_000
MAX_TEXT = 2_000
_CHECKSUM_BYTES = 4


class ErrorCode(StrEnum):
    """What can be wrong; ``docs/protocol.md`` says what a sender does about each."""

    UNSUPPORTED_VERSION = "unsupported-version"
    MALFORMED = "malformed"
    GARBLED = "garbled"
    UNKNOWN_SESSION = "unknown-session"
    SESSION_MISMATCH = "session-mismatch"
    SESSION_CLOSED = "session-closed"
    TOO_MANY_SESSIONS = "too-many-sessions"
    TOO_LARGE = "too-large"
    OUT_OF_RANGE = "out-of-range"
    BAD_SHAPE = "bad-shape"
    BAD_CHECKSUM = "bad-checksum"
    CONFLICT = "conflict"
    NO_SPACE = "no-space"
    INTERNAL = "internal"


FATAL = frozenset(
    {
        ErrorCode.UNSUPPORTED_VERSION,
        ErrorCode.MALFORMED,
        ErrorCode.SESSION_MISMATCH,
        ErrorCode.SESSION_CLOSED,
        ErrorCode.TOO_LARGE,
    }
)
"""The errors after which trying again is of no use to the session."""


class ProtocolError(Exception):
    """What came, or was about to go, over the wire breaks the protocol.

    Parameters
    ----------
    code
        For the program.
    message
        For a human: names the value, the limit and the remedy.
    """

    def __init__(self, code: ErrorCode, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message

    @property
    def fatal(self) -> bool:
        """Whether trying again is of no use."""
        return self.code in FATAL


Session = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
NOBODY: Session = "0" * 32
"""A session that is never opened: whoever asks for it wants to know whether a listener is there."""

_Index = Annotated[int, Field(ge=0, lt=1 << 32)]
_UnixTime = Annotated[float, Field(ge=0, lt=1e11, allow_inf_nan=False)]
_Count = Annotated[int, Field(ge=0, lt=1 << 63)]
_Credit = Annotated[int, Field(ge=0, le=1_000_000)]
_Plane = tuple[_Index, _Index, _Index]
Run = tuple[_Index, _Index, _Index, _Index]
"""Planes that follow one another: ``(t, c, z0, z1)``, without ``z1``."""


class _Message(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Hello(_Message):
    """Sender: this is what I acquire. Repeating it resumes the session, or names more channels."""

    type: Literal["hello"] = "hello"
    session: Session
    acquisition: Acquisition


class Plane(_Message):
    """Sender: a plane, and when it was exposed (UNIX seconds); its pixels follow in the second frame."""

    type: Literal["plane"] = "plane"
    session: Session
    t: _Index
    c: _Index
    z: _Index
    crc: _Index
    taken: _UnixTime | None = None

    @property
    def index(self) -> PlaneIndex:
        """Where the plane belongs: ``(t, c, z)``."""
        return (self.t, self.c, self.z)


class End(_Message):
    """Sender: no further plane will come."""

    type: Literal["end"] = "end"
    session: Session
    reason: Literal["finished", "aborted"]
    planes: _Count


class Ping(_Message):
    """Sender: I am still here, though I have no plane to send."""

    type: Literal["ping"] = "ping"
    session: Session


class Welcome(_Message):
    """Listener: the session is open; these planes are durable, so many more may be in flight."""

    type: Literal["welcome"] = "welcome"
    session: Session
    store: Annotated[str, Field(max_length=MAX_TEXT)]
    credit: _Credit
    durable: Annotated[tuple[Run, ...], Field(max_length=MAX_RUNS)] = ()


class Ack(_Message):
    """Listener: these planes are on disk; forget them."""

    type: Literal["ack"] = "ack"
    session: Session
    planes: Annotated[tuple[_Plane, ...], Field(max_length=MAX_ITEMS)]
    credit: _Credit


class Ended(_Message):
    """Listener: the session is closed with so many planes; these never came (the first of them)."""

    type: Literal["ended"] = "ended"
    session: Session
    durable: _Count
    missing_count: _Count
    missing: Annotated[tuple[_Plane, ...], Field(max_length=MAX_MISSING)] = ()


class Pong(_Message):
    """Listener: so am I."""

    type: Literal["pong"] = "pong"
    session: Session
    credit: _Credit


class Error(_Message):
    """Listener: this is wrong with what you sent."""

    type: Literal["error"] = "error"
    code: Annotated[ErrorCode, Field(strict=False)]
    message: Annotated[str, Field(max_length=MAX_TEXT)]
    fatal: bool
    session: Session | None = None
    plane: _Plane | None = None


Message = Hello | Plane | End | Ping | Welcome | Ack | Ended | Pong | Error

_TYPES: dict[str, type[Message]] = {
    "hello": Hello,
    "plane": Plane,
    "end": End,
    "ping": Ping,
    "welcome": Welcome,
    "ack": Ack,
    "ended": Ended,
    "pong": Pong,
    "error": Error,
}


def encode(message: Message) -> bytes:
    """Return the header frame of ``message``.

    Raises
    ------
    ProtocolError
        If it is longer than a listener takes (``too-large``): an acquisition with too many channel names.
    """
    packed: bytes = msgpack.packb({"v": VERSION, **message.model_dump(mode="json", exclude_none=True)})
    header = packed + _checksum(packed)
    if len(header) > MAX_HEADER_BYTES:
        raise _too_long(len(header))
    return header


def decode(header: bytes | memoryview) -> Message:
    """Return the message whose header frame this is.

    Raises
    ------
    ProtocolError
        ``garbled``, ``too-large``, ``malformed`` or ``unsupported-version``; no other exception, whatever the bytes.
    """
    header = memoryview(header)
    packed, checksum = header[:-_CHECKSUM_BYTES], header[-_CHECKSUM_BYTES:]
    if _checksum(packed) != checksum:
        if _is_unsigned(header):
            _check_version(_unpacked(header))
        raise ProtocolError(
            ErrorCode.GARBLED,
            f"the header frame of {len(header)} bytes does not end in its checksum: what came is not what was sent; "
            "greet again and send what was not acknowledged",
        )
    if len(header) > MAX_HEADER_BYTES:
        raise _too_long(len(header))
    fields = _unpacked(packed)
    _check_version(fields)
    del fields["v"]
    kind = fields.get("type")
    model = _TYPES.get(kind) if isinstance(kind, str) else None
    if model is None:
        raise ProtocolError(
            ErrorCode.MALFORMED,
            f"there is no message of type {_shorten(_safe(kind), 50)}; use one of {', '.join(_TYPES)}",
        )
    try:
        return model.model_validate(fields)
    except ValidationError as error:
        raise ProtocolError(ErrorCode.MALFORMED, f"the {kind} message is wrong: {_explain(error)}") from None


def error_message(error: ProtocolError, *, session: str | None = None, plane: PlaneIndex | None = None) -> Error:
    """Return what a listener answers for ``error``."""
    return Error(
        code=error.code,
        message=_shorten(error.message, MAX_TEXT),
        fatal=error.fatal,
        session=session,
        plane=plane,
    )


def _checksum(packed: bytes | memoryview) -> bytes:
    return crc32(packed).to_bytes(_CHECKSUM_BYTES, "little")


def _unpacked(packed: memoryview) -> dict[Any, Any]:
    try:
        # Limits for msgpack too, which would otherwise reserve what a few bytes merely announce.
        fields = msgpack.unpackb(
            packed, use_list=False, max_array_len=MAX_ITEMS, max_map_len=100, max_bin_len=0, max_ext_len=0
        )
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        raise ProtocolError(
            ErrorCode.MALFORMED,
            f"the header frame of {len(packed)} bytes is not msgpack within the limits ({_shorten(str(error), 200)}); "
            f"send one map with string keys and no list longer than {MAX_ITEMS}",
        ) from None
    if not isinstance(fields, dict):
        raise ProtocolError(
            ErrorCode.MALFORMED, f"the header frame holds a {type(fields).__name__}; send a map with 'v' and 'type'"
        )
    return fields


def _is_unsigned(header: memoryview) -> bool:
    """Whether this is a whole map without a checksum, as senders of version 1 send: they are told, not asked again."""
    try:
        return len(header) <= MAX_HEADER_BYTES and _unpacked(header).get("v") is not None
    except ProtocolError:
        return False


def _check_version(fields: dict[Any, Any]) -> None:
    version = fields.get("v")
    if type(version) is not int or version != VERSION:
        raise ProtocolError(
            ErrorCode.UNSUPPORTED_VERSION,
            f"the message has protocol version {_shorten(_safe(version), 50)}, but only version {VERSION} is "
            "understood here; install the same version of otf_stream on both machines",
        )


def _too_long(size: int) -> ProtocolError:
    return ProtocolError(
        ErrorCode.TOO_LARGE,
        f"the header frame has {size} bytes, but at most {MAX_HEADER_BYTES} are allowed; "
        "send pixels in a frame of their own, and fewer or shorter channel names",
    )


def _explain(error: ValidationError) -> str:
    said: list[str] = []
    for detail in error.errors(include_url=False, include_context=False)[:3]:
        field = ".".join(str(part) for part in detail["loc"]) or "the message"
        value = "" if detail["type"] == "missing" else f" = {_shorten(_safe(detail['input']), 80)}"
        said.append(f"{_shorten(field, 100)}{value}: {detail['msg']}")
    return "; ".join(said)


def _safe(value: Any) -> str:
    """Return how a value is told: Python gives up on the `repr` of one that is too deep."""
    return repr(value) if isinstance(value, str | int | float | bool | None) else f"a {type(value).__name__}"


def _shorten(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"
