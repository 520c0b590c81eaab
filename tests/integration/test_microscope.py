"""A real Micro-Manager core streams to a real service; and what the demo does around that."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
from rich.console import Console
from waiting import until

from otf_stream.acquire.hooks.pymmcore_plus import streaming
from otf_stream.config import ServiceConfig
from otf_stream.demo import DemoError, draw_slices, run_demo
from otf_stream.monitor.lookout import overview
from otf_stream.service.supervisor import Service
from otf_stream.store.restored import read_provenance, read_restored
from otf_stream.store.session import SessionStore
from simulators.core import acquire_stack, unload, virtual_microscope
from simulators.microscope import image
from simulators.phantom import phantom
from simulators.scenes import Stack


def test_what_the_camera_sees_is_on_disk_and_restored(tmp_path: Path) -> None:
    planes = image(phantom((29, 64, 64), seed=0), anisotropy=4, seed=0)
    core = virtual_microscope(Stack(planes, z_step_um=0.8, pixel_um=0.2))
    seen: list[np.ndarray] = []
    core.mda.events.frameReady.connect(lambda frame, event: seen.append(frame.copy()))
    config = ServiceConfig(
        data=tmp_path,
        listen="tcp://127.0.0.1:*",
        monitor="",
        method="interpolate",
        reports="none",
        threads=1,
        disk_reserve_gb=0,
    )
    with Service(config) as service:
        with streaming(core, service.address, name="phantom", modality="confocal") as stream:
            acquire_stack(core, planes=len(planes), z_step_um=0.8)
        until(lambda: all(session.done for session in overview(tmp_path)))
        assert service.watch() == []  # Nothing died.
    unload(core)

    assert stream.sent == len(planes) == 8
    (session,) = overview(tmp_path)
    assert (session.expected, session.durable, session.closed) == (8, 8, "finished")
    assert session.states == {"restored": 1}
    with closing(SessionStore.open(session.store)) as store:
        assert store.acquisition.modality == "confocal"
        for z in range(8):
            np.testing.assert_array_equal(store.read_plane((0, 0, z)), planes[z])
            np.testing.assert_array_equal(seen[z], planes[z])
    volume = read_restored(session.store, (0, 0))
    assert (volume.shape, volume.dtype) == ((29, 64, 64), np.uint16)
    np.testing.assert_array_equal(volume[::4], planes)  # Interpolation keeps the planes where they are.
    provenance = read_provenance(session.store)["t0c0"]
    assert (provenance["method"], provenance["warnings"], provenance["missing_planes"]) == ("interpolate", [], [])


def test_the_picture_shows_three_slices(tmp_path: Path) -> None:
    truth = phantom((29, 40, 64), seed=0)
    restored = (2000 * truth + 100).astype(np.uint16)
    draw_slices(tmp_path / "slices.png", restored.astype(np.float32), restored, truth)
    picture = matplotlib.image.imread(tmp_path / "slices.png")[..., :3]
    height, width, _ = picture.shape
    assert width > 2 * height
    panels = np.array_split(picture[height // 4 : -height // 4], 3, axis=1)
    for panel in panels:
        assert len(np.unique(panel.round(2))) > 20  # Grey values, not a blank or a line drawing.
    np.testing.assert_array_equal(panels[0].shape, panels[1].shape)


def test_a_demo_never_replaces_what_is_there_unasked(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("…", encoding="utf-8")
    console = Console(quiet=True)
    with pytest.raises(FileExistsError, match="earlier demo"):
        run_demo(tmp_path, overwrite=False, seed=0, console=console)
    with pytest.raises(DemoError, match="no demo"):
        run_demo(tmp_path, overwrite=True, seed=0, console=console)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
