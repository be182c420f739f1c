"""Stories in a simulated cluster, through the same client, API, scheduler and storage as a real one."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from cluster.client import Client
from cluster.errors import NotFound, ScenarioError
from cluster.models import NodeStatus, SessionState, StartSession, TerminateSessions
from cluster.simulator.world import DEMO, World

SMALL = """
name: small
clock: 2026-03-02T09:00:00+09:00
resource_groups: [{name: train}]
nodes:
  - {name: "a100-[01-02]", resource_group: train, cpu: 32, memory: 256g, gpu: 4, gpu_model: A100-80G}
users:
  - {name: sora, role: admin}
  - {name: minho, projects: [nlp]}
  - {name: alice, projects: [vision]}
projects: [{name: nlp}, {name: vision}]
folders: [{name: corpus, project: nlp, size: 40g}]
sessions:
  - {name: sweep, id: s-1, user: alice, type: batch, gpu: 4, cpu: 8, status: running, node: a100-01,
     started: -3h, time_limit: 5h, gpu_utilization: 0.03, command: "python sweep.py", log: "CUDA out of memory",
     runs_for: 4h}
  - {name: big, id: s-2, user: minho, type: batch, gpu: 8, node_count: 2, status: pending,
     submitted: -40m, command: "python big.py", time_limit: 2h, mounts: [corpus]}
  - {name: after, id: s-3, user: minho, type: batch, gpu: 1, status: held, depends_on: [big], command: "python eval.py"}
  - {name: failed, id: s-4, user: minho, type: batch, status: error, exit_code: 1, started: -2h, ended: -1h,
     command: "python x.py"}
quotas: [{user: minho, gpu: 8}]
models: [{name: gemma-2-9b-it}]
faults: [{at: +10m, node: a100-02, kind: lost, duration: 2m}]
"""


@asynccontextmanager
async def small(text: str = SMALL) -> AsyncIterator[tuple[World, Client]]:
    world = await World.open(text)
    client = world.client()
    try:
        yield world, client
    finally:
        await client.close()
        await world.close()


async def states(client: Client) -> dict[str, str]:
    ended = [await client.sessions(status=state) for state in ("terminated", "error", "cancelled")]
    pages = [await client.sessions(), *ended]
    return {session.name: session.state.value for page in pages for session in page.items}


async def test_a_fresh_world_is_what_the_scenario_says() -> None:
    async with small() as (world, client):
        assert await states(client) == {"sweep": "running", "big": "pending", "after": "held", "failed": "error"}
        assert (await client.status()).now == datetime(2026, 3, 2, 0, 0, tzinfo=UTC)
        sweep = await client.session("sweep")
        assert (sweep.gpu_utilization, sweep.idle) == (0.03, True)
        assert sweep.started == datetime(2026, 3, 1, 21, 0, tzinfo=UTC)
        assert [(a.node, sorted(a.devices)) for a in sweep.allocations] == [("a100-01", [0, 1, 2, 3])]
        assert "CUDA out of memory" in (await client.logs("sweep")).text
        node = await client.node("a100-01")
        assert (node.free.gpu, node.sessions) == (0, ["sweep"])
        names = await client.names()
        assert (names.models, names.folders) == (["gemma-2-9b-it"], ["corpus"])
        assert (await client.explain("big")).reasons[0].code == "insufficient_resources"
        assert str((await client.session("after")).reasons[0].message) == "Waits until big ends with success."
        quotas = await client.quotas(user="minho")
        assert quotas.items[0].gpu == 8


async def test_a_started_session_runs_once_things_have_settled_and_the_clock_has_not_moved() -> None:
    async with small() as (world, client):
        before = world.clock.now()
        outcome = await client.execute(StartSession(command="python hello.py", cpu=2, name="hello"))
        assert outcome.refused == []
        await world.settle()
        assert world.clock.now() == before
        assert (await client.session("hello")).state == SessionState.PENDING
        await client.execute(TerminateSessions(sessions=["big"]))
        await world.settle()
        assert (await client.session("hello")).state == SessionState.RUNNING
        assert (await client.session("hello")).started == before


async def test_a_stopped_session_has_ended_and_makes_room_at_once() -> None:
    async with small() as (world, client):
        await client.execute(TerminateSessions(sessions=["sweep"]))
        await world.settle()
        assert await states(client) == {"sweep": "terminated", "big": "running", "after": "held", "failed": "error"}
        assert len((await client.session("big")).allocations) == 2


async def test_time_brings_ends_starts_and_what_depends_on_them() -> None:
    async with small() as (world, client):
        await world.advance(timedelta(minutes=80))
        assert await states(client) == {"sweep": "terminated", "big": "running", "after": "held", "failed": "error"}
        assert (await client.session("big")).started == datetime(2026, 3, 2, 1, 0, tzinfo=UTC)
        await world.advance(timedelta(hours=2))
        assert (await states(client))["after"] in ("running", "terminated")
        assert "loss" in (await client.logs("big")).text


async def test_a_lost_node_is_noticed_and_comes_back_within_its_grace() -> None:
    async with small() as (world, client):
        await world.advance(timedelta(minutes=10))
        assert (await client.node("a100-02")).status == NodeStatus.ALIVE
        await world.advance(timedelta(minutes=1))
        assert (await client.node("a100-02")).status == NodeStatus.LOST
        await world.advance(timedelta(minutes=5))
        assert (await client.node("a100-02")).status == NodeStatus.ALIVE
        kinds = [event.kind for event in (await client.events(limit=200)).items]
        assert kinds.index("node_lost") < kinds.index("node_back")


async def test_a_fork_goes_its_own_way() -> None:
    async with small() as (world, client):
        twin = await world.fork()
        theirs = twin.client("alice")
        try:
            await theirs.execute(TerminateSessions(sessions=["sweep"]))
            await twin.settle()
            await twin.advance(timedelta(minutes=5))
            assert (await theirs.session("sweep")).state == SessionState.TERMINATED
            assert (await client.session("sweep")).state == SessionState.RUNNING
            assert (await client.status()).now < (await theirs.status()).now
            await world.advance(timedelta(minutes=80))
            assert (await client.session("sweep")).exit_code == 0
        finally:
            await theirs.close()
            await twin.close()


async def test_each_client_is_its_user() -> None:
    async with small() as (world, client):
        assert (await client.whoami()).role == "admin"
        theirs = world.client("alice")
        assert [session.name for session in (await theirs.sessions()).items] == ["sweep"]
        await theirs.close()
        with pytest.raises(NotFound) as caught:
            world.client("minhoo")
        assert caught.value.candidates[0] == "minho"


async def test_it_lives_with_the_wall_clock_faster_if_wished() -> None:
    async with small() as (world, client):

        async def ended() -> bool:
            return (await client.session("sweep")).state == SessionState.TERMINATED

        living = asyncio.create_task(world.live(speed=7200))
        try:
            await world.core.wait_for(ended, 20)
            assert await ended()
        finally:
            living.cancel()
            await asyncio.gather(living, return_exceptions=True)


async def test_the_same_seed_gives_the_same_day() -> None:
    async def day() -> list[tuple[datetime, str, str]]:
        async with small() as (world, client):
            await world.advance(timedelta(hours=4))
            return [(event.at, event.kind, event.target or "") for event in (await client.events(limit=500)).items]

    assert await day() == await day()


async def test_the_demo_opens_with_its_stories(tmp_path: Path) -> None:
    world = await World.open(DEMO, data_dir=tmp_path)
    client = world.client()
    try:
        status = await client.status()
        assert (sum(status.nodes.values()), status.simulated) == (20, True)
        await world.settle()
        why = {name: (await client.session(name)).reasons for name in ("vit-huge", "detr-lr-3e3", "rerank-test")}
        assert why["vit-huge"][0].code == "insufficient_resources"
        assert why["detr-lr-3e3"][0].code == "quota"
        assert why["rerank-test"][0].ahead == ["chat-canary"]
        assert (await client.explain("vit-huge")).estimated_start is not None
        idle = await client.sessions(idle=True)
        assert {session.name for session in idle.items} >= {"explore-embeddings", "resnet-sweep", "bob-notebook"}
    finally:
        await client.close()
        await world.close()
    assert (tmp_path / "cluster.db").exists()


async def test_a_faulty_scenario_opens_nothing() -> None:
    with pytest.raises(ScenarioError, match=r"line 1: there is no key nods in a scenario; did you mean nodes\?"):
        await World.open("nods: []")
