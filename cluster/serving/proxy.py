"""The way of a request to a replica, and of its answer back: `/serve/{endpoint}/{path}`.

All that it knows of the cluster is in `Routes`, so that it can become a process of its own. Bodies are streamed both
ways; of each at most a few chunks are in memory.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Collection, Iterable, Iterator
from dataclasses import dataclass
from time import monotonic
from urllib.parse import quote

import httpx
import structlog
from starlette.types import Receive, Scope, Send

from cluster import access
from cluster.errors import ClusterError, Invalid, NotFound, Unavailable
from cluster.models import User
from cluster.sentence import S
from cluster.serving.routes import Backend, Routes

MOST_BODY = 256 * 2**20
"""Bytes of a request's body."""
PATIENCE = 30.0
"""Seconds that a request waits for a replica that is coming."""
MOST_WAITING = 1000
"""So many requests may wait for an endpoint."""
RETRY_AFTER = 5
"""Seconds after which one may ask again."""
CONNECT, BETWEEN = 3.0, 600.0
"""Seconds for a connection; between two pieces of an answer, also before the first."""
KEPT = 1.5
"""Seconds that an idle connection is used again; shorter than servers keep theirs, or they would close it on us."""
AHEAD = 2
"""Pieces of a body that are read before they are sent on."""

HOP_BY_HOP = frozenset({b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-authorization",
                        b"proxy-connection", b"te", b"trailer", b"transfer-encoding", b"upgrade"})  # fmt: skip
OURS = frozenset({b"host", b"authorization", b"cookie", b"forwarded", b"x-real-ip", b"expect", b"origin", b"referer"})
"""Of a request: what is between the caller and us."""
OURS_STARTING = (b"x-helmsman-", b"x-forwarded-")
REPLACED = frozenset({b"set-cookie", b"server", b"date", b"content-security-policy", b"x-content-type-options",
                      b"strict-transport-security", b"clear-site-data", b"service-worker-allowed",
                      b"alt-svc"})  # fmt: skip
"""Of an answer: what would speak for our address."""
INERT = [(b"content-security-policy", b"sandbox"), (b"x-content-type-options", b"nosniff")]
"""A page that a replica sends must not act in our name."""

log = structlog.get_logger(__name__)
Headers = Iterable[tuple[bytes, bytes]]


class Busy(Unavailable):
    """No replica takes the request now; it may be sent again after `RETRY_AFTER`."""


class TooLarge(Invalid):
    """The request's body is over `MOST_BODY`."""

    status = 413


class Broken(Unavailable):
    """The replica broke off before it answered; what it has done of it, nobody knows."""

    status = 502


@dataclass(frozen=True, slots=True)
class Ask:
    """A request for a replica."""

    method: str
    target: bytes
    """Path and query, as they were written."""
    headers: list[tuple[bytes, bytes]]
    has_body: bool


class Body:
    """A request's body: read ahead a little, so that it is noticed when the caller goes away."""

    def __init__(self, receive: Receive, most: int) -> None:
        self._receive = receive
        self._most = most
        self._pieces: asyncio.Queue[bytes | None] = asyncio.Queue(AHEAD)
        self._too_large = False
        self.begun = False
        """Something of it was handed on."""

    async def pump(self) -> None:
        """Read it; returns when the caller is gone."""
        seen = 0
        while (message := await self._receive())["type"] == "http.request":
            piece = message.get("body", b"")
            seen += len(piece)
            if seen > self._most:
                self._too_large, message = True, {}
            elif piece:
                await self._pieces.put(piece)
            if not message.get("more_body", False):
                await self._pieces.put(None)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while (piece := await self._pieces.get()) is not None:
            self.begun = True
            yield piece
        if self._too_large:
            raise TooLarge(S("The request is larger than {most} bytes.", most=self._most))


class Proxy:
    """Answers requests for endpoints in the name of their replicas."""

    def __init__(self, routes: Routes) -> None:
        self._routes = routes
        self._http: httpx.AsyncClient | None = None

    async def close(self) -> None:
        if self._http is not None:
            await self._http.aclose()

    async def answer(self, user: User, name: str, rest: bytes, scope: Scope, receive: Receive, send: Send) -> None:
        """`rest`: the path below the endpoint. Raises `NotFound`, and `Busy`, `TooLarge` or `Broken` before an answer
        has begun."""
        self._seen_by(user, name)
        ask = _ask(user, name, rest, scope)
        body = Body(receive, MOST_BODY)
        work = asyncio.create_task(self._measured(name, ask, body, send))
        gone = asyncio.create_task(body.pump())
        try:
            await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                work.result()
        finally:
            for task in (work, gone):
                task.cancel()
            await asyncio.gather(work, gone, return_exceptions=True)

    def _seen_by(self, user: User, name: str) -> None:
        """As reading it: what one may not see is not there."""
        if name not in self._routes or not self._may(user, name):
            raise NotFound(S("There is no endpoint {name}, or it is being deleted.", name=name))

    def _may(self, user: User, name: str) -> bool:
        route = self._routes[name]
        return access.sees(user, route.owner, route.project)

    # ── to a replica ─────────────────────────────────────────────────────────────────────────────

    async def _measured(self, name: str, ask: Ask, body: Body, send: Send) -> None:
        measures, began = self._routes.measures, monotonic()
        meter = measures.meter(name, began)
        token, status = meter.begin(began), None
        try:
            status = await self._answer(name, ask, body, send)
        except ClusterError as e:
            status = e.status
            raise
        finally:
            now = monotonic()
            meter.end(token, now, status is not None and status < 500)
            measures.answered(name, status, now - began)

    async def _answer(self, name: str, ask: Ask, body: Body, send: Send) -> int:
        """From the first replica that takes the connection; nothing is ever sent twice. The answer's status."""
        tried: list[Backend] = []
        until = monotonic() + PATIENCE
        while True:
            backend = await self._next(name, tried, until)
            with self._routes.using(backend):
                try:
                    reply = await self._send(backend, ask, body)
                except (httpx.ConnectError, httpx.ConnectTimeout) as e:
                    if body.begun:
                        raise Broken(S("The replica broke off before it answered.")) from e
                    self._routes.doubt(backend)
                    tried.append(backend)
                    continue
                async with contextlib.aclosing(reply):
                    await _relay(name, reply, send)
                return reply.status_code

    async def _next(self, name: str, tried: Collection[Backend], until: float) -> Backend:
        """A replica; waits for one if some are coming. Raises `Busy`."""
        while name in self._routes:
            if (backend := self._routes.choose(name, tried)) is not None:
                return backend
            route = self._routes[name]
            if not (route.coming or tried) or monotonic() >= until:
                raise Busy(route.why)
            with self._waiting(name), contextlib.suppress(TimeoutError):
                await self._routes.news(until - monotonic())
            tried = ()
        raise NotFound(S("There is no endpoint {name}, or it is being deleted.", name=name))

    @contextlib.contextmanager
    def _waiting(self, name: str) -> Iterator[None]:
        waiting = self._routes.waiting
        if waiting.get(name, 0) >= MOST_WAITING:
            raise Busy(S("{count} requests wait for {name} already.", count=MOST_WAITING, name=name))
        waiting[name] = waiting.get(name, 0) + 1
        meter = self._routes.measures.meter(name, monotonic())
        meter.queued(+1)
        try:
            yield
        finally:
            meter.queued(-1)
            waiting[name] -= 1
            if not waiting[name]:
                del waiting[name]

    async def _send(self, backend: Backend, ask: Ask, body: Body) -> httpx.Response:
        url = httpx.URL(scheme="http", host=backend.host, port=backend.port)
        content = body if ask.has_body else None
        as_written = {"target": ask.target}  # httpx would put it in order
        request = httpx.Request(ask.method, url, headers=ask.headers, content=content, extensions=as_written)
        try:
            return await self._client().send(request, stream=True)
        except (httpx.ConnectError, httpx.ConnectTimeout):
            raise
        except httpx.ReadTimeout as e:
            raise Broken(S("The replica has not answered for {seconds} s.", seconds=int(BETWEEN))) from e
        except httpx.TransportError as e:
            raise Broken(S("The replica broke off before it answered.")) from e

    def _client(self) -> httpx.AsyncClient:
        if self._http is None:
            limits = httpx.Limits(max_connections=None, max_keepalive_connections=200, keepalive_expiry=KEPT)
            timeout = httpx.Timeout(connect=CONNECT, read=BETWEEN, write=BETWEEN, pool=None)
            self._http = httpx.AsyncClient(limits=limits, timeout=timeout, trust_env=False)
        return self._http


async def _relay(name: str, reply: httpx.Response, send: Send) -> None:
    """The answer, piece by piece as it comes. When the replica breaks off, so does the answer."""
    headers = [*_kept(reply.headers.raw, REPLACED, ()), *INERT]
    await send({"type": "http.response.start", "status": reply.status_code, "headers": headers})
    try:
        async for piece in reply.aiter_raw():
            await send({"type": "http.response.body", "body": piece, "more_body": True})
    except httpx.TransportError as e:
        log.warning("a replica broke off in the middle of its answer", endpoint=name, why=repr(e))
        return
    await send({"type": "http.response.body", "body": b"", "more_body": False})


def _ask(user: User, name: str, rest: bytes, scope: Scope) -> Ask:
    headers = _kept(scope["headers"], OURS, OURS_STARTING)
    headers += [
        (b"x-helmsman-user", quote(user.name).encode()),
        (b"x-forwarded-prefix", f"/serve/{quote(name)}".encode()),
    ]
    query = scope.get("query_string", b"")
    announced = dict(scope["headers"])
    has_body = b"transfer-encoding" in announced or announced.get(b"content-length", b"0") != b"0"
    return Ask(scope["method"], (rest or b"/") + (b"?" + query if query else b""), headers, has_body)


def _kept(headers: Headers, dropped: Collection[bytes], starting: tuple[bytes, ...]) -> list[tuple[bytes, bytes]]:
    """Those that go on: none that is for one connection only, or `dropped`."""
    lowered = [(name.lower(), value) for name, value in headers]
    listed = {part.strip().lower() for name, value in lowered if name == b"connection" for part in value.split(b",")}
    none = HOP_BY_HOP | set(dropped) | listed
    return [(name, value) for name, value in lowered if name not in none and not name.startswith(starting or (b"\0",))]
