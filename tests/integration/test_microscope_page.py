"""What ``docs/microscope.md`` gives to copy, run as it stands there, against a service at the address that it names."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import mm_test_adapters
import numpy as np
import pytest
import tifffile
from waiting import until

from otf_stream.acquisition import VoxelSize
from otf_stream.config import ServiceConfig
from otf_stream.monitor.lookout import overview
from otf_stream.service.supervisor import Service
from otf_stream.store.restored import read_restored
from otf_stream.store.session import SessionStore

PAGE = Path(__file__).parents[2] / "docs" / "microscope.md"
PORT = 8421


# Runs an acquisition that knows nothing of the service, and saves a TIFF file for each plane.
SAVE = """
import useq
from pymmcore_plus import CMMCorePlus
from pymmcore_plus.mda.handlers import ImageSequenceWriter

from simulators.core import unload

core = CMMCorePlus()
core.loadSystemConfiguration("MMConfig_demo.cfg")
sequence = useq.MDASequence(channels=["DAPI", "FITC"], z_plan={"range": 4, "step": 1.0})
core.mda.run(sequence, output=ImageSequenceWriter("data/embryo"))
unload(core)
"""
ENVIRONMENT = {
    **os.environ,
    "MICROMANAGER_PATH": str(mm_test_adapters.device_adapter_path()),
    "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
}


def blocks(language: str) -> dict[str, str]:
    """Return the first block in a language under each heading of the page."""
    sections = re.split(r"^## (.*)$", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    found = {
        title: re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)
        for title, text in zip(sections[1::2], sections[2::2], strict=True)
    }
    return {title: block[0] for title, block in found.items() if block}


@pytest.fixture
def config(tmp_path: Path) -> Iterator[ServiceConfig]:
    """A service at the address that the page names."""
    with socket.socket() as taken:
        if taken.connect_ex(("127.0.0.1", PORT)) == 0:
            pytest.skip(f"something listens at port {PORT}, which the page names")
    config = ServiceConfig(
        data=tmp_path / "service", monitor="", method="interpolate", reports="none", threads=1, disk_reserve_gb=0
    )
    with Service(config):
        yield config


def run_python(script: str, folder: Path) -> str:
    """Run a script in a folder to its end; return what it prints."""
    path = folder / "script.py"
    path.write_text(script, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, path], cwd=folder, capture_output=True, text=True, timeout=120, env=ENVIRONMENT
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(("title", "name"), [("pymmcore-plus", "embryo"), ("pycromanager", "larva")])
def test_a_script_of_the_page(title: str, name: str, tmp_path: Path, config: ServiceConfig) -> None:
    told = run_python(blocks("python")[title], tmp_path)
    assert "80 planes are on the restoration machine's disk, 0 were lost" in told
    until(lambda: all(session.closed for session in overview(config.data)))
    for position in range(2):
        with closing(SessionStore.open(config.data / f"{name}_p{position}.ome.zarr")) as store:
            assert store.acquisition.channels == ("DAPI", "FITC")
            assert len(store.journal.durable()) == 40
            assert store.journal.closed == "finished"


@pytest.mark.skipif(sys.platform == "win32", reason="interrupts a process group, as a terminal of POSIX does")
@pytest.mark.skipif(shutil.which("otf-stream", path=ENVIRONMENT["PATH"]) is None, reason="otf-stream is not installed")
def test_the_line_that_watches_a_folder(tmp_path: Path, config: ServiceConfig) -> None:
    line = blocks("sh")["Any other software"]
    watching = subprocess.Popen(
        ["sh", "-c", line], cwd=tmp_path, env=ENVIRONMENT, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        # As at a terminal; where the tests run in the background, Ctrl-C is ignored, and that is inherited.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    try:
        assert watching.stderr is not None
        assert "watching data; Ctrl-C ends" in watching.stderr.readline()
        run_python(SAVE, tmp_path)
        until(lambda: [session.durable for session in overview(config.data)] == [10])
        os.killpg(watching.pid, signal.SIGINT)  # Ctrl-C
        told, errors = watching.communicate(timeout=60)
    finally:
        if watching.poll() is None:
            os.killpg(watching.pid, signal.SIGKILL)
            watching.communicate()
    # Nothing but this line: no fault. (The exit code is the shell's, which the signal ends.)
    assert told.strip() == "embryo: aborted, 10 of 10 planes durable", errors
    until(lambda: all(session.done for session in overview(config.data)))
    with closing(SessionStore.open(config.data / "embryo.ome.zarr")) as store:
        assert store.acquisition.voxel_size == VoxelSize(z=1, y=1, x=1)
        for index in store.journal.durable():
            (path,) = (tmp_path / "data" / "embryo").glob(f"*_c{index[1]:02}_z{index[2]:03}.tif")
            np.testing.assert_array_equal(store.read_plane(index), tifffile.imread(path))
    assert read_restored(config.data / "embryo.ome.zarr", (0, 1)).any()
