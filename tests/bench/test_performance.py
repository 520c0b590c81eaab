from __future__ import annotations

from pathlib import Path

from otf_stream.bench.performance import write_section


def test_a_section_is_replaced_and_the_others_stay(tmp_path: Path) -> None:
    page = tmp_path / "docs" / "performance.md"
    write_section(page, "ingest", "## Ingest\n\nslow\n")
    write_section(page, "latency", "## Latency\n\nlong")
    write_section(page, "ingest", "## Ingest\n\nfast")
    text = page.read_text("utf-8")
    assert text.startswith("# Performance\n")
    assert text.index("## Ingest\n\nfast") < text.index("## Latency\n\nlong")
    assert "slow" not in text
    write_section(page, "latency", "## Latency\n\nlong")
    assert page.read_text("utf-8") == text
