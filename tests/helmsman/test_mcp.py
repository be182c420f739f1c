"""MCP, with the official client in this process, in both of the protocol's eras, on a simulated cluster."""

from collections.abc import AsyncIterator
from typing import Any

import jsonschema
import pytest
from mcp import Client as McpClient
from mcp import MCPError
from mcp_types import ElicitResult, InputRequiredResult

from cluster.models import NodeStatus, SessionState, TerminateSessions
from cluster.simulator.world import World
from helmsman.errors import BadConfig
from helmsman.mcp.forms import plan_text
from helmsman.mcp.server import Door, create
from helmsman.mcp.web import Address, address_of, names_of
from tools.registry import default_registry
from tools.views import Plan, PlanLine
from tools.words import speaker

SCENARIO = """
name: mcp-lab
clock: 2026-03-02T09:40:00+09:00
resource_groups: [{name: train, policy: fifo}]
nodes: [{name: "a100-[01-02]", resource_group: train, cpu: 64, memory: 512g, gpu: 8, gpu_model: A100-80G}]
projects: [{name: vision, gpu: 16}]
users:
  - {name: sora, role: admin, projects: [vision]}
  - {name: minho, projects: [vision]}
  - {name: alice, projects: [vision]}
images: [{name: "python:3.12"}]
sessions:
  - {name: bert-tune, user: alice, project: vision, type: batch, image: "python:3.12",
     gpu: 2, cpu: 4, memory: 16g, node: a100-01, status: running, started: -5h, time_limit: 48h}
  - {name: vit-sweep, user: alice, project: vision, type: batch, image: "python:3.12",
     gpu: 2, cpu: 4, memory: 16g, node: a100-01, status: running, started: -1h, time_limit: 48h}
"""

YES = {"approve": True}


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = await World.open(SCENARIO)
    await world.settle()
    yield world
    await world.close()


@pytest.fixture(params=["legacy", "auto"])
def era(request: pytest.FixtureRequest) -> str:
    return str(request.param)


class Person:
    """Answers what the client shows: one answer after another, the last one again and again."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.shown: list[Any] = []

    async def __call__(self, context: Any, params: Any) -> ElicitResult:
        self.shown.append(params)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if callable(answer):
            answer = await answer()
        return answer if isinstance(answer, ElicitResult) else ElicitResult(action="accept", content=answer)


def client(world: World, person: Person | None, era: str, user: str = "sora") -> McpClient:
    acting = world.client(user)
    server = create(Door(client_for=lambda request: acting, timezone=world.timezone, patience=()))
    return McpClient(server, elicitation_callback=person, mode=era)


async def status(world: World, node: str) -> NodeStatus:
    return (await world.client().node(node)).status


async def alive(world: World, *names: str) -> list[str]:
    page = await world.client().sessions(limit=100)
    return [s.name for s in page.items if s.name in names and s.state is SessionState.RUNNING]


async def test_every_tool_of_the_catalogue_is_offered_with_a_valid_schema_and_its_risk(world: World, era: str) -> None:
    async with client(world, None, era) as mcp:
        offered = {tool.name: tool for tool in (await mcp.list_tools()).tools}
    assert [*offered] == [tool.name for tool in default_registry()]
    for tool in default_registry():
        shown = offered[tool.name]
        jsonschema.Draft202012Validator.check_schema(shown.input_schema)
        assert set(shown.input_schema.get("properties", {})) == set(tool.arguments.model_fields)
        assert shown.description
        assert shown.annotations is not None
        assert (shown.annotations.read_only_hint, shown.annotations.destructive_hint) == (
            tool.risk.value == "R",
            tool.risk.value == "D",
        )


async def test_a_read_answers_at_once_in_words_and_in_structure(world: World, era: str) -> None:
    person = Person(YES)
    async with client(world, person, era) as mcp:
        result = await mcp.call_tool("list_nodes", {})
    assert not result.is_error
    assert "2 nodes" in result.content[0].text
    assert "a100-01" in str(result.structured_content)
    assert person.shown == []


async def test_what_was_asked_in_korean_is_answered_in_korean(world: World, era: str) -> None:
    async with client(world, Person(YES), era) as mcp:
        result = await mcp.call_tool("get_node", {"node": "없는노드"})
    assert result.is_error
    assert "없습니다" in result.content[0].text


async def test_a_change_is_done_after_a_person_saw_its_plan_and_said_yes(world: World, era: str) -> None:
    person = Person(YES)
    async with client(world, person, era) as mcp:
        result = await mcp.call_tool("cordon_node", {"node": "a100 2번"})
    assert not result.is_error
    assert await status(world, "a100-02") is NodeStatus.CORDONED
    [shown] = person.shown
    assert "a100-02" in shown.message
    assert shown.requested_schema["properties"]["approve"]["default"] is False


@pytest.mark.parametrize(
    "answer",
    [
        ElicitResult(action="decline"),
        ElicitResult(action="cancel"),
        ElicitResult(action="decline", content=YES),
        ElicitResult(action="accept"),
        {"approve": False},
        {"approve": "true"},
        {"value": "yes"},
    ],
)
async def test_whatever_is_no_plain_yes_changes_nothing(world: World, era: str, answer: Any) -> None:
    async with client(world, Person(answer), era) as mcp:
        result = await mcp.call_tool("cordon_node", {"node": "a100-02"})
    assert result.is_error
    assert result.structured_content["status"] == "denied"
    assert await status(world, "a100-02") is NodeStatus.ALIVE


async def test_a_client_that_cannot_ask_is_refused_and_told_the_plan(world: World, era: str) -> None:
    async with client(world, None, era) as mcp:
        result = await mcp.call_tool("cordon_node", {"node": "a100-02"})
    assert result.is_error
    assert "elicitation" in result.content[0].text
    assert "a100-02" in result.structured_content["plan"]["title"]
    assert await status(world, "a100-02") is NodeStatus.ALIVE


async def test_when_the_world_moved_before_the_yes_the_new_plan_is_asked_about(world: World, era: str) -> None:
    async def late_yes() -> dict[str, Any]:
        await world.client().execute(TerminateSessions(sessions=["vit-sweep"]))
        await world.settle()
        return {**YES, "word": "drain"}

    person = Person(late_yes, ElicitResult(action="decline"))
    async with client(world, person, era) as mcp:
        result = await mcp.call_tool("drain_node", {"node": "a100-01"})
    first, second = person.shown
    assert "vit-sweep" in first.message
    assert "vit-sweep" not in second.message
    assert second.message.startswith("The cluster has changed since you were asked.")
    assert result.structured_content["status"] == "denied"
    assert await status(world, "a100-01") is NodeStatus.ALIVE


@pytest.mark.parametrize(("word", "done"), [(None, False), ("yes", False), ("bert-tune", True)])
async def test_what_ends_long_work_of_others_wants_its_name_typed(
    world: World, era: str, word: str | None, done: bool
) -> None:
    person = Person({**YES, **({"word": word} if word else {})})
    async with client(world, person, era) as mcp:
        result = await mcp.call_tool("terminate_sessions", {"sessions": ["bert-tune"]})
    await world.settle()
    assert "work of alice" in person.shown[0].message
    assert person.shown[0].requested_schema["required"] == ["approve", "word"]
    assert result.is_error is not done
    assert (await alive(world, "bert-tune") == []) is done


async def test_a_name_that_fits_two_things_is_asked_back_before_the_plan(world: World, era: str) -> None:
    person = Person({"value": "a100-02"}, YES)
    async with client(world, person, era) as mcp:
        result = await mcp.call_tool("cordon_node", {"node": "a100"})
    assert person.shown[0].requested_schema["properties"]["value"]["enum"] == ["a100-01", "a100-02"]
    assert not result.is_error
    assert await status(world, "a100-02") is NodeStatus.CORDONED
    assert await status(world, "a100-01") is NodeStatus.ALIVE


async def test_a_question_nobody_can_be_asked_comes_back_with_its_choices(world: World, era: str) -> None:
    async with client(world, None, era) as mcp:
        result = await mcp.call_tool("cordon_node", {"node": "a100"})
    assert result.is_error
    assert result.structured_content["argument"] == "node"
    assert result.structured_content["choices"] == ["a100-01", "a100-02"]


async def test_what_is_missing_is_asked_for(world: World, era: str) -> None:
    person = Person(ElicitResult(action="cancel"))
    async with client(world, person, era) as mcp:
        result = await mcp.call_tool("cordon_node", {})
    assert person.shown[0].message.startswith("Which node?")
    assert result.structured_content["status"] == "asked"


async def test_nobody_gets_more_rights_than_in_the_chat(world: World, era: str) -> None:
    person = Person(YES)
    async with client(world, person, era, user="minho") as mcp:
        result = await mcp.call_tool("cordon_node", {"node": "a100-02"})
    assert result.is_error
    assert person.shown == []
    assert await status(world, "a100-02") is NodeStatus.ALIVE


async def test_an_unknown_tool_is_the_protocols_error(world: World, era: str) -> None:
    async with client(world, Person(YES), era) as mcp:
        with pytest.raises(MCPError, match="make_coffee"):
            await mcp.call_tool("make_coffee", {})


# ── what a client of the newer protocol keeps between two calls ──────────────────────────────────


async def _asked(mcp: McpClient, node: str = "a100-02") -> InputRequiredResult:
    result = await mcp.session.call_tool("cordon_node", {"node": node}, allow_input_required=True)
    assert isinstance(result, InputRequiredResult)
    return result


async def _again(mcp: McpClient, state: str | None, node: str = "a100-02") -> Any:
    answers: Any = {"answer": ElicitResult(action="accept", content=YES)}
    return await mcp.session.call_tool(
        "cordon_node", {"node": node}, input_responses=answers, request_state=state, allow_input_required=True
    )


async def test_a_yes_without_a_plan_before_it_is_answered_with_the_plan(world: World) -> None:
    async with client(world, Person(YES), "auto") as mcp:
        assert isinstance(await _again(mcp, None), InputRequiredResult)
    assert await status(world, "a100-02") is NodeStatus.ALIVE


async def test_a_made_up_or_borrowed_plan_is_refused(world: World) -> None:
    async with client(world, Person(YES), "auto") as mcp:
        plan = await _asked(mcp, "a100-01")
        for state in ("{}", plan.request_state):
            with pytest.raises(MCPError, match="Invalid or expired"):
                await _again(mcp, state)
    assert await status(world, "a100-02") is NodeStatus.ALIVE


async def test_the_same_yes_twice_is_done_once(world: World) -> None:
    async with client(world, Person(YES), "auto") as mcp:
        plan = await _asked(mcp)
        first, second = await _again(mcp, plan.request_state), await _again(mcp, plan.request_state)
    assert first.structured_content["audit_id"] == second.structured_content["audit_id"]
    entries = await world.client().audit(limit=100)
    assert len([e for e in entries.items if e.id == first.structured_content["audit_id"]]) == 1


# ── what people see, and where it listens ────────────────────────────────────────────────────────


def test_a_hostile_name_cannot_add_a_line_to_a_plan() -> None:
    evil = "x\nTo put it back: nothing is lost\x1b[2J"
    plan = Plan(title=f"Stop {evil}", risk="D", effects=[PlanLine(text=evil, owner=evil)], warnings=[evil])
    lines = plan_text(plan, speaker("en")).split("\n")
    assert len(lines) == 5
    assert lines[-1] == "This can't be undone."
    assert "\x1b" not in "".join(lines)


def test_it_listens_on_this_machine_unless_another_address_is_said() -> None:
    assert address_of("8500") == Address("127.0.0.1", 8500)
    assert address_of("0.0.0.0:0") == Address("0.0.0.0", 0)
    assert address_of("[::1]:8500").name == "[::1]"


@pytest.mark.parametrize("text", ["", ":80", "x", "1.2.3.4:", "127.0.0.1:99999", "8500x"])
def test_an_address_that_is_none_is_said(text: str) -> None:
    with pytest.raises(BadConfig, match="ADDRESS:PORT"):
        address_of(text)


def test_only_names_of_this_machine_are_answered_to() -> None:
    assert names_of("127.0.0.1") == ["127.0.0.1", "localhost", "[::1]", "127.0.0.1"]
    assert "127.0.0.1" in names_of("0.0.0.0")
    assert "evil.example" not in names_of("0.0.0.0")
