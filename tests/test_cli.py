"""The commands, run as a user runs them: exit codes, what they print, and what they leave on disk."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from stacks import small_stack
from typer.testing import CliRunner, Result

from otf_stream import __version__
from otf_stream.cli.commands import app
from otf_stream.learn.checkpoints import load_checkpoint, load_weights
from otf_stream.learn.nafnet import NAFNet
from otf_stream.store.journal import journal_path
from otf_stream.store.restored import read_provenance, read_restored
from simulators.microscope import image
from simulators.phantom import phantom

SCRIPT = shutil.which("otf-stream", path=str(Path(sys.executable).parent))
COMMAND = [SCRIPT] if SCRIPT else [sys.executable, "-m", "otf_stream.cli"]
# Wide enough for every line, and no colours, wherever the tests run; one thread each, because they run side by side.
ENVIRONMENT = {k: v for k, v in os.environ.items() if k not in ("FORCE_COLOR", "PY_COLORS", "GITHUB_ACTIONS")}
ENVIRONMENT |= {"COLUMNS": "200", "NO_COLOR": "1", "PYTHONIOENCODING": "utf-8", "OMP_NUM_THREADS": "1"}

VOXEL_SIZE = ("--voxel-size", "0.8", "0.2", "0.2")
INTERPOLATE = (*VOXEL_SIZE, "--method", "interpolate")
GOLGI = Path(__file__).resolve().parents[2] / "shared" / "data" / "confocal" / "golgi.tif"

Done = subprocess.CompletedProcess[str]


def otf_stream(*arguments: object) -> Done:
    """Run a command to its end; none may ever show a traceback."""
    done = subprocess.run(
        [*COMMAND, *map(str, arguments)],
        capture_output=True, text=True, encoding="utf-8", timeout=240, env=ENVIRONMENT, check=False,
    )  # fmt: skip
    assert "Traceback" not in done.stderr + done.stdout, done.stderr
    return done


def invoke(*arguments: object) -> Result:
    """Run a command in this process, to its end: starting another takes longer than what is refused or explained."""
    done = CliRunner(env={"COLUMNS": ENVIRONMENT["COLUMNS"]}).invoke(app, [*map(str, arguments)])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done


def save(path: Path, stack: np.ndarray) -> Path:
    tifffile.imwrite(path, stack, photometric="minisblack", metadata={"axes": "ZYX"[-stack.ndim :]})
    return path


def contents(store: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in [*store.rglob("*"), journal_path(store)] if path.is_file()}


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``stack.tif``, its ``truth.tif``, and ``restored.ome.zarr`` as the command made it."""
    folder = tmp_path_factory.mktemp("phantoms")
    truth = phantom((29, 48, 48), seed=0)
    save(folder / "truth.tif", truth)
    save(folder / "stack.tif", image(truth, anisotropy=4, seed=0))
    done = invoke("restore", folder / "stack.tif", folder / "restored.ome.zarr", *INTERPOLATE)
    assert done.exit_code == 0, done.stderr
    assert str(folder / "restored.ome.zarr" / "restored") in done.stdout
    return folder


@pytest.mark.parametrize(
    ("command", "option"),
    [
        ((), "--version"),
        (("demo",), "--out"),
        (("serve",), "--listen"),
        (("replay",), "--planes-per-second"),
        (("simulate",), "--bleaching"),
        (("restore",), "--steps"),
        (("evaluate",), "--reference"),
        (("weights",), "import"),
        (("weights", "import"), "--overwrite"),
        (("weights", "show"), "--json"),
        (("bench", "publish"), "--planes-per-second"),
    ],
)
def test_help(command: tuple[str, ...], option: str) -> None:
    done = invoke(*command, "--help")
    assert done.exit_code == 0
    assert "Usage" in done.stdout
    assert option in done.stdout


def test_version() -> None:
    done = otf_stream("--version")
    assert (done.returncode, done.stdout.strip()) == (0, f"otf-stream {__version__}")


def test_what_the_script_imports_is_next_to_nothing() -> None:
    # Each process of a service imports it anew, and calls none of the commands.
    program = "import sys, otf_stream.cli; print(*{'typer', 'rich', 'pydantic', 'numpy'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.split()) == (0, []), done.stderr


def test_a_fixed_number_of_steps_gives_the_same_volume_bit_for_bit_in_whichever_process(tmp_path: Path) -> None:
    stack = save(tmp_path / "cells.tif", small_stack(planes=8, side=48))
    volumes = []
    for name, run in (("first", otf_stream), ("second", invoke)):
        store, report = tmp_path / f"{name}.ome.zarr", tmp_path / f"{name}.json"
        done = run("restore", stack, store, *VOXEL_SIZE, "--steps", 3, "--seed", 0, "--report", report, "--json")
        told = json.loads(done.stdout)
        assert told == json.loads(report.read_text(encoding="utf-8")) == read_provenance(store)
        provenance = told["t0c0"]
        assert provenance["method"] == "finetune"
        assert provenance["training"]["steps"] == provenance["settings"]["budget"]["steps"] == 3
        volumes.append(read_restored(store, (0, 0)))
    assert volumes[0].shape == (29, 48, 48)
    assert volumes[0].max() > volumes[0].min()
    np.testing.assert_array_equal(*volumes)


@pytest.mark.skipif(not GOLGI.is_file(), reason=f"needs the recorded stack {GOLGI}, absent here")
def test_a_real_stack_gets_its_isotropic_grid(tmp_path: Path) -> None:
    done = invoke("restore", GOLGI, tmp_path / "golgi.ome.zarr", "--steps", 3,
                  "--voxel-size", 0.3876, 0.3514, 0.3514)  # fmt: skip
    assert done.exit_code == 0, done.stderr
    assert read_restored(tmp_path / "golgi.ome.zarr", (0, 0)).shape == (27, 137, 147)


def test_a_store_is_only_replaced_when_asked_to(phantoms: Path, tmp_path: Path) -> None:
    store = tmp_path / "restored.ome.zarr"
    shutil.copytree(phantoms / store.name, store)
    shutil.copy(journal_path(phantoms / store.name), journal_path(store))
    before = contents(store)
    other = save(tmp_path / "other.tif", small_stack(planes=3, side=40))

    refused = invoke("restore", other, store, *INTERPOLATE)
    assert refused.exit_code == 1
    assert "already" in refused.stderr
    assert "--overwrite" in refused.stderr
    assert contents(store) == before

    replaced = invoke("restore", other, store, *INTERPOLATE, "--overwrite")
    assert replaced.exit_code == 0, replaced.stderr
    assert read_restored(store, (0, 0)).shape == (9, 40, 40)


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        yield other.getsockname()[1]


def test_what_cannot_be_done_is_refused_in_one_line(tmp_path: Path, phantoms: Path, taken_port: int) -> None:
    stack, out = phantoms / "stack.tif", tmp_path / "out.ome.zarr"
    flat = save(tmp_path / "flat.tif", small_stack(planes=1, side=40)[0])
    cases: dict[str, tuple[tuple[object, ...], tuple[str, ...]]] = {
        "voxel size zero": (("restore", stack, out, "--voxel-size", 0, 0.2, 0.2), ("--voxel-size 0", "above 0")),
        "voxel size in nm": (
            ("restore", stack, out, "--voxel-size", 800, 200, 200),
            ("--voxel-size 800", "µm, not nm"),
        ),
        "voxel size unknown": (("restore", stack, out), ("--voxel-size DZ DY DX", "voxel size")),
        "one plane": (("restore", flat, out, *VOXEL_SIZE), ("is no stack", "one plane")),
        "no file": (("restore", tmp_path / "nothing.tif", out), ("nothing.tif does not exist",)),
        "no suffix": (("restore", stack, tmp_path / "out.zarr", *VOXEL_SIZE), (".ome.zarr",)),
        "other grid": (
            ("evaluate", phantoms / "restored.ome.zarr", "--reference", stack),
            ("(29, 48, 48)", "(8, 48, 48)", "same grid"),
        ),
        "no address": (("replay", stack, *VOXEL_SIZE, "--to", "here"), ("tcp://HOST:PORT",)),
        "port taken": (
            ("serve", "--data", tmp_path / "data", "--listen", f"tcp://127.0.0.1:{taken_port}"),
            (f"127.0.0.1:{taken_port}", "--listen"),
        ),
        "no such weights": (
            ("restore", stack, out, *VOXEL_SIZE, "--weights", tmp_path / "nothing.safetensors"),
            ("nothing.safetensors",),
        ),
        "weights that are none, for a service": (
            ("serve", "--data", tmp_path / "data", "--listen", "tcp://127.0.0.1:*", "--weights", stack),
            ("stack.tif is no safetensors file", "otf-stream weights import"),
        ),
        "weights that are none": (
            ("restore", stack, out, *VOXEL_SIZE, "--weights", stack),
            ("stack.tif is no safetensors file", "otf-stream weights import"),
        ),
        "something else is there": (("demo", "--out", phantoms), ("earlier demo", "--overwrite")),
    }
    if not torch.cuda.is_available():
        cases["no GPU"] = (("restore", stack, out, *VOXEL_SIZE, "--device", "cuda"), ("no CUDA device", "--device cpu"))
    for case, (arguments, _) in cases.items():
        done = invoke(*arguments)
        assert done.exit_code == 1, case
        assert done.stdout == "", case
        (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
        for said in cases[case][1]:
            assert said in line, case
    assert not out.exists()
    assert not journal_path(out).exists()


def test_odd_stacks_end_in_a_volume_and_a_warning(tmp_path: Path) -> None:
    holes = small_stack(planes=8, side=40, dtype="float32")
    holes[3, 10:20, 10:20] = np.nan
    cases: dict[str, tuple[np.ndarray, tuple[object, ...], str]] = {
        "two planes": (small_stack(planes=2, side=40), VOXEL_SIZE, "2 planes are too few"),
        "four planes": (small_stack(planes=4, side=40), VOXEL_SIZE, "4 planes are too few"),
        "constant": (np.full((8, 40, 40), 7, np.uint16), VOXEL_SIZE, "no contrast"),
        "no numbers": (holes, INTERPOLATE, "not numbers"),
        "fine in z": (
            small_stack(planes=8, side=40),
            ("--voxel-size", 0.1, 0.2, 0.2, "--method", "interpolate"),
            "z step is smaller than the pixel",
        ),
    }
    stores = {case: tmp_path / f"{case}.ome.zarr" for case in cases}
    for case, (stack, options, warning) in cases.items():
        done = invoke("restore", save(tmp_path / f"{case}.tif", stack), stores[case], *options)
        assert done.exit_code == 0, (case, done.stderr)
        assert any(line.lstrip().startswith("warning: ") and warning in line for line in done.stdout.splitlines()), case
        volume = read_restored(stores[case], (0, 0))
        assert volume.dtype == stack.dtype, case
        assert np.isfinite(volume).all(), case
        assert any(warning in told for told in read_provenance(stores[case])["t0c0"]["warnings"]), case


def test_evaluate_compares_a_store_with_the_truth(phantoms: Path) -> None:
    arguments = ("evaluate", phantoms / "restored.ome.zarr", "--reference", phantoms / "truth.tif")
    told = invoke(*arguments)
    assert told.exit_code == 0, told.stderr
    for word in ("PSNR", "SSIM", "resolution", "axial", "lateral"):
        assert word in told.stdout
    values: dict[str, Any] = json.loads(invoke(*arguments, "--json").stdout)
    assert values["psnr_db"] > 15
    assert 0 < values["ssim"] < 1
    assert f"{values['psnr_db']:.2f} dB" in told.stdout
    assert f"by {values['residual_sigma']:.2f} sigma of their noise" in told.stdout
    assert {"axial_resolution_voxels", "reference_axial_resolution_voxels", "gain", "offset"} <= values.keys()
    # The phantom's planes are 4 voxels apart: finer periods than theirs cannot agree along z as they do across.
    assert 2 <= values["fsc_lateral_resolution_voxels"] < values["fsc_axial_resolution_voxels"]
    assert f"down to: axial {values['fsc_axial_resolution_voxels']:.2f}" in told.stdout
    assert "stack t0 c0 of restored.ome.zarr" in told.stdout
    assert "hardly of the same sample" not in told.stdout
    assert values["explained_variance"] > 0.5
    alone = invoke("evaluate", phantoms / "restored.ome.zarr")
    assert (alone.exit_code, "PSNR" in alone.stdout) == (0, False)
    assert f"by {values['residual_sigma']:.2f} sigma of their noise" in alone.stdout
    assert "give --reference" in invoke("evaluate", phantoms / "truth.tif").stderr
    other = invoke(*arguments, "--stack", 1, 0)
    assert (other.exit_code, "has no stack t=1, c=0" in other.stderr) == (1, True)


def published(path: Path, **changes: object) -> Path:
    """Write a checkpoint as the authors of NAFNet publish theirs: colour, under ``params``; ``changes`` spoil it."""
    network = NAFNet(img_channel=3, width=4, enc_blk_nums=(1, 1), dec_blk_nums=(1, 1))
    torch.nn.init.normal_(network.ending.weight, std=0.1, generator=torch.Generator().manual_seed(0))
    torch.save({"params": {**network.state_dict(), **changes}}, path)
    return path


def test_published_weights_come_in_and_are_shown(tmp_path: Path) -> None:
    checkpoint, out = published(tmp_path / "NAFNet.pth"), tmp_path / "mine.safetensors"
    done = invoke("weights", "import", checkpoint, out)
    assert done.exit_code == 0, done.stderr
    assert str(out) in done.stdout
    network, card = load_weights(out)
    image = torch.rand(1, 1, 32, 32)
    with torch.no_grad():
        colour = load_checkpoint(checkpoint).eval()(image.expand(-1, 3, -1, -1))
        torch.testing.assert_close(network.eval()(image), colour.mean(1, keepdim=True))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["NAFNet.pth", "mine.safetensors"]

    before = out.read_bytes()
    again = invoke("weights", "import", checkpoint, out)
    assert again.exit_code == 1
    assert "--overwrite" in again.stderr
    assert out.read_bytes() == before
    shown = invoke("weights", "show", out)
    assert shown.exit_code == 0
    for words in ("parameters", "levels", "image_channels", "imported_from", "NAFNet.pth", card["sha256"]):
        assert words in shown.stdout
    told = json.loads(invoke("weights", "show", out, "--json").stdout)
    assert told["card"] == card
    assert (told["network"]["image_channels"], told["network"]["levels"]) == (1, 2)

    other = published(tmp_path / "other.pth", **{"ending.bias": torch.ones(3)})
    assert invoke("weights", "import", other, out, "--overwrite").exit_code == 0
    assert out.read_bytes() != before


class _Command:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, ("echo > ran",)


def test_what_is_no_published_network_is_refused_and_writes_nothing(tmp_path: Path) -> None:
    files = {
        name: tmp_path / f"{name}.pth" for name in ("evil", "text", "empty", "cut", "part", "shape", "whole", "numbers")
    }
    torch.save({"params": {}, "extra": _Command()}, files["evil"])
    files["text"].write_text("<!DOCTYPE html>", encoding="utf-8")
    files["empty"].touch()
    files["cut"].write_bytes(published(files["whole"]).read_bytes()[:5000])
    published(files["part"], **{"sca": torch.zeros(2)})
    published(files["shape"], **{"intro.bias": torch.zeros(5)})
    published(files["numbers"], **{"intro.bias": 0.5})
    out = tmp_path / "out.safetensors"
    cases: dict[str, tuple[tuple[object, ...], tuple[str, ...]]] = {
        "code": (("import", files["evil"], out), ("evil.pth", "would have to be run", "give the whole")),
        "text": (("import", files["text"], out), ("text.pth is no torch checkpoint", "<!DOCTYPE")),
        "empty": (("import", files["empty"], out), ("empty.pth is empty", "give the whole")),
        "cut": (("import", files["cut"], out), ("cut.pth is a zip archive that was cut short",)),
        "more": (("import", files["part"], out), ("1 unknown ('sca')", "give the whole")),
        "shape": (("import", files["shape"], out), ("intro.bias is (5,), not (4,)",)),
        "number": (("import", files["numbers"], out), ("'intro.bias' (float)",)),
        "none": (("import", tmp_path / "none.pth", out), ("none.pth",)),
        "suffix": (("import", files["whole"], tmp_path / "out.pth"), (".safetensors",)),
        "folder": (("import", files["whole"], tmp_path / "none" / out.name), ("No such file", out.name)),
        "show a checkpoint": (("show", files["whole"]), ("whole.pth is no safetensors file", "weights import")),
        "show nothing": (("show", out), ("out.safetensors",)),
    }
    before = sorted(tmp_path.iterdir())
    for case, (arguments, _) in cases.items():
        done = invoke("weights", *arguments)
        assert done.exit_code == 1, case
        assert done.stdout == "", case
        (line,) = done.stderr.splitlines()
        assert line.startswith("error: "), case
        for said in cases[case][1]:
            assert said in line, (case, line)
    assert sorted(tmp_path.iterdir()) == before
    assert not Path("ran").exists()
