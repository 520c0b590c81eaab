"""What the HTTP interface answers when something cannot be done: problem JSON (RFC 9457).

Every problem names the value that was given, the limit that it broke, and what to do instead.
"""

from __future__ import annotations

from typing import Any, cast

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

MEDIA_TYPE = "application/problem+json"
_LONGEST = 200  # characters of a value that is repeated


class ProblemError(Exception):
    """Something that was asked for and cannot be done.

    Parameters
    ----------
    status
        Of the answer.
    title
        What kind of problem it is.
    detail
        What is wrong.
    value
        What was given.
    limit
        What may be given.
    remedy
        What to do.
    """

    def __init__(self, status: int, title: str, detail: str, *, value: object, limit: str, remedy: str) -> None:
        super().__init__(detail)
        self.status = status
        self.body = problem(status, title, detail, value=value, limit=limit, remedy=remedy)


def problem(status: int, title: str, detail: str, *, value: object, limit: str, remedy: str) -> dict[str, Any]:
    """Return the body of an answer."""
    told = value if value is None or isinstance(value, bool | int | float) else str(value)[:_LONGEST]
    about = {"value": told, "limit": limit, "remedy": remedy}
    return {"type": "about:blank", "title": title, "status": status, "detail": detail, **about}


async def answer_problem(request: Request, error: Exception) -> JSONResponse:
    """Answer with a problem that was found."""
    found = cast("ProblemError", error)
    return JSONResponse(found.body, found.status, media_type=MEDIA_TYPE)


async def answer_invalid(request: Request, error: Exception) -> JSONResponse:
    """Answer a request whose parameters cannot be used."""
    first = cast("RequestValidationError", error).errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    body = problem(
        422,
        "a parameter cannot be used",
        f"{where}: {first['msg']}",
        value=first.get("input"),
        limit=str(first["msg"]),
        remedy="GET /openapi.json describes every parameter",
    )
    return JSONResponse(body, 422, media_type=MEDIA_TYPE)


async def answer_http(request: Request, error: Exception) -> JSONResponse:
    """Answer what there is no route for."""
    found = cast("HTTPException", error)
    body = problem(
        found.status_code,
        str(found.detail),
        f"{request.method} {request.url.path}: {found.detail}",
        value=request.url.path,
        limit="the paths in /openapi.json",
        remedy="GET /openapi.json lists what there is",
    )
    return JSONResponse(body, found.status_code, headers=found.headers, media_type=MEDIA_TYPE)
