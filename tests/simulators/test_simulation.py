"""A simulated microscope, a real socket, real stores."""

import json
import threading
from contextlib import closing
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import tifffile
from typer.testing import CliRunner

from otf_stream.acquire.listener import Listener
from otf_stream.cli.commands import app
from otf_stream.store.session import SessionStore
from simulators.faults import Faults
from simulators.scenes import View
from simulators.simulation import simulate
from simulators.specimen import Setup, Specimen

SETUP = Setup("light-sheet", planes=3, side=32, seed=2)


@pytest.fixture(autouse=True)
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    return folder


def test_positions_are_sessions_and_planes_are_those_of_the_specimen(
    listener: Listener, data: Path, tmp_path: Path
) -> None:
    setup = replace(SETUP, channels=2, positions=2)
    told: list[tuple[str, int, int]] = []
    summary = simulate(
        setup,
        listener.address,
        name="dish",
        time_points=2,
        interval_s=0.05,
        truth=tmp_path / "truth",
        progress=lambda *said: told.append(said),
    )
    assert (summary.exposed, summary.dropped, summary.sent, summary.durable) == (24, 0, 24, 24)
    assert summary.failures == []
    assert told[-1] == ("planes", 24, 24)
    assert [said for said in told if said[0] != "planes"] == [
        *(("samples", n, 4) for n in range(1, 5)),
        *(("truth", n, 4) for n in range(1, 5)),
    ]

    again = Specimen(setup)
    step = setup.instrument.z_step_um
    frames = {
        (t, p, c, z): again.expose(View(*setup.positions_um[p], z * step, c))
        for t, p, c, z in product(range(2), range(2), range(2), range(3))
    }
    for p, name in enumerate(("dish_p0", "dish_p1")):
        with closing(SessionStore.open(data / f"{name}.ome.zarr")) as store:
            assert summary.sessions[name] == store.session
            acquisition = store.acquisition
            assert acquisition.sizes.shape == (2, 2, 3, 32, 32)
            assert (acquisition.modality, acquisition.channels) == ("light-sheet", ("FITC", "Rhodamine"))
            assert (acquisition.interval_s, acquisition.stage_um) == (0.05, setup.positions_um[p])
            assert acquisition.voxel_size.anisotropy == pytest.approx(6)
            for t, c, z in product(range(2), range(2), range(3)):
                np.testing.assert_array_equal(store.read_plane((t, c, z)), frames[t, p, c, z])
        for c, channel in enumerate(("FITC", "Rhodamine")):
            path = tmp_path / "truth" / f"{name}_{channel}.tif"
            assert path in summary.truth
            np.testing.assert_array_equal(tifffile.imread(path), again.truth(p, c))


def test_what_the_camera_loses_is_missing_in_the_store(listener: Listener, data: Path) -> None:
    setup = replace(SETUP, planes=20, faults=Faults(dropped=0.3))
    summary = simulate(setup, listener.address, name="gappy")
    assert summary.exposed == 20
    assert 0 < summary.dropped == 20 - summary.durable
    specimen = Specimen(setup)
    with closing(SessionStore.open(data / "gappy.ome.zarr")) as store:
        there = store.journal.planes_of((0, 0))
        assert len(there) == summary.durable
        for z in range(20):
            frame = specimen.expose(View(0, 0, z * setup.instrument.z_step_um, 0))
            assert (frame is not None) == (z in there)
            if frame is not None:
                np.testing.assert_array_equal(store.read_plane((0, 0, z)), frame)


def test_the_truth_of_what_drifts_is_one_for_each_time_point(listener: Listener, tmp_path: Path) -> None:
    pixel = SETUP.instrument.pixel_um
    setup = replace(SETUP, faults=Faults(drift_um=-3 * pixel))
    simulate(setup, listener.address, name="loose", time_points=3, truth=tmp_path / "truth")
    first, *others = (tifffile.imread(tmp_path / "truth" / f"loose_t{t}.tif") for t in range(3))
    for t, later in enumerate(others, 1):
        np.testing.assert_array_equal(later[:, :, : -3 * t], first[:, :, 3 * t :])


def test_nothing_is_overwritten_or_drawn_in_vain(tmp_path: Path) -> None:
    (tmp_path / "simulated.tif").write_bytes(b"")

    def drawn(*said: object) -> None:
        raise AssertionError

    with pytest.raises(FileExistsError, match="another folder"):
        simulate(SETUP, "tcp://127.0.0.1:1", name="simulated", truth=tmp_path, progress=drawn)
    with pytest.raises(ValueError, match="tcp://HOST:PORT"):
        simulate(SETUP, "here", name="simulated", progress=drawn)
    with pytest.raises(ValueError, match="name"):
        simulate(SETUP, "tcp://127.0.0.1:1", name="../simulated", progress=drawn)


def test_the_command(listener: Listener, data: Path, tmp_path: Path) -> None:
    arguments = (
        f"simulate --to {listener.address} --modality widefield --planes 4 --side 32 --time-points 2 --channels 2 "
        f"--positions 2 --planes-per-second 200 --interval 0.1 --bleaching 0.01 --drift 0.2 --drop 0.1 --hot-pixels 3 "
        f"--stripes 0.2 --seed 4 --name all --truth {tmp_path / 'truth'}"
    ).split()
    said = CliRunner().invoke(app, [*arguments, "--json"])
    assert said.exit_code == 0, said.output
    summary = json.loads(said.stdout)
    assert set(summary["sessions"]) == {"all_p0", "all_p1"}
    assert summary["exposed"] == 32
    assert summary["exposed"] - summary["dropped"] == summary["sent"] == summary["durable"]
    assert len(summary["truth"]) == len(list((tmp_path / "truth").iterdir())) == 8
    assert {path.name for path in data.glob("*.ome.zarr")} == {"all_p0.ome.zarr", "all_p1.ome.zarr"}

    said = CliRunner().invoke(app, ["simulate", "--to", listener.address, "--planes", "2", "--side", "16",
                                    "--planes-per-second", "100"])  # fmt: skip
    assert said.exit_code == 0
    assert "exposed 2  dropped by the camera 0  sent 2  durable 2" in said.stdout
    assert "session   simulated: " in said.stdout

    said = CliRunner().invoke(app, [*arguments, "--bleaching", "2"])
    assert said.exit_code == 1
    assert "bleaching is 2.0, but is a fraction" in said.stderr


def test_a_service_that_refuses_is_told(tmp_path: Path) -> None:
    stop = threading.Event()
    with Listener(tmp_path / "small", "tcp://127.0.0.1:*", disk_reserve=0, max_plane_bytes=64) as small:
        thread = threading.Thread(target=small.run, args=(stop,))
        thread.start()
        try:
            said = CliRunner().invoke(
                app, ["simulate", "--to", small.address, "--planes", "2", "--side", "16", "--planes-per-second", "100"]
            )
        finally:
            stop.set()
            thread.join(30)
    assert said.exit_code == 1
    assert "exposed 2" in said.stdout
    assert "refuses" in said.stderr
