"""The decoder under atheris, in a process of its own: seen from outside, it decodes a thousand inputs whenever asked.

Coverage of `otf_stream.acquire.protocol` leads the mutations. Each input is decoded three times: as it is, with a right
checksum, without which next to nothing would get past the first check, and without any, as version 1 of the protocol
had it. Only `ProtocolError` may come of it.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
import zlib
from pathlib import Path
from typing import Any, Self

import msgpack
import psutil

_PATIENCE_S = 300.0
_CHECKSUM = 4
_LONGEST = 4096
_TOLD = 3  # inputs that are reported

# Of all kinds that msgpack knows, and at the bounds of some.
_ODD: tuple[Any, ...] = (
    None,
    True,
    -1,
    0,
    2**32,
    2**64 - 1,
    0.5,
    float("nan"),
    "",
    "../x",
    "é" * 99,
    b"",
    [],
    {},
    [[0, 0, 0]],
    [0] * 9,
)

Told = dict[str, Any]


class Decoder:
    """The process; use it as a context manager.

    Parameters
    ----------
    seed
        Of all mutations.
    seeds
        Messages to begin with.
    """

    def __init__(self, seed: int, seeds: list[bytes]) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="otf_stream-decoder-")
        corpus, self._errors = Path(self._folder.name) / "corpus", Path(self._folder.name) / "errors"
        corpus.mkdir()
        for number, message in enumerate(seeds):
            (corpus / str(number)).write_bytes(message)
        command = [sys.executable, "-m", __name__, str(corpus), str(seed)]
        with self._errors.open("wb") as errors:
            self._process = subprocess.Popen(  # noqa: S603 - ours
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, cwd=self._folder.name
            )

    def go_on(self, executions: int) -> Told:
        """Decode so many further inputs; return how many have been, ``problems``, and perhaps ``not_run``."""
        assert self._process.stdin is not None  # noqa: S101 - for mypy
        assert self._process.stdout is not None  # noqa: S101
        try:
            self._process.stdin.write(f"{executions}\n".encode())
            self._process.stdin.flush()
            told: Told = json.loads(self._process.stdout.readline())
        except (OSError, ValueError):
            code = self._process.wait(_PATIENCE_S)
            said = " ".join(self._errors.read_text("utf-8", "replace").split())
            return {"executions": 0, "problems": [f"the decoder's process ended with code {code}: {said[-400:]}"]}
        if "not_run" not in told:
            told["rss_mb"] = round(psutil.Process(self._process.pid).memory_info().rss / 1e6, 1)
        return told

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()
        self._folder.cleanup()


class _Turns:
    """Lets the process decode as many inputs as it is asked to, and tells what came of them."""

    def __init__(self, out: int) -> None:
        self._out, self._left, self._done = out, 0, 0
        self.bad: list[str] = []

    def before_one(self) -> None:
        """Wait until asked, if nothing is left to do."""
        while not self._left:
            if self._done:
                self.tell({"executions": self._done, "problems": self.bad[:_TOLD]})
                self.bad.clear()
            asked = sys.stdin.readline()
            if not asked:
                os._exit(0)
            self._left = self._done = int(asked)
        self._left -= 1

    def tell(self, what: Told) -> None:
        os.write(self._out, (json.dumps(what) + "\n").encode())


def _mutated(fields: dict[Any, Any], dice: random.Random) -> dict[Any, Any]:
    """Put something else into one field, at whatever depth."""
    key = dice.choice(list(fields)) if fields else "v"
    inner = fields.get(key)
    if isinstance(inner, dict) and inner and dice.random() < 0.7:
        return fields | {key: _mutated(inner, dice)}
    deep: Any = 0
    for _ in range(dice.randint(1, 400)):
        deep = [deep]
    return fields | {dice.choice((key, key, "x", 7)): dice.choice((deep, *_ODD))}


def main() -> None:
    """Decode what atheris makes of the seeds: the body of the process."""
    corpus, seed = sys.argv[1:]
    out = os.dup(1)
    os.dup2(2, 1)  # libFuzzer talks
    turns = _Turns(out)
    try:
        import atheris
    except ImportError as error:
        turns.tell({"executions": 0, "problems": [], "not_run": f"atheris cannot be imported here: {error}"})
        return
    with atheris.instrument_imports(include=["otf_stream.acquire.protocol", "otf_stream.acquisition"]):
        from otf_stream.acquire.protocol import ProtocolError, decode

    def one(data: bytes) -> None:
        turns.before_one()
        packed = data[:-_CHECKSUM]
        for header in (data, packed + zlib.crc32(packed).to_bytes(_CHECKSUM, "little"), packed):
            try:
                decode(header)
            except ProtocolError:
                pass
            except Exception as error:
                turns.bad.append(f"{type(error).__name__}: {error}, of {header[:200].hex()}")

    def mutate(data: bytes, longest: int, number: int) -> bytes:
        dice = random.Random(number)  # noqa: S311 - no secret
        if dice.random() < 0.5:
            try:
                fields = msgpack.unpackb(data[:-_CHECKSUM], strict_map_key=False)
                packed = msgpack.packb(_mutated(fields, dice)) if isinstance(fields, dict) else b""
            except Exception:  # What was mutated before need not be msgpack.
                packed = b""
            if packed and len(packed) + _CHECKSUM <= longest:
                return bytes(packed) + bytes(_CHECKSUM)
        return bytes(atheris.Mutate(data, longest))

    flags = [f"-seed={int(seed) % (2**31 - 1) + 1}", "-timeout=10000000", "-rss_limit_mb=0", f"-max_len={_LONGEST}"]
    atheris.Setup([sys.argv[0], *flags, corpus], one, custom_mutator=mutate)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
