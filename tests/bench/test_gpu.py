"""The tasks of the graphics card, in the small, on whatever is there."""

import pytest
import torch
from typer.testing import CliRunner

from otf_stream.bench.commands import app
from otf_stream.bench.gpu import run_gpu, section
from otf_stream.learn.compute import choose_compute


def test_both_tasks_are_done_and_told():
    found = run_gpu(
        choose_compute("cpu"),
        seconds=4,
        tail_s=3,
        planes_per_second=20,
        recorded_shape=(6, 70, 80),
        live_shape=(6, 64, 64),
    )
    assert [(r["task"], r["shape"]) for r in found] == [("recorded", [6, 70, 80]), ("live", [6, 64, 64])]
    assert all(0 < r["seconds"] < 60 and r["copy_rate"] > 1e7 for r in found)
    assert "| live | 6 × 64 × 64 |" in section(found, "otf-stream bench gpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a graphics card")
def test_without_a_graphics_card_it_is_refused():
    done = CliRunner().invoke(app, ["gpu"])
    assert done.exit_code == 2
    assert "no CUDA device" in " ".join(done.output.split())
