"""What happened: events, and who did what (the audit)."""

from typing import TYPE_CHECKING

from sqlalchemy import CompoundSelect, func, or_, select, union

from cluster import access
from cluster.db.tables import AuditRow, EventRow, FolderRow, NodeRow, SessionRow
from cluster.models import AuditEntry, Event, Page, User
from cluster.operations.undo import audit_id
from cluster.transaction import seen_by

if TYPE_CHECKING:
    from cluster.core import Core


class Journal:
    """One method for each reading route, filtered by what the asking person may see."""

    def __init__(self, core: "Core") -> None:
        self._core = core

    async def events(self, user: User, after: int, limit: int) -> Page[Event]:
        """An admin sees all; others those of what they may see, and of nodes."""
        query = select(EventRow).where(EventRow.seq > after).order_by(EventRow.seq)
        if after < 0:
            query = select(EventRow).order_by(EventRow.seq.desc())
        if not access.is_admin(user):
            query = query.where(EventRow.target.in_(_visible_targets(user)))
        async with self._core.db.read() as db:
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


def _visible_targets(user: User) -> CompoundSelect[tuple[str]]:
    """Names of the sessions and folders that the person may see, and of all nodes."""
    folders = or_(FolderRow.owner == user.name, FolderRow.project.in_(user.projects))
    return union(select(SessionRow.name).where(seen_by(user)), select(FolderRow.name).where(folders),
                 select(NodeRow.name))  # fmt: skip


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
