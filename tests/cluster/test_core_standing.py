"""Short first in the core: what sessions teach about run times, and who goes first by it."""

from pathlib import Path

import numpy as np
import pytest

from cluster.core import Core
from cluster.db.tables import GroupRow
from cluster.models import StartSession
from cluster.simulator.lab import HandAgent, Lab


@pytest.fixture
async def node(lab: Lab) -> HandAgent:
    """The one node of a group that goes by short_first; short sessions have one GPU, long ones two."""
    async with lab.core.db.write() as db:
        db.add(GroupRow(name="default", policy="short_first"))
    node = await lab.node("n1", cpu=8, gpus=2)
    for i in range(6):
        for gpu, seconds in ((1, 60), (2, 7200)):
            await lab.ann.execute(StartSession(command="x", name=f"{gpu}-{i}", gpu=gpu))
            work = (await node.obey()).start[0].id
            await lab.later(seconds)
            await node.exit(work, 0)
    await lab.later(60)
    return node


async def who_starts(lab: Lab, node: HandAgent) -> str:
    """Two wait for the node that is taken: a long one, and after it a short one; who gets it when it is free?"""
    await lab.ann.execute(StartSession(command="x", name="now", gpu=2))
    work = (await node.obey()).start[0].id
    await lab.ann.execute(StartSession(command="x", name="long", gpu=2))
    await lab.ann.execute(StartSession(command="x", name="short", gpu=1))
    await lab.later(60)
    await node.exit(work, 0)
    await lab.core.schedule_pass()
    return (await node.obey()).start[0].name


async def test_what_mostly_ends_soon_goes_first(lab: Lab, node: HandAgent) -> None:
    assert await who_starts(lab, node) == "short"


async def test_what_was_learned_is_found_again_after_a_restart(lab: Lab, node: HandAgent, tmp_path: Path) -> None:
    await lab.core.close()
    again = await Core.open(lab.core.db.where, clock=lab.clock, data_dir=tmp_path, name="lab")
    await again.schedule_pass()
    [learned] = [short.run_times for short in again._standings._short.values()]
    now, new, of = np.array([lab.clock.now().timestamp()]), np.zeros(1), np.zeros(1, np.int64)
    assert learned.expect(1, now, new, of)[0] < learned.expect(2, now, new, of)[0] / 10
    await again.close()


async def test_under_another_policy_the_oldest_goes_first_again(lab: Lab, node: HandAgent) -> None:
    async with lab.core.db.write() as db:
        (await db.get_one(GroupRow, "default")).policy = "fifo"
    await lab.later(1)
    assert await who_starts(lab, node) == "long"
