"""What intruders do, each a function that attacks a listener and returns what it should not have been able to do.

None of them raises the load to where nobody could stand it: what is tried is whether a rule can be got round, and
whether others have to wait while somebody tries.
"""

from __future__ import annotations

import os
import pickle  # nosec B403
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path

import msgpack
import numpy as np

from otf_stream.acquire.connections import BROKEN_OFF, NO_HANDSHAKE, REVOKED, TOO_MANY, TOO_MUCH
from otf_stream.acquire.door import UNAUTHORISED
from otf_stream.acquire.protocol import MAX_ITEMS, VERSION, Ended, Welcome
from otf_stream.bench.chaos.checks import stores_of
from otf_stream.bench.chaos.doors import no_key, other_listener, recorded_connection, revoked_key, wrong_key
from otf_stream.bench.chaos.oddities import header, sealed
from otf_stream.bench.chaos.raw import NULL_GREETING, Dealer, frame, greeted, is_cut, link
from otf_stream.bench.chaos.scene import Attack, Messages, Scene, ending, greeting, plane, whole

CROWD = 100
_LARGEST_PLANE = 1 << 20
_MEMORY = 8 << 20
_SESSIONS, _CONNECTIONS = 16, 20
_PAUSE_S = 0.5
_PATIENCE_S = 12.0  # the listener cuts a connection without a handshake after 10


def _replay(scene: Scene) -> list[str]:
    """Send an old session again, as it was, with other pixels, with further planes and as another acquisition."""
    sample, stop = scene.sample("old", 8), 6
    scene.may_leave.add(sample.session)
    messages = whole(sample, stop)
    scene.exchange(messages)
    before = _files(scene.data, sample.session)
    again = scene.exchange(messages)
    found = [] if again.errors == [] and again.acknowledged == stop else [f"the same again: {again.errors}"]
    tries: dict[str, Messages] = {
        "conflict": [plane(sample.session, z, bytes([7]) * 2 * 32 * 32) for z in range(stop)],
        "session-closed": [plane(sample.session, z, bytes(2 * 32 * 32)) for z in (6, 7)],
        "out-of-range": [plane(sample.session, 2**31, bytes(2 * 32 * 32))],
        "session-mismatch": [greeting(sample.session, scene.sample("other").acquisition)],
    }
    for code, tried in tries.items():
        if (errors := scene.exchange(tried).errors) != [code] * len(tried):
            found.append(f"{errors} rather than {code}")
    return found if _files(scene.data, sample.session) == before else [*found, "an old session's planes were altered"]


def _files(data: Path, session: str) -> dict[str, bytes]:
    (store,) = stores_of(session, data)
    return {str(path): path.read_bytes() for path in store.rglob("*") if path.is_file()}


def _paths(scene: Scene) -> list[str]:
    """Announce names that lead elsewhere, or that only look as if."""
    elsewhere = str(scene.outside / "elsewhere")
    bad = ["../x", elsewhere, "..", ".", "", "a/b", "a\\b", "..\\x", "C:\\x", "\\\\host\\x", "a\0b", "\0", "a\n", "~/x"]
    bad += ["x" * 101, "x" * 10_000, "a/" * 40 + "b", " x", ".hidden", "-rf", "%2e%2e%2fx", "$(id)", "файл", "x\u202ey"]
    sample = scene.sample("x")
    told = sample.acquisition.model_dump(mode="json", exclude_none=True)
    fields = {"v": VERSION, "type": "hello", "session": sample.session}
    messages: Messages = [(header(fields | {"acquisition": told | {"name": name}}),) for name in bad]
    messages += [(header(fields | {"session": name, "acquisition": told}),) for name in ("../" * 10 + "xx", elsewhere)]
    errors = scene.exchange(messages).errors
    found = [] if errors == ["malformed"] * len(messages) else [f"{len(messages)} bad names, and {errors}"]
    # Devices of Windows, which are names like others elsewhere: what comes of them lies in the data folder.
    for name in ("CON", "nul.txt", "x..", "a.ome.zarr", "a.journal.sqlite"):
        good = scene.sample(name)
        scene.may_leave.add(good.session)
        scene.exchange(whole(good, 2))
        if [path.parent for path in stores_of(good.session, scene.data)] != [scene.data]:
            found.append(f"a session called {name} has no store in the data folder")
    return found


def _huge(scene: Scene) -> list[str]:
    """Announce ten million planes in many sessions, and end them; let others grow to the same in a few planes."""
    found = []
    shapes = ({"t": 10, "z": 1_000_000}, {"t": 1_000_000, "c": 10}, {"c": 1000, "z": 10_000}, {"t": 1000, "z": 10_000})
    base = scene.sample("huge", 1).acquisition
    one = base.sizes.model_copy(update={"y": 1, "x": 1})
    sessions = [scene.session() for _ in range(2 * _SESSIONS)]
    scene.may_leave.update(sessions)
    greetings: Messages = []
    for number, session in enumerate(sessions):
        sizes = one.model_copy(update=shapes[number % len(shapes)])
        greetings.append(greeting(session, base.model_copy(update={"sizes": sizes})))
    scene.exchange([])  # opens the session that marks the end of an exchange, before there is no room for it
    opened = scene.exchange(greetings)
    welcomed = [answer.session for answer in opened.messages if isinstance(answer, Welcome)]
    if opened.count != len(sessions) or set(opened.errors) != {"too-many-sessions"}:
        found.append(f"{len(sessions)} sessions were answered {opened.errors}")
    ended = scene.exchange([ending(session, 0) for session in welcomed])
    missing = [answer.missing_count for answer in ended.messages if isinstance(answer, Ended)]
    if missing != [10_000_000] * len(welcomed):
        found.append(f"planes are missing: {missing}")
    growing = base.model_copy(update={"growing": True, "sizes": one})
    for _ in range(4):
        session = scene.session()
        scene.may_leave.add(session)
        far = [plane(session, z, b"\1\0", t) for t, z in ((999_999, 0), (0, 9), (0, 10))]
        answers = scene.exchange([greeting(session, growing), *far, ending(session, 2)])
        if (answers.errors, answers.acknowledged) != (["out-of-range"], 2):
            found.append(f"planes far away: {answers.errors}")
    too_many = base.model_copy(update={"sizes": one.model_copy(update={"t": 1_000_000, "z": 1_000_000})})
    if (errors := scene.exchange([greeting(scene.session(), too_many)]).errors) != ["too-large"]:
        found.append(f"too many planes: {errors}")
    return found


def _bombs(scene: Scene) -> list[str]:
    """Send headers that are deep, huge, or announce more than comes."""
    deep = [sealed(opening * depth) for opening in (b"\x91", b"\x81\xa1v") for depth in (600, 5_000, 300_000)]
    wide = [sealed(msgpack.packb([0] * (MAX_ITEMS + 1))), sealed(msgpack.packb({str(i): i for i in range(50_000)}))]
    listed = [[[[0] * 100] * 100] * 90]  # a million integers in lists that are each short enough
    nested = header({"v": VERSION, "type": "ack", "session": "0" * 32, "planes": listed, "credit": 1})
    claimed = [sealed(bytes([kind]) + b"\xff" * 4) for kind in (0xDD, 0xDF, 0xDB, 0xC6, 0xC9)]
    bombs = [*deep, *wide, nested, *claimed] * (1 if scene.briefly else 10)
    messages: Messages = [(bomb,) for bomb in bombs]
    errors = scene.exchange(messages).errors
    bad = set(errors) - {"malformed", "too-large", "garbled"}
    return [f"{errors}"] if bad or len(errors) != len(messages) else []


def _endless(scene: Scene) -> list[str]:
    """Send messages that never end, over several connections."""
    found = []
    content = frame(scene.dice.randbytes(1 << 20), more=True)
    for _ in range(1 if scene.briefly else 3):
        with greeted(scene.address) as connection:
            connection.settimeout(5)  # the system need not tell at once that the other end is closed
            try:
                for _ in range(2000):
                    connection.sendall(content)
                found.append("2 GB of a message that never ends were taken")
            except OSError:  # cut
                pass
    return found


def _crowd(scene: Scene) -> list[str]:
    """Open more connections than there may be."""
    with ExitStack() as stack:
        connections = [stack.enter_context(link(scene.address)) for _ in range(CROWD)]
        time.sleep(scene.seconds)
        for connection in connections:
            connection.settimeout(0.01)
        there = sum(not is_cut(connection) for connection in connections)
    return [f"{there} of {CROWD} connections were let in"] if there > _CONNECTIONS else []


def _loris(scene: Scene) -> list[str]:
    """Say a byte now and then, or stop in the middle of the handshake, or of the first message, a hundred times."""
    found = []
    with ExitStack() as stack:
        slow, waiting = ([stack.enter_context(link(scene.address)) for _ in range(CROWD * 2 // 5)] for _ in range(2))
        within = [stack.enter_context(greeted(scene.address)) for _ in range(CROWD // 5)]
        for connection in waiting:
            connection.sendall(NULL_GREETING[: scene.dice.randint(1, len(NULL_GREETING))])
        message = frame(bytes(1000), more=False)
        begun, sent = time.monotonic(), 0
        while time.monotonic() < begun + (scene.seconds if scene.briefly else _PATIENCE_S):
            for connection in slow:
                with suppress(OSError):
                    connection.sendall(NULL_GREETING[sent : sent + 1])
            for connection in within:
                with suppress(OSError):
                    connection.sendall(message[sent : sent + 1])
            sent += 1
            time.sleep(_PAUSE_S)
        if not scene.briefly:
            for connection in [*slow, *waiting]:
                connection.settimeout(1)
            there = sum(not is_cut(connection) for connection in [*slow, *waiting])
            found = [f"{there} connections without a handshake were not cut"] if there else []
    return found


def _oversized(scene: Scene) -> list[str]:
    """Send frames above the limit, and announce some that are far above it."""
    found = []
    for announced in (_LARGEST_PLANE + 1, 1 << 40, (1 << 63) - 1):
        with greeted(scene.address) as connection:
            with suppress(OSError):
                connection.sendall(frame(bytes(1000), more=False, announced=announced))
            if not is_cut(connection):
                found.append(f"a frame of {announced} bytes was not refused")
    with Dealer(scene.address) as dealer:
        dealer.send(scene.dice.randbytes(_LARGEST_PLANE + 1))
        if (answer := dealer.receive(500)) is not None:
            found.append(f"a frame above the limit was answered: {answer.type}")
    return found


class _Pickled:
    """Runs a command in whoever unpickles it."""

    def __init__(self, command: str) -> None:
        self._command = command

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (self._command,)


def _pickles(scene: Scene) -> list[str]:
    """Send pickles in place of headers and of pixels."""
    sample = scene.sample("pickles", 1)
    scene.may_leave.add(sample.session)
    bad = [pickle.dumps(_Pickled(f"touch {scene.outside / 'pickled'}"), protocol) for protocol in range(6)]
    arrays = [pickle.dumps({"v": VERSION, "type": "hello", "session": np.zeros(3)})]
    messages: Messages = [(form(pickled),) for pickled in [*bad, *arrays] for form in (bytes, sealed)]
    messages += [plane(sample.session, 0, pickled) for pickled in bad]
    errors = scene.exchange([greeting(sample.session, sample.acquisition), *messages]).errors
    found = [] if len(errors) == len(messages) else [f"{len(messages)} pickles, and {errors}"]
    return [*found, "a pickle was run"] if (scene.outside / "pickled").exists() else found


ATTACKS: dict[str, Attack] = {
    "no key": Attack(no_key, (NO_HANDSHAKE,), secured=True),
    "wrong key": Attack(wrong_key, (UNAUTHORISED,), secured=True),
    "key of another listener": Attack(other_listener, (NO_HANDSHAKE,), secured=True),
    "revoked key": Attack(revoked_key, (REVOKED, UNAUTHORISED), secured=True),
    "recorded connection": Attack(recorded_connection, (NO_HANDSHAKE,), secured=True),
    "replayed session": Attack(_replay, ("conflict", "session-closed", "session-mismatch", "out-of-range")),
    "path-like names": Attack(_paths, ("malformed",)),
    "huge shapes": Attack(
        _huge, ("too-many-sessions", "too-large", "out-of-range"), settings={"max_sessions": _SESSIONS}
    ),
    "header bombs": Attack(_bombs, ("malformed",)),
    "endless message": Attack(_endless, (TOO_MUCH,), settings={"memory": _MEMORY, "max_plane_bytes": _LARGEST_PLANE}),
    "too many connections": Attack(_crowd, (TOO_MANY,), settings={"max_connections": _CONNECTIONS}),
    "slow senders": Attack(_loris, (NO_HANDSHAKE,)),
    "frames above the limit": Attack(_oversized, (BROKEN_OFF,), settings={"max_plane_bytes": _LARGEST_PLANE}),
    "pickles": Attack(_pickles, ("malformed", "garbled", "bad-shape")),
}
"""Every kind of attack."""
