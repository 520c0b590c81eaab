"""The HTTP interface: what the monitor sees, as JSON, slices and metrics, and what may be asked of the worker.

Thin on purpose: each route hands on what `Monitor` has. The dashboard is mounted on the same application and calls the
same methods. There is no page that describes the interface, since the usual ones load scripts from elsewhere; the
description itself is at ``/openapi.json``.
"""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal, cast

from fastapi import FastAPI, Path, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from otf_stream import __version__
from otf_stream.monitor.access import Guard
from otf_stream.monitor.metrics import CONTENT_TYPE, Metrics
from otf_stream.monitor.monitor import Asked, Monitor, Sample
from otf_stream.monitor.problems import ProblemError, answer_http, answer_invalid, answer_problem
from otf_stream.monitor.recent import Recent
from otf_stream.monitor.rows import Rows
from otf_stream.monitor.slices import LARGEST, Axis, ImageName, as_png, length_across, read_slice
from otf_stream.monitor.state import Session, SessionSummary, Status
from otf_stream.store.reports import report_path

MOST_SESSIONS = 200
"""Sessions in one answer, if not told otherwise."""
_AT_ONCE = 2  # slices; more would wait for the disk, and planes with them
_MOST_BYTES = 32 << 20  # of pictures that were drawn lately, and of what they were drawn from
_Handler = Callable[[Request, Exception], Awaitable[Response]]

_Id = Annotated[str, Path(description="Id of the session, as /api/v1/sessions lists it.", max_length=200)]
_T = Annotated[int, Path(ge=0, description="Time point.")]
_C = Annotated[int, Path(ge=0, description="Channel.")]


@dataclass(frozen=True)
class _Drawn:
    """A picture, and the headers of the answer that it is."""

    png: bytes
    headers: dict[str, str]


def create_app(monitor: Monitor) -> FastAPI:
    """Return the application of a monitor; it is also ``app.state.monitor``.

    Parameters
    ----------
    monitor
        What it shows.
    """
    app = FastAPI(
        title="otf_stream monitor",
        version=__version__,
        summary="What a service sees, restores and is short of; docs/monitoring.md explains it.",
        docs_url=None,
        redoc_url=None,
        separate_input_output_schemas=False,
    )
    app.state.monitor = monitor
    handlers: dict[type[Exception], _Handler] = {
        ProblemError: answer_problem,
        RequestValidationError: answer_invalid,
        HTTPException: answer_http,
    }
    for error, handler in handlers.items():
        app.add_exception_handler(error, cast("Any", handler))
    app.add_middleware(Guard, access=monitor.access)
    _watching(app, monitor)
    _seeing(app, monitor)
    _slicing(app, monitor)
    _asking(app, monitor)
    return app


def _watching(app: FastAPI, monitor: Monitor) -> None:
    metrics = Metrics(monitor)

    @app.get("/healthz", tags=["health"])
    def health() -> dict[str, str]:
        """Whether the monitor's process lives; the only path that asks for no token."""
        return {"status": "ok"}

    @app.get("/readyz", tags=["health"], responses={503: {"description": "Not ready, and why."}})
    def ready() -> JSONResponse:
        """Whether planes are taken and restored: listener and worker are at work, and the disk has room."""
        seen = monitor.latest
        listener, worker = seen.listener, seen.worker
        checks = {
            "listener": bool(listener and listener.current),
            "worker": bool(worker and worker.current),
            "disk": bool(listener and listener.current and not listener.holding),
        }
        ok = all(checks.values())
        return JSONResponse({"status": "ready" if ok else "not ready", "checks": checks}, 200 if ok else 503)

    @app.get("/metrics", tags=["health"], response_class=Response)
    def metrics_text() -> Response:
        """Metrics in Prometheus' text format."""
        return Response(metrics.text(), media_type=CONTENT_TYPE)


def _seeing(app: FastAPI, monitor: Monitor) -> None:
    @app.get("/api/v1/status", tags=["state"])
    def status() -> Status:
        """The service at a glance: its processes, totals, alarms, and the latest 200 sessions."""
        return monitor.latest.status(MOST_SESSIONS)

    @app.get("/api/v1/history", tags=["state"])
    def history() -> list[Sample]:
        """What flowed in each second of the last quarter of an hour, the oldest first."""
        return monitor.history

    @app.get("/api/v1/sessions", tags=["state"])
    def sessions(
        limit: Annotated[int, Query(ge=1, le=1000, description="Sessions in the answer.")] = MOST_SESSIONS,
        before: Annotated[int, Query(ge=0, description="How many of the latest to leave out.")] = 0,
    ) -> list[SessionSummary]:
        """Sessions, the latest last."""
        every = monitor.latest.sessions
        stop = max(len(every) - before, 0)
        return [session.summary() for session in every[max(stop - limit, 0) : stop]]

    @app.get("/api/v1/sessions/{session}", tags=["state"])
    def one_session(session: _Id) -> Session:
        """One session with its stacks, gaps and latest events."""
        return monitor.session(session)


def _slicing(app: FastAPI, monitor: Monitor) -> None:
    reading = threading.BoundedSemaphore(_AT_ONCE)
    drawn: Recent[_Drawn] = Recent(_MOST_BYTES)
    rows: Recent[Rows] = Recent(_MOST_BYTES)

    @app.get(
        "/api/v1/sessions/{session}/slices",
        tags=["images"],
        response_class=Response,
        responses={200: {"content": {"image/png": {}, "application/octet-stream": {}}}},
    )
    def slices(
        session: _Id,
        image: Annotated[ImageName, Query(description="Which image.")] = "raw",
        t: Annotated[int, Query(ge=0, description="Time point.")] = 0,
        c: Annotated[int, Query(ge=0, description="Channel.")] = 0,
        axis: Annotated[Axis, Query(description="How the slice lies; rows of xz and yz run along z.")] = "xy",
        at: Annotated[int | None, Query(ge=0, description="Where, on the image's finest grid; the middle.")] = None,
        size: Annotated[int, Query(ge=16, le=LARGEST, description="The longest side, in pixels.")] = 512,
        low: Annotated[float | None, Query(description="What is black in a PNG.", allow_inf_nan=False)] = None,
        high: Annotated[float | None, Query(description="What is white in a PNG.", allow_inf_nan=False)] = None,
        format: Annotated[
            Literal["png", "raw"], Query(description="8-bit grey, or the numbers, little-endian in C order.")
        ] = "png",
        v: Annotated[
            str | None,
            Query(max_length=64, description="Of a PNG: one drawn lately will do if asked for with the same."),
        ] = None,
    ) -> Response:
        """A slice of an image, at the level of the pyramid that fits the size; headers X-… tell where and how large."""
        found = monitor.session(session)
        acquisition, sizes = found.acquisition, found.acquisition.sizes
        length = length_across(acquisition, image, axis)
        for name, value, most in (("t", t, sizes.t), ("c", c, sizes.c), ("at", 0 if at is None else at, length)):
            if value >= most:
                raise ProblemError(
                    404,
                    "there is no such slice",
                    f"{name}={value} lies outside the {image} image of {found.name}",
                    value=value,
                    limit=f"{name} from 0 to {most - 1}",
                    remedy=f"GET /api/v1/sessions/{session} has the sizes",
                )
        place = length // 2 if at is None else at
        key = (session, image, t, c, axis, place, size, low, high, v)
        try:
            with reading:
                if v is not None and format == "png" and (known := drawn.get(key)):
                    return Response(known.png, media_type="image/png", headers=known.headers)
                read = read_slice(found.store, acquisition, image, (t, c), axis, place, size, rows)
        except OSError as error:
            raise ProblemError(
                404,
                f"there is no {image} image",
                f"the {image} image of {found.name} cannot be read: {error.strerror or 'it is not there yet'}",
                value=image,
                limit="images that are there",
                remedy="the restored image appears with the first preview; until then ask for image=raw",
            ) from error
        state = next((stack.state for stack in found.stacks if (stack.t, stack.c) == (t, c)), "arriving")
        headers = {
            "X-At": str(read.at),
            "X-Length": str(read.length),
            "X-Level": str(read.level),
            "X-Shape": ",".join(map(str, read.pixels.shape)),
            "X-Dtype": read.pixels.dtype.newbyteorder("=").name,
            "X-Pixel-Um": ",".join(f"{um:.6g}" for um in read.pixel_um),
            "X-Stack-State": state,
        }
        if format == "raw":
            return Response(read.pixels.tobytes(), media_type="application/octet-stream", headers=headers)
        png, black, white = as_png(read.pixels, low, high)
        headers |= {"X-Window": f"{black:.6g},{white:.6g}"}
        if v is not None:
            drawn.keep(key, _Drawn(png, headers), len(png))
        return Response(png, media_type="image/png", headers=headers)

    @app.get(
        "/api/v1/sessions/{session}/stacks/{t}/{c}/report",
        tags=["images"],
        response_class=Response,
        responses={200: {"content": {"text/html": {}}}},
    )
    def report(session: _Id, t: _T, c: _C) -> Response:
        """The report of a stack: one page, which needs nothing else."""
        found = monitor.session(session)
        try:
            page = report_path(found.store, (t, c)).read_bytes()
        except OSError as error:
            raise ProblemError(
                404,
                "there is no report",
                f"stack t={t}, c={c} of {found.name} has no report",
                value=f"t={t}, c={c}",
                limit="stacks of which a report was made",
                remedy="wait until the stack is restored, or make one with `otf-stream report`",
            ) from error
        return Response(page, media_type="text/html; charset=utf-8")


def _asking(app: FastAPI, monitor: Monitor) -> None:
    accepted: dict[str, Any] = {"status_code": 202, "tags": ["controls"]}

    @app.post("/api/v1/sessions/{session}/stacks/{t}/{c}/cancel", **accepted)
    def cancel(session: _Id, t: _T, c: _C) -> Asked:
        """No more work on a stack: it counts as failed, and its preview stays."""
        return monitor.ask("cancel", session, (t, c))

    @app.post("/api/v1/sessions/{session}/stacks/{t}/{c}/finish", **accepted)
    def finish(session: _Id, t: _T, c: _C) -> Asked:
        """Learn no more of a stack, and restore it from the planes that are there."""
        return monitor.ask("finish", session, (t, c))

    @app.post("/api/v1/sessions/{session}/pause", **accepted)
    def pause(session: _Id) -> Asked:
        """Let learning of the session's stacks wait; restoring goes on, and deadlines stand."""
        return monitor.ask("pause", session)

    @app.post("/api/v1/sessions/{session}/resume", **accepted)
    def resume(session: _Id) -> Asked:
        """Let learning of the session's stacks go on."""
        return monitor.ask("resume", session)

    @app.post("/api/v1/pause", **accepted)
    def pause_all() -> list[Asked]:
        """Let learning of all sessions wait that are there and not done; later ones are not concerned."""
        return monitor.ask_all("pause")

    @app.post("/api/v1/resume", **accepted)
    def resume_all() -> list[Asked]:
        """Let learning of all sessions go on."""
        return monitor.ask_all("resume")
