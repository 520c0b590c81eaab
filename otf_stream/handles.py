"""How many files a process may have open: as many as the system lets it.

Each open session takes some five, each connection one, and the usual limit of 1024, or 256 on macOS, is soon reached. A
program only has to ask for more: it is so low for the sake of ancient ones.
"""

from __future__ import annotations

import sys


def allow_many_files() -> None:
    """Let this process open as many files as the system lets it."""
    if sys.platform != "win32":
        import resource

        soft, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
        except (ValueError, OSError):  # macOS says that there is no limit, and has one
            resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(most, 10240)), most))
