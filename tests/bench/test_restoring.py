"""What is measured of restoring is what is said of it."""

import pytest
import torch

from otf_stream.bench import restoring
from otf_stream.bench.restoring import matrix_rate, run_growth, run_throughput, section
from otf_stream.learn.compute import choose_compute

CPU = choose_compute("cpu")


def test_growth_is_measured_and_told(monkeypatch):
    for name, size in {"_MATRIX": 256, "_DEPTH": 40, "_WIDTH": 96}.items():
        monkeypatch.setattr(restoring, name, size)
    growth = run_growth(CPU, planes=6, sides=[64, 128])
    assert [g["voxels"] for g in growth] == [21 * 64**2, 21 * 128**2]
    assert all(g["seconds"] > 0 and 100 < g["peak_mb"] < 4000 for g in growth)
    throughput = run_throughput(CPU)
    assert [r["network"] for r in throughput] == ["denoise", "deblur"]
    for r in throughput:
        assert r["rate"] == pytest.approx(r["operations_per_pixel"] * r["pixels_per_second"])
        assert sum(r["spent"].values()) == pytest.approx(1)
    told = section(throughput, growth, "otf-stream bench restore")
    assert "| 6 × 64 × 64 | 1.0 |" in told
    assert "| 6 × 128 × 128 | 4.0 |" in told


def test_the_ceiling_is_a_rate_of_operations():
    assert 1e8 < matrix_rate(CPU) < 1e14
    assert torch.get_num_threads() >= 1
