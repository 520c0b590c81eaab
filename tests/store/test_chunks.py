"""Chunk files: that they are whole, and in which order the system is asked to keep them."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from otf_stream.store.chunks import Revealing, chunk_file, drop_chunks, stage_chunk


def test_a_staged_chunk_gets_its_name_when_it_is_revealed(tmp_path: Path) -> None:
    kept, dropped = chunk_file(tmp_path, (0, 1, 2)), chunk_file(tmp_path, (0, 1, 3))
    for chunk in (kept, dropped):
        stage_chunk(chunk, memoryview(b"pixels"))
        assert not chunk.exists()
    drop_chunks([dropped])
    with ThreadPoolExecutor() as threads:
        Revealing(threads).reveal([kept])
    assert kept.read_bytes() == b"pixels"
    assert [file for file in tmp_path.rglob("*") if file.is_file()] == [kept]


def test_staging_replaces_what_a_crash_left(tmp_path: Path) -> None:
    chunk = chunk_file(tmp_path, (0, 0, 0))
    chunk.parent.mkdir(parents=True)
    chunk.with_name("0.partial").write_bytes(b"longer than the pixels")
    chunk.write_bytes(b"torn")
    stage_chunk(chunk, memoryview(b"pixels"))
    with ThreadPoolExecutor() as threads:
        Revealing(threads).reveal([chunk])
    assert chunk.read_bytes() == b"pixels"


_WRITER = """
import sys, zlib
from pathlib import Path
from otf_stream.store.session import SessionStore
store = SessionStore.open(Path(sys.argv[1]))
plane = bytes(store.acquisition.plane_bytes)
for group in ([0, 1, 2], [3, 4]):
    Path(sys.argv[2]).write_text("begin")
    store.write_planes([((1, 1, z), plane, zlib.crc32(plane)) for z in group])
    Path(sys.argv[2]).write_text("acknowledge")
store.close()
"""

_DEFERRED = """
import sys, zlib
from pathlib import Path
from otf_stream.store.session import SessionStore
store = SessionStore.open(Path(sys.argv[1]), deferred=True)
plane = bytes(store.acquisition.plane_bytes)
Path(sys.argv[2]).write_text("begin")
store.write_planes([((1, 1, z), plane, zlib.crc32(plane)) for z in range(3)])
Path(sys.argv[2]).write_text("acknowledge")
store.flush()
Path(sys.argv[2]).write_text("flushed")
store.close()
"""

_TRACED = shutil.which("strace") is not None and (
    subprocess.run(["strace", "-o", "/dev/null", "true"], check=False, capture_output=True).returncode == 0
)


def traced(log: Path, program: str, store: Path, mark: Path) -> list[str]:
    """Run a program, and return its calls that synchronise, rename, or open ``mark``, in the order they returned."""
    calls = "trace=fsync,fdatasync,/^rename,openat"
    subprocess.run(
        ["strace", "-f", "-y", "-e", calls, "-o", log, sys.executable, "-c", program, store, mark],
        check=True,
        timeout=120,
    )
    # A call that is interrupted by another thread's counts when it has returned.
    lines = [line for line in log.read_text().splitlines() if " openat(" not in line or str(mark) in line]
    begun: dict[str, str] = {}
    done: list[str] = []
    for line in lines:
        thread, said = line.split(maxsplit=1)
        if said.endswith("<unfinished ...>"):
            begun[thread] = said.removesuffix(" <unfinished ...>")
        elif "resumed>" in said:
            done.append(begun.pop(thread, "") + said.split("resumed>")[1])
        else:
            done.append(said)
    return done


@pytest.mark.skipif(not _TRACED, reason="strace is not there, or may not trace")
def test_planes_may_be_acknowledged_before_the_disk_has_them_and_are_on_it_after_a_flush(
    store_path: Path, tmp_path: Path
) -> None:
    mark = tmp_path / "mark"
    done = traced(tmp_path / "log", _DEFERRED, store_path, mark)
    start, acknowledged, flushed = (at for at, call in enumerate(done) if str(mark) in call)
    assert [call for call in done[start:acknowledged] if "rename" in call]
    assert not [call for call in done[start:acknowledged] if "sync(" in call and "/raw/" in call]
    synchronised = "\n".join(call for call in done[acknowledged:flushed] if "sync(" in call)
    journal = re.escape(store_path.name.replace(".ome.zarr", ".journal.sqlite-wal"))
    names = [f"/1/1/{z}/0/0" for z in range(3)] + [f"/1/1/{z}/0" for z in range(3)]
    for name in [*names, "/c/1/1", "/c/1", "/raw/0/c", "/raw/0", f"/{journal}"]:
        assert re.search(rf"sync\(\d+<[^>]*{name}>\) += 0", synchronised), name


@pytest.mark.skipif(not _TRACED, reason="strace is not there, or may not trace")
def test_before_planes_are_acknowledged_their_bytes_names_and_records_are_on_the_disk(
    store_path: Path, tmp_path: Path
) -> None:
    mark = tmp_path / "mark"
    done = traced(tmp_path / "log", _WRITER, store_path, mark)
    marks = [at for at, call in enumerate(done) if str(mark) in call]
    assert len(marks) == 4
    journal = store_path.name.replace(".ome.zarr", ".journal.sqlite-wal")
    for planes, start, end in (([0, 1, 2], marks[0], marks[1]), ([3, 4], marks[2], marks[3])):

        def when(pattern: str, group: list[str] = done[start:end]) -> list[int]:
            return [at for at, call in enumerate(group) if re.search(pattern, call)]

        record = when(rf"sync\(\d+<[^>]*{re.escape(journal)}>\)")[0]
        renamed = [when(rf"rename.*/1/1/{z}/0/0\.partial\".*/1/1/{z}/0/0\"")[0] for z in planes]
        for z in planes:
            written = when(rf"fsync\(\d+<[^>]*/1/1/{z}/0/0\.partial>\) += 0")[0]
            assert written < min(renamed)
            for folder in (f"/1/1/{z}/0", f"/1/1/{z}", "/c/1/1"):
                named = when(rf"fsync\(\d+<[^>]*{folder}>\) += 0")[-1]
                assert max(renamed) < named < record
    for folder in ("/raw/0/c/1", "/raw/0/c", "/raw/0"):
        assert any(re.search(rf"fsync\(\d+<[^>]*{folder}>\)", call) for call in done[marks[0] : marks[1]])
