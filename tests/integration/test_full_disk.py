"""A disk that is really full: a small file system, mounted where the system lets a user do so."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import tifffile
from stacks import small_stack, write

HERE = Path(__file__).parent
MOUNT = ["unshare", "--user", "--map-root-user", "--mount"]
CAN_MOUNT = bool(shutil.which("unshare")) and (
    subprocess.run([*MOUNT, "mount", "-t", "tmpfs", "none", "/mnt"], check=False, capture_output=True).returncode == 0
)
pytestmark = pytest.mark.skipif(not CAN_MOUNT, reason="this system lets no user mount a file system")


def on_a_small_disk(folder: Path, kilobytes: int, command: list[str]) -> subprocess.CompletedProcess[str]:
    """Run a command while ``folder`` is a disk of its own."""
    folder.mkdir()
    script = 'mount -t tmpfs -o "size=$1k" none "$2" && shift 2 && exec "$@"'
    return subprocess.run(
        [*MOUNT, "sh", "-c", script, "sh", str(kilobytes), str(folder), *command],
        check=False, capture_output=True, text=True, timeout=120, cwd=HERE,
    )  # fmt: skip


def wait_for_room(folder: Path) -> None:
    """Restore a stack onto a full disk, make room while it waits, and look at the volume. Runs on the small disk."""
    from otf_stream.acquisition import Acquisition
    from otf_stream.learn.compute import choose_compute
    from otf_stream.service.budget import Budget
    from otf_stream.service.settings import Settings
    from otf_stream.service.stack import restore_stack
    from otf_stream.store.restored import read_restored
    from otf_stream.store.session import SessionStore

    stack = small_stack()
    acquisition = Acquisition(
        name="full", sizes={"z": 10, "y": 72, "x": 72}, dtype="uint16", voxel_size={"z": 0.8, "y": 0.2, "x": 0.2}
    )
    store = SessionStore.create(folder / "full.ome.zarr", acquisition, session="full")
    write(store, [((0, 0, z), plane) for z, plane in enumerate(stack)])
    store.journal.close_arrivals("finished")
    ballast = folder / "ballast"
    restoring = threading.Event()

    def fill(stage: str, done: float) -> None:
        if stage == "restore" and not restoring.is_set():
            ballast.write_bytes(bytes(shutil.disk_usage(folder).free))
            restoring.set()

    def make_room() -> None:
        restoring.wait()
        time.sleep(2)
        ballast.unlink()

    threading.Thread(target=make_room).start()
    settings = Settings(budget=Budget(steps=2))
    provenance = restore_stack(store, (0, 0), settings, choose_compute("cpu"), progress=fill, patient=True)
    assert provenance["method"] == "finetune"  # what was learnt is not thrown away
    assert read_restored(store.path, (0, 0)).shape == (37, 72, 72)
    assert store.journal.state((0, 0)) == "restored"
    store.close()


def test_the_worker_waits_for_room_and_keeps_what_it_learnt(tmp_path: Path) -> None:
    program = (
        f"import sys; sys.path.insert(0, {str(HERE.parent)!r}); from pathlib import Path; "
        "import test_full_disk; test_full_disk.wait_for_room(Path(sys.argv[1]))"
    )
    disk = tmp_path / "disk"
    done = on_a_small_disk(disk, 2000, [sys.executable, "-c", program, str(disk)])
    assert done.returncode == 0, done.stderr


def test_restoring_onto_a_full_disk_ends_in_a_message(tmp_path: Path) -> None:
    stack = tmp_path / "stack.tif"
    tifffile.imwrite(stack, np.tile(small_stack(), (1, 4, 4)), photometric="minisblack", metadata={"axes": "ZYX"})
    disk = tmp_path / "disk"
    command = [sys.executable, "-m", "otf_stream.cli", "restore", str(stack), str(disk / "out.ome.zarr")]
    done = on_a_small_disk(disk, 1000, [*command, "--voxel-size", "0.8", "0.2", "0.2", "--method", "interpolate"])
    assert done.returncode == 1
    assert "No space left on device" in done.stderr
    assert "Traceback" not in done.stderr
