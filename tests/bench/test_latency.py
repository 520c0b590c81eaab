"""A live stack and its recording are both restored, and what differs is told."""

from otf_stream.bench.latency import run_latency, section
from otf_stream.learn.compute import choose_compute


def test_live_and_recorded_are_compared():
    (found,) = run_latency(
        choose_compute("cpu"), planes=6, side=64, planes_per_second=20, tail_s=4, offline_s=4, repeats=1
    )
    assert found["shape"] == [6, 64, 64]
    assert 0 < found["since_last_plane_s"] < 60
    assert found["offline_psnr"] > 10
    told = section([found], "otf-stream bench latency", planes_per_second=20, tail_s=4, offline_s=4)
    assert f"{found['psnr'] - found['offline_psnr']:+.2f} dB of the recording" in told
    assert f"complete {found['since_last_plane_s']:.1f} s after the last plane" in told
