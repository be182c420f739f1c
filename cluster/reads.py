"""What can be asked of the cluster. Everything is filtered by what the asking person may see."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from cluster import consequences, output, records
from cluster.db.tables import FolderRow, ImageRow, Meta, SessionRow
from cluster.ledger import Ledger
from cluster.lifecycle import ENDED, WAITING
from cluster.live import LiveNode, LiveSession
from cluster.models import (
    ClusterStatus,
    EstimateStart,
    Explanation,
    LogPage,
    Names,
    Node,
    NodeStatus,
    Page,
    Reason,
    ResourceGroup,
    Resources,
    Session,
    SessionState,
    SessionType,
    StartEstimate,
    StartSession,
    User,
)
from cluster.operations import apply
from cluster.paging import Order, cut
from cluster.scheduler import matches_model
from cluster.sentence import S, Sentence
from cluster.storage import rights
from cluster.tenancy import veil
from cluster.tenancy.known import projects_seen, users_seen
from cluster.tenancy.veil import veiled
from cluster.transaction import Refused, Transaction, seen_by

if TYPE_CHECKING:
    from cluster.core import Core

T = TypeVar("T")
MOST_ENDED = 10_000
"""So many of the latest ended sessions are listed at most."""
MOST_NAMES = 2000
"""Of sessions, live ones first."""


class SessionQuery(BaseModel):
    """Filters of GET /v1/sessions."""

    model_config = ConfigDict(extra="forbid")

    status: SessionState | None = None
    type: SessionType | None = None
    project: str | None = None
    user: str | None = None
    node: str | None = None
    resource_group: str | None = None
    idle: bool | None = None
    sort_by: Literal["created", "waiting", "gpu", "cpu", "memory", "priority", "gpu_utilization"] = "created"
    order: Order | None = None
    limit: int = Field(default=50, ge=1, le=1000)


class NodeQuery(BaseModel):
    """Filters of GET /v1/nodes."""

    model_config = ConfigDict(extra="forbid")

    status: NodeStatus | None = None
    resource_group: str | None = None
    gpu_model: str | None = None
    sort_by: Literal["name", "free_gpu", "gpu_utilization", "temperature", "power"] = "name"
    order: Order | None = None
    limit: int = Field(default=50, ge=1, le=1000)


class Reads:
    """One method for each reading route. What is live comes from the ledger, between two commits; what has ended, and
    what happened, from the database as it was at the same commit."""

    def __init__(self, core: "Core") -> None:
        self._core = core

    @asynccontextmanager
    async def _moment(self, look: Callable[[Ledger], T]) -> AsyncIterator[tuple[T, AsyncSession]]:
        """What `look` sees in the ledger, and the database at the same moment."""
        async with AsyncExitStack() as stack:
            async with self._core.still() as ledger:
                # not before: who waits for the writer with a connection in hand may keep the writer from getting one
                db = await stack.enter_async_context(self._core.db.read())
                await db.execute(select(1).select_from(Meta).limit(1))  # from here on it sees this moment
                seen = look(ledger)
            yield seen, db

    def _shown(self, user: User, session: LiveSession) -> Session:
        """For people; if it waits, with why it does so now. Called between two commits."""
        if session.state not in WAITING:
            return records.session(session)
        return records.session(session, self._why(user, session)[0])

    def _why(self, user: User, session: LiveSession) -> tuple[list[Reason], datetime | None]:
        """Why it waits, and when it could start."""
        decided = self._core.outlook.plan(self._core.clock.now())
        told = veiled(self._core.ledger, session, consequences.why(session, decided), veil.seen_by(user))
        return told, decided.estimated.get(session.id)

    async def _session(self, user: User, ref: str) -> LiveSession:
        """By id or name; between two commits."""
        return await Transaction(self._core, user, self._core.clock.now(), dry_run=True).session(ref)

    # ── sessions ─────────────────────────────────────────────────────────────────────────────────

    async def sessions(self, user: User, query: SessionQuery) -> Page[Session]:
        if query.status in ENDED:
            found, total = await self._ended(user, query)
        else:
            found, total = [], None
        async with self._core.still() as ledger:
            if total is None:
                seen = veil.seen_by(user)
                found = [s for s in ledger.in_order() if _asked_for(s, query) and seen(s)]
            key = _session_key(query.sort_by, self._core.clock.now())
            page = cut(found, key, query.order, query.sort_by, query.limit)
            items = [self._shown(user, session) for session in page.items]
        return Page(items=items, total=page.total if total is None else total)

    async def _ended(self, user: User, query: SessionQuery) -> tuple[list[LiveSession], int]:
        """The latest that have ended, and how many there are in all."""
        if query.node is not None or query.idle:
            return [], 0
        wanted = {"type": query.type, "project": query.project, "user": query.user,
                  "resource_group": query.resource_group, "state": query.status}  # fmt: skip
        table = SessionRow.__table__
        rows = select(table).where(seen_by(user), *(table.c[c] == v for c, v in wanted.items() if v is not None))
        async with self._core.db.read() as db:
            total = await db.scalar(select(func.count()).select_from(rows.subquery())) or 0
            latest = rows.order_by(table.c.ended.desc()).limit(MOST_ENDED)
            return [LiveSession.of(row) for row in (await db.execute(latest)).mappings()], total

    async def session(self, user: User, ref: str) -> Session:
        async with self._core.still():
            return self._shown(user, await self._session(user, ref))

    async def explain(self, user: User, ref: str) -> Explanation:
        """From the plan for now, so that it says what holds now."""
        async with self._core.still():
            session = await self._session(user, ref)
            current = self._shown(user, session)
            start = self._why(user, session)[1] if session.state in WAITING else None
        ahead = _ahead(current.reasons) if session.state in WAITING else []
        return Explanation(session=current, reasons=current.reasons, ahead=ahead, estimated_start=start)

    async def estimate(self, user: User, ask: EstimateStart) -> StartEstimate:
        """When such a session would start, found by submitting it in a transaction that is taken back."""
        operation = StartSession(command="true", type=SessionType.BATCH, **ask.model_dump())

        async def look(tx: Transaction) -> Callable[[], StartEstimate]:
            done = await apply(tx, operation)
            found = self._estimated(user, done.sessions[0])
            return lambda: found

        try:
            return await self._core.writer.alone(user, look, dry_run=True)
        except Refused as e:
            return StartEstimate(refused=e.reasons)

    def _estimated(self, user: User, session: LiveSession) -> StartEstimate:
        now = self._core.clock.now()
        decided = self._core.outlook.plan(now)
        group = session.resource_group
        if places := decided.start.get(session.id):
            return StartEstimate(at=now, now=True, nodes=[p.node for p in places], resource_group=group)
        reasons, at = self._why(user, session)
        return StartEstimate(at=at, resource_group=group, reasons=reasons, ahead=_ahead(reasons))

    async def logs(self, user: User, ref: str, tail: int | None, offset: int | None) -> LogPage:
        async with self._core.still():
            session = await self._session(user, ref)
            path = self._core.agents.log_file(session.id, session.attempt)
            finished = session.state in ENDED
        data, end = await asyncio.to_thread(output.read, path, tail, offset)
        text = data.replace(b"\0", b"").decode(errors="replace")  # a gap, see `Agency.write_log`
        return LogPage(session=session.name, text=text, next_offset=end, finished=finished)

    # ── nodes ────────────────────────────────────────────────────────────────────────────────────

    async def nodes(self, user: User, query: NodeQuery) -> Page[Node]:
        async with self._core.still() as ledger:
            found = _nodes(ledger, user)
        if query.status is not None:
            found = [n for n in found if n.status == query.status]
        if query.resource_group is not None:
            found = [n for n in found if n.resource_group == query.resource_group]
        if query.gpu_model is not None:
            found = [n for n in found if n.gpu_model and matches_model(query.gpu_model, n.gpu_model)]
        return cut(found, _NODE_KEYS[query.sort_by], query.order, query.sort_by, query.limit)

    async def node(self, user: User, ref: str) -> Node:
        async with self._core.still() as ledger:
            tx = Transaction(self._core, user, self._core.clock.now(), dry_run=True)
            return _node(ledger, tx.node(ref), veil.seen_by(user))

    async def resource_groups(self, user: User) -> Page[ResourceGroup]:
        async with self._core.still() as ledger:
            nodes = _nodes(ledger, user)
            rows = self._core.directory.groups.values()
        groups = []
        for row in rows:
            members = [n for n in nodes if n.resource_group == row.name]
            usable = [n for n in members if n.status == NodeStatus.ALIVE]
            groups.append(
                ResourceGroup(
                    name=row.name,
                    policy=row.policy,
                    selector=row.selector,
                    backfill=row.backfill,
                    preemption=row.preemption,
                    nodes=len(members),
                    capacity=_total([n.capacity for n in members]),
                    free=_total([n.free for n in usable]),
                )
            )
        return Page(items=groups, total=len(groups))

    # ── the whole ────────────────────────────────────────────────────────────────────────────────

    async def status(self, user: User) -> ClusterStatus:
        now = self._core.clock.now()
        recent = select(SessionRow.state, func.count()).where(SessionRow.ended >= now - timedelta(days=1))
        async with self._moment(lambda ledger: (_nodes(ledger, user), _states(ledger))) as (seen, db):
            ended = (await db.execute(recent.group_by(SessionRow.state))).all()
            used = await db.scalar(select(func.coalesce(func.sum(FolderRow.size), 0)))
        nodes, (counts, oldest) = seen
        volumes = self._core.volumes
        usable = [n for n in nodes if n.status == NodeStatus.ALIVE]
        shares = [d.utilization for n in nodes for d in n.devices if d.utilization is not None]
        return ClusterStatus(
            name=self._core.name,
            now=now,
            simulated=self._core.simulated,
            nodes=dict(Counter(n.status.value for n in nodes)),
            sessions={**counts, **dict(ended)},
            capacity=_total([n.capacity for n in nodes]),
            free=_total([n.free for n in usable]),
            gpu_utilization=sum(shares) / len(shares) if shares else None,
            storage_used=int(used or 0),
            storage_free=await asyncio.to_thread(volumes.free) if volumes else 0,
            longest_wait=(now - oldest).total_seconds() if oldest else 0,
            warnings=[*_warnings(nodes), *(why.message for why in self._core.outlook.unusable.values())],
        )

    async def names(self, user: User) -> Names:
        names = Names()
        ended = select(SessionRow.id, SessionRow.name).where(SessionRow.ended.is_not(None), seen_by(user))

        def live(ledger: Ledger) -> dict[str, str]:
            names.nodes = sorted(ledger.nodes)
            names.gpu_models = sorted({n.gpu_model for n in ledger.nodes.values() if n.gpu_model})
            latest, seen = reversed(ledger.in_order()), veil.seen_by(user)
            return {s.id: s.name for s in [s for s in latest if seen(s)][:MOST_NAMES]}

        async with self._moment(live) as (sessions, db):
            left = MOST_NAMES - len(sessions)
            latest = await db.execute(ended.order_by(SessionRow.ended.desc(), SessionRow.submitted.desc()).limit(left))
            names.sessions = {**sessions, **dict(latest.all())}
            names.images = list(await db.scalars(select(ImageRow.name).order_by(ImageRow.name)))
            known = await rights.grants(db)
            folders = [f for f in await db.scalars(select(FolderRow)) if rights.sees(user, f, known)]
        names.models = await self._core.models.names(user)
        names.endpoints = await self._core.serving.endpoints.names(user)
        names.pipelines, names.runs = await self._core.pipelines.names(user)
        directory = self._core.directory
        names.users, names.projects = users_seen(directory, user), projects_seen(directory, user)
        names.resource_groups = [*directory.groups]
        names.folders = rights.names([f for f in folders if f.trash_id is None])
        names.trashed_folders = sorted({f.name for f in folders if f.trash_id is not None})
        return names


def _ahead(reasons: Sequence[Reason]) -> list[str]:
    """Who goes first, each once."""
    return list(dict.fromkeys(name for reason in reasons for name in reason.ahead))


def _asked_for(session: LiveSession, query: SessionQuery) -> bool:
    """Of a live one. PENDING includes held ones."""
    states = WAITING if query.status is SessionState.PENDING else {query.status}
    if query.status is not None and session.state not in states:
        return False
    if query.node is not None and all(rank.node != query.node for rank in session.ranks):
        return False
    pairs = ((query.type, session.type), (query.project, session.project), (query.user, session.user),
             (query.resource_group, session.resource_group), (query.idle, records.idle(session)))  # fmt: skip
    return all(wanted is None or wanted == is_ for wanted, is_ in pairs)


def _session_key(sort_by: str, now: datetime) -> Callable[[LiveSession], Any]:
    keys: dict[str, Callable[[LiveSession], Any]] = {
        "created": lambda s: s.submitted,
        "waiting": lambda s: (s.started or s.ended or now) - s.submitted,
        "gpu": lambda s: s.gpu,
        "cpu": lambda s: s.cpu,
        "memory": lambda s: s.memory,
        "priority": lambda s: s.priority,
        "gpu_utilization": lambda s: -1.0 if s.utilization is None or not s.gpu else s.utilization,
    }
    return keys[sort_by]


_NODE_KEYS: dict[str, Callable[[Node], Any]] = {
    "name": lambda n: n.name,
    "free_gpu": lambda n: n.free.gpu,
    "gpu_utilization": lambda n: sum(d.utilization or 0 for d in n.devices) / max(1, len(n.devices)),
    "temperature": lambda n: n.temperature or -1.0,
    "power": lambda n: n.power or -1.0,
}


def _nodes(ledger: Ledger, user: User) -> list[Node]:
    seen = veil.seen_by(user)
    return [_node(ledger, ledger.nodes[name], seen) for name in sorted(ledger.nodes)]


def _node(ledger: Ledger, node: LiveNode, seen: veil.Sees) -> Node:
    """With the names of those sessions there that the person may see."""
    names = sorted({s.name for s in ledger.sessions_on(node.name) if seen(s)})
    return records.node(node, list(ledger.ranks_on(node.name)), names)


def _states(ledger: Ledger) -> tuple[dict[str, int], datetime | None]:
    """Live sessions by state, and when the one that waits longest was submitted."""
    oldest = min((s.submitted for s in ledger.waiting.values()), default=None)
    return dict(Counter(s.state for s in ledger.sessions.values())), oldest


def _total(parts: Sequence[Resources]) -> Resources:
    return Resources(cpu=sum(p.cpu for p in parts), memory=sum(p.memory for p in parts), gpu=sum(p.gpu for p in parts))


def _warnings(nodes: list[Node]) -> list[Sentence]:
    lost = [n.name for n in nodes if n.status == NodeStatus.LOST]
    return [S("{node} does not answer.", node=name) for name in lost]
