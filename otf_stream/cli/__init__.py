"""The command line: what the installed script calls. The commands are put together in `otf_stream.cli.commands`.

Nothing is imported before it is called: each process that a command starts imports anew what the script imports.
"""

from __future__ import annotations


def main() -> None:
    """Run the command line; every foreseen error ends in one clear line and exit code 1."""
    from otf_stream.cli.commands import run

    run()
