"""The tools for people and quotas, as they are asked for and shown, on a simulated cluster."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from cluster.simulator.world import World
from tools.base import Card, Context, OperationTool, Result
from tools.registry import default_registry
from tools.resolve import Question, Ready, link
from tools.words import speaker

LAB = """
projects: [{name: vision, gpu: 8, description: cameras}, {name: nlp}]
users:
  - {name: alice, role: admin, full_name: Alice Kim}
  - {name: minho, projects: [vision]}
  - {name: lea, role: project_admin, projects: [nlp]}
nodes: [{name: n1, gpu: 8}]
sessions:
  - {name: sweep, user: minho, project: vision, gpu: 4, status: running, node: n1, started: -5h}
  - {name: next, user: minho, project: vision, gpu: 8, status: pending, submitted: -1h}
"""


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = await World.open(LAB)
    yield world
    await world.close()


async def context(world: World, user: str = "alice") -> Context:
    client = world.client(user)
    return Context(client=client, user=user, now=world.clock.now(), names=await client.names(), language="en",
                   say=speaker("en"))  # fmt: skip


async def do(world: World, name: str, user: str = "alice", /, **raw: Any) -> tuple[Card | None, Result]:
    """Preview, then do what was previewed."""
    ctx, tool = await context(world, user), default_registry().get(name)
    assert tool is not None
    ready = await link(tool, raw, ctx)
    assert isinstance(ready, Ready), ready
    card = await tool.preview(ctx, ready.args) if isinstance(tool, OperationTool) else None
    return card, await tool.run(ctx, ready.args, expect=card.digest if card and card.plan else None)


async def test_a_person_is_made_put_into_a_project_and_listed(world: World) -> None:
    card, done = await do(world, "create_user", name="jiwoo", email="jiwoo@lab.example")
    assert card is not None
    assert card.plan is not None
    assert card.plan.title == "Create the user jiwoo"
    assert done.answer == "User jiwoo is created."
    card, done = await do(world, "add_project_member", project="vision", user="jiwoo", role="project_admin")
    assert done.answer == "jiwoo is an admin of project vision now."
    _, listed = await do(world, "list_users", role="project_admin")
    assert listed.rows == ["jiwoo", "lea"]
    _, listed = await do(world, "list_users", project="vision", role="user")
    assert listed.rows == ["minho"]


async def test_deactivating_says_what_is_stopped_and_wants_a_word_typed(world: World) -> None:
    card, done = await do(world, "deactivate_user", user="minho")
    assert card is not None
    assert card.plan is not None
    assert (card.plan.title, card.plan.risk) == ("Deactivate the user minho, and stop 2 of their sessions", "D")
    assert card.plan.type_word == "deactivate"
    assert any("5 h" in warning for warning in card.plan.warnings)
    assert done.status == "done"


async def test_a_quota_is_set_with_what_it_means_and_shown(world: World) -> None:
    card, done = await do(world, "set_quota", project="vision", gpu=2, memory="512g")
    assert card is not None
    assert card.plan is not None
    assert [line.text for line in card.plan.effects][:2] == [
        "vision may use 512 GiB of memory (before: ∞).",
        "vision may use 2 GPUs (before: 8).",
    ]
    assert any("more than the new limit" in warning for warning in card.plan.warnings)
    _, shown = await do(world, "get_quota", project="vision")
    assert shown.answer == "vision uses 4 of 2 GPUs."


async def test_who_and_what_is_asked_for_when_it_was_not_said(world: World) -> None:
    tool, ctx = default_registry().get("set_quota"), await context(world)
    assert tool is not None
    who = await link(tool, {"gpu": 4}, ctx)
    what = await link(tool, {"user": "minho"}, ctx)
    assert isinstance(who, Question)
    assert isinstance(what, Question)


async def test_a_plain_user_is_refused_in_one_sentence(world: World) -> None:
    card, done = await do(world, "create_project", "minho", name="mine")
    assert card is not None
    assert card.refusal is not None
    assert done.answer == "Only an admin may do this; you are minho (user)."


async def test_what_one_may_not_see_is_not_offered_as_a_name(world: World) -> None:
    names = (await context(world, "minho")).names
    assert (names.users, names.projects) == (["minho"], ["vision"])
    assert (await context(world, "lea")).names.users == ["alice", "lea", "minho"]


async def test_a_scenarios_people_have_what_the_file_says(world: World) -> None:
    client = world.client("alice")
    users = {u.name: u for u in (await client.users()).items}
    assert users["alice"].full_name == "Alice Kim"
    assert users["lea"].leads == ["nlp"]
    projects = {p.name: p for p in (await client.projects()).items}
    assert projects["vision"].description == "cameras"
    assert [m.role for m in projects["nlp"].members] == ["project_admin"]


async def test_an_image_is_registered_and_listed_with_its_registry(world: World) -> None:
    _, done = await do(world, "register_image", image="lab/train:1", registry="ghcr.io")
    assert done.answer == "The image lab/train:1 is registered."
    _, listed = await do(world, "list_images")
    assert listed.rows == ["lab/train:1"]
