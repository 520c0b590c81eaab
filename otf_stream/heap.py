"""What a process does with memory that it has freed: keep it, or give it back to the system.

Left alone, the C library does neither well: large tensors get fresh pages each time, which the system clears one by
one, and small things that many threads freed stay where they are until a page is empty by chance.
"""

from __future__ import annotations

import ctypes

_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8  # of malloc.h


def keep_memory() -> bool:
    """Let the process keep the memory of freed tensors, rather than return it and ask for it again.

    The C library gives every large tensor fresh pages, which the system clears one by one: half the time of a network
    on a large plane. What is kept is never more than was in use at once; for that, threads share it.

    Returns
    -------
    bool
        Whether the C library can be told so; glibc can.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # macOS; musl; Windows
        return False
    return bool(mallopt(_MMAP_MAX, 0) and mallopt(_TRIM_THRESHOLD, 2**31 - 1) and mallopt(_ARENA_MAX, 1))


def release_memory() -> bool:
    """Return to the system what is kept of freed memory; it takes up to a second to get a gigabyte of it again.

    Returns
    -------
    bool
        Whether the C library can be told so; glibc can.
    """
    try:
        return bool(ctypes.CDLL(None).malloc_trim(0))
    except (AttributeError, OSError, TypeError):
        return False
