"""The ledger, the writer and the database: what is refused leaves nothing, what is told is on the disk, together or not
at all; and what the ledger remembers that no single operation tells of."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from cluster import house
from cluster.core import Core
from cluster.db.engine import Database
from cluster.db.tables import AllocationRow, GroupRow, NodeRow, SessionRow
from cluster.db.temporary import disk_full, outside
from cluster.errors import StorageFull
from cluster.ledger import Ledger
from cluster.live import LiveNode, LiveSession, Rank
from cluster.models import (
    Beat,
    CordonNode,
    CreateFolder,
    Operation,
    OperationRequest,
    Outcome,
    Reason,
    SessionState,
    StartSession,
    TerminateSessions,
    UncordonNode,
    User,
)
from cluster.operations import sessions
from cluster.sentence import S
from cluster.simulator.lab import HandAgent, Lab
from cluster.transaction import Refused, Transaction

BOSS = User(name="boss", role="admin", projects=["red"])


async def do(lab: Lab, *operations: Operation, keys: bool = False) -> list[Outcome]:
    """All at the same moment."""
    requests = [OperationRequest(operation=o, key=f"k{i}" if keys else None) for i, o in enumerate(operations)]
    return await asyncio.gather(*(lab.core.execute(BOSS, request) for request in requests))


def codes(outcomes: list[Outcome]) -> list[list[str]]:
    return [[reason.code for reason in outcome.refused] for outcome in outcomes]


async def in_step(lab: Lab) -> bool:
    """The ledger holds what the database holds."""
    await lab.core.save()
    async with lab.core.db.read() as db:
        loaded = await db.run_sync(Ledger.load)
    ledger = lab.core.ledger
    return (ledger.sessions, ledger.nodes, ledger.usage) == (loaded.sessions, loaded.nodes, loaded.usage)


async def on_disk(lab: Lab, sql: str, *values: Any) -> list[Any]:
    """What another process would read now."""
    return await outside(lab.core.db.where, sql, *values)


# ── together or not at all ───────────────────────────────────────────────────────────────────────


async def test_many_at_the_same_moment_share_a_commit(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    await lab.node("n1")
    said = spoken(monkeypatch)
    outcomes = await do(lab, *(StartSession(command="x", name=f"job-{i}") for i in range(50)), keys=True)
    assert codes(outcomes) == [[]] * 50
    assert said.count("COMMIT") == 1
    assert len({outcome.audit_id for outcome in outcomes}) == 50
    assert (await lab.boss.sessions(status="scheduled")).total == 8


def spoken(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is said to the database from here on, besides rows."""
    said: list[str] = []
    real = Database._say

    async def say(self: Database, sql: str) -> None:
        said.append(sql)
        await real(self, sql)

    monkeypatch.setattr(Database, "_say", say)
    return said


async def test_one_that_is_refused_half_way_leaves_nothing_and_harms_nobody(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = await lab.node("n1", cpu=2)
    await do(lab, *(StartSession(command="x", name=name, cpu=1) for name in "abcd"))
    await node.obey()
    events = (await lab.boss.events(limit=1000)).total
    real = sessions._dependents

    def refuses(tx: Transaction, session: LiveSession) -> list[str]:
        if session.name == "d":
            raise Refused(Reason(code="conflict", message=S("No.")))
        return real(tx, session)

    monkeypatch.setattr(sessions, "_dependents", refuses)
    stops = TerminateSessions(sessions=["a", "c", "d"])
    outcomes = await do(lab, StartSession(command="x", name="e"), stops, CordonNode(node="n1"), CordonNode(node="n1"))
    assert codes(outcomes) == [[], ["conflict"], [], ["conflict"]]
    states = {name: (await lab.boss.session(name)).state.value for name in "abcde"}
    assert states == {"a": "running", "b": "running", "c": "pending", "d": "pending", "e": "pending"}
    assert (await lab.boss.events(limit=1000)).total == events + 2
    assert [entry.result for entry in (await lab.boss.audit()).items].count("done") == 6
    assert await in_step(lab)


async def test_when_the_commit_fails_everything_is_as_before_and_goes_on(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = await lab.node("n1", cpu=2)
    await do(lab, *(StartSession(command="x", name=name, cpu=1) for name in "abc"))
    work = (await node.obey()).start[0].id
    with full(lab, monkeypatch):
        outcomes = await do(lab, StartSession(command="x", name="d"), TerminateSessions(sessions=["c"]))
        assert codes(outcomes) == [["storage_full"], ["storage_full"]]
        with pytest.raises(StorageFull):
            await node.exit(work, 0)
    assert sorted(s.name for s in (await lab.boss.sessions()).items) == ["a", "b", "c"]
    assert await in_step(lab)
    await node.exit(work, 0)
    await do(lab, StartSession(command="x", name="d"))
    assert (await lab.boss.session("c")).state is SessionState.SCHEDULED
    assert [e.seq for e in (await lab.boss.events(limit=1000)).items] == list(
        range(1, (await lab.boss.events(limit=1000)).total + 1)
    )
    assert await in_step(lab)


@contextmanager
def full(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every COMMIT of a round says that the disk is full."""
    real = Database._say

    async def say(self: Database, sql: str) -> None:
        if sql == "COMMIT":
            raise disk_full(lab.core.db.where)
        await real(self, sql)

    with monkeypatch.context() as patch:
        patch.setattr(Database, "_say", say)
        yield


async def test_one_that_cannot_be_written_harms_only_itself(lab: Lab) -> None:
    await lab.node("n1")
    bad = OperationRequest(operation=StartSession(command="x \ud800", name="bad"))
    good = OperationRequest(operation=StartSession(command="x", name="good"))
    outcomes = await asyncio.gather(*(lab.core.execute(BOSS, r) for r in (good, bad)), return_exceptions=True)
    assert isinstance(outcomes[1], Exception)
    assert [s.name for s in (await lab.boss.sessions()).items] == ["good"]
    assert await in_step(lab)


# ── nobody is told what a crash could undo ───────────────────────────────────────────────────────


async def test_whoever_is_answered_finds_it_on_the_disk(lab: Lab) -> None:
    nodes = [await lab.node(f"n{i}") for i in range(4)]

    async def start(name: str) -> None:
        outcome = await lab.core.execute(BOSS, OperationRequest(operation=StartSession(command="x", name=name)))
        assert outcome.session is not None
        assert await on_disk(lab, "SELECT name FROM sessions WHERE id = ?", outcome.session.id) == [(name,)]

    async def fetch(node: HandAgent) -> None:
        for _ in range(5):
            reply = await lab.core.agents.beat(node.name, Beat(running=node.running, wait=0.05))
            for work in reply.start:
                place = (work.id.session, work.id.rank)
                state = await on_disk(lab, "SELECT state FROM allocations WHERE session = ? AND rank = ?", *place)
                assert state == [("ordered",)]
                node.running.append(work.id)

    await asyncio.gather(*(start(f"job-{i}") for i in range(40)), *map(fetch, nodes))
    assert sum(len(node.running) for node in nodes) == 32


async def test_neither_answers_nor_reads_run_ahead_of_the_commit(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    await lab.node("n1")
    poll = asyncio.create_task(lab.core.agents.beat("n1", Beat(wait=20)))
    while not lab.core.agents.polling:
        await asyncio.sleep(0)
    reached, gate = asyncio.Event(), asyncio.Event()
    real = Database._say

    async def say(self: Database, sql: str) -> None:
        if sql == "COMMIT":
            reached.set()
            await gate.wait()
        await real(self, sql)

    monkeypatch.setattr(Database, "_say", say)
    start = asyncio.create_task(do(lab, StartSession(command="x", name="job"), CordonNode(node="nothing")))
    await reached.wait()
    read = asyncio.create_task(lab.boss.sessions())
    for _ in range(50):
        await asyncio.sleep(0)
    early = [task.done() for task in (start, poll, read)]
    gate.set()
    assert early == [False, False, False]
    assert codes(await start) == [[], ["not_found"]]
    assert [w.name for w in (await poll).start] == ["job"]
    assert [s.name for s in (await read).items] == ["job"]


async def test_a_beat_that_only_says_it_is_alive_costs_no_commit(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    node = await lab.node("n1")
    said = spoken(monkeypatch)
    await node.beat()
    await lab.core.schedule_pass()
    assert said == []


async def test_an_agent_that_speaks_again_ends_its_last_poll(lab: Lab) -> None:
    node = await lab.node("n1")
    poll = asyncio.create_task(lab.core.agents.beat("n1", Beat(wait=20)))
    while not lab.core.agents.polling:
        await asyncio.sleep(0)
    await node.beat()
    assert (await asyncio.wait_for(poll, 5)).start == []
    assert lab.core.agents.polling == 0


async def test_two_who_come_with_a_new_token_at_once_are_both_known(lab: Lab) -> None:
    token = await lab.core.token_for("ann")
    assert await asyncio.gather(*(lab.core.owner_of(token) for _ in range(3))) == ["ann"] * 3


# ── making room ──────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
async def crowded(lab: Lab) -> tuple[Lab, HandAgent]:
    """A node whose one place is held by a session that may be preempted; one of higher priority has just come."""
    async with lab.core.db.write() as db:
        db.add(GroupRow(name="default", preemption=True))
    node = await lab.node("n1", cpu=1)
    await lab.ann.execute(StartSession(command="x", name="low", cpu=1, priority=1))
    await node.obey()
    ident = (await lab.ann.session("low")).id
    async with lab.core.db.write() as db:
        (await db.get_one(SessionRow, ident)).preemptible = True
    await lab.later(60)
    await lab.boss.execute(StartSession(command="x", name="high", cpu=1, priority=50))
    return lab, node


async def test_one_that_makes_room_waits_again_in_its_old_place(crowded: tuple[Lab, HandAgent]) -> None:
    lab, node = crowded
    before = await lab.ann.session("low")
    assert before.state is SessionState.TERMINATING
    assert [reason.code for reason in before.reasons] == ["preempted"]
    told = [e for e in (await lab.boss.events(limit=1000)).items if e.kind == "session_preempted"]
    assert "high" in str(told[0].message)
    reply = await node.obey()
    assert [order.grace for order in reply.stop] == [10]
    again = await lab.ann.session("low")
    assert (again.id, again.state, again.submitted) == (before.id, SessionState.PENDING, before.submitted)
    assert (again.exit_code, again.started, again.result) == (None, None, None)
    await lab.core.schedule_pass()
    assert await in_step(lab)
    high = (await node.obey()).start[0]
    assert high.name == "high"
    await node.exit(high.id, 0)
    await lab.core.schedule_pass()
    assert [(w.name, w.id.attempt) for w in (await node.obey()).start] == [("low", 2)]


@pytest.mark.parametrize(("stopped", "then"), [(False, ("terminated", "success")), (True, ("pending", None))])
async def test_one_that_was_done_before_it_had_to_make_room_is_done_and_one_that_put_its_work_aside_is_not(
    crowded: tuple[Lab, HandAgent], stopped: bool, then: tuple[str, str | None]
) -> None:
    lab, node = crowded
    report = node.report(node.running[0], "exited", 0)
    node.running.clear()
    await node.beat(report.model_copy(update={"stopped": stopped}))
    low = await lab.ann.session("low")
    assert (low.state.value, low.result) == then


async def test_one_that_makes_room_and_is_stopped_by_its_owner_does_not_come_back(
    crowded: tuple[Lab, HandAgent],
) -> None:
    lab, node = crowded
    assert (await lab.ann.execute(TerminateSessions(sessions=["low"]))).refused == []
    await node.obey()
    ended = await lab.ann.session("low")
    assert (ended.state.value, ended.result) == ("terminated", "cancelled")


async def test_what_is_said_of_an_older_attempt_changes_nothing_and_it_is_stopped(
    crowded: tuple[Lab, HandAgent],
) -> None:
    lab, node = crowded
    old = node.running[0]
    await node.obey()
    await lab.core.schedule_pass()
    await node.exit((await node.obey()).start[0].id, 0)
    await lab.core.schedule_pass()
    assert (await node.obey()).start[0].id.attempt == old.attempt + 1
    node.running.append(old)
    reply = await node.beat(node.report(old, "running"), node.report(old, "exited", 1), node.report(old, "lost"))
    assert [order.id for order in reply.stop] == [old]
    assert (await lab.ann.session("low")).state is SessionState.RUNNING


# ── what is remembered ───────────────────────────────────────────────────────────────────────────


async def test_what_a_user_has_used_is_remembered_and_fades(lab: Lab, tmp_path: Path) -> None:
    node = await lab.node("n1", gpus=2)
    await lab.ann.execute(StartSession(command="x", gpu=2))
    work = (await node.obey()).start[0].id
    await lab.later(100)
    await node.exit(work, 0)
    assert lab.core.ledger.usage["ann"].by(lab.clock.now()) == 200
    again = await Core.open(lab.core.db.where, clock=lab.clock, data_dir=tmp_path, name="lab")
    assert again.ledger.usage["ann"].by(lab.clock.now() + timedelta(days=7)) == pytest.approx(100)
    await again.close()


async def test_old_keys_and_old_history_are_forgotten_a_bite_at_a_time(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(house, "BITE", 3)
    await lab.node("n1")
    for i in range(4):
        await lab.boss.execute(CordonNode(node="n1"), key=f"a{i}")
        await lab.boss.execute(UncordonNode(node="n1"), key=f"b{i}")
    assert await on_disk(lab, "SELECT count(*) FROM idempotency_keys") == [(8,)]
    await lab.later(8 * 86400)
    assert await on_disk(lab, "SELECT count(*) FROM idempotency_keys") == [(5,)]
    assert await on_disk(lab, "SELECT count(*) FROM audit") == [(8,)]
    ((last,),) = await on_disk(lab, "SELECT max(seq) FROM events")
    for _ in range(10):
        await lab.later(91 * 86400)
    assert await on_disk(lab, "SELECT count(*) FROM audit") == [(1,)]
    ((newest,),) = await on_disk(lab, "SELECT max(seq) FROM events")
    assert newest >= last
    done = await lab.boss.execute(CordonNode(node="n1"))
    assert done.audit_id == "a-0009"


async def test_an_id_that_a_session_once_had_is_not_given_again(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    await lab.node("n1")
    drawn = iter([f"{i:06x}" for i in (0, 1, 0, 1, 1, 2, 3, 4)])
    monkeypatch.setattr("cluster.idents.secrets.token_hex", lambda _: next(drawn))
    monkeypatch.setattr("cluster.idents.AT_A_TIME", 2)
    lab.core.idents._fresh.clear()
    first = [o.session.id for o in await do(lab, StartSession(command="x"), StartSession(command="x")) if o.session]
    lab.core.idents._fresh.clear()
    later = [o.session.id for o in await do(lab, StartSession(command="x"), StartSession(command="x")) if o.session]
    assert len(first) == len(later) == 2
    assert not set(first) & set(later)


def test_the_ledgers_shapes_have_the_tables_columns() -> None:
    for shape, row, more in (
        (LiveSession, SessionRow, {"ranks"}),
        (LiveNode, NodeRow, set()),
        (Rank, AllocationRow, set()),
    ):
        columns = {column.name for column in row.__table__.columns}
        assert set(shape.__slots__) == columns | more


async def test_folders_and_sessions_are_committed_side_by_side(lab: Lab) -> None:
    await lab.node("n1")
    mixed: list[Operation] = []
    for i in range(5):
        mixed += [StartSession(command="x", name=f"job-{i}"), CreateFolder(name=f"folder-{i}")]
    assert codes(await do(lab, *mixed)) == [[]] * 10
    assert await on_disk(lab, "SELECT (SELECT count(*) FROM folders), (SELECT count(*) FROM sessions)") == [(5, 5)]
    assert await in_step(lab)
