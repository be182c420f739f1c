"""The tool diagnose, in the demo's cluster, as a tired admin reads it."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from cluster.client import Client
from cluster.errors import NotFound
from cluster.models import Proposal
from cluster.simulator.world import DEMO, World
from tools import diagnose
from tools.base import Context, Result
from tools.diagnose import words
from tools.registry import default_registry
from tools.resolve import Ready, link
from tools.views import Facts
from tools.words import speaker


@pytest.fixture
async def world() -> AsyncIterator[World]:
    made = await World.open(DEMO)
    yield made
    await made.close()


async def call(world: World, user: str = "sora", language: Any = "en", **raw: Any) -> Result:
    client = world.client(user)
    tool = default_registry().get("diagnose")
    assert tool is not None
    ctx = await _context(world, client, user, language)
    found = await link(tool, raw, ctx)
    assert isinstance(found, Ready), found
    result = await tool.run(ctx, found.args)
    await client.close()
    return result


async def _context(world: World, client: Client, user: str, language: Any) -> Context:
    now, names = world.clock.now().astimezone(world.timezone), await client.names()
    return Context(client=client, user=user, now=now, names=names, language=language, say=speaker(language))


def lines(result: Result) -> list[str]:
    assert isinstance(result.view, Facts)
    return [f"{label} | {cell.text}" if label else cell.text for label, cell in result.view.facts]


async def test_one_sentence_says_it_all_and_the_worst_stands_first(world: World) -> None:
    result = await call(world)
    assert result.answer == (
        "1 of 20 nodes needs attention (cpu-04); 4 sessions failed lately; 2 running sessions are in trouble "
        "(resnet-sweep, detr-lr-1e3); 3 sessions hold 6 idle GPU; of 8 waiting sessions, 2 are held up; "
        "the endpoints (3) answer; folders need room: nlp-ckpt, vision-ckpt."
    )
    assert lines(result)[0] == "cpu-04 | cpu-04 has not answered for 3 h."


async def test_what_is_wrong_with_one_thing_stands_together_and_what_helps_is_said_once(world: World) -> None:
    said = lines(await call(world))
    at = next(i for i, line in enumerate(said) if line.startswith("resnet-sweep | "))
    assert said[at].endswith("ran out of GPU memory.")
    assert said[at + 1].startswith("“torch.OutOfMemoryError: CUDA out of memory.")
    assert said[at + 2] == "resnet-sweep uses 3 % of its 4 GPU; alice has had it running for 9 h."
    assert said[at + 3] == "→ terminate resnet-sweep"
    assert said.count("→ terminate resnet-sweep") == 1


async def test_why_one_failed_is_told_with_its_line_and_what_to_do(world: World) -> None:
    result = await call(world, target="swin-large")
    assert result.answer == "swin-large ran out of GPU memory."
    assert lines(result)[1].startswith("“torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 12.00 GiB")
    assert "A smaller batch" in lines(result)[2]


async def test_asked_why_one_waits_that_has_failed_it_is_told_why_it_failed(world: World) -> None:
    client = world.client("sora")
    tool = default_registry().get("explain_pending")
    assert tool is not None
    result = await tool.run(await _context(world, client, "sora", "en"), tool.arguments(session="swin-large"))
    await client.close()
    assert result.answer == "swin-large ran out of GPU memory."


async def test_it_is_said_in_korean_too_with_nothing_left_in_english(world: World) -> None:
    result = await call(world, language="ko", target="swin-large")
    assert result.answer == "swin-large 세션의 GPU 메모리가 부족했습니다."
    own = [line for line in lines(await call(world, language="ko")) if not line.startswith("“")]
    assert not [line for line in own if " is " in line or " has " in line or "show the" in line]


async def test_one_who_may_not_see_it_is_told_no_more_than_of_what_is_not_there(world: World) -> None:
    result = await call(world, user="lars")
    assert "swin-large" not in result.model_dump_json()
    assert "sessions of others were not looked at." in lines(result)[-1]
    client = world.client("lars")
    with pytest.raises(NotFound):
        await client.diagnosis("swin-large")
    await client.close()


async def test_a_session_s_environment_is_not_told_to_the_model() -> None:
    proposal = Proposal(tool="start_session", arguments={"name": "x", "env": {"TOKEN": "secret"}})
    assert diagnose._call(proposal) == {"tool": "start_session", "arguments": {"name": "x"}}


@pytest.mark.parametrize(
    ("tool", "arguments", "said"),
    [
        ("terminate_sessions", {"sessions": ["a", "b"]}, "→ terminate a, b"),
        ("set_quota", {"project": "nlp", "gpu": 8.0}, "→ set the GPU quota of project nlp to 8"),
        ("get_quota", {"user": "ann"}, "→ show the quota of ann"),
        ("start_session", {"name": "x", "gpu": 2.0, "memory": "16g"}, "→ start x again (2 GPU, 16g)"),
        ("brand_new_tool", {"a": 1}, "→ brand_new_tool a=1"),
    ],
)
def test_a_proposal_is_words_that_a_person_can_type(ctx: Context, tool: str, arguments: Any, said: str) -> None:
    assert words(ctx, Proposal(tool=tool, arguments=arguments)) == said
