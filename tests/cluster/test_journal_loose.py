"""Small things that were left: what a restart, a wrong row or a crowd must not change."""

from datetime import timedelta
from math import inf

import pytest
from sqlalchemy import update

from cluster.core import CROWD, Core
from cluster.db.tables import AllocationRow, GroupRow, NodeRow, QuotaRow, SessionRow
from cluster.models import SetSchedulingPolicy, StartSession
from cluster.models.agents import MOST_CORES
from cluster.simulator.lab import Lab


async def test_who_holds_a_quota_is_named_in_the_same_order_after_a_restart(lab: Lab) -> None:
    node = await lab.node("n1", cpu=64)
    async with lab.core.db.write() as db:
        db.add(QuotaRow(scope="project", name="red", cpu=20.0))
    for name in ("zoe", "kim", "amy", "lee", "joe", "eva", "max", "pia"):
        await lab.ann.execute(StartSession(command="x", name=name, cpu=2))
        await node.obey()
    await lab.ann.execute(StartSession(command="x", name="held", cpu=8))
    before = (await lab.ann.explain("held")).reasons
    again = await Core.open(lab.core.data_dir / "cluster.db", clock=lab.clock, data_dir=lab.core.data_dir, name="lab")
    after = (await again.reads.explain(await again.user("ann"), "held")).reasons
    await again.close()
    assert len(before[0].ahead) == 8
    assert [reason.ahead for reason in before] == [reason.ahead for reason in after]


async def test_a_device_that_is_given_away_twice_is_shown_so(lab: Lab) -> None:
    await lab.node("n1", gpus=1)
    await lab.ann.execute(StartSession(command="x", gpu=1))
    await lab.eve.execute(StartSession(command="y", gpu=0.5))
    waiting = (await lab.boss.sessions(status="pending")).items[0].id
    async with lab.core.db.write() as db:
        held = {"node": "n1", "cpu": 1.0, "memory": 1, "devices": {"0": 0.5}, "state": "placed"}
        db.add(AllocationRow(session=waiting, rank=0, **held))
        (await db.get_one(SessionRow, waiting)).state = "running"
    node = await lab.boss.node("n1")
    assert node.devices[0].used == 1.5
    assert node.free.gpu == -0.5


@pytest.mark.parametrize("wrong", [{"policy": "fifoo"}, {"selector": "nearest"}])
async def test_a_group_with_a_mistyped_policy_in_the_database_waits_and_the_others_go_on(
    lab: Lab, wrong: dict[str, str]
) -> None:
    await lab.node("n1", cpu=2)
    async with lab.core.db.write() as db:
        db.add(GroupRow(name="odd"))
        await db.flush()
        db.add(NodeRow(name="n2", resource_group="odd", cpu=1.0, memory=2**33, devices=[], last_beat=lab.clock.now()))
    for name in ("runs", "waits"):
        done = await lab.ann.execute(StartSession(command="x", name=name, cpu=1, memory=1, resource_group="odd"))
        assert not done.refused
    async with lab.core.db.write() as db:
        group = await db.get_one(GroupRow, "odd")
        for name, value in wrong.items():
            setattr(group, name, value)
    assert not (await lab.ann.execute(StartSession(command="x", name="elsewhere", cpu=1))).refused
    await lab.later(1)
    states = {s.name: s.state.value for s in (await lab.boss.sessions()).items}
    assert (states["elsewhere"], states["waits"]) == ("scheduled", "pending")
    (reason,) = (await lab.boss.explain("waits")).reasons
    assert "its policy" in str(reason.message)
    assert reason.message in (await lab.boss.status()).warnings
    refused = await lab.ann.execute(StartSession(command="x", name="no", resource_group="odd"))
    assert refused.refused[0].code == "impossible"
    again = await Core.open(lab.core.data_dir / "cluster.db", clock=lab.clock, data_dir=lab.core.data_dir, name="lab")
    assert [*again.outlook.unusable] == ["odd"]
    await again.close()
    mended = SetSchedulingPolicy(resource_group="odd", policy="drf", selector="dispersed")
    assert not (await lab.boss.execute(mended)).refused
    assert (await lab.boss.status()).warnings == []
    await lab.later(timedelta(minutes=1).total_seconds())
    assert (await lab.boss.explain("waits")).reasons != [reason]


@pytest.mark.parametrize("state", ["runs", "waits"])
@pytest.mark.parametrize(
    ("column", "amount"),
    [("time_limit", 1e15), ("time_limit", -1e300), ("grace", 1e300), ("cpu", 1e300), ("cpu", -5.0), ("memory", 2**62),
     ("gpu", 1e300), ("node_count", 2**40), ("priority", 2**60)],
)  # fmt: skip
async def test_a_session_of_an_old_row_with_an_absurd_amount_stops_nobodys_rounds(
    lab: Lab, column: str, amount: float, state: str
) -> None:
    node = await lab.node("n1", cpu=2)
    await lab.ann.execute(StartSession(command="x", name="runs", cpu=2, memory=1))
    await node.obey()
    await lab.ann.execute(StartSession(command="x", name="waits", cpu=2, memory=1))
    async with lab.core.db.write() as db:
        await db.execute(update(SessionRow).where(SessionRow.name == state).values({column: amount}))
    assert await rounds_go_on(lab)
    assert {s.name for s in (await lab.ann.sessions()).items} == {"runs", "waits", "new"}


@pytest.mark.parametrize(("column", "amount"), [("cpu", 1e300), ("cpu", -1e300), ("cpu", inf), ("memory", 2**62)])
async def test_a_node_of_an_old_row_with_an_absurd_amount_stops_nobodys_rounds(
    lab: Lab, column: str, amount: float
) -> None:
    await lab.node("n1", cpu=2)
    await lab.node("n2", cpu=2)
    async with lab.core.db.write() as db:
        await db.execute(update(NodeRow).where(NodeRow.name == "n1").values({column: amount}))
    assert await rounds_go_on(lab)
    assert 2 <= (await lab.ann.status()).capacity.cpu <= MOST_CORES + 2


async def rounds_go_on(lab: Lab) -> bool:
    """Also what is previewed: it looks into the future, with every time limit."""
    lab.core.db.touched.update((SessionRow, NodeRow))
    asked = StartSession(command="z", name="new", cpu=1, memory=1, project="red")
    outcomes = [await lab.boss.preview(asked), await lab.boss.execute(asked)]
    await lab.later(1)
    return not any(outcome.refused for outcome in outcomes)


async def test_in_a_crowd_a_start_is_still_told_why_it_waits(lab: Lab) -> None:
    await lab.node("n1", cpu=2)
    for i in range(CROWD + 2):
        await lab.boss.execute(StartSession(command="x", name=f"many-{i}", cpu=2, memory=1))
    outcome = await lab.ann.execute(StartSession(command="x", name="mine", cpu=1, memory=1))
    said = [str(effect.message) for effect in outcome.effects if effect.target == "mine"]
    assert said[0] == "mine does not start yet; it waits."
    assert any("cores" in line or "CPU" in line for line in said[1:]), said
    assert outcome.session is not None
    assert outcome.session.reasons
    assert not (await lab.ann.execute(StartSession(command="x", name="other", cpu=1, memory=1))).refused
