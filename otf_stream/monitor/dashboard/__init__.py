"""The dashboard: a page that answers whether every plane arrives, whether the volume will be in time, and is any good.

NiceGUI, with its ECharts, is mounted on the application of the HTTP interface, so that its pages, scripts and web
sockets are guarded as everything else is. It brings all that a browser needs, and asks nobody else for anything.
"""

from __future__ import annotations

from fastapi import FastAPI
from nicegui import ui
from starlette.exceptions import HTTPException

from otf_stream.monitor.dashboard.board import Board
from otf_stream.monitor.dashboard.choice import Choice
from otf_stream.monitor.dashboard.page import Page
from otf_stream.monitor.monitor import Monitor

_RECONNECT = 10.0  # seconds for which a page that lost its connection keeps its place
_PICTURE = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32"><rect width="32" height="32" rx="6" fill="#12344d"/>'
    '<g fill="none" stroke="#6cc4ff" stroke-width="3"><path d="M6 9h20M6 16h20M6 23h20"/></g></svg>'
)


def mount(app: FastAPI, monitor: Monitor) -> None:
    """Mount the dashboard at the root of an application; once in a process.

    Parameters
    ----------
    app
        Of the HTTP interface; what it has no route for is asked of the dashboard.
    monitor
        What is shown.
    """
    board = Board(monitor)

    @app.get("/api/{path:path}", include_in_schema=False)
    def unknown(path: str) -> None:
        """Answer as the interface does; the dashboard would answer with a page."""
        raise HTTPException(404, "Not Found")

    @ui.page("/", title="otf_stream", response_timeout=10.0)
    def index(session: str | None = None, t: int | None = None, c: int | None = None, theme: str = "auto") -> None:
        """Build the page of one browser."""
        stack = None if session is None or t is None or c is None else (t, c)
        Page(board, Choice(session, stack), theme)

    ui.run_with(
        app,
        title="otf_stream",
        favicon=_PICTURE,
        dark=None,
        language="en-GB",
        binding_refresh_interval=None,
        reconnect_timeout=_RECONNECT,
        tailwind=False,
        show_welcome_message=False,
    )
