"""The tools for pipelines, in a simulated cluster, as a person reads them."""

from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest

from cluster.client import Client
from cluster.simulator.world import World
from tools.base import Context, Result
from tools.registry import default_registry
from tools.resolve import Question, Ready, link
from tools.views import Table
from tools.words import speaker

TEXT = """
name: small
clock: 2026-03-02T09:00:00+09:00
nodes: [{name: n-01, cpu: 8, memory: 64g}]
users: [{name: sora, role: admin}, {name: minho, projects: [nlp]}, {name: bob, projects: [nlp]}]
projects: [{name: nlp}]
pipelines:
  - name: nightly-eval
    project: nlp
    user: minho
    parameters: {set: dev}
    steps:
      - {name: prepare, command: sleep 600}
      - {name: evaluate, after: [prepare], command: "sleep 600; exit 3"}
      - {name: publish, after: [evaluate], command: sleep 60}
  - {name: ingest, project: nlp, user: minho, steps: [{name: only, command: "sleep 600"}]}
"""
Asking = Callable[..., Awaitable[Context]]


class Desk:
    """A simulated cluster, and contexts to ask it with."""

    def __init__(self, world: World) -> None:
        self.world = world
        self._clients: dict[str, Client] = {}

    async def context(self, user: str = "minho", language: Any = "en") -> Context:
        client = self._clients.setdefault(user, self.world.client(user))
        now = self.world.clock.now().astimezone(self.world.timezone)
        names = await client.names()
        return Context(client=client, user=user, now=now, names=names, language=language, say=speaker(language))

    async def call(self, name: str, /, user: str = "minho", language: Any = "en", **raw: Any) -> Result:
        ctx = await self.context(user, language)
        tool = default_registry().get(name)
        assert tool is not None
        found = await link(tool, raw, ctx)
        assert isinstance(found, Ready), found
        result = await tool.run(ctx, found.args)
        await self.world.settle()
        return result

    async def close(self) -> None:
        for client in self._clients.values():
            await client.close()
        await self.world.close()


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    made = Desk(await World.open(TEXT))
    yield made
    await made.close()


def lines(result: Result) -> list[str]:
    assert isinstance(result.view, Table)
    return [" | ".join(cell.text for cell in row) for row in result.view.rows]


async def test_pipelines_are_listed_with_their_latest_run(desk: Desk) -> None:
    await desk.call("run_pipeline", pipeline="ingest")
    await desk.world.advance(timedelta(minutes=5))
    result = await desk.call("list_pipelines")
    assert result.answer == "2 pipelines, 1 of them run now."
    assert lines(result) == [
        "ingest | nlp | minho | 1 | r-0001 | running | 5 min ago",
        "nightly-eval | nlp | minho | 3 | – | – | –",
    ]
    assert (result.rows, result.rows_of) == (["ingest", "nightly-eval"], "pipeline")


async def test_a_plan_shows_the_steps_and_where_the_first_starts(desk: Desk) -> None:
    ctx = await desk.context()
    tool = default_registry().get("run_pipeline")
    assert tool is not None
    found = await link(tool, {"pipeline": "nightly", "parameters": {"set": "test"}}, ctx)
    assert isinstance(found, Ready)
    card = await tool.preview(ctx, found.args)
    assert card is not None
    assert card.plan is not None
    assert card.plan.title == "Run nightly-eval with set=test"
    assert [line.text for line in card.plan.effects] == [
        "nightly-eval runs as r-0001 in nlp.",
        "evaluate follows when these have succeeded: prepare.",
        "publish follows when these have succeeded: evaluate.",
        "Level by level, it needs up to 1 CPU at the same time.",
        "nightly-eval-prepare starts now on n-01.",
    ]
    assert card.plan.undo == "undo cancels the run; what its steps have done until then stays."
    done = await tool.run(ctx, found.args, expect=card.digest)
    assert done.answer == "Run r-0001 of nightly-eval has begun."
    assert (done.rows, done.rows_of, done.data["run"]) == (["r-0001"], "run", "r-0001")


async def test_a_run_is_watched_to_its_failure_and_resumed(desk: Desk) -> None:
    await desk.call("run_pipeline", pipeline="nightly-eval")
    going = await desk.call("get_pipeline_run", run="nightly-eval")
    assert going.answer == "Run r-0001 of nightly-eval: 0 of 3 steps have succeeded; now: prepare."
    await desk.world.advance(timedelta(minutes=21))
    failed = await desk.call("get_pipeline_run", run="r-0001")
    assert failed.answer == "Run r-0001 of nightly-eval has failed at evaluate; 1 of 3 steps have succeeded."
    assert [line.split(" | ")[:2] for line in lines(failed)] == [
        ["prepare", "succeeded"], ["evaluate", "failed"], ["publish", "left out"]
    ]  # fmt: skip
    assert lines(failed)[1].endswith(
        "Step evaluate failed with exit code 3; its last lines are in the log of nightly-eval-evaluate."
    )
    assert failed.rows_of == "session"
    assert (await desk.call("get_session", session=failed.rows[1])).status == "done"
    resumed = await desk.call("resume_pipeline_run", run="nightly-eval")
    assert resumed.answer == "The run nightly-eval goes on."
    again = await desk.call("get_pipeline_run", run="r-0001")
    assert again.answer == "Run r-0001 of nightly-eval: 1 of 3 steps have succeeded; now: evaluate."


async def test_cancelling_says_whose_run_it_is_and_asks_for_a_word_when_it_is_anothers(desk: Desk) -> None:
    await desk.call("run_pipeline", pipeline="ingest")
    await desk.world.advance(timedelta(minutes=2))
    ctx, tool = await desk.context("sora"), default_registry().get("cancel_pipeline_run")
    assert tool is not None
    found = await link(tool, {"run": "r-0001"}, ctx)
    assert isinstance(found, Ready)
    card = await tool.preview(ctx, found.args)
    assert card is not None
    assert card.plan is not None
    assert (card.plan.risk, card.plan.type_word) == ("D", "ingest-only")
    assert [(line.text, line.owner) for line in card.plan.effects[:2]] == [
        ("Run r-0001 of ingest is cancelled: 0 of 1 steps have succeeded, 0 do not begin.", "minho"),
        ("It was started 2 min ago.", "minho"),
    ]
    done = await desk.call("cancel_pipeline_run", user="sora", run="r-0001")
    assert done.answer == "The run r-0001 is being cancelled; sessions that are stopped: 1."
    assert (await desk.call("get_pipeline_run", run="ingest")).answer == (
        "Run r-0001 of ingest is cancelled; 0 of 1 steps had succeeded."
    )


async def test_others_in_the_project_may_look_and_not_cancel(desk: Desk) -> None:
    await desk.call("run_pipeline", pipeline="ingest")
    assert (await desk.call("get_pipeline_run", user="bob", run="r-0001")).status == "done"
    refused = await desk.call("cancel_pipeline_run", user="bob", run="r-0001")
    assert (refused.status, refused.reasons[0].code) == ("refused", "not_allowed")


async def test_it_speaks_korean(desk: Desk) -> None:
    begun = await desk.call("run_pipeline", language="ko", pipeline="nightly-eval")
    assert begun.answer == "nightly-eval 파이프라인의 실행 r-0001 건이 시작되었습니다."
    await desk.world.advance(timedelta(minutes=21))
    told = await desk.call("get_pipeline_run", language="ko", run="nightly-eval")
    assert told.answer == (
        "nightly-eval 파이프라인의 실행 r-0001 건이 다음 단계에서 실패했습니다: evaluate. "
        "전체 3단계 중 1단계가 성공했습니다."
    )


async def test_a_name_that_no_run_has_is_asked_about_or_refused(desk: Desk) -> None:
    ctx, tool = await desk.context(), default_registry().get("cancel_pipeline_run")
    assert tool is not None
    guessed = await link(tool, {"run": "nightly-evla"}, ctx)
    assert isinstance(guessed, Question)
    assert guessed.text == "Do you mean nightly-eval?"
    nothing = await desk.call("get_pipeline_run", run="ingest")
    assert (nothing.status, nothing.answer) == ("refused", "There is no run ingest.")
