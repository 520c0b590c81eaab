from __future__ import annotations

import re
import struct
import zlib
from contextlib import suppress
from pathlib import Path

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from otf_stream.acquire.protocol import (
    FATAL,
    MAX_HEADER_BYTES,
    MAX_ITEMS,
    Ack,
    End,
    Ended,
    Error,
    ErrorCode,
    Hello,
    Message,
    Ping,
    Plane,
    Pong,
    ProtocolError,
    Welcome,
    decode,
    encode,
    error_message,
)
from otf_stream.acquisition import Acquisition, Optics, Sizes, VoxelSize

DOCUMENT = Path(__file__).parents[2] / "docs" / "protocol.md"

sessions = st.text("0123456789abcdef", min_size=32, max_size=32)
numbers = st.integers(0, 2**32 - 1)
counts = st.integers(0, 2**63 - 1)
credit = st.integers(0, 1_000_000)
planes = st.tuples(numbers, numbers, numbers)
texts = st.text(st.characters(codec="utf-8"), max_size=50)
lengths = st.integers(1, 1_000_000)
micrometres = st.floats(1e-4, 100)
acquisitions = st.builds(
    Acquisition,
    name=st.from_regex(r"[A-Za-z0-9][A-Za-z0-9 _.+-]{0,99}", fullmatch=True),
    sizes=st.builds(Sizes, t=lengths, c=st.just(2), z=lengths, y=lengths, x=lengths),
    dtype=st.sampled_from(["uint8", "uint16", "int16", "float32"]),
    voxel_size=st.builds(lambda x, ratio: VoxelSize(z=x * ratio, y=x, x=x), micrometres, st.floats(0.02, 50)),
    channels=st.sampled_from([(), ("DAPI", "GFP")]) | st.tuples(texts, texts),
    modality=st.sampled_from(["unknown", "confocal", "light-sheet"]),
    optics=st.builds(Optics, numerical_aperture=st.none() | st.floats(0.1, 1.6)),
)
messages: st.SearchStrategy[Message] = st.one_of(
    st.builds(Hello, session=sessions, acquisition=acquisitions),
    st.builds(Plane, session=sessions, t=numbers, c=numbers, z=numbers, crc=numbers),
    st.builds(End, session=sessions, reason=st.sampled_from(["finished", "aborted"]), planes=counts),
    st.builds(Ping, session=sessions),
    st.builds(
        Welcome,
        session=sessions,
        store=texts,
        credit=credit,
        durable=st.lists(st.tuples(numbers, numbers, numbers, numbers), max_size=5).map(tuple),
    ),
    st.builds(Ack, session=sessions, planes=st.lists(planes, max_size=5).map(tuple), credit=credit),
    st.builds(
        Ended,
        session=sessions,
        durable=counts,
        missing_count=counts,
        missing=st.lists(planes, max_size=5).map(tuple),
    ),
    st.builds(Pong, session=sessions, credit=credit),
    st.builds(
        Error,
        code=st.sampled_from(ErrorCode),
        message=texts,
        fatal=st.booleans(),
        session=st.none() | sessions,
        plane=st.none() | planes,
    ),
)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | texts | st.binary(max_size=40),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(texts, inner, max_size=5),
    max_leaves=20,
)

SESSION = "0123456789abcdef0123456789abcdef"
PLANE = {"v": 2, "type": "plane", "session": SESSION, "t": 0, "c": 0, "z": 0, "crc": 0}


def sealed(packed: bytes) -> bytes:
    """A header frame whose checksum is right, whatever is in it."""
    return packed + zlib.crc32(packed).to_bytes(4, "little")


def fields_of(message: Message) -> dict[str, object]:
    fields: dict[str, object] = msgpack.unpackb(encode(message)[:-4])
    return fields


@given(messages)
def test_every_message_survives_the_wire(message: Message) -> None:
    assert decode(encode(message)) == message


@given(st.binary(max_size=300))
def test_garbage_is_an_error_of_the_protocol(garbage: bytes) -> None:
    with pytest.raises(ProtocolError):
        decode(garbage)


@given(messages, st.data())
def test_mutations_are_messages_or_errors_of_the_protocol(message: Message, data: st.DataObject) -> None:
    header = bytearray(encode(message))
    for _ in range(data.draw(st.integers(1, 3))):
        header[data.draw(st.integers(0, len(header) - 1))] = data.draw(st.integers(0, 255))
    del header[data.draw(st.integers(1, len(header))) :]
    for frame in (bytes(header), sealed(bytes(header))):
        with suppress(ProtocolError):
            decode(frame)


@given(messages, st.data())
def test_a_header_that_was_altered_on_its_way_is_never_taken_for_another(message: Message, data: st.DataObject) -> None:
    header = bytearray(encode(message))
    place = data.draw(st.integers(0, len(header) - 1))
    header[place] ^= data.draw(st.integers(1, 255))
    with pytest.raises(ProtocolError) as caught:
        decode(bytes(header))
    assert caught.value.code is ErrorCode.GARBLED
    assert not caught.value.fatal


@given(messages, st.dictionaries(st.sampled_from(["session", "t", "z", "acquisition", "code", "x"]), values))
def test_wrong_fields_are_errors_of_the_protocol(message: Message, wrong: dict[str, object]) -> None:
    with suppress(ProtocolError):
        decode(sealed(msgpack.packb(fields_of(message) | wrong)))


@given(st.sampled_from(ErrorCode), texts, st.integers(0, 3000))
def test_every_error_can_be_answered(code: ErrorCode, text: str, times: int) -> None:
    answer = error_message(ProtocolError(code, text * times), session=SESSION, plane=(0, 0, 1))
    assert decode(encode(answer)) == answer


@pytest.mark.parametrize(
    ("header", "code", "says"),
    [
        (b"", "malformed", "0 bytes"),
        (b"\x91" * 100_000, "malformed", "100000 bytes"),
        (b"\xdd\xff\xff\xff\xff", "malformed", str(MAX_ITEMS)),
        (b"\xdf\xff\xff\xff\xff", "malformed", "map"),
        (b"\xc6\xff\xff\xff\xff", "malformed", "map"),
        (b"\xc1", "malformed", "map"),
        (bytes(MAX_HEADER_BYTES), "too-large", str(MAX_HEADER_BYTES)),
        (msgpack.packb([1, 2]), "malformed", "map"),
        (msgpack.packb({1: 2}), "malformed", "string keys"),
        (msgpack.packb({"type": "ping", "session": SESSION}), "unsupported-version", "None"),
        (msgpack.packb(PLANE | {"v": 3}), "unsupported-version", "version 3"),
        (msgpack.packb(PLANE | {"v": True}), "unsupported-version", "True"),
        (msgpack.packb(PLANE | {"v": "1" * 10_000}), "unsupported-version", "version 2"),
        # So deep that Python does not tell how they look.
        (b"\x81\xa1v" + b"\x91" * 500 + b"\x00", "unsupported-version", "version a tuple"),
        (b"\x82\xa1v\x02\xa4type" + b"\x91" * 500 + b"\x00", "malformed", "type a tuple"),
        (msgpack.packb(PLANE | {"type": "pickle"}), "malformed", "'pickle'"),
        (msgpack.packb(PLANE | {"type": ["plane"]}), "malformed", "hello, plane"),
        (msgpack.packb(PLANE | {"session": SESSION + "\n"}), "malformed", "session"),
        (msgpack.packb(PLANE | {"z": -1}), "malformed", "z = -1"),
        (msgpack.packb(PLANE | {"z": 1.0}), "malformed", "z = 1.0"),
        (msgpack.packb(PLANE | {"z": True}), "malformed", "z = True"),
        (msgpack.packb(PLANE | {"z": 2**40}), "malformed", "z = "),
        (msgpack.packb(PLANE | {"extra": 1}), "malformed", "extra"),
        (msgpack.packb(PLANE) + b"\x00", "malformed", "msgpack"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_wrong_is_named(header: bytes, code: str, says: str) -> None:
    with pytest.raises(ProtocolError, match=re.escape(says)) as caught:
        decode(sealed(header))
    assert caught.value.code == code
    assert caught.value.fatal


@pytest.mark.parametrize("frame", [b"", b"\0", bytes(MAX_HEADER_BYTES + 1)], ids=len)
def test_what_does_not_end_in_its_checksum_is_garbled_however_long(frame: bytes) -> None:
    with pytest.raises(ProtocolError, match=f"{len(frame)} bytes") as caught:
        decode(frame)
    assert (caught.value.code, caught.value.fatal) == (ErrorCode.GARBLED, False)


def test_a_sender_of_version_1_which_had_no_checksum_is_told_so() -> None:
    with pytest.raises(ProtocolError, match="protocol version 1") as caught:
        decode(msgpack.packb(PLANE | {"v": 1}))
    assert caught.value.code is ErrorCode.UNSUPPORTED_VERSION


@pytest.mark.parametrize("name", ["../cells", "/etc/cells", "a/b", "a\\b", "", ".hidden", "x" * 101, "a\n", "a\0"])
def test_names_that_lead_elsewhere_are_refused(name: str, acquisition: Acquisition) -> None:
    hello = fields_of(Hello(session=SESSION, acquisition=acquisition))
    announced = {**acquisition.model_dump(mode="json"), "name": name}
    with pytest.raises(ProtocolError, match=r"acquisition\.name"):
        decode(sealed(msgpack.packb(hello | {"acquisition": announced})))


def test_a_greeting_too_long_for_the_wire_is_not_sent(acquisition: Acquisition) -> None:
    channels = tuple("x" * 200 for _ in range(10_000))
    sizes = acquisition.sizes.model_copy(update={"c": len(channels)})
    long = acquisition.model_copy(update={"channels": channels, "sizes": sizes})
    with pytest.raises(ProtocolError, match="channel names"):
        encode(Hello(session=SESSION, acquisition=long))


def test_the_documented_example_is_what_goes_over_the_wire() -> None:
    hello = Hello(
        session=SESSION,
        acquisition=Acquisition(
            name="cells", sizes=Sizes(z=2, y=1, x=3), dtype="uint16", voxel_size=VoxelSize(z=0.5, y=0.125, x=0.125)
        ),
    )
    pixels = struct.pack("<3H", 1, 2, 770)
    plane = Plane(session=SESSION, t=0, c=0, z=1, crc=0x7BA889B5)
    ack = Ack(session=SESSION, planes=((0, 0, 1),), credit=16)
    blocks = re.findall(r"```hex\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)
    assert [bytes.fromhex(block) for block in blocks] == [encode(hello), encode(plane), pixels, encode(ack)]


def test_the_documented_errors_are_those_of_the_code() -> None:
    rows = re.findall(
        r"^\| `([a-z-]+)` \| (fatal|session|plane) \|", DOCUMENT.read_text(encoding="utf-8"), re.MULTILINE
    )
    assert {code for code, _ in rows} == set(ErrorCode)
    assert {code for code, kind in rows if kind == "fatal"} == FATAL
