"""The page of how fast things are: one section a benchmark, each written by its own command.

The sections are told apart by comments that no reader of the page sees, so that a command replaces its section and
leaves the others as they are.
"""

from __future__ import annotations

import re
from pathlib import Path

_TITLE = "# Performance\n\nEach section is written by the command that it names; figures are of the machine it names.\n"
_SECTION = re.compile(r"<!-- (?P<name>[a-z-]+) -->\n.*?<!-- end of (?P=name) -->\n", re.DOTALL)


def write_section(page: Path, name: str, text: str) -> None:
    """Put a section on the page, in place of the one of that name, or after the others.

    Parameters
    ----------
    page
        Created if it is missing.
    name
        Of the section, lower-case letters and hyphens; not shown.
    text
        Markdown, beginning with a heading of the second level.
    """
    page.parent.mkdir(parents=True, exist_ok=True)
    before = page.read_text("utf-8") if page.exists() else ""
    sections = {match["name"]: match[0] for match in _SECTION.finditer(before)}
    sections[name] = f"<!-- {name} -->\n{text.strip()}\n<!-- end of {name} -->\n"
    page.write_text("\n".join([_TITLE, *sections.values()]), encoding="utf-8")
