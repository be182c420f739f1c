"""Endpoints that scale themselves: the real keepers in a simulated cluster, whose load the test plays."""

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import select

from cluster.client import Client
from cluster.db.tables import DecisionRow, EndpointRow
from cluster.models import DeleteEndpoint, Outcome, ScaleEndpoint, SetAutoscaling, Undo
from cluster.serving.autoscale import replay
from cluster.simulator.world import World

SCENARIO = """
name: riverside
clock: 2026-03-02T09:00:00+09:00
resource_groups: [{name: serve}]
nodes: [{name: "l40s-[01-04]", resource_group: serve, cpu: 64, memory: 512g, gpu: 4, gpu_model: L40S}]
projects: [{name: vision}, {name: nlp}]
users:
  - {name: sora, role: admin, projects: [vision]}
  - {name: minho, projects: [vision]}
  - {name: jiwoo, projects: [nlp]}
models: [{name: gemma-2-9b-it}]
endpoints:
  - {name: chat, model: gemma-2-9b-it, replicas: 2, gpu: 1, project: vision, user: minho, requests_per_second: 40}
"""


class Play:
    def __init__(self, world: World) -> None:
        self.world = world
        self.sora, self.minho, self.jiwoo = (world.client(name) for name in ("sora", "minho", "jiwoo"))

    async def load(self, **measured: float) -> None:
        """From now on this is measured."""
        async with self.world.core.db.write() as db:
            row = await db.scalar(select(EndpointRow).where(EndpointRow.name == "chat"))
            assert row is not None
            row.measured = measured

    async def after(self, **span: float) -> int:
        """How many replicas are wanted when this time has passed."""
        await self.world.advance(timedelta(**span))
        return (await self.minho.endpoint("chat")).wanted

    async def decisions(self) -> list[DecisionRow]:
        async with self.world.core.db.read() as db:
            return list(await db.scalars(select(DecisionRow).order_by(DecisionRow.id)))


def policy(target: float = 10, least: int = 1, most: int = 8, **more: Any) -> SetAutoscaling:
    return SetAutoscaling.model_validate(
        {"endpoint": "chat", "metric": "requests_per_second", "target": target, "min_replicas": least,
         "max_replicas": most} | more
    )  # fmt: skip


@pytest.fixture
async def play() -> AsyncIterator[Play]:
    world = await World.open(SCENARIO)
    yield Play(world)
    await world.close()


def done(outcome: Outcome) -> Outcome:
    assert outcome.refused == [], outcome.refused
    return outcome


async def refusal(client: Client, operation: Any) -> str:
    outcome = await client.execute(operation)
    return str(outcome.refused[0].message) if outcome.refused else "done"


async def test_it_follows_the_load_up_at_once_and_down_after_five_minutes(play: Play) -> None:
    preview = await play.minho.preview(policy())
    assert [str(e.message) for e in preview.effects] == [
        "chat has 1 to 8 replicas, one for every 10 requests a second.",
        "40 requests a second, 10 a replica are wanted: 4 replicas, not 2.",
    ]
    assert (await play.minho.endpoint("chat")).wanted == 2
    done(await play.minho.execute(policy()))
    assert await play.after(seconds=30) == 4
    await play.load(requests_per_second=12.0)
    assert await play.after(minutes=4) == 4
    assert await play.after(minutes=2) == 2
    told = (await play.minho.endpoint("chat")).decisions
    assert [(d.before, d.after) for d in told] == [(4, 2), (2, 4)]
    assert str(told[0].reason) == "12 requests a second, 10 a replica are wanted: 2 replicas, not 4."


async def test_it_goes_to_nothing_and_comes_back_when_somebody_asks(play: Play) -> None:
    done(await play.minho.execute(policy(least=0)))
    await play.load(requests_per_second=0.0)
    assert await play.after(minutes=7) == 0
    assert (await play.minho.endpoint("chat")).traffic.reachable is False
    await play.load(requests_per_second=3.0)
    assert await play.after(seconds=30) == 1
    await play.world.advance(timedelta(minutes=10))
    assert (await play.minho.endpoint("chat")).traffic.reachable is True


async def test_its_log_gives_the_same_decisions_again(play: Play) -> None:
    done(await play.minho.execute(policy()))
    for rate in (70.0, 15.0, 33.0):
        await play.load(requests_per_second=rate)
        await play.world.advance(timedelta(minutes=8))
    rows = await play.decisions()
    assert len(rows) >= 3
    assert [d.after for d in replay(row.seen for row in rows)] == [row.after for row in rows]
    page = await play.minho.decisions("chat", limit=2)
    assert (page.total, [d.after for d in page.items]) == (len(rows), [row.after for row in rows[-1:-3:-1]])


async def test_it_never_acts_on_an_endpoint_that_is_deleted_or_changed_since_it_looked(play: Play) -> None:
    done(await play.minho.execute(policy()))
    core = play.world.core
    at = next(at for at in await core.serving.look() if at.known.row.name == "chat")
    done(await play.minho.execute(DeleteEndpoint(endpoint="chat")))
    assert await core.autoscaler._look_at(at, core.clock.now()) is False  # what it saw calls for four replicas
    assert await play.decisions() == []
    await play.world.advance(timedelta(minutes=20))
    assert await play.decisions() == []
    assert (await play.minho.endpoints()).total == 0


async def test_one_that_is_scaled_by_hand_meanwhile_is_looked_at_anew(play: Play) -> None:
    done(await play.minho.execute(policy()))
    core = play.world.core
    at = next(at for at in await core.serving.look() if at.known.row.name == "chat")
    async with core.db.write() as db:
        row = await db.get_one(EndpointRow, at.known.row.id)
        row.replicas = 3
    assert await core.autoscaler._look_at(at, core.clock.now()) is False
    assert await play.after(minutes=1) == 4
    assert [row.before for row in await play.decisions()] == [3]


async def test_undo_puts_the_former_policy_back_and_not_over_a_later_one(play: Play) -> None:
    first = done(await play.minho.execute(policy(least=4, most=4)))
    second = done(await play.minho.execute(policy(target=20)))
    assert "otherwise by now" in await refusal(play.minho, Undo(action=first.audit_id))
    done(await play.minho.execute(Undo(action=second.audit_id)))
    now = (await play.minho.endpoint("chat")).autoscaling
    assert now is not None
    assert (now.min_replicas, now.max_replicas, now.target) == (4, 4, 10)
    done(await play.minho.execute(Undo(action=first.audit_id)))
    assert (await play.minho.endpoint("chat")).autoscaling is None


async def test_what_makes_no_sense_and_who_may_not_is_refused(play: Play) -> None:
    assert "not possible" in await refusal(play.minho, policy(least=5, most=4))
    assert "write 0.7 for 70 %" in await refusal(play.minho, policy(70, metric="gpu_utilization"))
    assert "There is no endpoint chat" in await refusal(play.jiwoo, policy())
    done(await play.minho.execute(policy()))
    assert "that way already" in await refusal(play.minho, policy())
    done(await play.sora.execute(policy(target=11)))
    warned = await play.minho.preview(ScaleEndpoint(endpoint="chat", replicas=3))
    assert "scales itself" in str(warned.warnings[0])
