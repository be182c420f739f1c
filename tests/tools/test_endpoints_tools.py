"""Endpoints through the tools, in a simulated cluster: real core, scheduler and keeper, played replicas."""

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest

from cluster.db.tables import ModelRow
from cluster.errors import Unavailable
from cluster.models import Launch, Recipe
from cluster.simulator.world import World
from tools.base import Card, Context, Result
from tools.registry import default_registry
from tools.resolve import Ready, Unfit, link
from tools.views import Facts, Table
from tools.words import speaker

SCENARIO = """
name: riverside
clock: 2026-03-02T09:00:00+09:00
resource_groups: [{name: serve}]
nodes:
  - {name: "l40s-[01-02]", resource_group: serve, cpu: 64, memory: 512g, gpu: 4, gpu_model: L40S}
projects: [{name: vision}, {name: nlp}]
users:
  - {name: sora, role: admin, projects: [vision]}
  - {name: minho, projects: [vision]}
  - {name: jiwoo, projects: [nlp]}
sessions:
  - {name: chat-prod-0, id: s-ee10, user: minho, project: vision, type: inference, gpu: 1, cpu: 8, memory: 64g,
     status: running, node: l40s-01, started: -12d, gpu_utilization: 0.7, command: "vllm serve gemma"}
models: [{name: gemma-2-9b-it}, {name: qwen3-32b}]
endpoints:
  - {name: chat-prod, model: gemma-2-9b-it, replicas: 2, gpu: 1, gpu_model: L40S, project: vision,
     requests_per_second: 41, latency_p95: 1.9}
  - {name: asr, model: gemma-2-9b-it, gpu: 1, project: nlp, health: unhealthy}
faults: [{at: +10m, node: l40s-01, kind: lost}]
"""


class Person:
    """Somebody who calls tools; the names are read anew for each call."""

    def __init__(self, world: World, user: str) -> None:
        self.world, self.user = world, user
        self.client = world.client(user)

    async def _link(self, name: str, raw: dict[str, Any]) -> tuple[Any, Context, Any]:
        names = await self.client.names()
        now = self.world.clock.now().astimezone(self.world.timezone)
        ctx = Context(client=self.client, user=self.user, now=now, names=names, language="en", say=speaker("en"))
        tool = default_registry().get(name)
        assert tool is not None
        return tool, ctx, await link(tool, raw, ctx)

    async def plan(self, name: str, /, **raw: Any) -> Card:
        tool, ctx, found = await self._link(name, raw)
        assert isinstance(found, Ready), found
        card = await tool.preview(ctx, found.args)
        assert isinstance(card, Card)
        return card

    async def do(self, name: str, /, expect: str | None = None, **raw: Any) -> Result:
        tool, ctx, found = await self._link(name, raw)
        if isinstance(found, Unfit):
            return found.result
        assert isinstance(found, Ready), found
        result = await tool.run(ctx, found.args, expect=expect)
        assert isinstance(result, Result)
        await self.world.settle()
        return result


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = await World.open(SCENARIO)
    recipe = Recipe(name="served", runtime="vllm", launch=Launch(command="vllm serve", gpu=1)).model_dump(mode="json")
    async with world.core.db.write() as db:
        for model in ("gemma-2-9b-it", "qwen3-32b"):
            row = ModelRow(name=model, owner="sora", source=model, recipe=recipe, card={}, state="ready", reasons=[])
            row.state_since = row.created = world.clock.now()
            await db.merge(row)
    yield world
    await world.close()


@pytest.fixture
async def minho(world: World) -> AsyncIterator[Person]:
    person = Person(world, "minho")
    yield person
    await person.client.close()


@pytest.fixture
async def sora(world: World) -> AsyncIterator[Person]:
    person = Person(world, "sora")
    yield person
    await person.client.close()


def lines(result: Result) -> list[str]:
    assert isinstance(result.view, Table)
    return [" | ".join(cell.text for cell in row) for row in result.view.rows]


def facts(result: Result) -> dict[str, str]:
    assert isinstance(result.view, Facts)
    return {label: cell.text for label, cell in result.view.facts}


async def test_endpoints_of_a_scenario_are_served_as_it_says(sora: Person) -> None:
    result = await sora.do("list_endpoints")
    assert result.answer == "2 endpoints; 1 can't be reached: asr."
    assert lines(result) == [
        "asr | gemma-2-9b-it | nlp | unhealthy | no | 0/1 | – | –",
        "chat-prod | gemma-2-9b-it | vision | healthy | yes | 2/2 | 41 | 1.9 s",
    ]
    assert result.rows == ["asr", "chat-prod"]
    assert result.data["endpoints"][1]["reachable"] is True  # type: ignore[index, call-overload]


async def test_one_sees_only_the_endpoints_of_ones_projects(minho: Person) -> None:
    assert (await minho.do("list_endpoints")).rows == ["chat-prod"]
    assert (await minho.do("get_endpoint", endpoint="asr")).reasons[0].code == "not_found"


async def test_an_endpoint_says_where_it_is_and_how_its_replicas_are(minho: Person) -> None:
    result = await minho.do("get_endpoint", endpoint="chat prod")
    assert result.answer == "chat-prod answers with gemma-2-9b-it: 2 of 2 replicas take requests."
    told = facts(result)
    assert (told["Life cycle"], told["Health"], told["Address"]) == ("active", "healthy", "/serve/chat-prod")
    assert told["chat-prod-0"].startswith("healthy, l40s-01, r1, 11 d 23 h")
    assert told["chat-prod-1"].startswith("healthy, l40s-0")
    assert told["Each replica"] == "1 GPU L40S"


async def test_one_that_cannot_be_reached_says_why_in_the_first_sentence(sora: Person) -> None:
    result = await sora.do("get_endpoint", endpoint="asr")
    assert result.answer == "asr can't be reached. Its replicas (1) do not answer their health checks."
    assert result.data["why_not_reachable"] == "Its replicas (1) do not answer their health checks."
    await sora.world.advance(timedelta(minutes=3))
    assert (await sora.do("get_endpoint", endpoint="asr")).data["reachable"] is True  # it was replaced


async def test_a_model_is_deployed_reached_some_seconds_later_and_taken_back(minho: Person) -> None:
    card = await minho.plan("deploy_model", model="qwen3", name="chat-new", replicas=2)
    assert card.plan is not None
    assert card.plan.title == "Deploy qwen3-32b as chat-new, with 2 replicas"
    created, *starts = [e.text for e in card.plan.effects]
    assert created == "Endpoint chat-new serves qwen3-32b in project vision, with 2 replicas."
    assert [text.split(" on l40s-0")[0] for text in starts] == ["chat-new-1 starts now", "chat-new-2 starts now"]
    result = await minho.do("deploy_model", model="qwen3", name="chat-new", replicas=2, expect=card.digest)
    assert result.answer == "qwen3-32b is being deployed as chat-new; it can be reached when a replica is ready."
    told = await minho.do("get_endpoint", endpoint="chat-new")
    assert told.answer == "chat-new can't be reached. Its replicas (2) run, but are not ready yet."
    await minho.world.advance(timedelta(seconds=30))
    assert (await minho.do("get_endpoint", endpoint="chat-new")).data["health"] == "healthy"
    assert (await minho.do("undo")).status == "done"
    assert (await minho.do("list_endpoints")).rows == ["chat-prod"]


async def test_deploying_onto_an_endpoint_moves_it_and_never_leaves_it_unreachable(minho: Person) -> None:
    card = await minho.plan("deploy_model", model="qwen3-32b", name="chat-prod")
    assert card.plan is not None
    assert card.plan.title == "Move the endpoint chat-prod to the model qwen3-32b"
    result = await minho.do("deploy_model", model="qwen3-32b", name="chat-prod", expect=card.digest)
    assert result.answer == "chat-prod is being moved to qwen3-32b."
    for _ in range(20):
        told = await minho.do("get_endpoint", endpoint="chat-prod")
        assert told.data["reachable"] is True
        assert told.data["replicas"] in ("2/2", "3/2")
        await minho.world.advance(timedelta(seconds=5))
    assert facts(told)["Revision"] == "2"
    assert told.answer == "chat-prod answers with qwen3-32b: 2 of 2 replicas take requests."


async def test_scaling_and_deleting_tell_what_becomes_of_replicas(minho: Person) -> None:
    assert (await minho.do("scale_endpoint", endpoint="chat-prod", replicas=3)).answer == (
        "chat-prod is being scaled to 3 replicas."
    )
    card = await minho.plan("delete_endpoint", endpoint="chat-prod")
    assert card.plan is not None
    assert card.plan.type_word == "delete"
    assert card.plan.effects[0].text == "Endpoint chat-prod takes no more requests and is deleted."
    assert card.plan.undo is not None
    await minho.do("delete_endpoint", endpoint="chat-prod", expect=card.digest)
    await minho.world.advance(timedelta(seconds=30))
    assert (await minho.do("list_endpoints")).answer == "There is no endpoint."
    assert (await minho.do("list_sessions", type="inference")).rows == []
    await minho.do("undo")
    await minho.world.advance(timedelta(seconds=30))
    assert (await minho.do("get_endpoint", endpoint="chat-prod")).data["replicas"] == "3/3"


async def test_a_copy_of_the_world_has_its_endpoints_too(minho: Person) -> None:
    await minho.do("scale_endpoint", endpoint="chat-prod", replicas=3)
    copy = await minho.world.fork()
    other = Person(copy, "minho")
    await copy.advance(timedelta(seconds=30))
    assert (await other.do("get_endpoint", endpoint="chat-prod")).data["replicas"] == "3/3"
    await other.client.close()
    await copy.close()


async def test_a_lost_node_takes_its_replicas_out_at_once_and_others_stand_in(sora: Person) -> None:
    await sora.world.advance(timedelta(minutes=10, seconds=32))
    at = await sora.client.endpoint("chat-prod")
    assert {r.phase.value for r in at.replicas if r.node == "l40s-01"} == {"away"}
    assert at.traffic.replicas == sum(r.node == "l40s-02" and r.phase.value == "healthy" for r in at.replicas)
    await sora.world.advance(timedelta(seconds=30))
    assert (await sora.do("get_endpoint", endpoint="chat-prod")).data["replicas"] == "2/2"


async def test_a_simulated_endpoint_is_never_asked_for_real(minho: Person) -> None:
    """Whatever listens on its port of this machine is somebody else's."""
    with pytest.raises(Unavailable, match="This cluster is simulated"):
        await minho.client.send("GET", "/serve/chat-prod/v1/models", None)
