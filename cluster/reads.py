"""What can be asked of the cluster. Everything is filtered by what the asking person may see."""

import asyncio
import os
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from cluster import access, records
from cluster.db.tables import (
    AllocationRow,
    AuditRow,
    EventRow,
    FolderRow,
    ImageRow,
    MemberRow,
    NodeRow,
    ProjectRow,
    SessionRow,
    UserRow,
)
from cluster.errors import NotAllowed
from cluster.lifecycle import ENDED, HOLDING, LIVE
from cluster.models import (
    AuditEntry,
    ClusterStatus,
    Event,
    Explanation,
    Folder,
    Image,
    LogPage,
    Names,
    Node,
    NodeStatus,
    Page,
    Project,
    QuotaUse,
    ResourceGroup,
    Resources,
    Session,
    SessionState,
    SessionType,
    User,
)
from cluster.operations.undo import audit_id
from cluster.scheduler import matches_model, plan
from cluster.sentence import S, Sentence
from cluster.transaction import Transaction

if TYPE_CHECKING:
    from cluster.core import Core

T = TypeVar("T")
MOST_LOG = 256 * 1024
"""Bytes of output given at once."""
Order = Literal["asc", "desc"]


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


class FolderQuery(BaseModel):
    """Filters of GET /v1/folders."""

    model_config = ConfigDict(extra="forbid")

    project: str | None = None
    user: str | None = None
    trashed: bool = False
    sort_by: Literal["name", "size", "modified"] = "name"
    order: Order | None = None
    limit: int = Field(default=50, ge=1, le=1000)


class Reads:
    """One method for each reading route; each in one read transaction."""

    def __init__(self, core: "Core") -> None:
        self._core = core

    def _transaction(self, db: AsyncSession, user: User) -> Transaction:
        return Transaction(db, user, self._core.clock.now(), None, dry_run=True)

    # ── sessions ─────────────────────────────────────────────────────────────────────────────────

    async def sessions(self, user: User, query: SessionQuery) -> Page[Session]:
        async with self._core.db.read() as db:
            rows = [r for r in await db.scalars(_session_rows(query)) if access.sees(user, r.user, r.project)]
            places = await _places(db, [r.id for r in rows])
        found = [records.session(r, places.get(r.id, [])) for r in rows]
        if query.node is not None:
            found = [s for s in found if any(a.node == query.node for a in s.allocations)]
        if query.idle is not None:
            found = [s for s in found if s.idle == query.idle]
        now = self._core.clock.now()
        return _page(found, _session_key(query.sort_by, now), query.order, query.sort_by, query.limit)

    async def session(self, user: User, ref: str) -> Session:
        async with self._core.db.read() as db:
            tx = self._transaction(db, user)
            row = await tx.session(ref)
            return records.session(row, await tx.allocations(row.id))

    async def explain(self, user: User, ref: str) -> Explanation:
        """From a fresh plan, so that it says what holds now."""
        async with self._core.db.read() as db:
            tx = self._transaction(db, user)
            row = await tx.session(ref)
            current = records.session(row, await tx.allocations(row.id))
            if current.state not in (SessionState.PENDING, SessionState.HELD):
                return Explanation(session=current, reasons=current.reasons)
            decided = plan(await records.snapshot(db, tx.now))
        reasons = list(decided.wait.get(row.id) or decided.hold.get(row.id) or ())
        ahead = list(dict.fromkeys(name for r in reasons for name in r.ahead))
        return Explanation(session=current, reasons=reasons, ahead=ahead, estimated_start=decided.estimated.get(row.id))

    async def logs(self, user: User, ref: str, tail: int | None, offset: int | None) -> LogPage:
        session = await self.session(user, ref)
        async with self._core.db.read() as db:
            attempt = (await db.get_one(SessionRow, session.id)).attempt
        path = self._core.agents.log_file(session.id, attempt)
        data, end = await asyncio.to_thread(_read_log, path, tail, offset)
        text = data.replace(b"\0", b"").decode(errors="replace")  # a gap, see `Agency.write_log`
        return LogPage(session=session.name, text=text, next_offset=end, finished=session.state in ENDED)

    # ── nodes ────────────────────────────────────────────────────────────────────────────────────

    async def nodes(self, user: User, query: NodeQuery) -> Page[Node]:
        async with self._core.db.read() as db:
            found = await _nodes(db, user)
        if query.status is not None:
            found = [n for n in found if n.status == query.status]
        if query.resource_group is not None:
            found = [n for n in found if n.resource_group == query.resource_group]
        if query.gpu_model is not None:
            found = [n for n in found if n.gpu_model and matches_model(query.gpu_model, n.gpu_model)]
        return _page(found, _NODE_KEYS[query.sort_by], query.order, query.sort_by, query.limit)

    async def node(self, user: User, ref: str) -> Node:
        async with self._core.db.read() as db:
            name = (await self._transaction(db, user).node(ref)).name
            return next(n for n in await _nodes(db, user) if n.name == name)

    async def resource_groups(self, user: User) -> Page[ResourceGroup]:
        async with self._core.db.read() as db:
            state = await records.live(db)
            nodes = await _nodes(db, user)
        groups = []
        for row in state.groups:
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
        async with self._core.db.read() as db:
            nodes = await _nodes(db, user)
            since = now - timedelta(days=1)
            states = await db.execute(
                select(SessionRow.state, func.count())
                .where(SessionRow.state.in_([s.value for s in LIVE]) | (SessionRow.ended >= since))
                .group_by(SessionRow.state)
            )
            counts = dict(states.all())
            oldest = await db.scalar(
                select(func.min(SessionRow.submitted)).where(SessionRow.state.in_(["pending", "held"]))
            )
            used = await db.scalar(select(func.coalesce(func.sum(FolderRow.size), 0)))
        volumes = self._core.volumes
        usable = [n for n in nodes if n.status == NodeStatus.ALIVE]
        shares = [d.utilization for n in nodes for d in n.devices if d.utilization is not None]
        return ClusterStatus(
            name=self._core.name,
            now=now,
            simulated=self._core.simulated,
            nodes=dict(Counter(n.status.value for n in nodes)),
            sessions=counts,
            capacity=_total([n.capacity for n in nodes]),
            free=_total([n.free for n in usable]),
            gpu_utilization=sum(shares) / len(shares) if shares else None,
            storage_used=int(used or 0),
            storage_free=await asyncio.to_thread(volumes.free) if volumes else 0,
            longest_wait=(now - oldest).total_seconds() if oldest else 0,
            warnings=_warnings(nodes),
        )

    async def names(self, user: User) -> Names:
        extra = await self._core.meta("names")
        names = Names.model_validate_json(extra) if extra else Names()
        async with self._core.db.read() as db:
            sessions = await db.execute(
                select(SessionRow.id, SessionRow.name, SessionRow.user, SessionRow.project, SessionRow.state)
                .order_by(SessionRow.ended.is_not(None), SessionRow.ended.desc(), SessionRow.submitted.desc())
                .limit(2000)
            )
            names.sessions = {i: n for i, n, owner, project, _ in sessions if access.sees(user, owner, project)}
            names.nodes = list(await db.scalars(select(NodeRow.name).order_by(NodeRow.name)))
            names.users = list(await db.scalars(select(UserRow.name).order_by(UserRow.name)))
            names.projects = list(await db.scalars(select(ProjectRow.name).order_by(ProjectRow.name)))
            names.images = list(await db.scalars(select(ImageRow.name).order_by(ImageRow.name)))
            state = await records.live(db)
            folders = [f for f in await db.scalars(select(FolderRow)) if access.sees(user, f.owner, f.project)]
        names.resource_groups = [g.name for g in state.groups]
        names.gpu_models = sorted({n.gpu_model for n in state.nodes if n.gpu_model})
        names.folders = sorted({f.name for f in folders if f.trash_id is None})
        names.trashed_folders = sorted({f.name for f in folders if f.trash_id is not None})
        return names

    # ── people and what they may use ─────────────────────────────────────────────────────────────

    async def users(self) -> Page[User]:
        async with self._core.db.read() as db:
            rows = (await db.scalars(select(UserRow).order_by(UserRow.name))).all()
            members = (await db.scalars(select(MemberRow).order_by(MemberRow.project))).all()
        found = [
            User(
                name=r.name,
                email=r.email,
                role=r.role,
                active=r.active,
                projects=[m.project for m in members if m.user == r.name],
            )
            for r in rows
        ]
        return Page(items=found, total=len(found))

    async def projects(self) -> Page[Project]:
        async with self._core.db.read() as db:
            rows = (await db.scalars(select(ProjectRow).order_by(ProjectRow.name))).all()
            members = (await db.scalars(select(MemberRow).order_by(MemberRow.user))).all()
        found = [Project(name=r.name, users=[m.user for m in members if m.project == r.name]) for r in rows]
        return Page(items=found, total=len(found))

    async def images(self) -> Page[Image]:
        async with self._core.db.read() as db:
            found = [Image(name=n) for n in await db.scalars(select(ImageRow.name).order_by(ImageRow.name))]
        return Page(items=found, total=len(found))

    async def quotas(self, user: User, of_user: str | None, of_project: str | None) -> Page[QuotaUse]:
        """Asked for nobody: the asking person's own and those of their projects. Use is the sum of allocations."""
        if of_user not in (None, user.name) and not access.is_admin(user):
            raise NotAllowed(S("Only an admin may see the quota of {user}.", user=of_user or ""))
        if of_project is not None:
            access.must_be_in(user, of_project)
        wanted = [("user", of_user)] if of_user else []
        wanted += [("project", of_project)] if of_project else []
        if not wanted:
            wanted = [("user", user.name), *(("project", p) for p in user.projects)]
        async with self._core.db.read() as db:
            state = await records.live(db)
            folders = (await db.scalars(select(FolderRow).where(FolderRow.trash_id.is_(None)))).all()
        found = [_quota(state, folders, scope, name) for scope, name in wanted if name]
        return Page(items=found, total=len(found))

    async def folders(self, user: User, query: FolderQuery) -> Page[Folder]:
        wanted = FolderRow.trash_id.is_not(None) if query.trashed else FolderRow.trash_id.is_(None)
        async with self._core.db.read() as db:
            rows = [
                r for r in await db.scalars(select(FolderRow).where(wanted)) if access.sees(user, r.owner, r.project)
            ]
        if self._core.volumes is not None and not query.trashed:
            for row in rows:
                row.size = await asyncio.to_thread(self._core.volumes.size, row.project, row.name)
        found = [records.folder(r) for r in rows]
        found = [f for f in found if query.project in (None, f.project) and query.user in (None, f.owner)]
        return _page(found, lambda f: getattr(f, query.sort_by), query.order, query.sort_by, query.limit)

    # ── what happened ────────────────────────────────────────────────────────────────────────────

    async def events(self, user: User, after: int, limit: int) -> Page[Event]:
        """An admin sees all; others those of what they may see, and of nodes."""
        query = select(EventRow).where(EventRow.seq > after).order_by(EventRow.seq)
        if after < 0:
            query = select(EventRow).order_by(EventRow.seq.desc())
        async with self._core.db.read() as db:
            if not access.is_admin(user):
                query = query.where(EventRow.target.in_(await _visible_targets(db, user)))
            rows = (await db.scalars(query.limit(limit))).all()
            total = await db.scalar(select(func.count()).select_from(query.subquery())) or 0
        found = [
            Event(seq=r.seq, at=r.at, kind=r.kind, severity=r.severity, target=r.target, message=r.message)
            for r in sorted(rows, key=lambda r: r.seq)
        ]
        return Page(items=found, total=total)

    async def audit(self, user: User, of_user: str | None, action: str | None, limit: int) -> Page[AuditEntry]:
        """Newest first; a plain user sees their own only."""
        query = select(AuditRow).order_by(AuditRow.id.desc())
        if not access.is_admin(user):
            query = query.where(AuditRow.user == user.name)
        if of_user:
            query = query.where(AuditRow.user == of_user)
        if action:
            query = query.where(AuditRow.action == action)
        async with self._core.db.read() as db:
            total = await db.scalar(select(func.count()).select_from(query.subquery())) or 0
            rows = (await db.scalars(query.limit(limit))).all()
        return Page(items=[_audit(r) for r in rows], total=total)


def _session_rows(query: SessionQuery) -> Any:
    rows = select(SessionRow)
    if query.status is None:
        rows = rows.where(SessionRow.state.in_([s.value for s in LIVE]))
    elif query.status is SessionState.PENDING:
        rows = rows.where(SessionRow.state.in_(["pending", "held"]))
    else:
        rows = rows.where(SessionRow.state == query.status.value)
    wanted = {"type": query.type, "project": query.project, "user": query.user, "resource_group": query.resource_group}
    for column, value in wanted.items():
        if value is not None:
            rows = rows.where(getattr(SessionRow, column) == value)
    return rows


def _session_key(sort_by: str, now: datetime) -> Callable[[Session], Any]:
    keys: dict[str, Callable[[Session], Any]] = {
        "created": lambda s: s.submitted,
        "waiting": lambda s: (s.started or s.ended or now) - s.submitted,
        "gpu": lambda s: s.resources.gpu,
        "cpu": lambda s: s.resources.cpu,
        "memory": lambda s: s.resources.memory,
        "priority": lambda s: s.priority,
        "gpu_utilization": lambda s: -1.0 if s.gpu_utilization is None else s.gpu_utilization,
    }
    return keys[sort_by]


_NODE_KEYS: dict[str, Callable[[Node], Any]] = {
    "name": lambda n: n.name,
    "free_gpu": lambda n: n.free.gpu,
    "gpu_utilization": lambda n: sum(d.utilization or 0 for d in n.devices) / max(1, len(n.devices)),
    "temperature": lambda n: n.temperature or -1.0,
    "power": lambda n: n.power or -1.0,
}


def _page(found: list[T], key: Callable[[T], Any], order: Order | None, sort_by: str, limit: int) -> Page[T]:
    """Sorted (amounts largest first unless said otherwise, names and times upwards) and cut."""
    upwards = sort_by in ("name", "created")
    found = sorted(found, key=key, reverse=order == "desc" if order else not upwards)
    return Page(items=found[:limit], total=len(found))


async def _places(db: AsyncSession, sessions: list[str]) -> dict[str, list[AllocationRow]]:
    places: dict[str, list[AllocationRow]] = {}
    for row in await db.scalars(select(AllocationRow).where(AllocationRow.session.in_(sessions))):
        places.setdefault(row.session, []).append(row)
    return places


async def _nodes(db: AsyncSession, user: User) -> list[Node]:
    state = await records.live(db)
    seen = {s.id for s in state.sessions if access.sees(user, s.user, s.project)}
    found = [records.node(n, state.on_node(n.name), state.names) for n in state.nodes]
    hidden = {s.name for s in state.sessions if s.id not in seen}
    for each in found:
        each.sessions = [s for s in each.sessions if s not in hidden]
    return found


def _total(parts: Sequence[Resources]) -> Resources:
    return Resources(cpu=sum(p.cpu for p in parts), memory=sum(p.memory for p in parts), gpu=sum(p.gpu for p in parts))


def _warnings(nodes: list[Node]) -> list[Sentence]:
    lost = [n.name for n in nodes if n.status == NodeStatus.LOST]
    return [S("{node} does not answer.", node=name) for name in lost]


def _quota(state: records.Live, folders: Sequence[FolderRow], scope: str, name: str) -> QuotaUse:
    limit = next((q for q in state.quotas if q.scope == scope and q.name == name), None)
    mine = [s for s in state.sessions if (s.user if scope == "user" else s.project) == name]
    holding = [s for s in mine if s.state in HOLDING]
    held = [a for s in holding for a in state.allocations.get(s.id, [])]
    used = Resources(
        cpu=sum(a.cpu for a in held), memory=sum(a.memory for a in held), gpu=sum(sum(a.devices.values()) for a in held)
    )
    return QuotaUse(
        scope="user" if scope == "user" else "project",
        name=name,
        cpu=limit.cpu if limit else None,
        memory=limit.memory if limit else None,
        gpu=limit.gpu if limit else None,
        storage=limit.storage if limit else None,
        sessions=limit.sessions if limit else None,
        used=used,
        used_storage=sum(f.size for f in folders if (f.owner if scope == "user" else f.project) == name),
        used_sessions=len(holding),
    )


async def _visible_targets(db: AsyncSession, user: User) -> set[str]:
    sessions = await db.execute(select(SessionRow.name, SessionRow.user, SessionRow.project))
    folders = await db.execute(select(FolderRow.name, FolderRow.owner, FolderRow.project))
    owned = {name for rows in (sessions, folders) for name, owner, project in rows if access.sees(user, owner, project)}
    return owned | set(await db.scalars(select(NodeRow.name)))


def _audit(row: AuditRow) -> AuditEntry:
    return AuditEntry.model_validate(
        {
            "id": audit_id(row.id),
            "at": row.at,
            "user": row.user,
            "action": row.action,
            "operation": row.operation,
            "targets": row.targets,
            "inverse": row.inverse,
            "undone_by": audit_id(row.undone_by) if row.undone_by else None,
        }
    )


def _read_log(path: Path, tail: int | None, offset: int | None) -> tuple[bytes, int]:
    """From `offset` on, or the last `tail` lines; at most `MOST_LOG` bytes. Second: where to read on."""
    if not path.exists():
        return b"", 0
    with path.open("rb") as file:
        end = file.seek(0, os.SEEK_END)
        if offset is not None:
            start = min(max(offset, 0), end)
            file.seek(start)
            data = _whole(file.read(MOST_LOG))
            return data, start + len(data)
        file.seek(max(0, end - MOST_LOG))
        lines = file.read(MOST_LOG).splitlines(keepends=True)
        return b"".join(lines[-tail:] if tail else lines), end


def _whole(data: bytes) -> bytes:
    """Without the beginning of a UTF-8 character at its end, of which the rest is still to come."""
    for back in range(1, min(3, len(data)) + 1):
        byte = data[-back]
        if byte >= 0xC0:
            needed = 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
            return data[:-back] if back < needed and back < len(data) + 1 else data
        if byte < 0x80:
            break
    return data
