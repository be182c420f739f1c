"""Who may come in: one ASGI layer before every route, so that no route can forget it.

In order: Host (against DNS rebinding), Origin on everything that changes something (against other pages), the ticket
of the printed link, the cookie. Every answer, the refusals too, leaves with the security headers.
"""

import secrets
from collections.abc import Callable
from http.cookies import CookieError, SimpleCookie
from urllib.parse import urlsplit

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cluster.sentence import S, Sentence
from helmsman.web.problems import problem, reader
from tools.words import say

LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
BODY_LIMIT = 1_000_000
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
SECURITY_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class Key:
    """The one-time ticket of the printed link, and the secret of the cookie that it is exchanged for.

    A link stays behind in histories and on screens; once used it opens nothing. `on_used` gets the next ticket.
    """

    def __init__(self, on_used: Callable[[str], None] | None = None) -> None:
        self.ticket = secrets.token_urlsafe(32)
        self.secret = secrets.token_urlsafe(32)
        self._on_used = on_used

    def redeem(self, offered: str) -> bool:
        """True once for each ticket; the next one is drawn at once."""
        if not _same(offered, self.ticket):
            return False
        self.ticket = secrets.token_urlsafe(32)
        if self._on_used is not None:
            self._on_used(self.ticket)
        return True

    def admits(self, cookie: str | None) -> bool:
        """Whether the cookie holds the secret, compared in constant time."""
        return cookie is not None and _same(cookie, self.secret)


class Gate:
    """Lets a request through to `app`, or answers it with a problem."""

    def __init__(self, app: ASGIApp, key: Key) -> None:
        self.app = app
        self.key = key

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return
        answer = self._answer(Request(scope)) or self.app
        await answer(scope, receive, _with_security_headers(send))

    def _answer(self, request: Request) -> Response | None:
        """The refusal or redirect for this request; None lets it through."""
        refusal = _misplaced(request)
        if refusal is not None:
            return problem(403, "not_allowed", refusal, request)
        known = self.key.admits(_cookie(request))
        ticket = request.query_params.get("ticket")
        if request.url.path == "/" and ticket is not None and (known or self.key.redeem(ticket)):
            return self._welcome(request)
        if not known:
            return _locked(request)
        if int(request.headers.get("content-length") or 0) > BODY_LIMIT:
            return problem(413, "too_large", _TOO_LARGE, request)
        return None

    def _welcome(self, request: Request) -> Response:
        """Exchange the ticket for the cookie and take it out of the address line."""
        response = RedirectResponse("/", status_code=303)
        response.set_cookie(_cookie_name(request), self.key.secret, httponly=True, samesite="strict", path="/")
        return response


_NO_COOKIE = S("This page opens only from the link that `helmsman web` prints; a link works once. Copy the latest one.")
_TOO_LARGE = S("This is more than {limit} bytes at once. Send it in smaller pieces.", limit=BODY_LIMIT)


def _locked(request: Request) -> Response:
    """A person who opened the bare address reads a sentence; a program reads a problem."""
    if request.url.path == "/":
        return PlainTextResponse(say(_NO_COOKIE, reader(request)), 401)
    return problem(401, "not_authenticated", _NO_COOKIE, request)


def _misplaced(request: Request) -> Sentence | None:
    """Why this request does not come from our own page on this machine, or None."""
    host = request.headers.get("host", "")
    if _hostname(host) not in LOOPBACK:
        return S("Helmsman answers on this machine only, not as {host}. Open it as http://127.0.0.1.", host=host or "?")
    if request.method in SAFE_METHODS:
        return None
    origin = request.headers.get("origin", "")
    if origin != f"http://{host}":
        return S("A page at {origin} may not give orders here. Use the page that `helmsman web` serves.", origin=origin)
    return None


def _hostname(host: str) -> str | None:
    try:
        return urlsplit(f"//{host}").hostname
    except ValueError:
        return None


def _cookie_name(request: Request) -> str:
    """Cookies do not tell ports apart: two servers on one machine need two names."""
    return f"helmsman-{request.url.port or 80}"


def _cookie(request: Request) -> str | None:
    try:
        morsel = SimpleCookie(request.headers.get("cookie", "")).get(_cookie_name(request))
    except CookieError:
        return None
    return morsel.value if morsel else None


def _same(one: str, other: str) -> bool:
    return secrets.compare_digest(one.encode(), other.encode())


def _with_security_headers(send: Send) -> Send:
    async def sealed(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in SECURITY_HEADERS.items():
                headers.setdefault(name, value)
        await send(message)

    return sealed
