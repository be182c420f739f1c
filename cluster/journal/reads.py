"""What happened: events, and who did what (the journal), as people may see it; and whether the journal is whole."""

import asyncio
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import ColumnElement, Select, and_, delete, func, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from cluster import access
from cluster.db.tables import AuditRow, EventRow, Meta
from cluster.errors import Invalid
from cluster.journal.chain import Checker, Link, audit_id, number_of
from cluster.models import AuditEntry, Event, JournalCheck, Page, User
from cluster.models.base import Moment
from cluster.sentence import S, Sentence
from cluster.transaction import Transaction

if TYPE_CHECKING:
    from cluster.core import Core

CLEARED = "journal_cleared"
"""Key in `meta`: number and hash of the last row that was cleared away."""
PAGE = 1000
"""Rows of the journal that are read at a time."""
SHORTEST_HASH = 13
"""Hexadecimal digits of a hash that say enough: as many as /metrics has."""


class AuditQuery(BaseModel):
    """Filters of GET /v1/audit."""

    model_config = ConfigDict(extra="forbid")

    user: str | None = None
    action: str | None = None
    """An operation's name."""
    result: Literal["done", "refused", "failed"] | None = None
    since: Moment | None = None
    before: str | None = Field(default=None, max_length=20)
    """An audit id: only what is older, to read on after a page."""
    limit: int = Field(default=50, ge=1, le=1000)


class EventFilter(BaseModel):
    """Which events."""

    model_config = ConfigDict(extra="forbid")

    target: str | None = None
    severity: Literal["info", "warning", "error"] | None = None
    since: Moment | None = None


class EventQuery(EventFilter):
    """Filters of GET /v1/events."""

    after: int = Field(default=0, ge=-1, le=2**53)
    """Oldest first, those with a higher `seq`; -1: the newest ones."""
    limit: int = Field(default=200, ge=1, le=1000)


class Journal:
    """One method for each reading route, filtered by what the asking person may see."""

    def __init__(self, core: "Core") -> None:
        self._core = core

    # ── events ───────────────────────────────────────────────────────────────────────────────────

    async def events(self, user: User, query: EventQuery) -> Page[Event]:
        """An admin sees all; others those of what they may see, and of nodes. In order, whatever was asked."""
        wanted = self._of_events(user, query)
        rows = wanted.order_by(EventRow.seq.desc())
        if query.after >= 0:
            wanted = wanted.where(EventRow.seq > query.after)
            rows = wanted.order_by(EventRow.seq)
        async with self._core.db.read() as db:
            found = (await db.scalars(rows.limit(query.limit))).all()
            total = await db.scalar(select(func.count()).select_from(wanted.subquery())) or 0
        return Page(items=[_event(row) for row in sorted(found, key=lambda row: row.seq)], total=total)

    async def following(self, user: User, query: EventFilter, after: int, most: int) -> tuple[list[Event], int]:
        """The first `most` events after `after`, and the number up to which nothing else fits."""
        rows = self._of_events(user, query).where(EventRow.seq > after).order_by(EventRow.seq).limit(most)
        async with self._core.db.read() as db:
            newest = await db.scalar(select(func.max(EventRow.seq))) or 0
            found = (await db.scalars(rows)).all()
        upto = found[-1].seq if len(found) == most else max(newest, after)
        return [_event(row) for row in found], upto

    def _of_events(self, user: User, query: EventFilter) -> Select[EventRow]:
        rows = select(EventRow)
        if not access.is_admin(user):
            rows = rows.where(_seen(user))
        if query.target is not None:
            rows = rows.where(EventRow.target == query.target)
        if query.severity is not None:
            rows = rows.where(EventRow.severity == query.severity)
        if query.since is not None:
            rows = rows.where(EventRow.at >= query.since)
        return rows

    # ── who did what ─────────────────────────────────────────────────────────────────────────────

    async def audit(self, user: User, query: AuditQuery) -> Page[AuditEntry]:
        """Newest first; a plain user sees their own only. `total` counts what fits, from `before` on."""
        rows = select(AuditRow)
        if not access.is_admin(user):
            rows = rows.where(AuditRow.user == user.name)
        for column, value in ((AuditRow.user, query.user), (AuditRow.action, query.action)):
            rows = rows if value is None else rows.where(column == value)
        if query.result is not None:
            rows = rows.where(AuditRow.result == query.result)
        if query.since is not None:
            rows = rows.where(AuditRow.at >= query.since)
        if query.before is not None:
            rows = rows.where(AuditRow.id < _number(query.before))
        async with self._core.db.read() as db:
            total = await db.scalar(select(func.count()).select_from(rows.subquery())) or 0
            found = (await db.scalars(rows.order_by(AuditRow.id.desc()).limit(query.limit))).all()
        return Page(items=[_audit(row) for row in found], total=total)

    # ── whether it is whole ──────────────────────────────────────────────────────────────────────

    async def verify(self, user: User, newest: str | None = None, known: str | None = None) -> JournalCheck:
        """Go through all of it. `newest` and `known`: an audit id and the hash, or its beginning, that it had."""
        access.must_be_admin(user)
        kept = _kept(newest, known)
        async with self._core.db.read() as db:
            async with self._core.still():
                cleared = await _cleared(db)  # from here on it sees this moment
                head = self._core.draft.written
            oldest = await db.scalar(select(func.min(AuditRow.id)))
            checker = Checker(cleared, kept)
            async for rows in _pages(db):
                await asyncio.to_thread(_take, checker, rows)
        checker.end(head)
        return _check(checker, oldest)

    async def clear(self, tx: Transaction, until: datetime, most: int) -> None:
        """Drop the oldest rows from before `until`, at most `most`, never the last; keep where the chain begins."""
        rows = select(AuditRow.id, AuditRow.at, AuditRow.chain).order_by(AuditRow.id).limit(most + 1)
        found = (await tx.db.execute(rows)).all()
        last = Link()
        for number, at, chain in found[: min(most, len(found) - 1)]:
            if at >= until:
                break
            last = Link(number, chain)
        if last.number:
            await tx.db.execute(delete(AuditRow).where(AuditRow.id <= last.number))
            await tx.db.merge(Meta(key=CLEARED, value=f"{last.number} {last.chain or ''}"))


async def _cleared(db: AsyncSession) -> Link:
    said = await db.scalar(select(Meta.value).where(Meta.key == CLEARED))
    number, _, chain = (said or "0 ").partition(" ")
    return Link(int(number), chain or None)


async def _pages(db: AsyncSession) -> Any:
    after = -(2**62)
    while True:
        rows = (await db.scalars(select(AuditRow).where(AuditRow.id > after).order_by(AuditRow.id).limit(PAGE))).all()
        if not rows:
            return
        yield rows
        after = rows[-1].id
        db.expunge_all()


def _take(checker: Checker, rows: Sequence[AuditRow]) -> None:
    for row in rows:
        checker.take(row)


def _kept(newest: str | None, known: str | None) -> Link:
    if newest is None and known is None:
        return Link()
    if newest is None or known is None or len(known) < SHORTEST_HASH:
        raise Invalid(
            S("Give both: an audit id, and at least the first {digits} digits of its hash.", digits=SHORTEST_HASH)
        )
    return Link(_number(newest), known.lower())


def _number(ref: str) -> int:
    number = number_of(ref)
    if number is None:
        raise Invalid(S("{name} is not the id of an action, such as a-0012.", name=ref))
    return number


def _check(checker: Checker, oldest: int | None) -> JournalCheck:
    last = checker.last
    return JournalCheck(
        whole=checker.fault is None,
        rows=checker.rows,
        unchained=checker.unchained,
        oldest=None if oldest is None else audit_id(oldest),
        newest=audit_id(last.number) if last.number else None,
        hash=last.chain,
        fault=checker.fault,
        not_known=_not_known(checker),
    )


def _not_known(checker: Checker) -> list[Sentence]:
    found = []
    if checker.unchained:
        found.append(S("{count} actions are from before there was a chain.", count=checker.unchained))
    if checker.cleared.number:
        upto = audit_id(checker.cleared.number)
        found.append(S("What was done up to {name} was cleared away for its age.", name=upto))
    if not checker.known.number:
        found.append(
            S(
                "Whether the end was cut off, or all of it made anew, before this server started: keep the newest hash "
                "elsewhere, and give it with the next check."
            )
        )
    return found


def _seen(user: User) -> ColumnElement[bool]:
    """As `access.sees`, for events; those of nodes, groups and images are everybody's."""
    ours = or_(*(EventRow.kind.startswith(f"{kind}_", autoescape=True) for kind in ("node", "group", "image")))
    cluster = and_(EventRow.owner.is_(None), EventRow.project.is_(None), ours)
    return or_(EventRow.owner == user.name, EventRow.project.in_(user.projects), cluster)


def _event(row: EventRow) -> Event:
    said = {"seq": row.seq, "at": row.at, "kind": row.kind, "severity": row.severity, "target": row.target}
    return Event.model_validate({**said, "message": row.message})


def _audit(row: AuditRow) -> AuditEntry:
    return AuditEntry.model_validate(
        {
            "id": audit_id(row.id),
            "at": row.at,
            "user": row.user,
            "action": row.action,
            "operation": row.operation,
            "targets": row.targets,
            "result": row.result,
            "reasons": row.reasons,
            "inverse": row.inverse,
            "undone_by": audit_id(row.undone_by) if row.undone_by else None,
        }
    )
