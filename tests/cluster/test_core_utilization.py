"""How much is used: now, over time, by whom; and what one may not see of it."""

import numpy as np
import pytest

from cluster.client import Client
from cluster.errors import Invalid
from cluster.models import Beat, Device, Sample, StartSession, Utilization
from cluster.simulator.lab import GIB, HandAgent, Lab
from cluster.utilization import KEPT, Ring


def values(found: Utilization) -> list[tuple[str | None, float, float]]:
    return [(i.name, round(i.value, 3), round(i.peak, 3)) for i in found.items]


async def measure(node: HandAgent, gpu: float, power: float = 100, **sessions: float) -> None:
    count = len(node.core.ledger.nodes[node.name].devices)
    devices = [Device(index=i, model="A100-80G", utilization=gpu) for i in range(count)]
    sample = Sample(cpu_utilization=0.5, power=power, temperature=power / 2, devices=devices, sessions=sessions)
    await node.core.agents.beat(node.name, Beat(running=node.running, sample=sample))


async def asked(client: Client, resource: str, group_by: str | None = None, period: float | None = None) -> Utilization:
    return await client.utilization(resource=resource, group_by=group_by, period=period)


@pytest.fixture
async def nodes(lab: Lab) -> tuple[HandAgent, HandAgent]:
    return await lab.node("big", gpus=6), await lab.node("small", gpus=2)


async def test_now_is_weighted_by_size_and_power_is_added(lab: Lab, nodes: tuple[HandAgent, HandAgent]) -> None:
    await measure(nodes[0], 1.0, power=300)
    await measure(nodes[1], 0.2, power=100)
    assert values(await asked(lab.eve, "gpu")) == [(None, 0.8, 0.8)], "six devices busy, two a fifth"
    assert values(await asked(lab.eve, "gpu", "node")) == [("big", 1.0, 1.0), ("small", 0.2, 0.2)]
    assert values(await asked(lab.eve, "power", "resource_group")) == [("default", 400, 400)]
    assert values(await asked(lab.eve, "temperature")) == [(None, 150, 150)], "the hottest"


async def test_what_nobody_measures_is_not_zero(lab: Lab, nodes: tuple[HandAgent, HandAgent]) -> None:
    await measure(nodes[0], 0.4)
    assert values(await asked(lab.ann, "gpu")) == [(None, 0.4, 0.4)]
    assert (await asked(lab.ann, "memory")).items == []


async def test_over_a_period_it_is_the_mean_with_the_highest(lab: Lab, nodes: tuple[HandAgent, HandAgent]) -> None:
    await lab.later(60)  # a sample of when nothing was measured
    for gpu in (0.2, 0.8, 0.5):
        await measure(nodes[1], gpu)
        await lab.later(60)
    found = await asked(lab.ann, "gpu", "node", 3600)
    assert values(found) == [("small", 0.5, 0.8)]
    assert found.samples == 4
    assert values(await asked(lab.ann, "gpu", "node", 90)) == [("small", 0.65, 0.8)], "the last two"


async def test_samples_are_a_minute_apart_at_least(lab: Lab, nodes: tuple[HandAgent, HandAgent]) -> None:
    for _ in range(30):
        await lab.later(10)
    assert (await asked(lab.ann, "cpu", period=3600)).samples in (5, 6)


async def test_before_there_are_samples_it_is_how_it_is_now(lab: Lab, nodes: tuple[HandAgent, HandAgent]) -> None:
    await measure(nodes[0], 0.3)
    found = await asked(lab.ann, "gpu", period=3600)
    assert (values(found), found.since) == ([(None, 0.3, 0.3)], None)


async def test_people_hold_shares_of_the_cluster_and_are_told_how_busy_they_are(
    lab: Lab, nodes: tuple[HandAgent, HandAgent]
) -> None:
    made = (await lab.ann.execute(StartSession(command="x", name="anns", gpu=4, cpu=1))).session
    other = await lab.eve.execute(StartSession(command="x", name="eves", gpu=2, cpu=1))
    assert other.refused == []
    for node in nodes:
        await node.obey()
    assert made is not None
    await measure(nodes[0], 0.5, **{made.id: 0.25})
    found = await asked(lab.ann, "gpu", "user")
    assert values(found) == [("ann", 0.5, 0.5), (None, 0.25, 0.25)], "what is eve's is nobody's to know"
    assert found.items[0].busy == 0.25
    assert [i.name for i in (await asked(lab.boss, "gpu", "user")).items] == ["ann", "eve"]
    assert [i.name for i in (await asked(lab.eve, "gpu", "project")).items] == ["blue", None]


async def test_somebody_who_held_it_for_a_while_held_less_on_average(
    lab: Lab, nodes: tuple[HandAgent, HandAgent]
) -> None:
    await lab.later(60)
    await lab.ann.execute(StartSession(command="x", name="anns", gpu=4, cpu=1))
    await lab.later(60)
    assert values(await asked(lab.ann, "gpu", "user", 3600)) == [("ann", 0.25, 0.5)]


@pytest.mark.parametrize(("resource", "group_by"), [("power", "user"), ("temperature", "project"), ("storage", "node")])
async def test_what_nobody_can_have_is_refused_with_what_to_do(lab: Lab, resource: str, group_by: str) -> None:
    with pytest.raises(Invalid, match="ask for"):
        await asked(lab.ann, resource, group_by)


async def test_the_ring_forgets_the_oldest_and_series_that_are_gone() -> None:
    ring = Ring(1)
    ring.add(0, {"gone": [1.0], "kept": [1.0]})
    for at in range(1, KEPT + 2):
        ring.add(at, {"kept": [float(at)]})
    times, series = ring.since(0)
    assert (len(times), times.min()) == (KEPT, 2)
    assert list(series) == ["kept"]
    assert np.nanmin(series["kept"]) == 2


async def test_memory_that_is_held_counts_before_anybody_measures_it(lab: Lab) -> None:
    await lab.node("n", memory=4 * GIB)
    await lab.ann.execute(StartSession(command="x", memory=GIB))
    assert values(await asked(lab.ann, "memory", "project")) == [("red", 0.25, 0.25)]
