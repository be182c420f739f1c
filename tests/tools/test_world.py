"""The tools on a simulated cluster: real core, API and scheduler."""

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest

from cluster.simulator.world import World
from tools.base import Card, Context, Result
from tools.registry import default_registry
from tools.resolve import Question, Ready, Unfit, link
from tools.words import speaker

SCENARIO = """
name: riverside
clock: 2026-03-02T09:00:00+09:00
resource_groups: [{name: train, policy: fifo}, {name: dev}]
nodes:
  - {name: "a100-[01-02]", resource_group: train, cpu: 128, memory: 1024g, gpu: 8, gpu_model: A100-80G}
  - {name: l40s-01, resource_group: dev, cpu: 64, memory: 512g, gpu: 4, gpu_model: L40S}
projects: [{name: vision}, {name: nlp}]
users:
  - {name: sora, role: admin, projects: [vision]}
  - {name: minho, role: user, projects: [vision]}
  - {name: jiwoo, role: user, projects: [nlp]}
images: [{name: "pytorch:2.8-cuda12"}]
folders: [{name: imagenet, project: vision, size: 1.2t, quota: 2t}]
sessions:
  - {name: resnet-sweep, id: s-7f3a, user: minho, project: vision, type: batch, gpu: 8, cpu: 32, memory: 256g,
     status: running, node: a100-01, started: -5h, command: "python sweep.py", log: "epoch 41"}
  - {name: vit-large, id: s-91bc, user: jiwoo, project: nlp, type: batch, gpu: 16, node_count: 2, status: pending,
     submitted: -40m}
quotas: [{user: minho, gpu: 12}]
models: [{name: gemma, parameters: 9b}]
endpoints: [{name: chat, model: gemma, project: vision}]
pipelines: [{name: nightly, project: vision, steps: [{name: prepare}, {name: judge, after: [prepare]}]}]
"""


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = await World.open(SCENARIO)
    yield world
    await world.close()


class Person:
    """Somebody who calls tools; the names are read anew for each call, as in a conversation."""

    def __init__(self, world: World, user: str) -> None:
        self.world, self.user = world, user
        self.client = world.client(user)

    async def link(self, name: str, raw: dict[str, Any]) -> tuple[Any, Context, Ready | Question | Unfit]:
        now = self.world.clock.now().astimezone(self.world.timezone)
        names = await self.client.names()
        ctx = Context(client=self.client, user=self.user, now=now, names=names, language="en", say=speaker("en"))
        tool = default_registry().get(name)
        assert tool is not None
        return tool, ctx, await link(tool, raw, ctx)

    async def plan(self, name: str, /, **raw: Any) -> Card:
        tool, ctx, found = await self.link(name, raw)
        assert isinstance(found, Ready), found
        card = await tool.preview(ctx, found.args)
        assert isinstance(card, Card)
        return card

    async def do(self, name: str, /, expect: str | None = None, **raw: Any) -> Result:
        tool, ctx, found = await self.link(name, raw)
        if isinstance(found, Unfit):
            return found.result
        assert isinstance(found, Ready), found
        result = await tool.run(ctx, found.args, expect=expect)
        assert isinstance(result, Result)
        await self.world.settle()
        return result


@pytest.fixture
async def sora(world: World) -> AsyncIterator[Person]:
    person = Person(world, "sora")
    yield person
    await person.client.close()


@pytest.fixture
async def minho(world: World) -> AsyncIterator[Person]:
    person = Person(world, "minho")
    yield person
    await person.client.close()


async def test_a_session_is_planned_started_seen_and_taken_back(minho: Person) -> None:
    card = await minho.plan("start_session", image="pytorch", name="bert", gpu="두 장", memory="64 gigs")
    assert card.plan is not None
    assert card.plan.title == "Start bert: 2 GPUs, 1 core, 64 GiB"
    assert card.plan.effects[0].text.startswith("bert starts now on l40s-01")
    assert (
        await minho.do("start_session", image="pytorch", name="bert", gpu=2, memory="64g", expect=card.digest)
    ).status == "done"
    assert (
        await minho.do("get_session", session="bert")
    ).answer == "bert (minho): running, 2 GPUs, 1 core, 64 GiB, 0 s."
    assert (await minho.do("undo")).answer.startswith("Taken back. bert is stopped")
    assert (await minho.do("list_sessions", user="me")).rows == ["resnet-sweep"]


async def test_what_no_node_can_hold_is_refused_with_numbers(minho: Person) -> None:
    card = await minho.plan("start_session", image="pytorch", gpu=9)
    assert card.plan is None
    assert card.refusal is not None
    assert (card.refusal.reasons[0].code, card.refusal.reasons[0].asked) == ("impossible", 9)


async def test_why_something_waits_is_told_with_numbers(sora: Person) -> None:
    result = await sora.do("explain_pending", session="vit")
    assert result.answer.startswith("vit-large waits: 2 nodes with 8 GPUs")


async def test_stopping_long_work_of_another_needs_its_name_typed(sora: Person) -> None:
    card = await sora.plan("terminate_sessions", sessions=["resnet"])
    assert card.plan is not None
    assert (card.plan.type_word, card.plan.effects[0].owner) == ("resnet-sweep", "minho")
    assert any("has run for 5 h" in warning for warning in card.plan.warnings)
    assert any("vit-large, which waits, starts" in effect.text for effect in card.plan.effects)


async def test_a_yes_to_an_old_plan_is_refused_when_the_world_moved(sora: Person, minho: Person) -> None:
    card = await sora.plan("drain_node", node="l40s")
    await minho.do("start_session", image="pytorch", name="bert", gpu=2)
    result = await sora.do("drain_node", node="l40s", expect=card.digest)
    assert (result.status, result.reasons[0].code) == ("refused", "state_changed")
    assert (await sora.do("get_node", node="l40s-01")).data["status"] == "alive"


async def test_a_node_is_cordoned_and_opened_again(sora: Person) -> None:
    assert (await sora.do("cordon_node", node="the second a100 box", reason="fan")).status == "done"
    assert (await sora.do("list_nodes", status="cordoned")).rows == ["a100-02"]
    again = await sora.do("cordon_node", node="a100-02")
    assert (again.status, again.reasons[0].code) == ("refused", "conflict")
    await sora.do("uncordon_node", node="a100-02")
    assert (await sora.do("list_nodes", status="alive")).rows == ["a100-01", "a100-02", "l40s-01"]


async def test_a_folder_goes_to_the_trash_and_comes_back(minho: Person) -> None:
    assert (await minho.do("create_folder", name="scratch", quota="2테라")).status == "done"
    deleted = await minho.do("delete_folder", folder="scratch")
    assert (deleted.status, deleted.rows) == ("done", ["scratch"])
    assert (
        await minho.do("delete_folder", folder="scratch")
    ).answer == "The folder scratch is in the trash; restore it first."
    assert (await minho.do("restore_folder", folder="scratch")).status == "done"
    again = await minho.do("restore_folder", folder="scratch")
    assert (again.status, again.reasons[0].code) == ("refused", "not_found")
    assert (await minho.do("list_folders")).rows == ["imagenet", "scratch"]


async def test_the_cluster_decides_what_a_person_may(minho: Person) -> None:
    result = await minho.do("cordon_node", node="a100-01")
    assert (result.status, result.reasons[0].code) == ("refused", "not_allowed")


async def test_every_reading_tool_answers_on_a_live_cluster(sora: Person) -> None:
    needs = {"get_session": {"session": "resnet"}, "get_node": {"node": "a100-01"}}
    needs |= {name: {"session": "vit-large"} for name in ("explain_pending",)}
    needs |= {"get_session_logs": {"session": "resnet-sweep"}, "get_pipeline_run": {"run": "nightly"}}
    needs |= {"list_files": {"folder": "imagenet"}, "get_model": {"model": "gemma"}}
    needs |= {"get_endpoint": {"endpoint": "chat"}, "get_utilization": {"resource": "gpu"}}
    needs |= {"design_cluster": {"goal": "train", "model_parameters": "8b"}}
    await sora.do("run_pipeline", pipeline="nightly")
    for tool in default_registry():
        if tool.risk == "R":
            result = await sora.do(tool.name, **needs.get(tool.name, {}))
            assert result.status == "done", (tool.name, result.answer)
            assert result.answer


async def test_quota_and_output_are_told(sora: Person) -> None:
    assert (await sora.do("get_quota", user="민호")).answer == "minho uses 8 of 12 GPUs."
    logs = await sora.do("get_session_logs", session="resnet", tail=500)
    assert "epoch 41" in str(logs.data["end"])


async def test_when_a_session_would_start_is_told_without_submitting_it(minho: Person, sora: Person) -> None:
    before = {s.name for s in (await sora.client.sessions()).items}
    now = await minho.do("estimate_start", gpu=4, resource_group="dev")
    assert now.answer == "It would start now on l40s-01."
    behind = await minho.do("estimate_start", gpu=1, resource_group="train")
    assert "another project's session (16 GPU) is ahead of it in train, which keeps the order" in behind.answer
    later = await sora.do("estimate_start", gpu=16, node_count=2)
    assert later.answer.startswith("It would wait, and nobody can tell how long: 2 nodes with 8 GPUs")
    assert "vit-large" in later.data["ahead"]
    never = await minho.do("estimate_start", gpu=9)
    assert (never.status, never.reasons[0].code) == ("refused", "impossible")
    assert {s.name for s in (await sora.client.sessions()).items} == before, "nothing was submitted"


async def test_a_groups_policy_is_shown_changed_and_taken_back(sora: Person) -> None:
    card = await sora.plan("set_scheduling_policy", resource_group="train", policy="drf", backfill=True)
    assert card.plan is not None
    assert [line.text for line in card.plan.effects] == [
        "train orders its queue by drf now, not by fifo.",
        "In train smaller sessions may now pass a waiting one that they do not delay (backfill).",
    ]
    done = await sora.do("set_scheduling_policy", resource_group="train", policy="drf", backfill=True)
    assert done.status == "done"
    again = await sora.do("set_scheduling_policy", resource_group="train", policy="drf")
    assert again.answer == "train is scheduled that way already; nothing to do."
    await sora.do("undo")
    groups = {g.name: g for g in (await sora.client.resource_groups()).items}
    assert (groups["train"].policy, groups["train"].backfill) == ("fifo", False)


async def test_what_a_policy_would_start_is_seen_before(sora: Person, minho: Person) -> None:
    await minho.do("start_session", command="true", gpu=1, resource_group="train", name="small", time_limit="1h")
    card = await sora.plan("set_scheduling_policy", resource_group="train", backfill=True)
    assert card.plan is not None
    assert any("small" in line.text and "starts now" in line.text for line in card.plan.effects)
    waits = await minho.client.session("small")
    assert waits.state == "pending", "it was only looked at"


async def test_a_priority_is_refused_planned_and_given(sora: Person, minho: Person) -> None:
    await minho.do("start_session", command="true", gpu=4, resource_group="train", name="small", time_limit="1h")
    denied = await minho.plan("set_session_priority", session="small", priority=50)
    assert denied.refusal is not None
    assert denied.refusal.reasons[0].code == "not_allowed"
    card = await sora.plan("set_session_priority", session="small", priority=50)
    assert card.plan is not None
    assert card.plan.title == "Give small priority 50"
    assert card.plan.effects[0].text == "small has priority 50 now, not 10."
    assert any("small, which waits, starts now on a100-02" in line.text for line in card.plan.effects)
    done = await sora.do("set_session_priority", session="small", priority=50, expect=card.digest)
    assert done.answer.startswith("small has priority 50 now.")
    assert (await sora.client.session("small")).state == "running"


async def test_a_running_session_is_restarted_and_loses_what_it_has_not_saved(sora: Person) -> None:
    card = await sora.plan("restart_session", session="resnet")
    assert card.plan is not None
    assert [line.text for line in card.plan.effects][:2] == [
        "resnet-sweep is stopped, and waits in its old place in the queue to start again.",
        "resnet-sweep starts again on a100-01 once it is stopped.",
    ]
    assert "has run for 5 h; what it has not saved is lost" in card.plan.warnings[0]
    assert card.plan.type_word is not None, "five hours are lost, and it is another's"
    done = await sora.do("restart_session", session="resnet-sweep", expect=card.digest)
    assert done.answer.startswith("resnet-sweep is being stopped, and starts again.")
    await sora.world.advance(timedelta(minutes=5))
    again = await sora.client.session("resnet-sweep")
    assert (again.state, again.id) == ("running", "s-7f3a")
    assert again.started is not None
    assert sora.world.clock.now() - again.started < timedelta(minutes=6)


async def test_a_node_moves_to_another_group_and_back(sora: Person) -> None:
    card = await sora.plan("move_node", node="a100-02", resource_group="dev")
    assert card.plan is not None
    assert card.plan.effects[0].text == "a100-02 moves from train to dev; what runs there goes on (0)."
    assert "they wait in vain: vit-large" in card.plan.warnings[0], "it needs two nodes"
    await sora.do("move_node", node="a100-02", resource_group="dev")
    assert (await sora.do("list_nodes", resource_group="dev")).rows == ["a100-02", "l40s-01"]
    await sora.do("undo")
    assert (await sora.do("list_nodes", resource_group="dev")).rows == ["l40s-01"]


async def test_utilization_is_told_now_over_time_and_by_whom(sora: Person, minho: Person) -> None:
    by_user = await sora.do("get_utilization", resource="gpu", group_by="user")
    assert by_user.answer == "Share of all GPUs held now, the highest first: minho 40 %."
    assert by_user.rows == ["minho"]
    await sora.world.advance(timedelta(hours=1))
    over = await sora.do("get_utilization", resource="power", group_by="node", period="30m")
    assert over.answer.startswith("Power over the last 30 min on average, the highest first: a100-01")
    assert over.view.view == "chart"
    refused = await minho.do("get_utilization", resource="temperature", group_by="user")
    assert (refused.status, refused.reasons[0].code) == ("refused", "invalid")
