"""What no order of events may break: states, capacity, previews that change nothing, work that begins once."""

import asyncio
import hashlib
import tempfile
from collections import defaultdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from cluster.clock import VirtualClock
from cluster.core import Core
from cluster.db.engine import Where
from cluster.db.tables import Base, MemberRow, ProjectRow, UserRow
from cluster.db.temporary import outside
from cluster.errors import Conflict
from cluster.ledger import Ledger
from cluster.lifecycle import ENDED, STAGES, WAITING, move
from cluster.live import LiveSession
from cluster.models import (
    CordonNode,
    CreateFolder,
    DeleteFolder,
    DrainNode,
    Operation,
    OperationRequest,
    RestoreFolder,
    SessionState,
    StartSession,
    TerminateSessions,
    UncordonNode,
    Undo,
    User,
    WorkId,
)
from cluster.reads import NodeQuery, SessionQuery
from cluster.simulator.lab import HandAgent, Lab

BOSS = User(name="boss", role="admin", projects=["red"])
START = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)


def session(state: str) -> LiveSession:
    return LiveSession("s-1", "s", "ann", "red", "batch", state, START, 1, 2**30, 0, 1, "default", 10, START)


@given(st.lists(st.sampled_from(list(SessionState)), max_size=12))
def test_no_path_leads_out_of_the_table_of_states(path: list[SessionState]) -> None:
    row = session(state=SessionState.PENDING.value)
    for to in path:
        before = SessionState(row.state)
        try:
            move(row, to, START)
        except Conflict:
            assert to not in STAGES[before].follows
            assert row.state == before
        else:
            assert to in STAGES[before].follows
            assert (row.result is not None) == (row.state in ENDED)


# ── a preview ────────────────────────────────────────────────────────────────────────────────────


async def everything(core: Core, but: str = "") -> str:
    """A hash of every row of every table `but` one, and of every file beside the database."""
    digest = hashlib.sha256()
    for table in sorted(Base.metadata.tables.keys() - {but}):
        rows = await outside(core.db.where, f'SELECT * FROM "{table}"')
        digest.update(repr((table, sorted(map(repr, rows)))).encode())
    for path in sorted((core.data_dir / "volumes").rglob("*")):
        digest.update(str(path).encode())
    return digest.hexdigest()


PREVIEWED: list[Operation] = [
    StartSession(command="more", cpu=1),
    StartSession(command="more", cpu=5000),
    TerminateSessions(sessions=["running", "waiting"]),
    CordonNode(node="n1"),
    UncordonNode(node="n2"),
    DrainNode(node="n1"),
    CreateFolder(name="dogs"),
    DeleteFolder(folder="cats"),
    RestoreFolder(folder="old"),
    Undo(),
]


@pytest.mark.parametrize("operation", PREVIEWED, ids=lambda o: o.op)
async def test_a_preview_changes_nothing_and_is_what_then_happens(lab: Lab, operation: Operation) -> None:
    node = await lab.node("n1", cpu=2)
    await lab.node("n2", cpu=2)
    await lab.boss.execute(CordonNode(node="n2", reason="fan"))
    for name in ("cats", "old"):
        await lab.boss.execute(CreateFolder(name=name))
    await lab.boss.execute(DeleteFolder(folder="old"))
    for name in ("running", "waiting"):
        await lab.boss.execute(StartSession(command="x", name=name, cpu=2))
        await node.obey()
    before, but_the_journal = await everything(lab.core), await everything(lab.core, but="audit")
    plan = await lab.boss.preview(operation)
    assert await everything(lab.core) == before
    done = await lab.boss.execute(operation, expect=plan.digest)
    assert (done.effects, done.warnings, done.refused) == (plan.effects, plan.warnings, plan.refused)
    assert (await everything(lab.core, but="audit") == but_the_journal) == bool(plan.refused)


# ── any order of events ──────────────────────────────────────────────────────────────────────────

Step = tuple[str, int]
WHAT = (
    *("start", "gang", "after", "crowd", "stop", "force", "undo"),
    *("cordon", "uncordon", "drain"),
    *("obey", "beat", "exit", "fail", "forget"),
    *("time", "much time", "restart"),
)
STEPS = st.lists(st.tuples(st.sampled_from(WHAT), st.integers(0, 7)), max_size=25)


async def loaded(core: Core) -> Ledger:
    """The ledger as a restart would find it."""
    async with core.db.read() as db:
        return await db.run_sync(Ledger.load)


def contents(ledger: Ledger) -> dict[str, Any]:
    """Everything in it that must be the same after a restart."""
    kept = ("sessions", "nodes", "usage", "waiting", "holding", "held", "timed", "named", "dependents", "past")
    found = {name: getattr(ledger, name) for name in kept}
    return {**found, "on_node": {name: ranks for name, ranks in ledger.on_node.items() if ranks}}


class Story:
    """One cluster of three nodes that lives through the steps, and what its agents really began."""

    def __init__(self, core: Core, clock: VirtualClock) -> None:
        self.core = core
        self.clock = clock
        self.agents = [HandAgent(core, f"n{i}") for i in range(3)]
        self.began: defaultdict[tuple[str, int], set[int]] = defaultdict(set)
        """The attempts at each rank of each session that some agent began."""
        self.count = 0

    async def do(self, operation: Operation) -> None:
        await self.core.execute(BOSS, OperationRequest(operation=operation))

    async def take(self, step: Step) -> None:
        what, n = step
        agent = self.agents[n % 3]
        match what:
            case "start" | "gang":
                self.count += 1
                nodes = 2 if what == "gang" else 1
                await self.do(
                    StartSession(command="x", name=f"s{self.count}", cpu=nodes * (1 + n % 3), node_count=nodes)
                )
            case "after":
                self.count += 1
                await self.do(StartSession(command="x", name=f"s{self.count}", depends_on=[f"s{n}"]))
            case "crowd":
                await self.crowd(n)
            case "stop" | "force":
                await self.do(TerminateSessions(sessions=[f"s{n}"], force=what == "force"))
            case "cordon":
                await self.do(CordonNode(node=agent.name))
            case "uncordon":
                await self.do(UncordonNode(node=agent.name))
            case "drain":
                await self.do(DrainNode(node=agent.name))
            case "undo":
                await self.do(Undo())
            case "obey" | "beat":
                await self.beat(agent, tells=what == "obey")
            case "exit" | "fail" if agent.running:
                await agent.exit(agent.running[n % len(agent.running)], 0 if what == "exit" else 1)
            case "forget":
                agent.running = []
            case "time" | "much time":
                self.clock.advance(timedelta(seconds=20 if what == "time" else 400))
                await self.core.schedule_pass()
            case "restart":
                self.core.agents.fresh_grace()

    async def crowd(self, n: int) -> None:
        """Many at the same moment, some of whom are refused."""
        names = [f"s{self.count + 1 + i // 2}" for i in range(6)]
        self.count += 3
        starts = [self.do(StartSession(command="x", name=name, cpu=1 + n % 2)) for name in names]
        others = [self.do(TerminateSessions(sessions=[f"s{n}"])), self.do(CordonNode(node=f"n{n % 4}"))]
        await asyncio.gather(*starts, *others, *(agent.beat() for agent in self.agents))

    async def beat(self, agent: HandAgent, tells: bool) -> None:
        """The agent hears its orders and follows them; it may keep quiet about it."""
        reply = await agent.beat()
        for work in reply.start:
            if work.id not in agent.running:
                self.begin(agent, work.id)
        for order in reply.stop:
            await agent.exit(order.id, 143)
        if tells:
            await agent.beat(*[agent.report(w, "running") for w in agent.running])

    def begin(self, agent: HandAgent, work: WorkId) -> None:
        self.began[work.session, work.rank].add(work.attempt)
        agent.running.append(work)

    async def check(self) -> None:
        assert all(len(attempts) == 1 for attempts in self.began.values()), f"begun twice: {self.began}"
        nodes = (await self.core.reads.nodes(BOSS, NodeQuery())).items
        assert all(n.free.cpu >= 0 and n.free.memory >= 0 for n in nodes)
        for state in SessionState:
            for session in (await self.core.reads.sessions(BOSS, SessionQuery(status=state, limit=1000))).items:
                assert (session.result is not None) == (session.state in ENDED) or session.state == "terminating"
                holds = bool(session.allocations)
                assert holds == (session.state not in (*ENDED, *WAITING)), session
                assert session.state != "held" or session.reasons
        await self.core.save()
        assert contents(self.core.ledger) == contents(await loaded(self.core))


async def tell(steps: list[Step], data: Path, where: Where) -> None:
    clock = VirtualClock(START)
    core = await Core.open(where, clock=clock, data_dir=data, name="story", simulated=True)
    try:
        async with core.db.write() as db:
            db.add_all([ProjectRow(name="red"), UserRow(name="boss", role="admin")])
            await db.flush()
            db.add(MemberRow(project="red", user="boss"))
        story = Story(core, clock)
        for agent in story.agents:
            await agent.join(cpu=4)
        for step in steps:
            await story.take(step)
            await story.check()
    finally:
        await core.close()


def settled(**more: Any) -> Any:
    return settings(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large], **more)


@settled(max_examples=25)
@given(STEPS)
@example([("start", 0), ("beat", 0), ("much time", 0), ("obey", 1), ("obey", 0)])
@example([("gang", 1), ("obey", 0), ("much time", 0), ("obey", 1), ("obey", 2), ("exit", 0)])
def test_whatever_happens_nothing_begins_twice_and_no_node_is_overfull(steps: list[Step]) -> None:
    with tempfile.TemporaryDirectory() as data:
        asyncio.run(tell(steps, Path(data), Path(data) / "cluster.db"))


@settled(max_examples=6)
@given(STEPS)
@example([("gang", 1), ("obey", 0), ("much time", 0), ("obey", 1), ("obey", 2), ("exit", 0)])
def test_nor_on_postgresql(postgres: Any, steps: list[Step]) -> None:
    async def story(data: Path) -> None:
        where = await postgres.fresh()
        await tell(steps, data, where)
        await postgres.drop(where)

    with tempfile.TemporaryDirectory() as data:
        asyncio.run(story(Path(data)))
