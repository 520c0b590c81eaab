"""The scripts of ``docs/microscope.md``, run as they stand in the page, against a service at the address they name."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import mm_test_adapters
import pytest
from waiting import until

from otf_stream.config import ServiceConfig
from otf_stream.service.overview import overview
from otf_stream.service.supervisor import Service
from otf_stream.store.session import SessionStore

PAGE = Path(__file__).parents[2] / "docs" / "microscope.md"
PORT = 8421


def scripts() -> dict[str, str]:
    """Return the Python blocks of the page by their headings."""
    sections = re.split(r"^## (.*)$", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    blocks = {
        title: re.findall(r"```python\n(.*?)```", text, re.DOTALL)
        for title, text in zip(sections[1::2], sections[2::2], strict=True)
    }
    return {title: found[0] for title, found in blocks.items() if found}


@pytest.mark.parametrize(("title", "name"), [("pymmcore-plus", "embryo"), ("pycromanager", "larva")])
def test_a_script_of_the_page(title: str, name: str, tmp_path: Path) -> None:
    with socket.socket() as taken:
        if taken.connect_ex(("127.0.0.1", PORT)) == 0:
            pytest.skip(f"something listens at port {PORT}, which the page's scripts name")
    script = tmp_path / "script.py"
    script.write_text(scripts()[title], encoding="utf-8")
    config = ServiceConfig(data=tmp_path / "data", method="interpolate", threads=1, disk_reserve_gb=0)
    with Service(config):
        done = subprocess.run(
            [sys.executable, script],
            capture_output=True,
            text=True,
            timeout=120,
            env={**os.environ, "MICROMANAGER_PATH": str(mm_test_adapters.device_adapter_path())},
        )
        assert done.returncode == 0, done.stderr
        assert "80 planes are on the restoration machine's disk, 0 were lost" in done.stdout
        until(lambda: all(session.done for session in overview(config.data)))
    for position in range(2):
        with closing(SessionStore.open(config.data / f"{name}_p{position}.ome.zarr")) as store:
            assert store.acquisition.channels == ("DAPI", "FITC")
            assert len(store.journal.durable()) == 40
            assert store.journal.closed == "finished"
