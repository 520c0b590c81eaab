from __future__ import annotations

from otf_stream.bench.acquisitions import page


def left(handles: int, megabytes: float) -> dict[str, int]:
    return {"handles": handles, "threads": 8, "sockets": 0, "rss": int(megabytes * 1e6)}


def test_the_page_counts_from_the_tenth_on() -> None:
    series = [
        {"acknowledged": 8, "intact": n != 3, "microscope": left(n, 100 + n), "listener": left(1, 50)}
        for n in range(1, 21)
    ]
    series[4]["acknowledged"] = 6
    said = page({"some": series, "alone": [{"microscope": left(3, 10)}] * 20}, 8, "command", "machine")
    assert "Planes lost: 2. Acquisitions with an altered plane: 1." in said
    assert "| microscope | 10 → 20 | 8 → 8 | 0 → 0 | 110 → 120 MB (+9.1%), at most +9.1% |" in said
    assert "| microscope | 3 → 3 | 8 → 8 | 0 → 0 | 10 → 10 MB (+0.0%), at most +0.0% |" in said
    assert "worker" not in said
