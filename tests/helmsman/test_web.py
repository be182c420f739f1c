"""The web's routes, asked as a browser asks: with Host, Origin and cookie. No socket is opened."""

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from cluster.errors import NotFound
from cluster.models import Names
from cluster.sentence import S
from helmsman.conversation import Conversation
from helmsman.errors import HelmsmanError, ModelUnavailable
from helmsman.events import Answered, PlannedCall, PlanShown, Words
from helmsman.web import turns
from helmsman.web.app import STATIC, create_web
from helmsman.web.gate import Key
from helmsman.web.scripted import Scripted, ScriptedConversations
from helmsman.web.serve import serve
from tools.views import Plan

BASE = "http://127.0.0.1:8765"
ROUTES = [
    ("GET", "/"),
    ("GET", "/static/app.js"),
    ("GET", "/static/index.html"),
    ("GET", "/api/openapi.json"),
    ("GET", "/api/threads"),
    ("POST", "/api/threads"),
    ("GET", "/api/threads/t1/events"),
    ("POST", "/api/threads/t1/send"),
    ("POST", "/api/threads/t1/decide"),
    ("POST", "/api/threads/t1/stop"),
    ("GET", "/api/names"),
    ("GET", "/no/such/thing"),
]
PLAN = PlanShown(
    question="q1",
    digest="d1",
    calls=[
        PlannedCall(
            id="c1",
            tool="terminate_sessions",
            risk="D",
            arguments={"sessions": ["bert"]},
            plan=Plan(title="Stop bert", risk="D"),
        )
    ],
)


async def scene(stage: Scripted, text: str) -> None:
    """Lines and what they lead to."""
    if text == "plan":
        decided = await stage.decision(PLAN)
        await stage.say(Answered(text=f"You said {decided.decision}."))
    elif text == "forever":
        await asyncio.Event().wait()
    elif text == "break":
        raise ModelUnavailable(S("The model at {url} does not answer.", url="http://localhost:1"))
    else:
        await stage.say(Words(delta="He"))
        await stage.say(Answered(text="Hello."))


@dataclass
class Frame:
    """One server-sent event."""

    event: str = "message"
    id: str | None = None
    data: dict[str, Any] = field(default_factory=dict)

    @property
    def kind(self) -> str | None:
        kind: str | None = self.data.get("body", {}).get("kind")
        return kind


@dataclass
class Browser:
    """A client without cookie, until it follows a link; and what its server consists of."""

    http: httpx.AsyncClient
    conversations: ScriptedConversations
    links: list[str]
    end: asyncio.Event

    @property
    def base(self) -> str:
        return str(self.http.base_url).rstrip("/")

    async def enter(self, link: str | None = None) -> httpx.Response:
        """Follow the latest link, or the one given."""
        return await self.http.get(link or self.links[-1])

    async def post(self, path: str, body: dict[str, Any] | None = None, **headers: str) -> httpx.Response:
        return await self.http.post(path, json=body or {}, headers={"Origin": self.base, **headers})

    async def events(self, after: int = 0, until: str = "live", **headers: str) -> list[Frame]:
        """The frames of t1's stream up to the one whose event or kind is `until`."""
        frames: list[Frame] = []
        path = f"/api/threads/t1/events?after={after}"
        async with asyncio.timeout(5), self.http.stream("GET", path, headers=headers) as response:
            async for frame in read_frames(response):
                frames.append(frame)
                if until in (frame.event, frame.kind):
                    return frames
        return frames


async def read_frames(response: httpx.Response) -> AsyncIterator[Frame]:
    frame = Frame()
    async for line in response.aiter_lines():
        name, _, value = line.partition(": ")
        if not line:
            yield frame
            frame = Frame()
        elif name == "data":
            frame.data = json.loads(value)
        elif name in ("event", "id"):
            setattr(frame, name, value)


@pytest.fixture
async def outside() -> AsyncIterator[Browser]:
    """A browser without the cookie; the application is in process, so that streams cannot be read. Thread t1 exists."""
    conversations = ScriptedConversations(scene, Names(nodes=["a100-03"]))
    await conversations.open()
    links: list[str] = []
    key = Key(on_used=lambda ticket: links.append(f"/?ticket={ticket}"))
    links.append(f"/?ticket={key.ticket}")
    transport = httpx.ASGITransport(create_web(conversations, key))
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8765") as http:
        yield Browser(http, conversations, links, asyncio.Event())


@pytest.fixture
async def inside(outside: Browser) -> Browser:
    """The same, after it followed the link."""
    await outside.enter()
    return outside


@pytest.fixture
async def stranger() -> AsyncIterator[Browser]:
    """A browser without the cookie before a real server. Thread t1 exists."""
    conversations = ScriptedConversations(scene, Names(nodes=["a100-03"]))
    await conversations.open()
    links: list[str] = []
    end = asyncio.Event()
    server = asyncio.create_task(serve(conversations, links.append, until=end))
    while not links:
        await asyncio.sleep(0)
    async with httpx.AsyncClient(base_url=links[0].partition("/?")[0], follow_redirects=False) as http:
        yield Browser(http, conversations, links, end)
    end.set()
    async with asyncio.timeout(5):
        await server


@pytest.fixture
async def browser(stranger: Browser) -> Browser:
    """A browser that followed the printed link."""
    await stranger.enter()
    return stranger


# ── who may come in ──


@pytest.mark.parametrize(("method", "path"), ROUTES)
async def test_no_route_answers_without_the_cookie(outside: Browser, method: str, path: str) -> None:
    response = await outside.http.request(method, path, headers={"Origin": outside.base})
    assert response.status_code == 401
    assert "helmsman web" in response.text


@pytest.mark.parametrize(("method", "path"), ROUTES)
async def test_no_route_answers_to_another_host_name(inside: Browser, method: str, path: str) -> None:
    response = await inside.http.request(method, path, headers={"Origin": inside.base, "Host": "evil.example:80"})
    assert response.status_code == 403
    assert "evil.example" in response.json()["detail"]


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "", "https://127.0.0.1:8765"])
@pytest.mark.parametrize("path", [path for method, path in ROUTES if method == "POST"])
async def test_no_post_is_taken_from_another_page(inside: Browser, path: str, origin: str) -> None:
    response = await inside.http.post(path, json={"text": "x"}, headers={"Origin": origin})
    assert response.status_code == 403


async def test_every_route_of_the_application_is_in_the_table(inside: Browser) -> None:
    schema = (await inside.http.get("/api/openapi.json")).json()
    known = {(method, path.replace("t1", "{thread}")) for method, path in ROUTES}
    assert {(method.upper(), path) for path, methods in schema["paths"].items() for method in methods} <= known


async def test_the_link_opens_once_and_becomes_a_cookie_that_scripts_cannot_read(outside: Browser) -> None:
    first = await outside.enter()
    cookie = first.headers["set-cookie"]
    assert (first.status_code, first.headers["location"]) == (303, "/")
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    assert (await outside.http.get("/")).status_code == 200

    outside.http.cookies.clear()
    assert (await outside.enter(outside.links[0])).status_code == 401
    assert len(outside.links) == 2
    assert (await outside.enter(outside.links[1])).status_code == 303


async def test_the_ticket_is_not_the_cookie(stranger: Browser) -> None:
    ticket = stranger.links[0].partition("ticket=")[2]
    port = stranger.http.base_url.port
    response = await stranger.http.get("/api/threads", headers={"Cookie": f"helmsman-{port}={ticket}"})
    assert response.status_code == 401


async def test_an_old_link_in_a_browser_that_is_in_leads_to_the_page(inside: Browser) -> None:
    assert (await inside.enter(inside.links[0])).headers["location"] == "/"


@pytest.mark.parametrize("path", ["/", "/static/app.js", "/api/threads", "/no/such/thing"])
async def test_every_answer_forbids_foreign_scripts_and_frames(inside: Browser, path: str) -> None:
    policy = (await inside.http.get(path)).headers["content-security-policy"]
    assert "default-src 'none'; script-src 'self';" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy


async def test_the_page_loads_nothing_from_elsewhere(inside: Browser) -> None:
    for name in [path.name for path in STATIC.iterdir()]:
        text = (await inside.http.get(f"/static/{name}")).text
        assert "://" not in text.replace("http://www.w3.org/2000/svg", ""), name


async def test_a_port_in_use_is_a_sentence(browser: Browser) -> None:
    with pytest.raises(HelmsmanError, match=r"cannot be used .* Choose another with --port"):
        await serve(browser.conversations, print, port=browser.http.base_url.port or 0)


SERVER = """
import asyncio
from helmsman.web.scripted import ScriptedConversations
from helmsman.web.serve import serve
asyncio.run(serve(ScriptedConversations(None), lambda link: print(link, flush=True)))
print("the caller cleans up")
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_ends_the_server_and_lets_its_caller_clean_up(number: signal.Signals) -> None:
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", SERVER, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    link = (await process.stdout.readline()).decode().strip()
    async with httpx.AsyncClient() as http:
        assert (await http.get(link)).status_code == 303
    process.send_signal(number)
    rest, _ = await process.communicate()
    assert rest.decode().endswith("the caller cleans up\n")
    assert process.returncode == 0


# ── threads ──


async def test_a_conversation_is_begun_and_listed(inside: Browser) -> None:
    made = await inside.post("/api/threads")
    assert (made.status_code, made.json()) == (201, {"id": "t2"})
    await inside.post("/api/threads/t2/send", {"text": "hello"})
    newest = (await inside.http.get("/api/threads")).json()[0]
    assert (newest["id"], newest["title"], newest["turns"]) == ("t2", "hello", 1)


class Forgetful(ScriptedConversations):
    """Like the store: a conversation without a line is not in it."""

    async def open(self, thread: str | None = None) -> Conversation:
        if thread is not None:
            raise NotFound(S("There is no conversation {thread}.", thread=thread))
        return await super().open()


async def test_a_new_conversation_takes_its_first_line_though_no_store_knows_it_yet() -> None:
    key = Key()
    transport = httpx.ASGITransport(create_web(Forgetful(scene), key))
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8765") as http:
        await http.get("/", params={"ticket": key.ticket})
        origin = {"Origin": "http://127.0.0.1:8765"}
        thread = (await http.post("/api/threads", headers=origin)).json()["id"]
        sent = await http.post(f"/api/threads/{thread}/send", json={"text": "hello"}, headers=origin)
    assert sent.status_code == 202


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "events"), ("POST", "send"), ("POST", "decide"), ("POST", "stop")]
)
async def test_an_unknown_conversation_is_not_found(inside: Browser, method: str, path: str) -> None:
    body = {"text": "x"} if path == "send" else {"question": "q", "digest": "d", "decision": "yes"}
    response = await inside.http.request(
        method, f"/api/threads/nope/{path}", json=body, headers={"Origin": inside.base}
    )
    assert (response.status_code, response.json()["code"]) == (404, "not_found")
    assert response.headers["content-type"] == "application/problem+json"


async def test_names_are_there_for_completion(inside: Browser) -> None:
    assert (await inside.http.get("/api/names")).json()["nodes"] == ["a100-03"]


# ── the stream ──


async def test_stored_events_come_with_their_seq_as_id_and_then_live(browser: Browser) -> None:
    await browser.post("/api/threads/t1/send", {"text": "hello"})
    frames = await browser.events()
    assert [(f.id, f.kind or f.event) for f in frames] == [
        ("1", "user_said"),
        ("2", "words"),
        ("3", "answered"),
        ("4", "turn_ended"),
        (None, "live"),
    ]


async def test_a_stream_goes_on_after_the_last_event_that_was_read(browser: Browser) -> None:
    await browser.post("/api/threads/t1/send", {"text": "hello"})
    assert [f.id for f in await browser.events(after=3)] == ["4", None]
    assert [f.id for f in await browser.events(after=1, **{"Last-Event-ID": "2"})] == ["3", "4", None]


async def test_events_of_another_face_come_as_they_happen(browser: Browser) -> None:
    reading = asyncio.create_task(browser.events(until="turn_ended"))
    await (await browser.conversations.open("t1")).send("hello", "terminal")
    assert [f.data["body"]["face"] for f in await reading if f.kind == "user_said"] == ["terminal"]


async def test_a_server_that_stops_ends_its_streams_at_once(browser: Browser) -> None:
    path = "/api/threads/t1/events"
    async with browser.http.stream("GET", path) as response:
        frames = read_frames(response)
        assert (await anext(frames)).event == "live"
        ends = asyncio.create_task(collect(frames))
        browser.end.set()
        async with asyncio.timeout(1):
            assert await ends == []


async def collect(frames: AsyncIterator[Frame]) -> list[Frame]:
    return [frame async for frame in frames]


# ── lines and decisions ──


async def test_a_line_is_refused_while_another_turn_runs(browser: Browser, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "REFUSAL_WINDOW", 0.05)
    assert (await browser.post("/api/threads/t1/send", {"text": "forever"})).status_code == 202
    refused = await browser.post("/api/threads/t1/send", {"text": "hello"})
    assert (refused.status_code, refused.json()["code"]) == (409, "busy")
    assert "Wait for its end" in refused.json()["detail"]


async def test_a_running_turn_is_stopped(browser: Browser, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "REFUSAL_WINDOW", 0.05)
    await browser.post("/api/threads/t1/send", {"text": "forever"})
    assert (await browser.post("/api/threads/t1/stop")).status_code == 202
    assert (await browser.events(until="turn_ended"))[-1].data["body"]["outcome"] == "stopped"


async def test_a_plan_is_decided_with_its_digest_only(browser: Browser) -> None:
    await browser.post("/api/threads/t1/send", {"text": "plan"})
    verdict = {"question": "q1", "digest": "another", "decision": "yes"}
    stale = await browser.post("/api/threads/t1/decide", verdict)
    assert (stale.status_code, stale.json()["code"]) == (409, "stale")
    assert "decided" not in [f.kind for f in await browser.events()]

    assert (await browser.post("/api/threads/t1/decide", verdict | {"digest": "d1"})).status_code == 202
    assert [f.kind for f in await browser.events(until="turn_ended")][-3:] == ["decided", "answered", "turn_ended"]


async def test_a_plan_is_decided_once(browser: Browser) -> None:
    await browser.post("/api/threads/t1/send", {"text": "plan"})
    verdict = {"question": "q1", "digest": "d1", "decision": "no", "comment": "tomorrow"}
    answers = await asyncio.gather(*(browser.post("/api/threads/t1/decide", verdict) for _ in range(4)))
    assert sorted(answer.status_code for answer in answers) == [202, 409, 409, 409]
    decided = [f.data["body"] for f in await browser.events() if f.kind == "decided"]
    assert [(d["decision"], d["comment"], d["face"]) for d in decided] == [("no", "tomorrow", "web")]


async def test_what_fails_at_once_is_the_answer(inside: Browser) -> None:
    failed = await inside.post("/api/threads/t1/send", {"text": "break"})
    assert (failed.status_code, failed.json()["code"]) == (503, "model_unavailable")
    assert failed.json()["sentence"]["params"] == {"url": "http://localhost:1"}


async def test_what_fails_later_is_told_on_the_stream(browser: Browser, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "REFUSAL_WINDOW", 0)
    async with browser.http.stream("GET", "/api/threads/t1/events") as response:
        frames = read_frames(response)
        assert (await anext(frames)).event == "live"
        assert (await browser.post("/api/threads/t1/send", {"text": "break"})).status_code == 202
        told = [await anext(frames) for _ in range(3)]
    assert "model_unavailable" in [frame.data.get("code") for frame in told]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("send", {"text": ""}),
        ("send", {"text": "x" * 20_001}),
        ("send", {"text": "x", "face": "terminal"}),
        ("decide", {"question": "q1", "digest": "d1", "decision": "maybe"}),
        ("decide", {"question": "q1", "decision": "yes"}),
    ],
)
async def test_an_unreadable_body_is_a_sentence(inside: Browser, path: str, body: dict[str, Any]) -> None:
    response = await inside.post(f"/api/threads/t1/{path}", body)
    assert (response.status_code, response.json()["code"]) == (422, "invalid")
    assert response.json()["detail"].startswith("The request cannot be read")


async def test_a_body_without_measure_is_not_read(inside: Browser) -> None:
    response = await inside.post("/api/threads/t1/send", {"text": "x" * 1_000_001})
    assert (response.status_code, response.json()["code"]) == (413, "too_large")
