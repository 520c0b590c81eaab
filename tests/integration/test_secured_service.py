"""A service that other machines can reach: it asks for keys, refuses to start without them, and works with them."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import tifffile
from stacks import small_stack
from typer.testing import CliRunner
from waiting import until

from otf_stream.acquire.keys import KeyFolder
from otf_stream.acquire.publisher import Publisher
from otf_stream.acquisition import Acquisition, Sizes, VoxelSize
from otf_stream.cli.commands import app
from otf_stream.monitor.lookout import overview

SCRIPT = shutil.which("otf-stream", path=str(Path(sys.executable).parent))
COMMAND = [SCRIPT] if SCRIPT else [sys.executable, "-m", "otf_stream.cli"]
EVERYWHERE = "tcp://0.0.0.0:*"


def serve(tmp_path: Path, keys: Path, *options: str) -> list[str]:
    config = tmp_path / "otf.toml"
    config.write_text(
        f"data = {json.dumps(str(tmp_path / 'data'))}\nkeys = {json.dumps(str(keys))}\n"
        f'listen = "{EVERYWHERE}"\nmethod = "interpolate"\ndisk_reserve_gb = 0\nthreads = 1\nmonitor = ""\n'
        'reports = "none"\n'
    )
    return [*COMMAND, "serve", "--config", str(config), *options]


@contextmanager
def running(command: list[str], log: Path) -> Iterator[str]:
    """Run a service; give its port."""
    with log.open("wb") as file:
        environment = {**os.environ, "PYTHONIOENCODING": "utf-8", "NO_COLOR": "1"}
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=file, env=environment)
    try:
        until(lambda: re.search(r"listening on tcp://[\d.]+:\d+", log.read_text()) or process.poll() is not None)
        found = re.search(r"listening on tcp://[\d.]+:(\d+)", log.read_text())
        assert found, log.read_text()
        yield found[1]
    finally:
        process.terminate()
        process.wait(60)
    assert process.returncode == 0, log.read_text()
    assert "Traceback" not in log.read_text()


def test_off_loopback_it_refuses_to_start_without_keys(tmp_path: Path) -> None:
    keys = tmp_path / "keys"

    def refused(*options: str) -> str:
        done = CliRunner().invoke(app, serve(tmp_path, keys, *options)[len(COMMAND) :])
        assert done.exit_code == 1, done.output
        (line,) = done.stderr.splitlines()
        assert line.startswith("error: ")
        return line

    line = refused()
    for said in ("need keys", "otf-stream keys make", "tcp://127.0.0.1:PORT", "--security none"):
        assert said in line
    KeyFolder(keys).make()
    line = refused()
    assert "no microscope is authorised" in line
    assert "otf-stream keys authorise NAME KEY --keys" in line
    assert "need keys" in refused("--listen", "tcp://127.0.0.1:*", "--security", "curve")
    assert not (tmp_path / "data").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="ends processes with POSIX signals")
def test_who_says_so_does_without_keys(tmp_path: Path) -> None:
    log = tmp_path / "serve.log"
    with running(serve(tmp_path, tmp_path / "keys", "--security", "none"), log):
        assert "whoever reaches this address may write planes" in " ".join(log.read_text().split())
    with running(serve(tmp_path, tmp_path / "keys", "--listen", "tcp://127.0.0.1:*"), log):
        assert "whoever reaches" not in log.read_text()


@pytest.mark.skipif(sys.platform == "win32", reason="ends processes with POSIX signals")
def test_a_stack_is_restored_over_an_encrypted_connection(tmp_path: Path) -> None:
    here, microscope = KeyFolder(tmp_path / "here"), KeyFolder(tmp_path / "microscope")
    microscope.trust("127.0.0.1", here.make().public)
    here.authorise("confocal", microscope.make().public)
    stack = small_stack()
    tifffile.imwrite(tmp_path / "stack.tif", stack, photometric="minisblack", metadata={"axes": "ZYX"})
    log = tmp_path / "serve.log"
    with running(serve(tmp_path, here.folder), log) as port:
        address = f"tcp://127.0.0.1:{port}"
        described = Acquisition(
            name="stranger", sizes=Sizes(z=2, y=8, x=8), dtype="uint16", voxel_size=VoxelSize(z=1, y=1, x=1)
        )
        stranger = Publisher(address, described, keys=tmp_path / "none", spill=tmp_path / "spill")
        stranger.publish(stack[0, :8, :8].astype("uint16"), z=0)
        replayed = subprocess.run(
            [*COMMAND, "replay", tmp_path / "stack.tif", "--voxel-size", "0.8", "0.2", "0.2", "--to", address],
            capture_output=True, text=True, timeout=120, check=False,
            env={**os.environ, "OTF_STREAM_KEYS": str(microscope.folder)},
        )  # fmt: skip
        assert replayed.returncode == 0, replayed.stderr
        until(lambda: len(seen := overview(tmp_path / "data")) == 1 and seen[0].done)
        with pytest.raises(TimeoutError, match="asks for keys"):
            stranger.drain(1.5)
        stranger.abort(0)
        (session,) = overview(tmp_path / "data")
        assert session.states == {"restored": 1}
        assert session.durable == len(stack)
    assert "number 1 for no-handshake" in log.read_text()
