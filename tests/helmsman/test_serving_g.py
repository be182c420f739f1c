"""G as an OpenAI-compatible server: asked with OpenAI's own client, ended in the middle, fed with nonsense."""

import asyncio
import json
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

import httpx
import openai
import pytest

from helmsman.completions import Ask, BadAsk, offered, to_turns
from helmsman.prompts import Answer, Call, ResultRows, Turn
from helmsman.serving import MOST_BODY, create_app
from tools.catalogue import catalogue
from tools.registry import default_registry

TOOLS: Any = [{"type": "function", "function": schema} for schema in default_registry().schemas()]


class Server:
    """`python -m helmsman.serving` as a process."""

    def __init__(self) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        command = [sys.executable, "-m", "helmsman.serving", "--port", str(self.port), "--name", "pilot"]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        self.url = f"http://127.0.0.1:{self.port}"
        self._wait()

    def _wait(self) -> None:
        end = time.monotonic() + 60
        while time.monotonic() < end and self.process.poll() is None:
            try:
                if httpx.get(f"{self.url}/health").status_code == 200:
                    return
            except httpx.TransportError:
                time.sleep(0.05)
        raise AssertionError("the server did not begin")

    def client(self) -> openai.OpenAI:
        return openai.OpenAI(base_url=f"{self.url}/v1", api_key="none", max_retries=0)

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        self.process.communicate(timeout=30)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    running = Server()
    yield running
    running.end()


@pytest.fixture
def client(server: Server) -> Iterator[openai.OpenAI]:
    with server.client() as client:
        yield client


def user(text: str) -> Any:
    return [{"role": "user", "content": text}]


def test_openais_client_gets_a_tool_call_from_it(client: openai.OpenAI) -> None:
    reply = client.chat.completions.create(model="pilot", messages=user("stop s-7f3a"), tools=TOOLS)
    choice = reply.choices[0]
    assert (choice.finish_reason, choice.message.content) == ("tool_calls", None)
    call: Any = (choice.message.tool_calls or [])[0]
    assert (call.function.name, json.loads(call.function.arguments)) == ("terminate_sessions", {"sessions": ["s-7f3a"]})
    assert reply.usage
    assert 0 < reply.usage.prompt_tokens < reply.usage.total_tokens


def test_a_streamed_answer_is_the_same(client: openai.OpenAI) -> None:
    options: Any = {"include_usage": True}
    chunks = list(
        client.chat.completions.create(
            model="pilot", messages=user("stop s-7f3a"), tools=TOOLS, stream=True, stream_options=options
        )
    )
    calls = [c for chunk in chunks for choice in chunk.choices for c in choice.delta.tool_calls or []]
    assert [c.function.name for c in calls if c.function] == ["terminate_sessions"]
    assert [c.finish_reason for chunk in chunks for c in chunk.choices][-1] == "tool_calls"
    assert chunks[-1].usage is not None


def test_without_tools_the_answer_is_text(client: openai.OpenAI) -> None:
    reply = client.chat.completions.create(model="pilot", messages=user("stop s-7f3a"))
    assert reply.choices[0].message.content == 'terminate_sessions(sessions=["s-7f3a"])'
    assert reply.choices[0].finish_reason == "stop"


def test_only_what_was_offered_is_called(client: openai.OpenAI) -> None:
    only = [t for t in TOOLS if t["function"]["name"] == "list_nodes"]
    reply = client.chat.completions.create(model="pilot", messages=user("stop s-7f3a"), tools=only)
    called: Any = reply.choices[0].message.tool_calls or []
    assert {c.function.name for c in called} <= {"list_nodes"}
    forced = client.chat.completions.create(
        model="pilot",
        messages=user("hello"),
        tools=TOOLS,
        tool_choice={"type": "function", "function": {"name": "undo"}},
    )
    called = forced.choices[0].message.tool_calls or []
    assert [c.function.name for c in called][:1] == ["undo"]


def test_the_model_is_listed_under_its_name(client: openai.OpenAI) -> None:
    assert [m.id for m in client.models.list()] == ["pilot"]
    with pytest.raises(openai.NotFoundError, match="not served here"):
        client.chat.completions.create(model="other", messages=user("hello"))


def test_a_conversation_goes_on(client: openai.OpenAI) -> None:
    called = {
        "id": "c1",
        "type": "function",
        "function": {"name": "list_sessions", "arguments": '{"status": "running"}'},
    }
    rows = json.dumps({"total": 3, "sessions": [{"name": "alpha-1"}, {"name": "s-91bc"}, {"name": "gamma"}]})
    before: Any = [
        {"role": "system", "content": "be brief"},
        *user("what's running"),
        {"role": "assistant", "content": None, "tool_calls": [called]},
        {"role": "tool", "tool_call_id": "c1", "content": rows},
    ]
    quiet = client.chat.completions.create(model="pilot", messages=before, tools=TOOLS)
    assert (quiet.choices[0].message.content, quiet.choices[0].finish_reason) == ("", "stop")
    reply = client.chat.completions.create(model="pilot", messages=[*before, *user("stop the second one")], tools=TOOLS)
    call: Any = (reply.choices[0].message.tool_calls or [])[0]
    assert json.loads(call.function.arguments) == {"sessions": ["s-91bc"]}


def test_told_to_end_it_finishes_what_runs_and_takes_no_more() -> None:
    server = Server()
    with server.client() as client:
        streams = [
            client.chat.completions.create(model="pilot", messages=user("stop s-7f3a"), tools=TOOLS, stream=True)
            for _ in range(6)
        ]
        for stream in streams:
            next(iter(stream))  # every one has begun
        server.process.send_signal(signal.SIGTERM)
        rest = [[c.finish_reason for chunk in stream for c in chunk.choices][-1] for stream in streams]
        assert rest == ["tool_calls"] * 6
    _, said = server.process.communicate(timeout=30)
    assert (server.process.returncode, said) == (0, "")
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{server.url}/health")


def test_what_it_needs_and_lacks_is_one_sentence(server: Server) -> None:
    command = [sys.executable, "-m", "helmsman.serving", "--port"]
    taken = subprocess.run([*command, str(server.port)], capture_output=True, text=True, check=False, timeout=60)
    assert taken.returncode == 1
    assert taken.stderr.startswith(f"G can't be served: port {server.port} of 127.0.0.1 can't be used")
    away = subprocess.run(
        [*command, "0", "--weights", "/nowhere"], capture_output=True, text=True, check=False, timeout=60
    )
    assert away.stderr == "G can't be served: no model in /nowhere: it should hold tokenizer.json and a folder onnx\n"


# ── with a stand-in for G ────────────────────────────────────────────────────────────────────────


class Slow:
    """Answers when it is let; says who was given up."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.begun = threading.Event()
        self.given_up = threading.Event()
        self.fails = False

    def generate(
        self, turns: Sequence[Turn], cancel: threading.Event | None = None, offered: frozenset[str] | None = None
    ) -> Answer:
        assert cancel is not None
        self.begun.set()
        while not self.go.wait(0.01):
            if cancel.is_set():
                self.given_up.set()
                break
        if self.fails:
            raise RuntimeError("a secret of its inside")
        return Answer([Call("talk")], 1.0, 3, 1.0)

    def length(self, turns: Sequence[Turn]) -> int:
        return 5


@pytest.fixture
async def slow() -> AsyncIterator[tuple[Slow, httpx.AsyncClient]]:
    model = Slow()
    transport = httpx.ASGITransport(create_app(model, most_waiting=2), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://g") as http:
        yield model, http
    model.go.set()


BODY: Any = {"model": "g", "messages": [{"role": "user", "content": "hello"}]}


async def test_while_one_is_answered_others_are_heard_and_too_many_are_told_so(
    slow: tuple[Slow, httpx.AsyncClient],
) -> None:
    model, http = slow
    first, second = (asyncio.create_task(http.post("/v1/chat/completions", json=BODY)) for _ in range(2))
    await asyncio.to_thread(model.begun.wait, 10)
    assert (await http.get("/health")).status_code == 200
    third = await http.post("/v1/chat/completions", json=BODY)
    assert (third.status_code, third.json()["error"]["type"]) == (429, "rate_limit_error")
    model.go.set()
    assert [(await r).status_code for r in (first, second)] == [200, 200]


async def test_a_failure_says_nothing_of_its_inside_streamed_or_not(slow: tuple[Slow, httpx.AsyncClient]) -> None:
    model, http = slow
    model.fails = True
    model.go.set()
    whole = await http.post("/v1/chat/completions", json=BODY)
    streamed = await http.post("/v1/chat/completions", json=BODY | {"stream": True})
    assert (whole.status_code, whole.json()["error"]["type"]) == (500, "server_error")
    assert '"server_error"' in streamed.text
    assert "secret" not in whole.text + streamed.text


@pytest.mark.parametrize("stream", [False, True])
async def test_who_hangs_up_is_not_answered_to_the_end(stream: bool) -> None:
    """A real connection, since only such a one can be cut."""
    import uvicorn

    model = Slow()
    server = uvicorn.Server(uvicorn.Config(create_app(model), log_level="critical", lifespan="off"))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1/chat/completions"
        async with httpx.AsyncClient() as http:
            asking = asyncio.create_task(http.post(url, json=BODY | {"stream": stream}, timeout=60))
            assert await asyncio.to_thread(model.begun.wait, 10)
            asking.cancel()
            await asyncio.wait([asking])
        given_up = await asyncio.to_thread(model.given_up.wait, 5)
        model.go.set()
        server.should_exit = True
        await serving
    assert given_up


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        (b"{", 400, "Invalid JSON"),
        (b"\xff\xfe", 400, "The body"),
        (b"[]", 400, "The body"),
        (b'{"model": "g", "messages": []}', 400, "at least 1 item"),
        (b'{"model": "g", "messages": [{"role": "robot", "content": ""}]}', 400, "messages.0.role"),
        (b'{"model": "g", "messages": [{"role": "system", "content": "x"}]}', 400, "no message of a user"),
        (b'{"model": "g", "n": 3, "messages": [{"role": "user", "content": "x"}]}', 400, "n: "),
        (b'{"model": "g", "messages": [{"role": "user", "content": [{"type": "image_url"}]}]}', 400, "text only"),
        (b'{"model": "x", "messages": [{"role": "user", "content": "x"}]}', 404, "not served here"),
        (b" " * (MOST_BODY + 1), 413, "larger than"),
    ],
)
async def test_a_bad_request_is_told_in_openais_shape(
    slow: tuple[Slow, httpx.AsyncClient], body: bytes, status: int, said: str
) -> None:
    reply = await slow[1].post("/v1/chat/completions", content=body)
    error = reply.json()["error"]
    assert (reply.status_code, error["type"]) == (status, "invalid_request_error")
    assert said in error["message"]


# ── messages and turns ───────────────────────────────────────────────────────────────────────────


def ask(**more: Any) -> Ask:
    return Ask.model_validate({"model": "g", "messages": [{"role": "user", "content": "x"}], **more})


def test_tools_that_nobody_here_knows_are_not_silently_dropped() -> None:
    unknown = [{"type": "function", "function": {"name": "get_weather"}}]
    with pytest.raises(BadAsk, match="none of those offered"):
        offered(ask(tools=unknown))
    known = {t["function"]["name"] for t in TOOLS} & catalogue().keys()
    assert offered(ask(tools=[*unknown, *TOOLS], tool_choice="required")) == known
    assert offered(ask(tools=TOOLS, tool_choice="none")) is None


@pytest.mark.parametrize("content", ["not json", "[1, 2]", "null", '"x"', '{"rows": 3}', "{}", "[[]]"])
def test_a_result_without_names_is_no_row(content: str) -> None:
    messages = ask(
        messages=[*user("x"), {"role": "tool", "tool_call_id": "?", "content": content}, *user("y")]
    ).messages
    assert to_turns(messages) == [Turn("x", [], [ResultRows("", [])]), Turn("y")]


@pytest.mark.parametrize("arguments", ["", "not json", "[]", '{"made_up": 1, "status": {"a": 1}}', "null"])
def test_an_earlier_call_is_read_as_far_as_it_can_be(arguments: str) -> None:
    call = {"id": "c", "function": {"name": "list_sessions", "arguments": arguments}}
    messages = ask(messages=[*user("x"), {"role": "assistant", "tool_calls": [call]}, *user("y")]).messages
    assert all(c.arguments == {} for c in to_turns(messages)[0].calls)
