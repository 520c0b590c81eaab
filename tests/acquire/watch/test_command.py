"""The command ``otf-stream watch``, against a real listener."""

from __future__ import annotations

import json
from pathlib import Path

import tifffile
from typer.testing import CliRunner

from otf_stream.acquire.listener import Listener
from otf_stream.cli.commands import app

from .conftest import check, noise


def test_streams_what_is_there_and_ends(saved: Path, stores: Path, listener: Listener) -> None:
    data = noise(4, 24, 32)
    folder = saved / "cells"
    folder.mkdir(parents=True)
    for z, plane in enumerate(data):
        tifffile.imwrite(folder / f"z{z:03}.tif", plane)
    options = ["--existing", "--once", "--quiet", "0.5", "--poll", "0.05", "--voxel-size", "0.5", "0.2", "0.2"]
    done = CliRunner().invoke(app, ["watch", str(saved), "--to", listener.address, "--json", *options])
    assert done.exit_code == 0, done.output
    (said,) = json.loads(done.stdout)
    assert (said["name"], said["durable"], said["state"]) == ("cells", 4, "finished")
    acquisition = check(stores, "cells", {(0, 0, z): data[z] for z in range(4)})
    assert acquisition.voxel_size.z == 0.5


def test_files_that_tell_no_voxel_size_are_named_with_the_remedy(saved: Path, listener: Listener) -> None:
    folder = saved / "cells"
    folder.mkdir(parents=True)
    for z, plane in enumerate(noise(4, 24, 32)):
        tifffile.imwrite(folder / f"z{z:03}.tif", plane)
    options = ["--existing", "--once", "--quiet", "0.5", "--poll", "0.05", "--json"]
    done = CliRunner().invoke(app, ["watch", str(saved), "--to", listener.address, *options])
    assert done.exit_code == 1
    assert "--voxel-size" in done.output
