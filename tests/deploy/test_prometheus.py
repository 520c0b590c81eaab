"""The real Prometheus scrapes the real service, with its token, and knows every plane that was published."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import yaml
from waiting import until

from otf_stream.acquire.keys import KeyFolder
from otf_stream.acquire.publisher import Publisher
from otf_stream.acquisition import Acquisition, Sizes, VoxelSize
from otf_stream.monitor.token import TokenFile

PROMETHEUS = shutil.which("prometheus")
SETTINGS = Path(__file__).parents[2] / "deploy" / "prometheus"
PLANES = 7

pytestmark = [
    pytest.mark.skipif(PROMETHEUS is None, reason="prometheus is not installed (Debian's package of that name)"),
    pytest.mark.skipif(sys.platform == "win32", reason="ends processes with POSIX signals"),
]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


@contextmanager
def running(command: list[str], log: Path) -> Iterator[None]:
    with log.open("wb") as file:
        environment = {**os.environ, "NO_COLOR": "1", "PYTHONIOENCODING": "utf-8", "OMP_NUM_THREADS": "1"}
        process = subprocess.Popen(command, stdout=file, stderr=file, env=environment)
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(60)
        finally:
            process.kill()
    assert process.returncode == 0, log.read_text()


def serve(tmp_path: Path, keys: Path, monitor: int) -> list[str]:
    config = tmp_path / "otf.toml"
    config.write_text(
        f'data = {json.dumps(str(tmp_path / "data"))}\nkeys = {json.dumps(str(keys))}\nlisten = "tcp://127.0.0.1:*"\n'
        f'monitor = "127.0.0.1:{monitor}"\nmonitor_token_file = {json.dumps(str(keys / "monitor.token"))}\n'
        'method = "interpolate"\ndisk_reserve_gb = 0\nthreads = 1\n'
    )
    return [sys.executable, "-m", "otf_stream.cli", "serve", "--config", str(config)]


def scrape(tmp_path: Path, token: str, monitor: int, port: int) -> list[str]:
    """The shipped configuration with another address, and looking more often."""
    folder = tmp_path / "prometheus"
    shutil.copytree(SETTINGS, folder)
    (folder / "token").mkdir()
    (folder / "token" / "monitor.token").write_text(token)
    settings = yaml.safe_load((folder / "prometheus.yml").read_text(encoding="utf-8"))
    settings["global"] |= {"scrape_interval": "500ms", "scrape_timeout": "500ms", "evaluation_interval": "1s"}
    settings["scrape_configs"][0]["static_configs"] = [{"targets": [f"127.0.0.1:{monitor}"]}]
    (folder / "prometheus.yml").write_text(yaml.safe_dump(settings))
    return [
        str(PROMETHEUS), f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={tmp_path / 'tsdb'}",
        f"--web.listen-address=127.0.0.1:{port}", "--log.level=warn",
    ]  # fmt: skip


def publish(address: str) -> None:
    described = Acquisition(
        name="scraped", sizes=Sizes(z=PLANES, y=16, x=16), dtype="uint16", voxel_size=VoxelSize(z=0.8, y=0.2, x=0.2)
    )
    with Publisher(address, described) as publisher:
        for z in range(PLANES):
            publisher.publish(np.full((16, 16), z, np.uint16), z=z)


def test_prometheus_knows_every_plane(tmp_path: Path) -> None:
    keys, log, monitor, port = tmp_path / "keys", tmp_path / "serve.log", free_port(), free_port()
    token = TokenFile(KeyFolder(keys)).make()
    with (
        running(serve(tmp_path, keys, monitor), log),
        running(scrape(tmp_path, token, monitor, port), tmp_path / "prometheus.log"),
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=10, trust_env=False) as client,
    ):

        def ask(query: str) -> float | None:
            try:
                answer: dict[str, Any] = client.get("/api/v1/query", params={"query": query}).json()
            except (httpx.HTTPError, ValueError):
                return None
            found = answer.get("data", {}).get("result", [])
            return float(found[0]["value"][1]) if found else None

        until(lambda: re.search(r"listening on (tcp://\S+\d)", log.read_text()), seconds=120)
        found = re.search(r"listening on (tcp://\S+\d)", log.read_text())
        assert found
        until(lambda: ask('up{job="otf-stream"}') == 1.0, seconds=120)
        publish(found[1])
        until(lambda: ask("otf_stream_planes_durable") == PLANES, seconds=60)
        until(lambda: ask("otf_stream_listener_durable_planes_total") == PLANES, seconds=60)
        assert ask("otf_stream_listener_received_planes_total") == PLANES
        assert ask("otf_stream_planes_missing") == 0
        until(lambda: ask('otf_stream_stacks{state="restored"}') == 1.0, seconds=120)
        rules = client.get("/api/v1/rules").json()["data"]["groups"][0]["rules"]
        assert {rule["health"] for rule in rules} == {"ok"}
