from __future__ import annotations

import errno
import itertools
import os
import signal
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaozarrs
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from otf_stream.acquisition import Acquisition, PlaneIndex
from otf_stream.store.chunks import chunk_file
from otf_stream.store.finding import find_sessions
from otf_stream.store.journal import journal_path
from otf_stream.store.session import PlaneNotDurableError, SessionStore, StoreGoneError

Sent = Callable[[PlaneIndex], tuple[PlaneIndex, memoryview, int]]
Pixels = Callable[[PlaneIndex], np.ndarray]


def files_below(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.is_file()}


def test_is_valid_before_its_first_plane_and_half_way(store: SessionStore, sent: Sent, pixels: Pixels) -> None:
    yaozarrs.validate_zarr_store(str(store.path))
    store.write_planes([sent((0, 0, z)) for z in (0, 1, 3)])
    yaozarrs.validate_zarr_store(str(store.path))

    root = zarr.open_group(store.path, mode="r")
    assert sorted(root.group_keys()) == ["OME", "raw"]
    raw = root["raw/0"]
    assert isinstance(raw, zarr.Array)
    assert raw.shape == store.acquisition.sizes.shape
    assert raw.metadata.dimension_names == ("t", "c", "z", "y", "x")  # type: ignore[union-attr]
    expected = np.zeros(raw.shape, np.uint16)
    for z in (0, 1, 3):
        expected[0, 0, z] = pixels((0, 0, z))
    np.testing.assert_array_equal(np.asarray(raw[:]), expected)
    assert raw.nchunks_initialized == 3


def test_opens_in_ome_zarr_py_half_way(store: SessionStore, sent: Sent, pixels: Pixels) -> None:
    from ome_zarr.io import parse_url
    from ome_zarr.reader import Reader

    store.write_planes([sent((1, 1, 4))])
    location = parse_url(store.path / "raw")
    assert location is not None
    (node,) = Reader(location)()
    np.testing.assert_array_equal(node.data[0][1, 1, 4].compute(), pixels((1, 1, 4)))
    assert node.metadata["coordinateTransformations"][0][0]["scale"] == [1.0, 1.0, 0.5, 0.2, 0.2]


def test_describes_itself(store: SessionStore) -> None:
    own = zarr.open_group(store.path, mode="r").attrs["otf_stream"]
    assert isinstance(own, dict)
    assert own["session"] == "s1"
    assert Acquisition.model_validate(own["acquisition"]) == store.acquisition


def test_a_chunk_is_the_planes_bytes(store: SessionStore, sent: Sent, pixels: Pixels) -> None:
    before = files_below(store.path)
    store.write_planes([sent((0, 1, 2))])
    chunk = chunk_file(store.path, (0, 1, 2))
    assert files_below(store.path) - before == {chunk}
    assert chunk.read_bytes() == pixels((0, 1, 2)).tobytes()


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32"])
def test_keeps_every_pixel_type(tmp_path: Path, acquisition: Acquisition, dtype: str) -> None:
    acquisition = Acquisition.model_validate({**acquisition.model_dump(), "dtype": dtype})
    store = SessionStore.create(tmp_path / "a.ome.zarr", acquisition, session="s")
    plane = np.random.default_rng(0).normal(0, 50, (12, 20)).astype(dtype)
    store.write_planes([((0, 0, 0), plane.astype(acquisition.numpy_dtype).tobytes(), 0)])
    np.testing.assert_array_equal(store.read_plane((0, 0, 0)), plane)
    raw = zarr.open_array(store.path / "raw" / "0", mode="r")
    np.testing.assert_array_equal(np.asarray(raw[0, 0, 0]), plane)
    store.close()


def test_goes_on_after_reopening(store: SessionStore, sent: Sent, pixels: Pixels) -> None:
    store.write_planes([sent((0, 0, 0))])
    store.close()
    again = SessionStore.open(store.path)
    assert (again.session, again.acquisition) == ("s1", store.acquisition)
    again.write_planes([sent((0, 0, 0)), sent((0, 0, 1))])
    for z in (0, 1):
        np.testing.assert_array_equal(again.read_plane((0, 0, z)), pixels((0, 0, z)))
    again.close()


every_plane = st.permutations(list(itertools.product(range(2), range(2), range(5))))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=8)
@given(every_plane, st.lists(st.integers(0, 19), max_size=10), st.integers(1, 7))
def test_any_order_and_duplicates_give_the_same_store(
    tmp_path_factory: pytest.TempPathFactory,
    acquisition: Acquisition,
    sent: Sent,
    pixels: Pixels,
    order: list[PlaneIndex],
    again: list[int],
    group: int,
) -> None:
    stream = order + [order[i] for i in again]
    store = SessionStore.create(tmp_path_factory.mktemp("s") / "a.ome.zarr", acquisition, session="s")
    for start in range(0, len(stream), group):
        store.write_planes([sent(plane) for plane in stream[start : start + group]])
    assert store.journal.durable() == {plane: sent(plane)[2] for plane in order}
    raw = zarr.open_array(store.path / "raw" / "0", mode="r")
    np.testing.assert_array_equal(
        np.asarray(raw[:]).reshape(20, 12, 20), np.stack([pixels(plane) for plane in sorted(order)])
    )
    store.close()


def test_a_durable_plane_is_never_rewritten(store: SessionStore, sent: Sent, pixels: Pixels) -> None:
    index, content, crc = sent((0, 0, 0))
    other = bytes(store.acquisition.plane_bytes)
    store.write_planes([(index, content, crc), (index, other, 0)])
    store.write_planes([(index, other, 0)])
    np.testing.assert_array_equal(store.read_plane(index), pixels(index))
    assert store.journal.durable() == {index: crc}


def test_refuses_what_does_not_fit_and_writes_nothing(store: SessionStore, sent: Sent) -> None:
    index, content, crc = sent((0, 0, 0))
    with pytest.raises(ValueError, match="479 bytes, but 12 × 20 pixels of uint16 have 480"):
        store.write_planes([(index, content, crc), ((0, 0, 1), bytes(479), 0)])
    with pytest.raises(ValueError, match="t=2, c=0, z=0 lies outside the announced 2 time points"):
        store.write_planes([(index, content, crc), ((2, 0, 0), content, crc)])
    strided = np.zeros((12, 40), np.uint16)[:, ::2]
    with pytest.raises(ValueError, match="not contiguous"):
        store.write_planes([(index, content, crc), ((0, 0, 1), strided.data, 0)])
    assert store.journal.durable() == {}
    assert not chunk_file(store.path, index).exists()


def test_a_window_of_a_plane_is_read(store: SessionStore, sent: Sent, pixels: Pixels) -> None:
    store.write_planes([sent((0, 0, 4))])
    y, x = slice(3, 9), slice(2, None)
    np.testing.assert_array_equal(store.read_plane((0, 0, 4), y, x), pixels((0, 0, 4))[y, x])


def test_reading_a_plane_that_has_not_come(store: SessionStore) -> None:
    with pytest.raises(KeyError, match="not durable") as missing:
        store.read_plane((0, 0, 0))
    assert str(missing.value) == "plane t=0, c=0, z=0 is not durable in cells.ome.zarr"
    with pytest.raises(ValueError, match="outside"):
        store.read_plane((0, 0, 5))


def test_a_file_without_a_record_is_not_durable_and_is_rewritten(
    store: SessionStore, sent: Sent, pixels: Pixels
) -> None:
    """What a crash between the files and the journal leaves behind."""
    chunk = chunk_file(store.path, (0, 0, 0))
    chunk.parent.mkdir(parents=True)
    chunk.write_bytes(b"torn")
    chunk.with_name("0.partial").write_bytes(b"torn too")
    with pytest.raises(PlaneNotDurableError):
        store.read_plane((0, 0, 0))
    store.write_planes([sent((0, 0, 0))])
    np.testing.assert_array_equal(store.read_plane((0, 0, 0)), pixels((0, 0, 0)))
    assert [file.name for file in chunk.parent.iterdir()] == ["0"]


@pytest.mark.skipif(sys.platform == "win32", reason="limits the size of files with a POSIX resource limit")
def test_a_failing_disk_leaves_no_plane_and_no_torn_chunk(store: SessionStore, sent: Sent, pixels: Pixels) -> None:
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = files_below(store.path)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300, hard))  # A plane has 480 bytes: its write stops half-way.
    try:
        with pytest.raises(OSError, match="large"):
            store.write_planes([sent((0, 0, z)) for z in range(5)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, ignored)
    assert store.journal.durable() == {}
    assert files_below(store.path) == before
    store.write_planes([sent((0, 0, z)) for z in range(5)])
    np.testing.assert_array_equal(store.read_plane((0, 0, 4)), pixels((0, 0, 4)))


_WRITER = """
import sys, zlib
from pathlib import Path
import numpy as np
from otf_stream.store.session import SessionStore
store = SessionStore.open(Path(sys.argv[1]))
for t in range(2):
    for c in range(2):
        for z in range(5):
            plane = np.full((12, 20), 100 * t + 10 * c + z, "<u2")
            store.write_planes([((t, c, z), plane.data, zlib.crc32(plane))])
            print(t, c, z, flush=True)  # the acknowledgement
{end}
"""


def run_writer(path: Path, end: str) -> subprocess.Popen[str]:
    script = _WRITER.format(end=end)
    return subprocess.Popen([sys.executable, "-c", script, str(path)], stdout=subprocess.PIPE, text=True)


def test_another_process_reads_while_one_writes(store: SessionStore) -> None:
    writer = run_writer(store.path, "store.close()")
    raw = zarr.open_array(store.path / "raw" / "0", mode="r")
    seen: set[PlaneIndex] = set()
    while True:
        running = writer.poll() is None  # Asked first, so that the last look comes after the last plane.
        for t, c, z in store.journal.durable().keys() - seen:
            expected = np.full((12, 20), 100 * t + 10 * c + z)
            np.testing.assert_array_equal(store.read_plane((t, c, z)), expected)
            np.testing.assert_array_equal(np.asarray(raw[t, c, z]), expected)
            seen.add((t, c, z))
        if not running:
            break
    assert writer.communicate(timeout=60)
    assert writer.returncode == 0
    assert len(seen) == 20


def test_a_thread_reads_while_another_writes(store: SessionStore, sent: Sent, pixels: Pixels) -> None:
    planes = [(t, c, z) for t, c in store.acquisition.stacks() for z in range(5)]
    writer = threading.Thread(target=lambda: [store.write_planes([sent(plane)]) for plane in planes])
    writer.start()
    while writer.is_alive():
        for plane in store.journal.durable():
            np.testing.assert_array_equal(store.read_plane(plane), pixels(plane))
    writer.join(60)
    assert len(store.journal.durable()) == 20


@pytest.mark.skipif(sys.platform == "win32", reason="kills the writer with a POSIX signal")
def test_what_was_acknowledged_survives_a_kill(store: SessionStore) -> None:
    store.close()
    writer = run_writer(store.path, "import time; time.sleep(600)")
    assert writer.stdout is not None
    acknowledged = [tuple(map(int, writer.stdout.readline().split())) for _ in range(7)]
    os.kill(writer.pid, signal.SIGKILL)
    writer.communicate(timeout=60)
    again = SessionStore.open(store.path)
    assert again.journal.durable().keys() >= set(acknowledged)
    for t, c, z in again.journal.durable():
        np.testing.assert_array_equal(again.read_plane((t, c, z)), np.full((12, 20), 100 * t + 10 * c + z))
    again.close()


def test_create_never_overwrites_unasked(store: SessionStore, acquisition: Acquisition, sent: Sent) -> None:
    store.write_planes([sent((0, 0, 0))])
    with pytest.raises(FileExistsError, match="already"):
        SessionStore.create(store.path, acquisition, session="s2")
    assert store.journal.durable()
    store.close()
    new = SessionStore.create(store.path, acquisition, session="s2", overwrite=True)
    assert (new.session, new.journal.durable()) == ("s2", {})
    assert not chunk_file(store.path, (0, 0, 0)).exists()
    new.close()


def test_create_spares_what_is_no_store(tmp_path: Path, acquisition: Acquisition) -> None:
    folder = tmp_path / "thesis.ome.zarr"
    folder.mkdir()
    (folder / "chapter1.txt").write_text("…")
    with pytest.raises(FileExistsError, match="no Zarr store"):
        SessionStore.create(folder, acquisition, session="s", overwrite=True)
    assert (folder / "chapter1.txt").exists()
    with pytest.raises(ValueError, match=r"end in \.ome\.zarr"):
        SessionStore.create(tmp_path / "cells", acquisition, session="s")


def test_a_journal_with_planes_is_not_lost_when_its_store_is_moved(
    store: SessionStore, acquisition: Acquisition, sent: Sent, tmp_path: Path
) -> None:
    store.write_planes([sent((0, 0, 0))])
    store.close()
    store.path.rename(tmp_path / "elsewhere.ome.zarr")
    with pytest.raises(FileExistsError, match="journal of 1 planes has lost its store"):
        SessionStore.create(store.path, acquisition, session="s2")


def test_starts_again_after_a_crash_while_creating(store: SessionStore, acquisition: Acquisition) -> None:
    """The crash left an empty journal and a half-made store under its temporary name."""
    store.close()
    store.path.rename(store.path.with_name("cells.ome.zarr.partial"))
    again = SessionStore.create(store.path, acquisition, session="s2")
    assert again.session == "s2"
    assert not store.path.with_name("cells.ome.zarr.partial").exists()
    again.close()


def test_open_says_what_is_missing(store: SessionStore, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no session store"):
        SessionStore.open(tmp_path / "none.ome.zarr")
    store.close()
    journal_path(store.path).unlink()
    with pytest.raises(FileNotFoundError, match="no journal beside it"):
        SessionStore.open(store.path)


def test_finds_sessions_oldest_first(tmp_path: Path, acquisition: Acquisition) -> None:
    assert find_sessions(tmp_path) == []
    paths = [tmp_path / f"{name}.ome.zarr" for name in ("b", "c", "a")]
    for path in paths:
        SessionStore.create(path, acquisition, session=path.name).close()
    zarr.create_group(tmp_path / "other.ome.zarr")
    (tmp_path / "empty.ome.zarr").mkdir()
    assert find_sessions(tmp_path) == paths


def test_stock_tools_do_not_warn(store: SessionStore, sent: Sent) -> None:
    store.write_planes([sent((0, 0, 0))])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        members = dict(zarr.open_group(store.path, mode="r").members(max_depth=None))
    assert set(members) == {"raw", "raw/0", "OME"}


def test_grows_with_its_planes(tmp_path: Path, acquisition: Acquisition, sent: Sent, pixels: Pixels) -> None:
    least = acquisition.sizes.model_copy(update={"t": 1, "c": 1, "z": 1})
    growing = acquisition.model_copy(update={"growing": True, "sizes": least, "channels": ("DAPI",)})
    store = SessionStore.create(tmp_path / "long.ome.zarr", growing, session="s2")
    reader = SessionStore.open(store.path)
    came = [(0, 0, 0), (0, 0, 1), (0, 1, 3), (2, 0, 2)]
    for plane in came:
        store.write_planes([sent(plane)])
    assert reader.acquisition == store.acquisition
    assert reader.acquisition.sizes.shape == (3, 2, 4, 12, 20)
    assert reader.acquisition.channels == ("DAPI", "1")
    assert reader.journal.stacks() == [(0, 0)]  # the others have a single plane yet
    array = zarr.open_array(store.path / "raw" / "0", mode="r")
    assert array.shape == (3, 2, 4, 12, 20)
    for plane in came:
        np.testing.assert_array_equal(array[plane], pixels(plane))
        np.testing.assert_array_equal(reader.read_plane(plane), pixels(plane))
    yaozarrs.validate_zarr_store(store.path)
    with pytest.raises(ValueError, match="1000000"):
        store.write_planes([((0, 0, 10**6), sent((0, 0, 0))[1], 0)])
    reader.close()
    store.close()
    again = SessionStore.open(store.path)
    assert again.acquisition.sizes.shape == (3, 2, 4, 12, 20)
    again.close()


def test_tells_the_time_between_time_points(tmp_path: Path, acquisition: Acquisition) -> None:
    timed = acquisition.model_copy(update={"interval_s": 12.5})
    store = SessionStore.create(tmp_path / "timed.ome.zarr", timed, session="s2")
    raw = zarr.open_group(store.path / "raw", mode="r").attrs["ome"]
    assert raw["multiscales"][0]["datasets"][0]["coordinateTransformations"][0]["scale"] == [12.5, 1, 0.5, 0.2, 0.2]
    store.close()


@pytest.mark.skipif(sys.platform == "win32", reason="there an open store cannot be moved")
@pytest.mark.parametrize("moved", ["store", "journal"])
def test_planes_of_a_store_that_is_gone_do_not_become_durable(
    store: SessionStore, sent: Sent, tmp_path: Path, moved: str
) -> None:
    store.write_planes([sent((0, 0, 0))])
    path = store.path if moved == "store" else journal_path(store.path)
    path.rename(tmp_path / "elsewhere")
    with pytest.raises(StoreGoneError):
        store.write_planes([sent((0, 0, 1))])
    assert list(store.journal.durable()) == [(0, 0, 0)]
    assert not list(store.damaged([((0, 0, 0), 0)]) if moved == "store" else [])  # gone, and not damaged


def test_a_chunk_that_cannot_be_read_now_is_not_damaged(
    store: SessionStore, sent: Sent, monkeypatch: pytest.MonkeyPatch
) -> None:
    plane, _, crc = sent((0, 0, 0))
    store.write_planes([sent(plane)])
    read = Path.read_bytes

    def failing(code: int) -> Callable[[Path], bytes]:
        def fail(path: Path) -> bytes:
            if "raw" in path.parts:
                raise OSError(code, os.strerror(code))
            return read(path)

        return fail

    for code, damaged in ((errno.EMFILE, []), (errno.EIO, [plane])):
        monkeypatch.setattr(Path, "read_bytes", failing(code))
        assert list(store.damaged([(plane, crc)])) == damaged
