"""From rows to the door's shapes, and from the database to the scheduler's snapshot."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from cluster.db.tables import AllocationRow, FolderRow, GroupRow, NodeRow, QuotaRow, SessionRow
from cluster.lifecycle import HOLDING, LIVE, WAITING
from cluster.models import Allocation, Device, Folder, Node, NodeStatus, Reason, Resources, Session, SessionState
from cluster.scheduler.state import Group, Limit, NodeView, Placement, Request, Running, Snapshot

IDLE_BELOW = 0.05
TRASH_DAYS = 7


def session(row: SessionRow, allocations: Sequence[AllocationRow]) -> Session:
    running = row.state == SessionState.RUNNING
    return Session(
        id=row.id,
        name=row.name,
        user=row.user,
        project=row.project,
        type=row.type,
        image=row.image,
        command=row.command,
        state=row.state,
        result=row.result,
        resources=Resources(cpu=row.cpu, memory=row.memory, gpu=row.gpu),
        node_count=row.node_count,
        gpu_model=row.gpu_model,
        resource_group=row.resource_group,
        priority=row.priority,
        mounts=row.mounts,
        env=row.env,
        depends_on=row.depends_on,
        start_at=row.start_at,
        time_limit=row.time_limit,
        submitted=row.submitted,
        started=row.started,
        ended=row.ended,
        exit_code=row.exit_code,
        allocations=[
            Allocation(node=a.node, rank=a.rank, cpu=a.cpu, memory=a.memory, devices=_devices(a))
            for a in sorted(allocations, key=lambda a: a.rank)
        ],
        reasons=[Reason.model_validate(r) for r in row.reasons],
        gpu_utilization=row.utilization if row.gpu else None,
        idle=running and row.utilization is not None and row.utilization < IDLE_BELOW,
    )


def node(row: NodeRow, held: Sequence[AllocationRow], names: Mapping[str, str]) -> Node:
    shares = _shares(held)
    devices = [Device.model_validate({**d, "used": min(1.0, shares[d["index"]])}) for d in row.devices]
    return Node(
        name=row.name,
        resource_group=row.resource_group,
        status=row.status,
        reason=row.reason,
        capacity=Resources(cpu=row.cpu, memory=row.memory, gpu=len(devices)),
        free=Resources(
            cpu=row.cpu - sum(a.cpu for a in held),
            memory=row.memory - sum(a.memory for a in held),
            gpu=round(sum(1 - d.used for d in devices), 6),
        ),
        gpu_model=row.gpu_model,
        devices=devices,
        rack=row.rack,
        isolation=row.isolation,
        sessions=sorted({names[a.session] for a in held}),
        cpu_utilization=row.sample.get("cpu_utilization"),
        memory_utilization=row.sample.get("memory_utilization"),
        temperature=row.sample.get("temperature"),
        power=row.sample.get("power"),
        last_beat=row.last_beat,
    )


def folder(row: FolderRow) -> Folder:
    purge = row.trashed_at + timedelta(days=TRASH_DAYS) if row.trashed_at else None
    return Folder(
        name=row.name,
        project=row.project,
        owner=row.owner,
        size=row.size,
        quota=row.quota,
        trashed=row.trash_id is not None,
        trashed_at=row.trashed_at,
        purge_at=purge,
        created=row.created,
        modified=row.modified,
    )


def _devices(row: AllocationRow) -> dict[int, float]:
    return {int(index): share for index, share in row.devices.items()}


def _shares(held: Iterable[AllocationRow]) -> defaultdict[int, float]:
    shares: defaultdict[int, float] = defaultdict(float)
    for allocation in held:
        for index, share in _devices(allocation).items():
            shares[index] += share
    return shares


@dataclass(frozen=True)
class Live:
    """Everything live at one moment, read in one transaction."""

    nodes: Sequence[NodeRow]
    sessions: Sequence[SessionRow]
    allocations: Mapping[str, list[AllocationRow]]
    """By session."""
    groups: Sequence[GroupRow]
    quotas: Sequence[QuotaRow]

    def on_node(self, name: str) -> list[AllocationRow]:
        return [a for rows in self.allocations.values() for a in rows if a.node == name]

    @property
    def names(self) -> dict[str, str]:
        return {s.id: s.name for s in self.sessions}


async def live(db: AsyncSession) -> Live:
    """All nodes, groups and quotas, and the sessions that wait or hold something, oldest first."""
    states = [s.value for s in LIVE]
    sessions = await db.scalars(
        select(SessionRow).where(SessionRow.state.in_(states)).order_by(SessionRow.submitted, SessionRow.id)
    )
    by_session: defaultdict[str, list[AllocationRow]] = defaultdict(list)
    for row in await db.scalars(select(AllocationRow)):
        by_session[row.session].append(row)
    return Live(
        nodes=(await db.scalars(select(NodeRow).order_by(NodeRow.name))).all(),
        sessions=sessions.all(),
        allocations=by_session,
        groups=(await db.scalars(select(GroupRow).order_by(GroupRow.name))).all(),
        quotas=(await db.scalars(select(QuotaRow))).all(),
    )


async def snapshot(db: AsyncSession, now: datetime) -> Snapshot:
    """What the scheduler may know, of the database as this transaction sees it."""
    state = await live(db)
    waiting = [s for s in state.sessions if s.state in WAITING]
    open_dependencies = await _unfinished(db, waiting)
    return Snapshot(
        now=now,
        nodes=[_node_view(n, state.on_node(n.name)) for n in state.nodes],
        pending=[_request(s, open_dependencies) for s in waiting],
        running=[_running(s, state.allocations[s.id], now) for s in state.sessions if s.state in HOLDING],
        groups={g.name: Group(g.name, g.policy, g.selector, g.backfill) for g in state.groups},
        user_limits={q.name: _limit(q) for q in state.quotas if q.scope == "user"},
        project_limits={q.name: _limit(q) for q in state.quotas if q.scope == "project"},
    )


async def _unfinished(db: AsyncSession, waiting: Sequence[SessionRow]) -> dict[str, str]:
    """Id -> name of the sessions waited for that have not ended well."""
    wanted = {d for s in waiting for d in s.depends_on}
    if not wanted:
        return {}
    query = select(SessionRow.id, SessionRow.name).where(
        SessionRow.id.in_(wanted), SessionRow.result.is_distinct_from("success")
    )
    return dict((await db.execute(query)).all())


def _node_view(row: NodeRow, held: Sequence[AllocationRow]) -> NodeView:
    shares = _shares(held)
    return NodeView(
        name=row.name,
        group=row.resource_group,
        schedulable=row.status == NodeStatus.ALIVE,
        cpu=row.cpu,
        memory=row.memory,
        cpu_free=row.cpu - sum(a.cpu for a in held),
        memory_free=row.memory - sum(a.memory for a in held),
        devices=tuple(max(0.0, round(1 - shares[d["index"]], 6)) for d in row.devices),
        gpu_model=row.gpu_model,
        rack=row.rack,
        power=row.sample.get("power"),
        temperature=row.sample.get("temperature"),
    )


def _request(row: SessionRow, unfinished: Mapping[str, str]) -> Request:
    return Request(
        id=row.id,
        name=row.name,
        user=row.user,
        project=row.project,
        group=row.resource_group,
        submitted=row.submitted,
        cpu=row.cpu,
        memory=row.memory,
        gpu=row.gpu,
        node_count=row.node_count,
        gpu_model=row.gpu_model,
        priority=row.priority,
        time_limit=row.time_limit,
        start_at=row.start_at,
        waiting_for=tuple(unfinished[d] for d in row.depends_on if d in unfinished),
    )


def _running(row: SessionRow, allocations: Sequence[AllocationRow], now: datetime) -> Running:
    started = row.started or now
    return Running(
        id=row.id,
        name=row.name,
        user=row.user,
        project=row.project,
        group=row.resource_group,
        placements=tuple(Placement(a.node, a.cpu, a.memory, _devices(a)) for a in allocations),
        started=started,
        priority=row.priority,
        ends_by=started + timedelta(seconds=row.time_limit) if row.time_limit else None,
    )


def _limit(row: QuotaRow) -> Limit:
    return Limit(cpu=row.cpu, memory=row.memory, gpu=row.gpu, sessions=row.sessions)
