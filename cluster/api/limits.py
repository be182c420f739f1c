"""Nobody may send more than a bounded body, whether it says its length first or not; nor hold too many streams."""

from collections import Counter

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cluster.api.problems import problem, too_large
from cluster.errors import TooMany
from cluster.sentence import S


class Bounded:
    """ASGI middleware: a body over `most` bytes is answered with a problem document, as soon as that is known."""

    def __init__(self, app: ASGIApp, most: int, own: tuple[str, ...] = ()) -> None:
        self._app = app
        self._most = most
        self._own = own
        """Beginnings of paths below which other limits hold."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"].startswith(self._own or "\0"):
            await self._app(scope, receive, send)
            return
        seen = 0

        async def counted() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > self._most:
                raise HTTPException(413)
            return message

        if scope["type"] == "http" and _announced(scope) > self._most:
            await problem(too_large(self._most), 413)(scope, receive, send)
        else:
            await self._app(scope, counted, send)


class Streams:
    """How many event streams everybody has open: each holds a connection, and is looked after until it ends."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._open: Counter[str] = Counter()

    def of(self, user: str) -> int:
        return self._open.get(user, 0)

    def take(self, user: str) -> None:
        """Raises `TooMany`; else `give_back` has to follow."""
        if self.of(user) >= self._most:
            raise TooMany(S("You have {most} event streams open already; close one first.", most=self._most))
        self._open[user] += 1

    def give_back(self, user: str) -> None:
        self._open[user] -= 1
        if self._open[user] <= 0:
            del self._open[user]


def _announced(scope: Scope) -> int:
    """The Content-Length; 0 without one, or with one that is no number (the server has refused that already)."""
    found = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
    return int(found) if found.isdigit() else 0
