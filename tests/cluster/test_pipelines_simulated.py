"""Pipelines of a scenario, on the clock of a simulated cluster, as its chat sees them."""

from datetime import timedelta

import pytest

from cluster.errors import ScenarioError
from cluster.models import CancelPipelineRun, RunPipeline, RunState
from cluster.simulator.loading import load
from cluster.simulator.world import World

TEXT = """
name: small
clock: 2026-03-02T09:00:00+09:00
nodes: [{name: "n-[01-02]", cpu: 8, memory: 64g, gpu: 2, gpu_model: A100-80G}]
users: [{name: sora, role: admin}, {name: minho, projects: [nlp]}, {name: alice, projects: [vision]}]
projects: [{name: nlp}, {name: vision}]
pipelines:
  - name: nightly-eval
    project: nlp
    user: minho
    parameters: {set: dev}
    steps:
      - {name: prepare}
      - {name: evaluate, after: [prepare], gpu: 1, command: "evaluate {{ parameters.set }}"}
      - {name: publish, after: [evaluate]}
  - {name: ingest, steps: [{name: only, command: "sleep 600"}]}
"""


async def test_a_scenarios_pipelines_are_there_with_owner_project_and_steps() -> None:
    world = await World.open(TEXT)
    client = world.client()
    found = {p.name: (p.project, p.owner, p.steps) for p in (await client.pipelines()).items}
    assert found["nightly-eval"] == ("nlp", "minho", ["prepare", "evaluate", "publish"])
    assert found["ingest"][2] == ["only"]
    names = await client.names()
    assert (names.pipelines, names.runs) == (["ingest", "nightly-eval"], {})
    await client.close()
    await world.close()


async def test_a_run_goes_on_with_the_clock_and_in_a_fork_of_its_own() -> None:
    world = await World.open(TEXT)
    client = world.client("minho")
    await client.execute(RunPipeline(pipeline="nightly-eval"))
    await world.settle()
    twin = await world.fork()
    other = twin.client("minho")
    await world.advance(timedelta(days=4))
    run = await client.pipeline_run("nightly-eval")
    assert (run.state, [s.tries for s in run.steps]) == (RunState.SUCCEEDED, [1, 1, 1])
    since = [step.since for step in run.steps]
    assert since == sorted(since)
    assert timedelta(minutes=3) < since[-1] - run.created < timedelta(days=3)
    assert (await client.names()).runs == {"r-0001": "nightly-eval"}
    assert (await other.pipeline_run("r-0001")).state is RunState.RUNNING
    await other.execute(CancelPipelineRun(run="r-0001"))
    await twin.settle()
    assert (await other.pipeline_run("r-0001")).state is RunState.CANCELLED
    for each in (client, other):
        await each.close()
    await twin.close()
    await world.close()


@pytest.mark.parametrize(
    ("steps", "said"),
    [
        ("[]", "p has no steps"),
        ("[{name: a}, {name: a}]", "p has two steps a"),
        ("[{name: a, after: [b]}, {name: b, after: [a]}]", "these steps wait for each other in a circle"),
    ],
)
def test_a_scenario_with_a_pipeline_that_can_never_run_is_refused(steps: str, said: str) -> None:
    with pytest.raises(ScenarioError, match=said):
        load(f"name: x\npipelines:\n  - {{name: p, steps: {steps}}}\n")
