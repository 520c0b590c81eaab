"""Who may ask the monitor, and what browsers may do with its pages.

On an address of this machine only, the Host header must name this machine: a page from elsewhere whose name was made to
lead here (DNS rebinding) does not. Elsewhere a token is asked for, as a header, or once in the address, which leaves a
cookie. What changes something, and every web socket, must come from the monitor's own pages, if from a page. There
is no CORS, so no other page reads an answer. Refusals are counted.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from otf_stream.monitor.problems import MEDIA_TYPE, problem
from otf_stream.monitor.token import cookie_of, is_same

COOKIE = "otf_stream_monitor"
_LOOPBACK = frozenset(("localhost", "127.0.0.1", "::1"))
_SAFE = frozenset(("GET", "HEAD", "OPTIONS"))
_OPEN = frozenset(("/healthz",))
# NiceGUI's pages run scripts of their own and compile templates; nothing comes from anywhere else.
_POLICY = "; ".join(
    (
        "default-src 'self'",
        "script-src 'self' 'unsafe-inline' 'unsafe-eval'",
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data: blob:",
        "font-src 'self' data:",
        "connect-src 'self'",
        "object-src 'none'",
        "base-uri 'self'",
        "form-action 'self'",
        "frame-ancestors 'none'",
    )
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


@dataclass
class Access:
    """Who may ask.

    Parameters
    ----------
    token
        That is asked for; none if None.
    loopback
        Whether the address can be reached from this machine only.
    refused
        How many requests were refused, by reason: ``host``, ``origin`` or ``token``.
    """

    token: str | None = None
    loopback: bool = True
    refused: Counter[str] = field(default_factory=Counter)


class Guard:
    """ASGI middleware that refuses who may not ask.

    Parameters
    ----------
    app
        What is guarded: pages, interface and web sockets.
    access
        Who may ask.
    """

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app = app
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        if reason := self._refusal(scope, headers):
            self._access.refused[reason] += 1
            await _refuse(scope, receive, send, reason)
            return
        if (leaves := self._entry(scope)) is not None:
            await self._let_in(send, leaves)
            return

        async def secured(message: Message) -> None:
            if message["type"] == "http.response.start":
                told = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    told.setdefault(name, value)
                told.setdefault("Cache-Control", "no-store")
            await send(message)

        await self._app(scope, receive, secured)

    def _refusal(self, scope: Scope, headers: Headers) -> str | None:
        """Return why a request is refused; None if it is not."""
        host = headers.get("host", "")
        if self._access.loopback and _name(host) not in _LOOPBACK:
            return "host"
        changes = scope["type"] == "websocket" or scope["method"] not in _SAFE
        origin = headers.get("origin")
        if changes and origin is not None and urlsplit(origin).netloc.lower() != host.lower():
            return "origin"
        token = self._access.token
        if token is None or scope["path"] in _OPEN or self._is_known(scope, headers, token):
            return None
        return "token"

    def _is_known(self, scope: Scope, headers: Headers, token: str) -> bool:
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            return is_same(given.strip(), token)
        try:
            cookies = SimpleCookie(headers.get("cookie", ""))
        except CookieError:
            cookies = SimpleCookie()
        if COOKIE in cookies and is_same(cookies[COOKIE].value, cookie_of(token)):
            return True
        given = dict(parse_qsl(scope["query_string"].decode("latin-1"))).get("token", "")
        return scope["type"] == "http" and scope["method"] == "GET" and is_same(given, token)

    def _entry(self, scope: Scope) -> str | None:
        """Where to go on to, without the token, if a browser brings it in the address."""
        if self._access.token is None or scope["type"] != "http" or scope["method"] != "GET":
            return None
        query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        rest = [(name, value) for name, value in query if name != "token"]
        if len(rest) == len(query):
            return None
        path = "/" + quote(str(scope["path"]).lstrip("/\\"))  # "//elsewhere" would lead there, and "/<tab>/elsewhere"
        return path + (f"?{urlencode(rest)}" if rest else "")

    async def _let_in(self, send: Send, leads_to: str) -> None:
        cookie = f"{COOKIE}={cookie_of(self._access.token or '')}; Path=/; HttpOnly; SameSite=Lax; Max-Age=2592000"
        headers = [
            (b"location", leads_to.encode("latin-1", "replace")),
            (b"set-cookie", cookie.encode()),
            (b"referrer-policy", b"no-referrer"),
            (b"cache-control", b"no-store"),
            (b"content-length", b"0"),
        ]
        await send({"type": "http.response.start", "status": 303, "headers": headers})
        await send({"type": "http.response.body", "body": b""})


async def _refuse(scope: Scope, receive: Receive, send: Send, reason: str) -> None:
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.close", "code": 1008})
        return
    status, body = _ANSWERS[reason]
    headers = [(b"content-type", MEDIA_TYPE.encode()), (b"x-content-type-options", b"nosniff")]
    if status == 401:
        headers.append((b"www-authenticate", b'Bearer realm="otf_stream monitor"'))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps(body).encode()})


_ANSWERS = {
    "host": (
        403,
        problem(
            403,
            "the Host header names another machine",
            "this monitor can be reached from its own machine only, under its own name",
            value=None,
            limit="localhost, 127.0.0.1 or [::1]",
            remedy="open http://127.0.0.1:PORT, or have the monitor listen elsewhere with --monitor HOST:PORT",
        ),
    ),
    "origin": (
        403,
        problem(
            403,
            "the request comes from a page of another origin",
            "only the monitor's own pages may change something",
            value=None,
            limit="the monitor's own address",
            remedy="use the monitor's page, or a program that sends no Origin header",
        ),
    ),
    "token": (
        401,
        problem(
            401,
            "the token is missing or wrong",
            "this monitor can be reached from other machines, and asks for its token",
            value=None,
            limit="the token in the file monitor_token_file",
            remedy="`otf-stream keys token` prints it; send Authorization: Bearer TOKEN, or open /?token=TOKEN once",
        ),
    ),
}


def _name(host: str) -> str:
    """Return the name in a Host header, without its port."""
    try:
        return (urlsplit(f"//{host}").hostname or "").rstrip(".")
    except ValueError:
        return ""
