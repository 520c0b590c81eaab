"""The page on performance: a section for each benchmark, each written by its own command.

Sections are replaced one at a time, since some take minutes and others need a graphics card. The page itself is where
they are kept.
"""

from __future__ import annotations

from pathlib import Path

PAGE = Path("docs/performance.md")

_TITLES = ("Ingest", "Dashboard", "Latency", "Deep stacks", "Deadlines", "Restoring", "GPU")
_HEAD = """# Performance

Every section is written by the command that it names, with the ceiling of the same machine in the same run where there
is one. Shared and virtual machines are noisy: ratios are worth more than rates.
"""


def write_section(page: Path, title: str, body: str) -> None:
    """Write a section of the page, in place of what it said before.

    Parameters
    ----------
    page
        Of the documentation; created where it is missing.
    title
        Of the section: one of those that the page has.
    body
        Markdown without the heading.

    Raises
    ------
    ValueError
        If the page has no such section.
    """
    if title not in _TITLES:
        raise ValueError(f"the page on performance has no section {title!r}; it has {', '.join(_TITLES)}")
    sections = read_sections(page) | {title: body.strip()}
    page.parent.mkdir(parents=True, exist_ok=True)
    written = [f"\n## {title}\n\n{sections[title]}\n" for title in _TITLES if title in sections]
    page.write_text(_HEAD + "".join(written), encoding="utf-8")


def read_sections(page: Path) -> dict[str, str]:
    """Read the sections of the page by their titles; none where there is no page."""
    text = page.read_text("utf-8") if page.exists() else ""
    parts = (part.partition("\n") for part in ("\n" + text).split("\n## ")[1:])
    return {title.strip(): body.strip() for title, _, body in parts}
