"""The proxy in front of endpoints, over real sockets: what reaches a replica, what comes back, and what never does."""

import asyncio
import contextlib
import hashlib
import socket
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from time import monotonic

import httpx
import pytest
import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send

from cluster.api.app import create_app
from cluster.sentence import S
from cluster.serving import proxy
from cluster.serving.routes import Route
from cluster.simulator.lab import Lab


@contextlib.asynccontextmanager
async def listening(app: ASGIApp) -> AsyncIterator[int]:
    """`app` on a port of this machine, in this loop."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="off", timeout_graceful_shutdown=1))
    running = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        yield listener.getsockname()[1]
    finally:
        server.should_exit = True
        await running


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@dataclass
class Replica:
    """Notes what it is asked, and answers by the path."""

    port: int = 0
    asked: list[Scope] = field(default_factory=list)
    bodies: list[str] = field(default_factory=list)
    begun: asyncio.Event = field(default_factory=asyncio.Event)
    go: asyncio.Event = field(default_factory=asyncio.Event)
    left: asyncio.Event = field(default_factory=asyncio.Event)
    """The other side went away while it was waiting."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.asked.append(scope)
        await {"/stream": self._stream, "/slow": self._slow, "/piecewise": self._piecewise}.get(
            scope["path"], self._plain
        )(receive, send)

    async def _plain(self, receive: Receive, send: Send) -> None:
        seen = hashlib.sha256()
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            seen.update(message.get("body", b""))
            if not message.get("more_body"):
                break
        self.bodies.append(seen.hexdigest())
        own = {"content-type": "text/html", "set-cookie": "a=b", "x-own": "yes", "connection": "x-per", "x-per": "1",
               "content-security-policy": "none", "content-length": "4"}  # fmt: skip
        headers = [(name.encode(), value.encode()) for name, value in own.items()]
        await send({"type": "http.response.start", "status": 201, "headers": headers})
        await send({"type": "http.response.body", "body": b"done"})

    async def _stream(self, receive: Receive, send: Send) -> None:
        headers = [(b"content-type", b"text/event-stream")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for i in range(3):
            await send({"type": "http.response.body", "body": f"data: {i}\n\n".encode(), "more_body": True})
            await self.go.wait()
            self.go.clear()
        await send({"type": "http.response.body", "body": b""})

    async def _slow(self, receive: Receive, send: Send) -> None:
        """Until the caller is gone."""
        self.begun.set()
        while (await receive())["type"] != "http.disconnect":
            continue
        self.left.set()

    async def _piecewise(self, receive: Receive, send: Send) -> None:
        await receive()
        self.begun.set()
        await self._plain(receive, send)


@dataclass
class Rig:
    lab: Lab
    http: httpx.AsyncClient
    replicas: list[Replica]

    def route(self, *ports: int, coming: bool = False, project: str = "red") -> None:
        """Say that `chat` has replicas on these ports."""
        routes = self.lab.core.serving.routes
        backends = tuple(routes.backend(f"s-{port}", "127.0.0.1", port) for port in ports)
        route = Route("chat", "ann", project, backends, coming, S("Its replicas are not there yet."))
        routes.tell({"chat": route}, [b.session for b in backends])

    @property
    def ports(self) -> list[int]:
        return [replica.port for replica in self.replicas]


@pytest.fixture
async def rig(lab: Lab) -> AsyncIterator[Rig]:
    """Two replicas of `chat`, of project red, and Ann's client of the server."""
    replicas = [Replica(), Replica()]
    async with contextlib.AsyncExitStack() as stack:
        for replica in replicas:
            replica.port = await stack.enter_async_context(listening(replica))
        port = await stack.enter_async_context(listening(create_app(lab.core)))
        headers = {"Authorization": f"Bearer {await lab.core.token_for('ann')}"}
        http = httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=20, trust_env=False)
        await stack.enter_async_context(http)
        made = Rig(lab, http, replicas)
        made.route(*made.ports)
        yield made


async def until(look: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not look():
            await asyncio.sleep(0)


# ── what is passed on, and what is not ───────────────────────────────────────────────────────────


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "BREW"])
async def test_any_method_reaches_a_replica_with_path_query_and_body_as_they_were(rig: Rig, method: str) -> None:
    rig.route(rig.ports[0])
    target = b"/serve/chat/v1/a%2Fb/../x//y;z?q=%20a&q=b"
    request = rig.http.build_request(method, "/", content=b"hello", extensions={"target": target})
    reply = await rig.http.send(request)
    assert (reply.status_code, reply.text) == (201, "done")
    scope = rig.replicas[0].asked[0]
    assert scope["method"] == method
    assert (scope["raw_path"], scope["query_string"]) == (b"/v1/a%2Fb/../x//y;z", b"q=%20a&q=b")
    assert rig.replicas[0].bodies == [hashlib.sha256(b"hello").hexdigest()]


async def test_nothing_between_us_and_the_caller_leaks_to_a_replica(rig: Rig) -> None:
    rig.route(rig.ports[0])
    mine = {"Cookie": "session=secret", "X-Helmsman-User": "boss", "X-Forwarded-For": "10.0.0.9", "Connection": "x-hop",
            "X-Hop": "1", "Origin": "http://here", "X-Own": "kept", "Proxy-Authorization": "Basic eA=="}  # fmt: skip
    await rig.http.post("/serve/chat/", headers=mine, content=b"x")
    told = {name.decode(): value.decode() for name, value in rig.replicas[0].asked[0]["headers"]}
    assert told["x-helmsman-user"] == "ann"
    assert told["x-own"] == "kept"
    assert told["host"] == f"127.0.0.1:{rig.ports[0]}"
    unwanted = {"authorization", "cookie", "x-forwarded-for", "x-hop", "origin", "proxy-authorization"}
    assert unwanted.isdisjoint(told)
    assert "secret" not in str(told)


async def test_a_replica_cannot_speak_for_our_address(rig: Rig) -> None:
    reply = await rig.http.get("/serve/chat/page")
    assert reply.headers["x-own"] == "yes"
    assert "set-cookie" not in reply.headers
    assert "x-per" not in reply.headers
    assert reply.headers.get_list("content-security-policy") == ["sandbox"]
    assert reply.headers["x-content-type-options"] == "nosniff"


async def test_a_name_that_is_no_header_is_told_in_ascii(rig: Rig) -> None:
    from cluster.models import User

    user = User(name="민호\r\nx: y", role="user")
    told = dict(proxy._ask(user, "chat", b"/", {"headers": [], "method": "GET"}).headers)
    assert told[b"x-helmsman-user"] == b"%EB%AF%BC%ED%98%B8%0D%0Ax%3A%20y"


# ── streaming ────────────────────────────────────────────────────────────────────────────────────


async def test_events_come_as_they_are_sent(rig: Rig) -> None:
    rig.route(rig.ports[0])
    async with rig.http.stream("GET", "/serve/chat/stream") as reply:
        pieces = reply.aiter_text()
        for i in range(3):
            assert await anext(pieces) == f"data: {i}\n\n"
            rig.replicas[0].go.set()
        assert [piece async for piece in pieces] == []


async def test_a_body_reaches_the_replica_while_it_is_still_being_sent(rig: Rig) -> None:
    rig.route(rig.ports[0])

    async def body() -> AsyncIterator[bytes]:
        yield b"first"
        await rig.replicas[0].begun.wait()
        yield b"second"

    reply = await rig.http.post("/serve/chat/piecewise", content=body())
    assert reply.status_code == 201
    assert rig.replicas[0].bodies == [hashlib.sha256(b"second").hexdigest()]


async def test_a_body_that_is_too_large_is_refused_announced_or_not(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proxy, "MOST_BODY", 100_000)

    async def body() -> AsyncIterator[bytes]:
        for _ in range(20):
            yield b"x" * 10_000

    for content in (b"x" * 200_000, body()):
        reply = await rig.http.post("/serve/chat/v1", content=content)
        assert (reply.status_code, reply.json()["code"]) == (413, "invalid")
    assert rig.replicas[0].bodies + rig.replicas[1].bodies == []


async def test_a_large_body_goes_through_though_other_routes_are_bounded(rig: Rig) -> None:
    rig.route(rig.ports[0])
    body = b"abcdefgh" * (2 * 2**20)
    assert (await rig.http.post("/serve/chat/v1", content=body)).status_code == 201
    assert rig.replicas[0].bodies == [hashlib.sha256(body).hexdigest()]


# ── who is asked ─────────────────────────────────────────────────────────────────────────────────


async def test_the_least_busy_is_asked_and_equally_busy_ones_in_turn(rig: Rig) -> None:
    for _ in range(4):
        await rig.http.get("/serve/chat/")
    assert [len(r.asked) for r in rig.replicas] == [2, 2]
    slow = asyncio.create_task(rig.http.get("/serve/chat/slow"))
    await until(lambda: any(r.begun.is_set() for r in rig.replicas))
    busy, idle = sorted(rig.replicas, key=lambda r: not r.begun.is_set())
    before = len(busy.asked)
    for _ in range(3):
        await rig.http.get("/serve/chat/")
    assert (len(busy.asked), len(idle.asked)) == (before, 2 + 3)
    slow.cancel()
    await asyncio.gather(slow, return_exceptions=True)


async def test_one_that_takes_no_connection_is_passed_over_for_any_method_and_asked_last_for_a_while(rig: Rig) -> None:
    dead = free_port()
    rig.route(dead, rig.ports[0])
    for _ in range(4):
        assert (await rig.http.post("/serve/chat/", content=b"pay 10")).status_code == 201
    assert rig.replicas[0].bodies == [hashlib.sha256(b"pay 10").hexdigest()] * 4
    routes = rig.lab.core.serving.routes
    assert routes.backend(f"s-{dead}", "127.0.0.1", dead).served == 1


async def test_nothing_is_sent_twice_once_bytes_went_out(rig: Rig) -> None:
    """A replica that takes the request and breaks off may have done what was asked."""
    taken = 0

    async def break_off(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal taken
        await reader.readuntil(b"\r\n\r\n")
        taken += 1
        writer.close()

    server = await asyncio.start_server(break_off, "127.0.0.1", 0)
    rig.route(server.sockets[0].getsockname()[1], rig.ports[0])
    reply = await rig.http.post("/serve/chat/", content=b"pay 10")
    assert (reply.status_code, reply.json()["code"]) == (502, "unavailable")
    assert (taken, rig.replicas[0].asked) == (1, [])
    server.close()


async def test_an_answer_that_is_broken_off_is_broken_off_for_the_caller_too(rig: Rig) -> None:
    async def half(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(half, "127.0.0.1", 0)
    rig.route(server.sockets[0].getsockname()[1])
    with pytest.raises(httpx.RemoteProtocolError):
        await rig.http.get("/serve/chat/")
    server.close()


# ── waiting ──────────────────────────────────────────────────────────────────────────────────────


async def test_a_request_waits_for_a_replica_that_is_coming(rig: Rig) -> None:
    rig.route(coming=True)
    asked = asyncio.create_task(rig.http.post("/serve/chat/", content=b"x"))
    await until(lambda: rig.lab.core.serving.routes.waiting == {"chat": 1})
    rig.route(rig.ports[0])
    assert (await asked).status_code == 201
    assert rig.lab.core.serving.routes.waiting == {}


async def test_without_any_it_is_told_why_and_when_to_ask_again(rig: Rig) -> None:
    rig.route()
    reply = await rig.http.get("/serve/chat/")
    assert (reply.status_code, reply.headers["retry-after"]) == (503, "5")
    assert reply.headers["content-type"] == "application/problem+json"
    assert reply.json()["detail"] == "Its replicas are not there yet."


async def test_waiting_has_an_end(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proxy, "PATIENCE", 0.05)
    rig.route(coming=True)
    assert (await rig.http.get("/serve/chat/")).status_code == 503
    monkeypatch.setattr(proxy, "MOST_WAITING", 0)
    assert "wait for chat already" in (await rig.http.get("/serve/chat/")).json()["detail"]


async def test_who_waits_for_a_replica_and_goes_away_waits_no_longer(rig: Rig) -> None:
    rig.route(coming=True)
    asked = asyncio.create_task(rig.http.post("/serve/chat/", content=b"x"))
    await until(lambda: rig.lab.core.serving.routes.waiting == {"chat": 1})
    asked.cancel()
    await until(lambda: rig.lab.core.serving.routes.waiting == {})


async def test_when_the_caller_goes_away_the_replica_is_told(rig: Rig) -> None:
    rig.route(rig.ports[0])
    asked = asyncio.create_task(rig.http.post("/serve/chat/slow", content=b"x"))
    await asyncio.wait_for(rig.replicas[0].begun.wait(), 10)
    backend = rig.lab.core.serving.routes.choose("chat")
    assert backend is not None
    assert backend.in_flight == 1
    asked.cancel()
    await asyncio.wait_for(rig.replicas[0].left.wait(), 10)
    await until(lambda: backend.in_flight == 0)


async def test_what_was_asked_is_measured_and_told_to_prometheus(rig: Rig) -> None:
    rig.route(*rig.ports)
    for _ in range(3):
        await rig.http.get("/serve/chat/")
    sample = rig.lab.core.serving.routes.measures.sample("chat", monotonic())
    assert (sample.in_flight, sample.errors_per_second) == (0, 0)
    assert sample.requests_per_second == pytest.approx(3, rel=0.5)
    boss = {"Authorization": f"Bearer {await rig.lab.core.token_for('boss')}"}
    told = (await rig.http.get("/metrics", headers=boss)).text
    assert 'helmsman_endpoint_requests_total{endpoint="chat",status="2xx"} 3.0' in told
    assert 'helmsman_endpoint_ready_replicas{endpoint="chat"} 2.0' in told
    assert 'helmsman_endpoint_latency_seconds_count{endpoint="chat"} 3.0' in told
    rig.lab.core.serving.routes.tell({}, [])
    assert "chat" not in (await rig.http.get("/metrics", headers=boss)).text


# ── who may ──────────────────────────────────────────────────────────────────────────────────────


async def test_only_who_may_read_an_endpoint_gets_through(rig: Rig) -> None:
    async def status(owner: str | None) -> int:
        headers = {} if owner is None else {"Authorization": f"Bearer {await rig.lab.core.token_for(owner)}"}
        url = f"{rig.http.base_url}/serve/chat/"
        async with httpx.AsyncClient(trust_env=False) as http:
            return (await http.get(url, headers=headers)).status_code

    found = {owner: await status(owner) for owner in (None, "", "ann", "bob", "boss", "eve")}
    assert found == {None: 401, "": 403, "ann": 201, "bob": 201, "boss": 201, "eve": 404}
    assert (await rig.http.get("/serve/nothing/")).status_code == 404
    assert (await rig.http.get("/serve/")).status_code == 404


async def test_an_endpoint_of_another_project_looks_like_none(rig: Rig) -> None:
    eve = {"Authorization": f"Bearer {await rig.lab.core.token_for('eve')}"}
    there = (await rig.http.get("/serve/chat/", headers=eve)).json()
    rig.lab.core.serving.routes.tell({}, [])
    none = (await rig.http.get("/serve/chat/", headers=eve)).json()
    assert there == none
