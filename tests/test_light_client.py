"""What runs on the microscope's PC, in interpreters that have only what a plain installation brings."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Sequence
from pathlib import Path

import tifffile
import zarr
from ndstorage import NDTiffDataset
from packaging.requirements import Requirement
from stacks import small_stack

ROOT = Path(__file__).parents[1]
MODULES = {"scikit-image": "skimage"}  # whose import has another name than its distribution

# Runs what follows as if the packages in the first argument were not installed.
WITHOUT = """
import sys

class NotInstalled:
    absent = set(sys.argv.pop(1).split(","))

    def find_spec(self, name, path=None, target=None):
        if name in self.absent:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, NotInstalled())
"""
CLI = WITHOUT + "from otf_stream.cli import main; sys.argv[0] = 'otf-stream'; main()"

# The same for several commands, one after the other: most of the time of each would be its start.
EACH = (
    WITHOUT
    + """
import contextlib, io, json
from otf_stream.cli import main

told = []
for command in json.loads(sys.argv[1]):
    sys.argv, out, errors = ["otf-stream", *command], io.StringIO(), io.StringIO()
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors):
            main()
    except SystemExit as end:
        told.append([end.code, out.getvalue(), errors.getvalue()])
print(json.dumps(told))
"""
)


def extras() -> set[str]:
    """What only an extra brings, as it is imported."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    optional = project["optional-dependencies"]
    names = {Requirement(line).name for extra in ("service", "simulate") for line in optional[extra]} - {
        project["name"]
    }
    return {MODULES.get(name, name).replace("-", "_") for name in names} | {
        "useq",
        "pycromanager",
        "sympy",
        "numcodecs",
    }


def plain(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, ",".join(extras()), *map(str, arguments)],
        capture_output=True, text=True, encoding="utf-8", timeout=120, check=False,
    )  # fmt: skip


def each(commands: Iterable[Sequence[str]]) -> list[tuple[Sequence[str], tuple[int, str, str]]]:
    """Each command with its exit code, and what it printed as results and for people."""
    asked = list(commands)
    done = plain(EACH, json.dumps(asked))
    assert done.returncode == 0, done.stderr
    return list(zip(asked, json.loads(done.stdout), strict=True))


def test_what_an_extra_brings_is_known() -> None:
    assert {"torch", "zarr", "scipy", "skimage", "matplotlib", "safetensors", "pymmcore_plus"} <= extras()
    done = plain(WITHOUT + "import zarr")
    assert "ModuleNotFoundError: No module named 'zarr'" in done.stderr


def test_the_client_is_imported_without_it() -> None:
    done = plain(
        WITHOUT + "import otf_stream.acquire.protocol, otf_stream.acquire.publisher\n"
        "import otf_stream.acquire.hooks.pymmcore_plus, otf_stream.cli, otf_stream.store.recordings\n"
        "import otf_stream.bench.publish, simulators.replayer"
    )
    assert done.returncode == 0, done.stderr


def test_what_hands_planes_over_imports_no_reader_of_files() -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys, json, otf_stream.acquire.publisher, otf_stream.acquire.hooks.pymmcore_plus\n"
            "print(json.dumps([*sys.modules]))",
        ],
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    heavy = {*extras(), "dask", "ndstorage", "tifffile", "typer", "rich", "asyncio", "otf_stream.store"}
    assert not heavy & {*json.loads(done.stdout)}


def test_every_command_explains_itself() -> None:
    commands = ((), ("replay",), ("demo",), ("restore",), ("keys",), ("doctor",), ("bench",), ("bench", "publish"))
    for command, (code, said, errors) in each([*command, "--help"] for command in commands):
        assert code == 0, (command, errors)
        assert "Usage" in said, command


def test_a_command_that_needs_more_says_what_to_install() -> None:
    extra = {
        ("demo",): "simulate",
        ("serve", "--data", "data"): "service",
        ("restore", "a.tif", "b.ome.zarr"): "service",
        ("evaluate", "a.tif", "--reference", "b.tif"): "service",
        ("bench", "layers", "--out", "a.md"): "service",
        ("weights", "show", "a"): "service",
    }
    for command, (code, said, errors) in each(extra):
        assert (code, said) == (1, ""), command
        (line,) = errors.splitlines()
        brings = rf'in a checkout, pip install "\.\[{extra[command]}\]" brings it'
        assert re.fullmatch(rf"error: this needs \w+, which is .*; {brings}", line), command


def test_a_fault_of_our_own_is_not_taken_for_a_missing_package() -> None:
    done = plain(
        WITHOUT + "NotInstalled.absent.add('otf_stream.store.recordings')\n"
        "from otf_stream.cli import main\nmain()",
        "replay", "a.tif",
    )  # fmt: skip
    assert done.returncode == 1
    assert "pip install" not in done.stderr
    assert "ModuleNotFoundError: No module named 'otf_stream.store.recordings'" in done.stderr


def test_recordings_are_read_but_for_zarr(tmp_path: Path) -> None:
    stack = small_stack(planes=3, side=40)
    tifffile.imwrite(tmp_path / "stack.tif", stack, photometric="minisblack", metadata={"axes": "ZYX"})
    dataset = NDTiffDataset(dataset_path=str(tmp_path), name="cells", summary_metadata={}, writable=True)
    for z, pixels in enumerate(stack):
        dataset.put_image({"z": z}, pixels, {})
    dataset.current_writer.reader.close()  # The library leaves this one open.
    dataset.finish()
    dataset.close()
    zarr.save_array(tmp_path / "stack.zarr", stack)
    code = WITHOUT + (
        "from pathlib import Path\n"
        "from otf_stream.acquisition import VoxelSize\n"
        "from otf_stream.store.recordings import open_recording\n"
        "recording = open_recording(Path(sys.argv[1]), voxel_size=VoxelSize(z=1, y=1, x=1))\n"
        "print([int(recording.plane((0, 0, z)).sum()) for z in range(recording.acquisition.sizes.z)])"
    )
    for recording in (tmp_path / "stack.tif", dataset.path):
        done = plain(code, recording)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout) == [int(pixels.sum()) for pixels in stack]
    done = plain(CLI, "replay", tmp_path / "stack.zarr")
    assert done.returncode == 1
    assert (
        'this needs zarr, which is not installed here; in a checkout, pip install ".[service]" brings it' in done.stderr
    )
