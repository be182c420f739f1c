"""What an operation works with: one transaction, who asks, and what it leaves behind (events, effects, inverse)."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from rapidfuzz import process
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from cluster import access, records
from cluster.db.tables import AllocationRow, AuditRow, EventRow, FolderRow, NodeRow, SessionRow
from cluster.errors import Ambiguous, NotFound
from cluster.lifecycle import ENDED, LIVE, move
from cluster.models import Effect, Reason, SessionResult, SessionState, User
from cluster.scheduler import Plan, plan
from cluster.scheduler.state import Placement
from cluster.sentence import S, Sentence
from cluster.storage.volumes import Volumes


class Refused(Exception):
    """Not done, for structured reasons. Ends the transaction; the caller gets them as an outcome."""

    def __init__(self, *reasons: Reason) -> None:
        super().__init__("; ".join(str(r.message) for r in reasons))
        self.reasons = list(reasons)


@dataclass
class Done:
    """What an operation did inside its transaction."""

    effects: list[Effect]
    targets: list[str]
    undo: Sentence | None = None
    inverse: Mapping[str, Any] | None = None
    warnings: list[Sentence] = field(default_factory=list)
    session: SessionRow | None = None
    undoes: AuditRow | None = None
    """What an undo took back."""


OnDisk = Callable[[Volumes], object]


@dataclass
class Transaction:
    db: AsyncSession
    user: User
    now: datetime
    volumes: Volumes | None
    """None in a simulated cluster, where a folder is only its row."""
    dry_run: bool = False
    same_host: bool = False
    _to_do: list[tuple[OnDisk, OnDisk]] = field(default_factory=list)
    _to_put_back: list[OnDisk] = field(default_factory=list)

    # ── directories ──────────────────────────────────────────────────────────────────────────────

    def on_disk(self, do: OnDisk, put_back: OnDisk) -> None:
        """Have `do` done right before the commit, and `put_back` if that fails. Nothing in a preview or simulation."""
        self._to_do.append((do, put_back))

    async def touch_disk(self) -> None:
        """Do what `on_disk` was told: the last thing before the commit, when nothing can be refused any more."""
        if self.volumes is None or self.dry_run:
            return
        for do, put_back in self._to_do:
            await asyncio.to_thread(do, self.volumes)
            self._to_put_back.append(put_back)

    async def put_back_disk(self) -> None:
        """The commit failed: the directories go back to where the rows say."""
        for put_back in reversed(self._to_put_back):
            if self.volumes is not None:
                await asyncio.to_thread(put_back, self.volumes)
        self._to_put_back.clear()

    # ── events ───────────────────────────────────────────────────────────────────────────────────

    def event(self, kind: str, target: str, message: Sentence, severity: str = "info") -> None:
        self.db.add(EventRow(at=self.now, kind=kind, severity=severity, target=target, message=message.model_dump()))

    async def move(
        self, row: SessionRow, to: SessionState, result: SessionResult | None = None, at: datetime | None = None
    ) -> None:
        """The session's next state, with its event; what it held is given back when it has ended or waits again.

        `at`: when it happened, as its agent says; never later than now, never before it was submitted.
        """
        message = move(row, to, min(max(at, row.submitted), self.now) if at else self.now, result)
        bad = row.result in ("failure", "lost")
        self.event(f"session_{to.value}", row.name, message, "error" if bad else "info")
        if to in ENDED or to is SessionState.PENDING:
            await self.release(row)

    async def release(self, row: SessionRow) -> None:
        for allocation in await self.allocations(row.id):
            await self.db.delete(allocation)

    # ── finding things ───────────────────────────────────────────────────────────────────────────

    async def allocations(self, session: str) -> Sequence[AllocationRow]:
        query = select(AllocationRow).where(AllocationRow.session == session).order_by(AllocationRow.rank)
        return (await self.db.scalars(query)).all()

    async def handed_out(self, row: SessionRow) -> bool:
        """An agent was told to start it, and may have done so even if it has not said so."""
        return any(a.state != "placed" for a in await self.allocations(row.id))

    async def session(self, ref: str) -> SessionRow:
        """By id, else by name: the live one, else the latest that ended; one's own before others'.

        Only what the asking person may see. Raises `NotFound` and `Ambiguous`.
        """
        query = select(SessionRow).where((SessionRow.id == ref) | (SessionRow.name == ref))
        rows = [r for r in await self.db.scalars(query) if access.sees(self.user, r.user, r.project)]
        if not rows:
            raise await self._no_session(ref)
        by_id = [r for r in rows if r.id == ref]
        living = [r for r in rows if r.state in LIVE]
        living = [r for r in living if r.user == self.user.name] or living
        if not by_id and len(living) > 1:
            raise Ambiguous(
                S("{count} live sessions are called {name}; say which by its id.", count=len(living), name=ref),
                [r.id for r in living],
            )
        return (by_id or living or sorted(rows, key=lambda r: r.submitted)[-1:])[0]

    async def _no_session(self, ref: str) -> NotFound:
        rows = await self.db.execute(select(SessionRow.name, SessionRow.user, SessionRow.project))
        visible = {name for name, user, project in rows if access.sees(self.user, user, project)}
        return NotFound(S("There is no session {name}.", name=ref), nearest(ref, visible))

    async def node(self, ref: str) -> NodeRow:
        row = await self.db.get(NodeRow, ref)
        if row is None:
            names = (await self.db.scalars(select(NodeRow.name))).all()
            raise NotFound(S("There is no node {name}.", name=ref), nearest(ref, names))
        return row

    async def folder(self, ref: str, trashed: bool = False) -> FolderRow:
        """By name, among those the person may see; the one trashed last when several in the trash have the name."""
        wanted = FolderRow.trash_id.is_not(None) if trashed else FolderRow.trash_id.is_(None)
        rows = [
            r
            for r in await self.db.scalars(select(FolderRow).where(wanted))
            if access.sees(self.user, r.owner, r.project)
        ]
        found = [r for r in rows if ref in (r.name, f"{r.project}/{r.name}")]
        if not found:
            where = (
                S("There is no folder {name} in the trash.", name=ref)
                if trashed
                else S("There is no folder {name}.", name=ref)
            )
            raise NotFound(where, nearest(ref, {r.name for r in rows}))
        if len(found) > 1 and not trashed:
            raise Ambiguous(
                S("{count} folders are called {name}; say project/name.", count=len(found), name=ref),
                [f"{r.project}/{r.name}" for r in found],
            )
        return max(found, key=lambda r: r.trashed_at or r.modified)

    # ── scheduling ───────────────────────────────────────────────────────────────────────────────

    async def plan(self) -> Plan:
        """What the scheduler would do in the state that this transaction has made."""
        await self.db.flush()
        return plan(await records.snapshot(self.db, self.now))

    async def commit_plan(self, decided: Plan) -> bool:
        """Write the plan down: places, holds and reasons. True if a session's state changed."""
        changed = False
        for ident, placements in decided.start.items():
            changed = True
            await self._place(await self._row(ident), placements)
        for state, reasons in ((SessionState.PENDING, decided.wait), (SessionState.HELD, decided.hold)):
            for ident, why in reasons.items():
                row = await self._row(ident)
                row.reasons = [r.model_dump(mode="json") for r in why]
                row.estimated_start = decided.estimated.get(ident)
                if row.state != state:
                    changed = True
                    await self.move(row, state)
        return changed

    async def _row(self, ident: str) -> SessionRow:
        return await self.db.get_one(SessionRow, ident)

    async def _place(self, row: SessionRow, placements: Sequence[Placement]) -> None:
        row.attempt += 1
        row.reasons, row.estimated_start = [], None
        await self.move(row, SessionState.SCHEDULED)
        for rank, p in enumerate(placements):
            devices = {str(i): share for i, share in p.devices.items()}
            self.db.add(
                AllocationRow(
                    session=row.id, rank=rank, node=p.node, cpu=p.cpu, memory=p.memory, devices=devices, state="placed"
                )
            )


def nearest(ref: str, names: Any, limit: int = 3) -> list[str]:
    """Existing names most like `ref`, best first."""
    return [name for name, score, _ in process.extract(ref, list(names), limit=limit) if score >= 60]
