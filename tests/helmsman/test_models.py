"""The models behind one interface: G, an OpenAI-compatible endpoint, a script."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from langchain_core.messages import HumanMessage

from helmsman.errors import BadConfig, ModelUnavailable
from helmsman.models import choose, close
from helmsman.models.embedded import EmbeddedModel, to_turns
from helmsman.models.messages import to_messages
from helmsman.prompts import Answer, Call, ResultRows, Turn
from helmsman.settings import EndpointSettings, Settings
from helmsman.turn import Call as TurnCall
from helmsman.turn import Exchange, Step
from tools.registry import default_registry


class FakeG:
    """In place of the weights."""

    def __init__(self, *calls: Call, confidence: float = 1.0) -> None:
        self.calls, self.confidence = list(calls), confidence
        self.seen: list[list[Turn]] = []
        self.block: threading.Event | None = None

    def generate(self, turns: list[Turn], cancel: threading.Event | None = None) -> Answer:
        self.seen.append(turns)
        if self.block and cancel:
            self.block.set()
            assert cancel.wait(5)
        return Answer(self.calls, self.confidence, 9, 1.0)


def g(*calls: Call, confidence: float = 1.0) -> tuple[EmbeddedModel, FakeG]:
    model, fake = EmbeddedModel.at(None, default_registry()), FakeG(*calls, confidence=confidence)
    model._g = fake  # type: ignore[assignment]
    return model, fake


def past() -> list[Exchange]:
    listed = TurnCall(id="1", tool="list_nodes", said={"limit": 2}, status="done", rows=["a100-01", "a100-02"])
    asked = Step(decision="ask", decision_arguments={"for": "cordon_node", "about": "node"})
    return [Exchange(user="list two", steps=[Step(calls=[listed]), asked]), Exchange(user="the second one")]


def test_a_conversation_reaches_g_as_the_turns_it_was_trained_on() -> None:
    assert to_turns(to_messages(past())) == [
        Turn(
            "list two",
            [Call("list_nodes", {"limit": 2}), Call("ask", {"for": "cordon_node", "about": "node"})],
            [ResultRows("list_nodes", ["a100-01", "a100-02"])],
        ),
        Turn("the second one"),
    ]


def test_a_tool_beyond_the_contract_that_another_model_called_is_nothing_that_g_is_told() -> None:
    called = TurnCall(id="1", tool="resume_pipeline_run", said={"run": "nightly"}, status="done")
    turns = to_turns(to_messages([Exchange(user="resume it", steps=[Step(calls=[called])]), Exchange(user="thanks")]))
    assert [(turn.user, turn.calls) for turn in turns] == [("resume it", []), ("thanks", [])]


async def test_g_answers_with_calls_and_adds_nothing_to_results() -> None:
    model, fake = g(Call("list_nodes", {"limit": 5}))
    message = await model.ainvoke([HumanMessage("five nodes")])
    assert [(c["name"], c["args"]) for c in message.tool_calls] == [("list_nodes", {"limit": 5})]
    after = await model.ainvoke(to_messages(past()[:1])[:-2])
    assert (after.tool_calls, after.content, len(fake.seen)) == ([], "", 1)


@pytest.mark.parametrize(
    ("tool", "confidence", "name"),
    [
        ("drain_node", 0.1, "ask"),
        ("cordon_node", 0.1, "ask"),
        ("drain_node", 0.9, "drain_node"),
        ("get_node", 0.1, "get_node"),
    ],
)
async def test_an_unsure_call_that_changes_something_is_asked_about(tool: str, confidence: float, name: str) -> None:
    model, _ = g(Call(tool, {"node": "a100-01"}), confidence=confidence)
    message = await model.ainvoke([HumanMessage("do it")])
    assert [c["name"] for c in message.tool_calls] == [name]
    assert message.additional_kwargs.get("guess") == (
        [{"name": tool, "args": {"node": "a100-01"}}] if name == "ask" else None
    )


async def test_the_guess_is_confirmed_and_then_planned_or_dropped(talk) -> None:
    model, _ = g(Call("cordon_node", {"node": "a100-01"}), confidence=0.1)
    t = await talk(model=model)
    await t.say("hmm, that node")
    asked = await t.last("asked")
    assert "a100-01" in asked.text
    assert asked.choices == ["yes", "no"]
    assert t.toy.done == []
    await t.say("yes")
    assert (await t.last("plan_shown")).calls[0].arguments == {"node": "a100-01"}
    await t.say("no", "hmm, that node", "no")
    assert t.toy.done == []
    assert (await t.last("turn_ended")).outcome == "denied"


async def test_g_stops_when_the_turn_is_stopped() -> None:
    model, fake = g(Call("list_nodes"))
    fake.block = threading.Event()
    task = asyncio.create_task(model.ainvoke([HumanMessage("list")]))
    await asyncio.to_thread(fake.block.wait, 5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_directory_without_a_model_is_a_sentence(tmp_path: Path) -> None:
    model = EmbeddedModel.at(tmp_path / "nothing", default_registry())
    with pytest.raises(ModelUnavailable, match="nothing"):
        await model.ainvoke([HumanMessage("list")])


def test_a_model_without_an_address_is_a_sentence() -> None:
    with pytest.raises(BadConfig, match="base_url"):
        choose(Settings(model="qwen"), default_registry())


def test_a_script_that_is_none_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "script.yaml").write_text("- {say: hello, calls: [{tol: x}]}")
    with pytest.raises(BadConfig, match=r"script\.yaml"):
        choose(Settings(model=f"scripted:{tmp_path / 'script.yaml'}"), default_registry())


# ── an endpoint ──────────────────────────────────────────────────────────────────────────────────


class Endpoint:
    """An OpenAI-compatible server that gives prepared answers."""

    def __init__(self) -> None:
        self.answers: list[dict[str, Any]] = []
        self.asked: list[dict[str, Any]] = []
        self.status = 200
        self.url = ""
        self.app = FastAPI()
        self.app.post("/v1/chat/completions")(self.complete)

    async def complete(self, request: Request) -> Any:
        from fastapi.responses import StreamingResponse

        body = await request.json()
        self.asked.append(body)
        if self.status != 200:
            return JSONResponse({"error": {"message": "no"}}, self.status)
        message = self.answers.pop(0)
        for i, call in enumerate(message.get("tool_calls", [])):
            call["index"] = i
        chunk = {"id": "x", "object": "chat.completion.chunk", "created": 0, "model": "m"}
        deltas = [{"role": "assistant", **message}, {}]
        ends = [None, "stop"]
        lines = [
            json.dumps({**chunk, "choices": [{"index": 0, "delta": d, "finish_reason": e}]})
            for d, e in zip(deltas, ends, strict=True)
        ]
        return StreamingResponse(iter([f"data: {x}\n\n" for x in [*lines, "[DONE]"]]), media_type="text/event-stream")


@pytest.fixture
async def chosen() -> AsyncIterator[Callable[[Settings], Any]]:
    """`choose`, with the connections closed in the end."""
    models: list[Any] = []

    def make(settings: Settings) -> Any:
        models.append(choose(settings, default_registry()))
        return models[-1]

    yield make
    for model in models:
        await close(model)


@pytest.fixture
async def endpoint() -> AsyncIterator[Endpoint]:
    fake = Endpoint()
    server = uvicorn.Server(uvicorn.Config(fake.app, port=0, log_level="error", lifespan="off"))
    serving = asyncio.create_task(server.serve())
    async with asyncio.timeout(5):
        while not server.started:
            await asyncio.sleep(0.01)
    fake.url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/v1"
    yield fake
    server.should_exit = True
    await serving


def settings(endpoint: Endpoint, **more: Any) -> Settings:
    return Settings(model="some-model", endpoint=EndpointSettings(base_url=endpoint.url, **more))


def call(tool: str, arguments: dict[str, Any]) -> dict[str, Any]:
    return {"id": "call-1", "type": "function", "function": {"name": tool, "arguments": json.dumps(arguments)}}


async def test_an_endpoint_gets_the_tools_and_every_call_gets_its_reply(talk, chosen, endpoint: Endpoint) -> None:
    endpoint.answers = [{"tool_calls": [call("list_nodes", {})]}, {"content": "There are 3 nodes."}]
    t = await talk(model=chosen(settings(endpoint)))
    await t.say("how many nodes?")
    assert await t.story() == "> how many nodes?\nlist_nodes: done\n< There are 3 nodes.\n(done)"
    first, second = endpoint.asked
    names = [tool["function"]["name"] for tool in first["tools"]]
    assert {"list_nodes", "start_session", "ask", "refuse"} <= set(names)
    assert [m["role"] for m in second["messages"]] == ["system", "user", "assistant", "tool"]
    assert "a100-01" in second["messages"][-1]["content"]


async def test_an_endpoint_that_invents_numbers_is_not_repeated(talk, chosen, endpoint: Endpoint) -> None:
    endpoint.answers = [{"tool_calls": [call("list_nodes", {})]}, {"content": "There are 250 nodes."}]
    t = await talk(model=chosen(settings(endpoint)))
    await t.say("how many nodes?")
    assert (await t.last("answered")).text == "3 nodes"


async def test_an_endpoint_may_put_a_refused_call_right(talk, chosen, endpoint: Endpoint) -> None:
    wrong, right = call("cordon_node", {"node": "zebra"}), call("cordon_node", {"node": "a100-01"})
    endpoint.answers = [{"tool_calls": [wrong]}, {"tool_calls": [right]}, {"content": ""}]
    t = await talk(model=chosen(settings(endpoint)))
    await t.say("close it", "yes")
    assert t.toy.done == ["cordon_node a100-01"]
    assert (await t.last("turn_ended")).outcome == "done"


async def test_a_dead_endpoint_is_a_sentence_that_says_what_to_do(talk, chosen) -> None:
    dead = Settings(model="m", endpoint=EndpointSettings(base_url="http://127.0.0.1:9/v1", retries=0))
    t = await talk(model=chosen(dead))
    await t.say("list nodes")
    answer = (await t.last("answered")).text
    assert "http://127.0.0.1:9/v1" in answer
    assert "nothing answers there" in answer
    assert (await t.last("turn_ended")).outcome == "failed"


async def test_a_wrong_key_is_a_sentence(talk, chosen, endpoint: Endpoint) -> None:
    endpoint.status = 401
    t = await talk(model=chosen(settings(endpoint, api_key="wrong")))
    await t.say("list nodes")
    assert "key" in (await t.last("answered")).text
    assert len(endpoint.asked) == 1
