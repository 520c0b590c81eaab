"""The page on performance: sections come and are replaced, each by itself."""

import pytest

from otf_stream.bench.performance import read_sections, write_section


def test_sections_are_replaced_one_at_a_time_and_keep_their_order(tmp_path):
    page = tmp_path / "docs" / "performance.md"
    write_section(page, "Latency", "| a |\n\n### Not a section\n\ntext")
    write_section(page, "Ingest", "fast")
    write_section(page, "Latency", "other\n")
    assert read_sections(page) == {"Ingest": "fast", "Latency": "other"}
    text = page.read_text("utf-8")
    assert text.startswith("# Performance\n")
    assert text.index("## Ingest") < text.index("## Latency")
    assert "Not a section" not in text


def test_an_unknown_section_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no section 'Speed'"):
        write_section(tmp_path / "page.md", "Speed", "fast")
