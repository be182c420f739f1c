"""The whole core through its client, on a virtual clock, against whatever people, agents and time do, in any order.

`Town` is the cluster with its people and machines; `Machine` is hypothesis's way of thinking up stories about it.
"""

import asyncio
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from prometheus_client.parser import text_string_to_metric_families

from cluster.api.app import create_app
from cluster.client import Client
from cluster.clock import VirtualClock
from cluster.core import Core
from cluster.db.engine import Where
from cluster.db.tables import GroupRow, MemberRow, ProjectRow, QuotaRow, UserRow
from cluster.lifecycle import ENDED, HOLDING, STAGES, WAITING
from cluster.models import (
    BeatReply,
    CordonNode,
    Device,
    DrainNode,
    MoveNode,
    NodeInfo,
    Operation,
    Outcome,
    QuotaUse,
    Resources,
    RestartSession,
    Session,
    SessionState,
    SessionType,
    SetSchedulingPolicy,
    SetSessionPriority,
    StartSession,
    StopOrder,
    TerminateSessions,
    UncordonNode,
    Undo,
    Work,
    WorkId,
    WorkReport,
)
from cluster.simulator.lab import GIB, HandAgent

T = TypeVar("T")
START = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)
PEOPLE = {"boss": "red", "ann": "red", "bob": "blue"}
SILENCES = (1, 25, 140, 400)
"""Seconds: nothing; almost lost; past the time to start; given up."""
A_BIT = 1e-6
LOST = -1
"""How a piece of work ended that its machine lost."""


# ── the machines ─────────────────────────────────────────────────────────────────────────────────


class Node(HandAgent):
    """An agent with its machine: what really runs there, and what it has not said yet."""

    def __init__(self, core: Core, name: str) -> None:
        super().__init__(core, name)
        self.ends: dict[tuple[str, int, int], int | None] = {}
        """How each piece of work ended that ever began here; None: it runs; `LOST`."""
        self.unsaid: list[WorkReport] = []
        self.silent = False
        self.begun: list[WorkId] = []

    @property
    def alive(self) -> list[WorkId]:
        return [work for work in self.begun if self.ends[key(work)] is None]

    async def enter(self) -> None:
        """Register. `c1` has no GPUs; the others share a rack."""
        gpus = 0 if self.name == "c1" else 2
        info = NodeInfo(
            name=self.name,
            capacity=Resources(cpu=4, memory=32 * GIB, gpu=gpus),
            devices=[Device(index=i, model="A100-80G") for i in range(gpus)],
            gpu_model="A100-80G" if gpus else None,
            resource_group="gpu" if gpus else None,
            rack="r1" if gpus else None,
        )
        await self.core.agents.register(info)

    async def hear(self) -> BeatReply:
        """A beat that tells all that is unsaid."""
        self.running, said = self.alive, self.unsaid
        reply = await self.beat(*said)
        self.unsaid = self.unsaid[len(said) :]
        return reply

    def follow(self, reply: BeatReply, began: Callable[[WorkId], None]) -> None:
        """Do as ordered. What was done already is only told again."""
        for work in reply.start:
            self._start(work, began)
        for order in reply.stop:
            self._stop(order)

    def _start(self, work: Work, began: Callable[[WorkId], None]) -> None:
        if key(work.id) not in self.ends:
            began(work.id)
            self.begun.append(work.id)
            self.ends[key(work.id)] = None
        self.tell(work.id)

    def _stop(self, order: StopOrder) -> None:
        if key(order.id) not in self.ends:
            self.unsaid.append(self.report(order.id, "lost"))
        elif self.ends[key(order.id)] is None:
            self.exit_now(order.id, 143)
        else:
            self.tell(order.id)

    def exit_now(self, work: WorkId, code: int) -> None:
        self.ends[key(work)] = code
        self.tell(work)

    def tell(self, work: WorkId) -> None:
        code = self.ends[key(work)]
        self.unsaid.append(self.report(work, "running"))
        if code == LOST:
            self.unsaid.append(self.report(work, "lost"))
        elif code is not None:
            self.unsaid.append(self.report(work, "exited", code))


def key(work: WorkId) -> tuple[str, int, int]:
    return work.session, work.attempt, work.rank


# ── the town ─────────────────────────────────────────────────────────────────────────────────────


@dataclass
class Acknowledged:
    """An operation, as its person was told that it was done."""

    user: str
    operation: Operation
    outcome: Outcome
    key: str | None


class Town:
    """Two nodes with GPUs in one rack, one without; three people in two projects. Their folders are in `data`."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self.where: Where = data / "cluster.db"
        self.clock = VirtualClock(START)
        self.nodes = [Node(None, name) for name in ("g1", "g2", "c1")]  # type: ignore[arg-type]
        self.tokens: dict[str, str] = {}
        self.done: list[Acknowledged] = []
        self.before: dict[str, Session] = {}
        """Every session as it was at the last look, by id."""
        self.ceilings: dict[tuple[str, str, str], float] = {}
        """Quota's scope, name and resource -> what may be used of it: the limit, or what was used when it was set."""

    async def found(self) -> None:
        """Its first day."""
        await self.open()
        async with self.core.db.write() as db:
            db.add_all([ProjectRow(name="red"), ProjectRow(name="blue"), GroupRow(name="gpu", preemption=True)])
            db.add_all([UserRow(name=n, role="admin" if n == "boss" else "user") for n in PEOPLE])
            await db.flush()
            db.add_all([MemberRow(project=project, user=name) for name, project in PEOPLE.items()])
        self.tokens = {name: await self.core.token_for(name) for name in PEOPLE}
        await self.connect()
        for node in self.nodes:
            await node.enter()

    async def open(self) -> None:
        self.core = await Core.open(self.where, clock=self.clock, data_dir=self.data, name="town", simulated=True)
        for node in self.nodes:
            node.core = self.core

    async def connect(self) -> None:
        transport = httpx.ASGITransport(create_app(self.core))
        self.clients = {name: Client.connect("http://town", token, transport) for name, token in self.tokens.items()}

    async def close(self) -> None:
        for client in self.clients.values():
            await client.close()
        await self.core.close()

    # ── people ───────────────────────────────────────────────────────────────────────────────────

    async def do(self, user: str, operation: Operation, **more: str | None) -> Outcome:
        """Ask for it; what is refused must have left nothing behind, which `look` finds out."""
        outcome = await self.clients[user].execute(operation, **more)
        if not outcome.refused:
            self.done.append(Acknowledged(user, operation, outcome, more.get("key")))
        return outcome

    async def agree(self, user: str, operation: Operation) -> None:
        """Preview, which changes nothing, and then do what was shown."""
        before = await self.view()
        shown = await self.clients[user].preview(operation)
        assert await self.view() == before, "a preview changed something"
        outcome = await self.do(user, operation, expect=shown.digest or None)
        assert (outcome.effects, outcome.refused) == (shown.effects, shown.refused)

    async def agree_late(self, user: str, operation: Operation, meanwhile: Callable[[], Awaitable[None]]) -> None:
        """Something happens between the preview and the yes: then it is as shown all the same, or refused."""
        shown = await self.clients[user].preview(operation)
        await meanwhile()
        outcome = await self.do(user, operation, expect=shown.digest or "-")
        if not outcome.refused:
            assert told(outcome) == told(shown)
            assert outcome.digest == shown.digest

    async def ask_again(self, acknowledged: Acknowledged) -> None:
        """The answer was lost on the way: the same key gives the same answer, and does nothing."""
        before = await self.view()
        again = await self.clients[acknowledged.user].execute(acknowledged.operation, key=acknowledged.key)
        assert again == acknowledged.outcome
        assert await self.view() == before

    async def set_quota(self, scope: str, name: str, limits: dict[str, float | None]) -> None:
        async with self.core.db.write() as db:
            await db.merge(QuotaRow(scope=scope, name=name, **limits))
        used = amounts(await self.quota(scope, name))
        for resource, limit in limits.items():
            ceiling = float("inf") if limit is None else max(limit, used[resource])
            self.ceilings[scope, name, resource] = ceiling

    async def quota(self, scope: str, name: str) -> QuotaUse:
        return (await self.clients["boss"].quotas(**{scope: name})).items[0]

    # ── machines and time ────────────────────────────────────────────────────────────────────────

    def began(self, work: WorkId) -> None:
        """A rank begins: it has not done so before, and no other attempt of it lives anywhere."""
        for node in self.nodes:
            assert key(work) not in node.ends, f"{work} began on {node.name} already"
            assert [w for w in node.alive if (w.session, w.rank) == (work.session, work.rank)] == []

    async def crash(self, node: Node) -> None:
        """All that ran there is gone; its agent comes back and says so when it is asked."""
        for work in node.alive:
            node.exit_now(work, LOST)
        await node.enter()

    async def wait(self, seconds: float) -> None:
        self.clock.advance(timedelta(seconds=seconds))
        for node in self.nodes:
            if not node.silent:
                node.follow(await node.hear(), self.began)
        await self.core.schedule_pass()

    async def evening(self) -> None:
        """Everything is stopped, and all agents hear of it: nothing runs, nothing is held."""
        live = [s.id for s in (await self.sessions()).values() if s.state not in ENDED]
        if live:
            await self.do("boss", TerminateSessions(sessions=live, force=True))
        for node in [*self.nodes, *self.nodes, *self.nodes]:
            node.silent = False
            node.follow(await node.hear(), self.began)
        assert all(s.state in ENDED for s in (await self.sessions()).values())
        assert all(n.free == n.capacity for n in (await self.clients["boss"].nodes()).items)
        assert [node.alive for node in self.nodes] == [[], [], []]

    async def restart(self) -> None:
        """The server is killed, and a new one opens the database: it shows what the old one did."""
        before = await self.view()
        for client in self.clients.values():
            await client.close()
        await self.core.db.close()
        await self.open()
        await self.connect()
        assert await self.view() == before, "a restart changed something"

    # ── looking ──────────────────────────────────────────────────────────────────────────────────

    async def sessions(self) -> dict[str, Session]:
        """All there are, by id."""
        boss = self.clients["boss"]
        pages = [await boss.sessions(limit=1000)] + [await boss.sessions(status=s, limit=1000) for s in sorted(ENDED)]
        return {s.id: s for page in pages for s in page.items}

    async def view(self) -> tuple[object, ...]:
        """What there is to see, but for what is measured."""
        boss = self.clients["boss"]
        nodes = [n.model_copy(update={"last_beat": None}) for n in (await boss.nodes()).items]
        audit = await boss.audit(limit=1000)
        sessions = await self.sessions()
        return sessions, nodes, audit, await boss.events(limit=1000), self.core.ledger.usage

    async def look(self) -> None:
        """Everything that must hold at any moment."""
        await self.core.schedule_pass()
        sessions = await self.sessions()
        for session in sessions.values():
            check_state(session, self.before.get(session.id))
            check_places(session)
            self.check_truth(session)
        self.before = sessions
        await self.check_nodes([s for s in sessions.values() if s.allocations])
        await self.check_metrics([*sessions.values()])
        await self.check_quotas()
        await self.check_journal()
        for session in sessions.values():
            if session.state in WAITING:
                told = await self.clients[session.user].explain(session.id)
                assert told.reasons, f"{session.name} waits for nothing"
                assert told.estimated_start is None or told.estimated_start >= self.clock.now()

    def check_truth(self, session: Session) -> None:
        """What has ended runs nowhere, unless its node was given up; success is how all its ranks really ended."""
        ends = {work: end for node in self.nodes for work, end in node.ends.items() if work[0] == session.id}
        last = max((attempt for _, attempt, _ in ends), default=0)
        if session.state == "terminated" and session.result != "lost":
            assert None not in ends.values(), f"{session.name} still runs"
        if session.result == "success":
            assert [end for (_, attempt, _), end in ends.items() if attempt == last] == [0] * session.node_count

    async def check_nodes(self, holding: list[Session]) -> None:
        """No core, no byte and no device is given twice, and what is free is what is left."""
        for node in (await self.clients["boss"].nodes()).items:
            held = [a for s in holding for a in s.allocations if a.node == node.name]
            cpu, memory = sum(a.cpu for a in held), sum(a.memory for a in held)
            shares: defaultdict[int, float] = defaultdict(float)
            for allocation in held:
                for index, share in allocation.devices.items():
                    shares[index] += share
            assert cpu <= node.capacity.cpu + A_BIT
            assert memory <= node.capacity.memory
            assert all(share <= 1 + A_BIT for share in shares.values()), (node.name, shares)
            assert shares.keys() <= {d.index for d in node.devices}
            assert abs(node.free.cpu - (node.capacity.cpu - cpu)) < A_BIT
            assert abs(node.free.gpu - (node.capacity.gpu - sum(shares.values()))) < A_BIT

    async def check_metrics(self, sessions: list[Session]) -> None:
        """Prometheus reads what there is."""
        text, _ = await self.core.metrics.text("")
        told: defaultdict[str, float] = defaultdict(float)
        for family in text_string_to_metric_families(text.decode()):
            for sample in family.samples:
                told[sample.name] += sample.value
        held = [a for s in sessions for a in s.allocations]
        assert abs(told["helmsman_used_cpu_cores"] - sum(a.cpu for a in held)) < A_BIT
        assert told["helmsman_used_memory_bytes"] == sum(a.memory for a in held)
        assert abs(told["helmsman_used_gpus"] - sum(sum(a.devices.values()) for a in held)) < A_BIT
        assert told["helmsman_sessions"] == sum(s.state not in ENDED for s in sessions)
        assert told["helmsman_queue_wait_seconds_bucket"] >= sum(s.state in WAITING for s in sessions)

    async def check_quotas(self) -> None:
        for (scope, name, resource), ceiling in self.ceilings.items():
            use = await self.quota(scope, name)
            used, limit = amounts(use)[resource], getattr(use, resource)
            assert used <= ceiling + A_BIT, f"{scope} {name} uses {used} {resource}, may use {ceiling}"
            self.ceilings[scope, name, resource] = max(used, float("inf") if limit is None else limit)

    async def check_journal(self) -> None:
        """It holds what was acknowledged, in that order, and nothing else."""
        rows = reversed((await self.clients["boss"].audit(result="done", limit=1000)).items)
        told = [(row.id, row.user, row.operation) for row in rows]
        assert told == [(a.outcome.audit_id, a.user, a.operation) for a in self.done]
        check = await self.clients["boss"].verify_audit()
        assert check.whole, check.fault


def told(outcome: Outcome) -> set[tuple[str, str]]:
    """What becomes of whom; why somebody waits may be said in fewer words or more."""
    return {(effect.kind, effect.target) for effect in outcome.effects if effect.stable}


def amounts(use: QuotaUse) -> dict[str, float]:
    return {"cpu": use.used.cpu, "gpu": use.used.gpu, "sessions": use.used_sessions}


REACHED = {state: {state} for state in SessionState}
"""Every state that can come after another, by the table, in any number of steps."""
for _ in SessionState:
    for later in REACHED.values():
        later |= {after for step in set(later) for after in STAGES[step].follows}


def check_state(session: Session, before: Session | None) -> None:
    assert session.state in REACHED[before.state if before else SessionState.PENDING]
    assert session.result is not None or session.state not in ENDED
    assert session.result is None or session.state in ENDED or session.state == "terminating"
    assert (session.ended is not None) == (session.state in ENDED)
    assert session.state not in WAITING or session.reasons


def check_places(session: Session) -> None:
    """A gang has all its places, on as many nodes, or none."""
    places = session.allocations
    assert len(places) == (session.node_count if session.state in HOLDING else 0)
    assert sorted(a.rank for a in places) == list(range(len(places)))
    assert len({a.node for a in places}) == len(places)
    assert abs(sum(sum(a.devices.values()) for a in places) - (session.resources.gpu if places else 0)) < A_BIT


# ── stories ──────────────────────────────────────────────────────────────────────────────────────

ANYONE = st.sampled_from([*PEOPLE])
NODES = st.integers(0, 2)
SOME = st.integers(0, 9)
WORK = st.fixed_dictionaries(
    {
        "cpu": st.sampled_from((0.5, 1.0, 3.0)),
        "gpu": st.sampled_from((0, 0, 0.25, 0.5, 1, 2)),
        "priority": st.sampled_from((1, 5, 10)),
        "type": st.sampled_from((SessionType.BATCH, SessionType.INTERACTIVE)),
        "preemptible": st.sampled_from((None, True, False)),
    },
    optional={"time_limit": st.sampled_from((30.0, 600.0))},
)
LIMITS = st.fixed_dictionaries(
    {
        "cpu": st.sampled_from((None, 1.0, 4.0)),
        "gpu": st.sampled_from((None, 0.5, 2.0)),
        "sessions": st.sampled_from((None, 1, 3)),
    }
)


class Machine(RuleBasedStateMachine):
    """One step is one thing that a person, an agent, or time does."""

    databases: Any = None
    """Of PostgreSQL's, where it is to be on one of those."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.data = Path(tempfile.mkdtemp(prefix="town-"))
        self.town = Town(self.data)
        if self.databases is not None:
            self.town.where = self.run(self.databases.fresh())
        self.count = 0
        self.run(self.town.found())

    def run(self, what: Awaitable[T]) -> T:
        async def waits() -> T:
            return await what

        return self.runner.run(waits())

    def teardown(self) -> None:
        self.run(self.town.close())
        if self.databases is not None:
            self.run(self.databases.drop(self.town.where))
        self.runner.close()
        shutil.rmtree(self.data)

    def pick(self, number: int) -> str | None:
        """The name of a session, if there is one."""
        found = sorted(s.name for s in self.town.before.values())
        return found[number % len(found)] if found else None

    def works(self) -> bool:
        """Something runs on some machine."""
        return any(node.alive for node in self.town.nodes)

    def start(self, work: dict[str, Any], kind: str = "one", number: int = 0) -> StartSession:
        """A new session: a gang of two nodes, one that waits for another, one for later, or just `one`."""
        self.count += 1
        more: dict[str, Any] = {}
        if kind == "gang":
            rack = (None, "required", "preferred")[number % 3]
            more = {"node_count": 2, "gpu": 2 * int(work["gpu"]), "rack": rack}
        elif kind == "after" and (name := self.pick(number)):
            more = {"depends_on": [name]}
        elif kind == "later":
            more = {"start_at": self.town.clock.now() + timedelta(seconds=20 * (1 + number))}
        return StartSession(command="x", name=f"s{self.count:03}", memory=2 * GIB, **work | more)

    @initialize(works=st.lists(st.tuples(ANYONE, WORK), min_size=2, max_size=5))
    def a_day_begins(self, works: list[tuple[str, dict[str, Any]]]) -> None:
        for user, work in works:
            self.submits(user, work, "one", 0)
        self.all_obey()

    # ── people ───────────────────────────────────────────────────────────────────────────────────

    @rule(user=ANYONE, work=WORK, kind=st.sampled_from(("one", "gang", "after", "later")), number=SOME)
    def submits(self, user: str, work: dict[str, Any], kind: str, number: int) -> None:
        outcome = self.run(self.town.do(user, self.start(work, kind, number), key=f"key-{self.count}"))
        assert outcome.refused or outcome.session

    @rule(user=ANYONE, work=WORK, kind=st.sampled_from(("one", "gang")), late=st.booleans())
    def agrees_to_a_start(self, user: str, work: dict[str, Any], kind: str, late: bool) -> None:
        mine, other = self.start(work, kind), self.start(work)

        async def meanwhile() -> None:
            await self.town.do("bob", other)

        self.run(self.town.agree_late(user, mine, meanwhile) if late else self.town.agree(user, mine))

    @rule(number=SOME, force=st.booleans(), agrees=st.booleans())
    def terminates(self, number: int, force: bool, agrees: bool) -> None:
        if name := self.pick(number):
            operation = TerminateSessions(sessions=[name], force=force)
            self.run((self.town.agree if agrees else self.town.do)("boss", operation))

    @rule(user=ANYONE, number=SOME, priority=st.sampled_from((0, 10, 80)), agrees=st.booleans())
    def gives_a_priority(self, user: str, number: int, priority: int, agrees: bool) -> None:
        if name := self.pick(number):
            operation = SetSessionPriority(session=name, priority=priority)
            self.run((self.town.agree if agrees else self.town.do)(user, operation))

    @rule(user=ANYONE, number=SOME, agrees=st.booleans())
    def restarts(self, user: str, number: int, agrees: bool) -> None:
        if name := self.pick(number):
            self.run((self.town.agree if agrees else self.town.do)(user, RestartSession(session=name)))

    @rule(node=NODES, group=st.sampled_from(("gpu", "default")), agrees=st.booleans())
    def moves_a_node(self, node: int, group: str, agrees: bool) -> None:
        operation = MoveNode(node=self.town.nodes[node].name, resource_group=group)
        self.run((self.town.agree if agrees else self.town.do)("boss", operation))

    @precondition(lambda self: any(a.key for a in self.town.done))
    @rule(number=SOME)
    def asks_again(self, number: int) -> None:
        keyed = [a for a in self.town.done if a.key]
        self.run(self.town.ask_again(keyed[number % len(keyed)]))

    @rule(user=ANYONE, agrees=st.booleans())
    def undoes(self, user: str, agrees: bool) -> None:
        self.run((self.town.agree if agrees else self.town.do)(user, Undo()))

    @rule(node=NODES, what=st.sampled_from((CordonNode, DrainNode, UncordonNode)), agrees=st.booleans())
    def keeps_house(self, node: int, what: Callable[..., Operation], agrees: bool) -> None:
        operation = what(node=self.town.nodes[node].name)
        self.run((self.town.agree if agrees else self.town.do)("boss", operation))

    @rule(
        group=st.sampled_from(("gpu", "default")),
        policy=st.sampled_from(("fifo", "lifo", "drf", "fair_share")),
        backfill=st.booleans(),
        preemption=st.booleans(),
    )
    def sets_a_policy(self, group: str, **more: Any) -> None:
        self.run(self.town.do("boss", SetSchedulingPolicy(resource_group=group, **more)))

    @rule(scope=st.sampled_from([("user", "ann"), ("user", "bob"), ("project", "red"), ("project", "blue")]), to=LIMITS)
    def sets_a_quota(self, scope: tuple[str, str], to: dict[str, float | None]) -> None:
        self.run(self.town.set_quota(*scope, to))

    # ── agents ───────────────────────────────────────────────────────────────────────────────────

    @rule(node=NODES, tells=st.booleans())
    def obeys(self, node: int, tells: bool) -> None:
        """It hears and does what it is to do, and says so at once or later."""
        agent = self.town.nodes[node]
        agent.follow(self.run(agent.hear()), self.town.began)
        if tells:
            agent.follow(self.run(agent.hear()), self.town.began)

    @rule()
    def all_obey(self) -> None:
        for node in range(3):
            self.obeys(node, True)

    @rule(node=NODES)
    def hears_nothing(self, node: int) -> None:
        """The server answers, but the answer is lost, and its reports are said again."""
        agent = self.town.nodes[node]
        agent.running = agent.alive
        self.run(agent.beat(*agent.unsaid))

    @precondition(lambda self: self.works())
    @rule(node=NODES, number=SOME, code=st.sampled_from((0, 0, 1)), tells=st.booleans())
    def work_exits(self, node: int, number: int, code: int, tells: bool) -> None:
        agent = self.town.nodes[node]
        if agent.alive:
            agent.exit_now(agent.alive[number % len(agent.alive)], code)
            if tells:
                agent.follow(self.run(agent.hear()), self.town.began)

    @precondition(lambda self: self.works())
    @rule(codes=st.lists(st.sampled_from((0, 0, 0, 1)), min_size=1, max_size=5))
    def much_work_exits(self, codes: list[int]) -> None:
        for agent in self.town.nodes:
            for work, code in zip(agent.alive, codes, strict=False):
                agent.exit_now(work, code)

    @rule(node=NODES)
    def says_all_it_ever_knew(self, node: int) -> None:
        """Reports of long ago come again, in their order."""
        agent = self.town.nodes[node]
        for work in agent.begun:
            agent.tell(work)
        self.run(agent.hear())

    @rule(node=NODES)
    def falls_silent_or_returns(self, node: int) -> None:
        self.town.nodes[node].silent ^= True

    @precondition(lambda self: self.works())
    @rule(node=NODES)
    def crashes(self, node: int) -> None:
        self.run(self.town.crash(self.town.nodes[node]))

    # ── time and the server ──────────────────────────────────────────────────────────────────────

    @rule(seconds=st.sampled_from(SILENCES))
    def time_passes(self, seconds: int) -> None:
        self.run(self.town.wait(seconds))

    @rule()
    def evening_comes(self) -> None:
        self.run(self.town.evening())

    @rule()
    def the_server_is_killed(self) -> None:
        self.run(self.town.restart())

    @invariant()
    def all_is_well(self) -> None:
        self.run(self.town.look())


class OnPostgres(Machine):
    """The same on PostgreSQL."""


@pytest.fixture(scope="module")
def on_postgres(postgres: Any) -> None:
    OnPostgres.databases = postgres


def stories(count: int) -> settings:
    return settings(
        max_examples=count,
        stateful_step_count=40,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
    )


TestWhateverHappens = Machine.TestCase
TestWhateverHappens.settings = stories(18)
TestWhateverHappensOnPostgres = pytest.mark.usefixtures("on_postgres")(OnPostgres.TestCase)
TestWhateverHappensOnPostgres.settings = stories(3)
