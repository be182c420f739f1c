"""The tools for what is in folders and who may use them, on a simulated cluster."""

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest

from cluster.simulator.world import World
from tools.base import Context, Result
from tools.registry import default_registry
from tools.resolve import Question, Ready, Unfit, link
from tools.words import speaker

SCENARIO = """
name: riverside
clock: 2026-03-02T09:00:00+09:00
projects: [{name: vision}, {name: nlp}]
users:
  - {name: sora, role: admin, projects: [vision]}
  - {name: minho, role: user, projects: [vision]}
  - {name: jiwoo, role: user, projects: [nlp]}
folders:
  - {name: imagenet, project: vision, owner: minho, quota: 2t, files: [{path: train/part-000.tar, size: 4g},
     {path: README.md, size: 1k}]}
"""


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = await World.open(SCENARIO)
    yield world
    await world.close()


async def found(world: World, user: str, name: str, /, **raw: Any) -> tuple[Context, Ready | Question | Unfit]:
    client = world.client(user)
    now = world.clock.now().astimezone(world.timezone)
    ctx = Context(client=client, user=user, now=now, names=await client.names(), language="en", say=speaker("en"))
    tool = default_registry().get(name)
    assert tool is not None
    return ctx, await link(tool, raw, ctx)


async def do(world: World, user: str, name: str, /, **raw: Any) -> Result:
    ctx, linked = await found(world, user, name, **raw)
    assert isinstance(linked, Ready), linked
    tool = default_registry().get(name)
    assert tool is not None
    result = await tool.run(ctx, linked.args)
    await ctx.client.close()
    await world.settle()
    return result


async def test_a_folder_is_looked_into(world: World) -> None:
    top = await do(world, "minho", "list_files", folder="imagenet")
    assert top.answer == "2 entries in imagenet, 1 KiB in files."
    assert top.data["files"] == [
        {"name": "README.md", "kind": "file", "size": "1 KiB"},
        {"name": "train", "kind": "folder", "size": "0 B"},
    ]
    inner = await do(world, "minho", "list_files", folder="imagenet", path="train/")
    assert inner.answer == "1 entry in imagenet/train, 4 GiB."
    missing = await do(world, "minho", "list_files", folder="imagenet", path="test")
    assert missing.answer == "There is no test in imagenet."


async def test_a_folder_is_shared_and_that_is_taken_back(world: World) -> None:
    shared = await do(world, "sora", "share_folder", folder="imagenet", permission="read", user="지우")
    assert (shared.status, shared.answer) == ("done", "The folder imagenet is shared with jiwoo.")
    seen = await do(world, "jiwoo", "list_folders")
    assert seen.data["folders"][0]["shared"] == ["jiwoo (read)"]  # type: ignore[index, call-overload]
    gone = await do(world, "sora", "unshare_folder", folder="imagenet", user="jiwoo")
    assert gone.answer == "The folder imagenet is no longer shared with jiwoo."
    assert (await do(world, "jiwoo", "list_folders")).answer == "No folder fits that."


async def test_with_whom_to_share_is_asked(world: World) -> None:
    _, linked = await found(world, "minho", "share_folder", folder="imagenet", permission="read")
    assert isinstance(linked, Question)


async def test_a_copy_says_that_it_is_under_way(world: World) -> None:
    done = await do(world, "minho", "clone_folder", folder="imagenet", name="imagenet-small")
    assert done.answer == "The folder imagenet is being copied to imagenet-small."
    listed = await do(world, "minho", "list_folders", sort_by="name")
    assert [f.get("state") for f in listed.data["folders"]] == [None, "cloning"]  # type: ignore[union-attr]
    await world.advance(timedelta(seconds=20))
    listed = await do(world, "minho", "list_folders", sort_by="name")
    assert [f.get("state") for f in listed.data["folders"]] == [None, None]  # type: ignore[union-attr]


async def test_a_quota_is_set_and_is_above_nothing(world: World) -> None:
    done = await do(world, "minho", "set_folder_quota", folder="imagenet", quota="3테라")
    assert done.answer == "The folder imagenet may hold 3 TiB now."
