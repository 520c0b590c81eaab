"""How often a browser is told what is new: no more often than it draws that in a small share of its time.

A browser that draws with a graphics card takes milliseconds for it; one that draws with the processor, perhaps with the
one that planes are received with, takes a tenth of a second and more. So each is asked, whenever it was told something,
to say when it has drawn that. Where it is slow, because it has much to do or the machine has, it is told less often,
and a page that nobody sees least of all.
"""

from __future__ import annotations

import time

from nicegui import ui

LEAST = 1.0  # seconds from one telling to the next
MOST = 10.0
_SHARE = 0.04  # of its time that a browser may take to draw
# A hidden page draws nothing, so it answers when it is seen again.
_DRAWN = """new Promise(drawn => {
    const hidden = document.hidden;
    requestAnimationFrame(() => setTimeout(() => drawn(!hidden)));
})"""


def pause(drawing: float) -> float:
    """Return the seconds from one telling to the next.

    Parameters
    ----------
    drawing
        Seconds that the browser took for what it was told.
    """
    return min(max(drawing / _SHARE, LEAST), MOST)


async def drawing() -> float:
    """Wait until the browser has drawn what it was told; return the seconds that took it, 0 if nobody saw it."""
    begun = time.monotonic()
    try:
        seen = await ui.run_javascript(_DRAWN, timeout=MOST)
    except TimeoutError:  # hidden, gone, or very slow
        return MOST
    return time.monotonic() - begun if seen else 0.0
