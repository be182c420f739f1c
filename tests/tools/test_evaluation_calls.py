"""The canonical calls of the evaluation set: linking leaves them as they are."""

import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster.simulator.world import World
from tools.base import Context
from tools.per_node import fold
from tools.registry import default_registry
from tools.resolve import Ready, link
from tools.words import speaker

SETS = Path(__file__).parents[2] / "evals" / "sets"


@pytest.fixture
async def ctx() -> AsyncIterator[Context]:
    world = await World.open(SETS / "first.yaml")
    client = world.client()
    now = world.clock.now().astimezone(world.timezone)
    user, names = (await client.whoami()).name, await client.names()
    yield Context(client=client, user=user, now=now, names=names, language="en", say=speaker("en"))
    await client.close()
    await world.close()


def calls() -> Iterator[dict[str, Any]]:
    for line in (SETS / "first.jsonl").read_text(encoding="utf-8").splitlines():
        for turn in json.loads(line)["expect"]:
            yield from (call for call in turn if default_registry().get(call["tool"]))


async def test_a_call_that_is_canonical_already_links_to_itself(ctx: Context) -> None:
    expected = list(calls())
    assert len(expected) > 100
    for call in expected:
        tool = default_registry().get(call["tool"])
        assert tool is not None
        found = await link(tool, call["arguments"], ctx)
        assert isinstance(found, Ready), call
        assert found.args.given() == fold(call["arguments"]), call
