"""What an operation works with: the draft that it changes, who asks, and what it leaves behind (events, effects,
inverse). Sessions and nodes are those of the ledger; folders, users and the journal are rows of the database."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from rapidfuzz import process
from sqlalchemy import ColumnElement, or_, select, true
from sqlalchemy.ext.asyncio import AsyncSession

from cluster import access
from cluster.db.tables import AuditRow, FolderRow, SessionRow
from cluster.errors import Ambiguous, ClusterError, NotFound
from cluster.ledger import Ledger
from cluster.lifecycle import ENDED, WAITING, move
from cluster.live import LiveNode, LiveSession, Rank
from cluster.models import Effect, Reason, SessionResult, SessionState, TokenMade, User
from cluster.scheduler import Plan
from cluster.scheduler.shares import CORES_PER_DEVICE
from cluster.scheduler.state import Placement
from cluster.sentence import S, Sentence
from cluster.storage import rights
from cluster.storage.volumes import Volumes
from cluster.tenancy.veil import seen_from, veiled

if TYPE_CHECKING:
    from cluster.core import Core

NAMES = 5000
"""So many of the latest ended sessions are looked through for a name like the one asked for."""


class Refused(Exception):
    """Not done, for structured reasons. Ends the transaction; the caller gets them as an outcome."""

    def __init__(self, *reasons: Reason) -> None:
        super().__init__("; ".join(str(r.message) for r in reasons))
        self.reasons = list(reasons)


def reasons_of(e: Refused | ClusterError) -> list[Reason]:
    """Why something was not done, also where an error ended it."""
    if isinstance(e, Refused):
        return e.reasons
    known = {"not_found", "ambiguous", "not_allowed", "conflict", "invalid", "storage_full", "unavailable"}
    code = e.code if e.code in known else "invalid"
    return [Reason.model_validate({"code": code, "message": e.sentence, "candidates": e.candidates})]


@dataclass
class Done:
    """What an operation did inside its transaction."""

    effects: list[Effect]
    targets: list[str]
    undo: Sentence | None = None
    inverse: Mapping[str, Any] | None = None
    warnings: list[Sentence] = field(default_factory=list)
    sessions: list[LiveSession] = field(default_factory=list)
    """Those that it made."""
    made: TokenMade | None = None
    """The token that it made, for the one who asked only."""
    undoes: AuditRow | None = None
    """What an undo took back."""

    def add(self, more: "Done") -> None:
        """What else is told."""
        self.effects += more.effects
        self.warnings += more.warnings


OnDisk = Callable[[Volumes], object]


@dataclass
class Transaction:
    """One operation, report or pass. Without `rows` it shares its commit with others, and touches the ledger only."""

    core: "Core"
    user: User
    now: datetime
    rows: AsyncSession | None = None
    """The database's transaction, of one that has it alone."""
    dry_run: bool = False
    known: str | None = None
    """The outcome, as JSON, that its idempotency key had already."""
    decided: Plan | None = None
    """What its round's pass decided, if there was one."""
    placed: bool = False
    """That pass changed a session's state."""
    _to_do: list[tuple[OnDisk, OnDisk]] = field(default_factory=list)
    _to_put_back: list[OnDisk] = field(default_factory=list)

    @property
    def ledger(self) -> Ledger:
        return self.core.ledger

    @property
    def volumes(self) -> Volumes | None:
        """None in a simulated cluster, where a folder is only its row."""
        return self.core.volumes

    @property
    def same_host(self) -> bool:
        return self.core.same_host

    @property
    def db(self) -> AsyncSession:
        """To change rows; only of one that runs alone."""
        assert self.rows is not None, "this transaction shares its commit with others"
        return self.rows

    @asynccontextmanager
    async def look(self) -> AsyncIterator[AsyncSession]:
        """To read rows: in one's own transaction, else as of the last commit."""
        if self.rows is not None:
            yield self.rows
        else:
            async with self.core.db.read() as db:
                yield db

    def other(self, owner: str) -> str | None:
        """`owner`, when that is not the asking person: whose something is that an effect touches."""
        return owner if owner != self.user.name else None

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

    # ── changing ─────────────────────────────────────────────────────────────────────────────────

    def event(
        self,
        kind: str,
        target: str,
        message: Sentence,
        severity: str = "info",
        *,
        owner: str | None = None,
        project: str | None = None,
    ) -> None:
        """`owner` and `project`: who may see it besides admins. Without either only nodes', groups' and images' are
        everybody's."""
        self.core.draft.event(self.now, kind, severity, target, message, owner, project)

    def session_event(self, kind: str, session: LiveSession, message: Sentence, severity: str = "info") -> None:
        """Of a session: for those who may see it."""
        self.event(kind, session.name, message, severity, owner=session.user, project=session.project)

    def edit(self, session: LiveSession) -> LiveSession:
        """Say that `session` is going to be changed; in its state and ranks only by the methods below."""
        return self.core.draft.edit(session)

    def edit_node(self, node: LiveNode) -> LiveNode:
        """Say that `node` is going to be changed; the scheduler is told afterwards."""
        self.ledger.set_node(node)
        return self.core.draft.edit_node(node)

    def add_node(self, node: LiveNode) -> None:
        self.core.draft.add_node(node)

    def add_session(self, session: LiveSession) -> None:
        self.core.draft.add(session)
        self.ledger.latest = session.submitted

    def move(
        self, session: LiveSession, to: SessionState, result: SessionResult | None = None, at: datetime | None = None
    ) -> None:
        """The session's next state, with its event; what it held is given back when it has ended or waits again.

        `at`: when it happened, as its agent says; never later than now, never before it was submitted.
        """
        when = min(max(at, session.submitted), self.now) if at else self.now
        used = _used(session, when) if to in ENDED or to in WAITING else 0.0
        message = self._become(session, to, when, result, None if to not in ENDED and to not in WAITING else ())
        if used:
            self.core.draft.charge(session.user, used, self.now)
        bad = session.result in ("failure", "lost")
        self.session_event(f"session_{to.value}", session, message, "error" if bad else "info")

    def place(self, session: LiveSession, placements: Sequence[Placement]) -> None:
        """Give it these places: SCHEDULED, a new attempt."""
        ranks = [
            Rank(session.id, i, p.node, p.cpu, p.memory, dict(p.devices), "placed") for i, p in enumerate(placements)
        ]
        self.edit(session)
        session.attempt += 1
        session.reasons = []
        message = self._become(session, SessionState.SCHEDULED, self.now, None, ranks)
        self.session_event("session_scheduled", session, message)

    def _become(
        self,
        session: LiveSession,
        to: SessionState,
        when: datetime,
        result: SessionResult | None,
        ranks: Iterable[Rank] | None,
    ) -> Sentence:
        """State and ranks (None: as they are) at once, and the indexes in step."""
        self.edit(session)
        self.ledger.leave(session)
        try:
            message = move(session, to, when, result)
            if ranks is not None:
                session.ranks = list(ranks)
        finally:
            self.ledger.enter(session)
        return message

    def nudge(self, session: LiveSession) -> None:
        """Its orders are not what they were: whoever waits for orders on its nodes is to look."""
        self.ledger.nudged.update(rank.node for rank in session.ranks)

    def fresh_id(self) -> str:
        """An id that no session ever had."""
        return self.core.idents.take()

    def handed_out(self, session: LiveSession) -> bool:
        """An agent was told to start it, and may have done so even if it has not said so."""
        return any(rank.state != "placed" for rank in session.ranks)

    def carry_out(self, decided: Plan) -> bool:
        """Write the plan down: places, holds, and who makes room. True if a session's state changed."""
        sessions = self.ledger.sessions
        starts, held, preempt = dict(decided.start), set(decided.held), dict(decided.preempt)
        for ident, placements in starts.items():
            self.place(sessions[ident], placements)
        before = set(self.ledger.held)
        for ident in sorted(held - before):
            self.move(sessions[ident], SessionState.HELD)
        for ident in sorted(before - held):
            self.move(sessions[ident], SessionState.PENDING)
        for ident, reason in preempt.items():
            self.make_room(sessions[ident], reason)
        return bool(starts or preempt) or held != before

    def make_room(self, session: LiveSession, reason: Reason) -> None:
        """Stop it with grace, for `reason`, and have it wait again; at once where no agent has heard of it."""
        self.edit(session)
        reason = veiled(self.ledger, session, [reason], seen_from(session))[0]
        self.session_event("session_preempted", session, reason.message, "warning")
        if session.state == SessionState.SCHEDULED and not self.handed_out(session):
            self.move(session, SessionState.PENDING)
            return
        session.requeue, session.reasons = True, [reason.model_dump(mode="json")]
        self.move(session, SessionState.TERMINATING)

    # ── finding things ───────────────────────────────────────────────────────────────────────────

    async def session(self, ref: str) -> LiveSession:
        """By id, else by name: the live one, else the latest that ended; one's own before others'.

        Only what the asking person may see. Raises `NotFound` and `Ambiguous`.
        """
        living = [s for s in self.ledger.called(ref) if access.sees(self.user, s.user, s.project)]
        if len(living) > 1:
            living = [s for s in living if s.user == self.user.name] or living
        if len(living) > 1:
            raise Ambiguous(
                S("{count} live sessions are called {name}; say which by its id.", count=len(living), name=ref),
                [s.id for s in living],
            )
        return living[0] if living else await self._ended(ref)

    async def _ended(self, ref: str) -> LiveSession:
        just = [s for s in self.core.draft.ended(ref) if access.sees(self.user, s.user, s.project)]
        table = SessionRow.__table__
        wanted = or_(SessionRow.id == ref, SessionRow.name == ref)
        latest = (
            select(table)
            .where(wanted, seen_by(self.user))
            .order_by((table.c.id == ref).desc(), table.c.submitted.desc())
        )
        async with self.look() as db:
            rows = (await db.execute(latest.limit(100))).mappings().all()
        draft = self.core.draft
        found = [LiveSession.of(row) for row in rows if not draft.touches(row["id"])]
        if not just and not found:
            raise await self._no_session(ref)
        return max(just + found, key=lambda s: (s.id == ref, s.submitted))

    async def _no_session(self, ref: str) -> NotFound:
        latest = select(SessionRow.name).where(SessionRow.ended.is_not(None), seen_by(self.user))
        async with self.look() as db:
            names = set(await db.scalars(latest.order_by(SessionRow.ended.desc()).limit(NAMES)))
        sees = access.seer(self.user)
        names |= {s.name for s in self.ledger.sessions.values() if sees(s.user, s.project)}
        return NotFound(S("There is no session {name}.", name=ref), nearest(ref, names))

    async def recall(self, ident: str) -> LiveSession | None:
        """A session that may have ended, to be brought back; None when there is none with this id."""
        if ident in self.ledger.sessions:
            return self.ledger.sessions[ident]
        async with self.look() as db:
            row = (await db.execute(select(SessionRow.__table__).where(SessionRow.id == ident))).mappings().first()
        return LiveSession.of(row) if row else None

    def node(self, ref: str) -> LiveNode:
        node = self.ledger.nodes.get(ref)
        if node is None:
            raise NotFound(S("There is no node {name}.", name=ref), nearest(ref, self.ledger.nodes))
        return node

    async def folder(self, ref: str, trashed: bool = False) -> FolderRow:
        """By name, among those the person may see; the one trashed last when several in the trash have the name."""
        wanted = FolderRow.trash_id.is_not(None) if trashed else FolderRow.trash_id.is_(None)
        async with self.look() as db:
            every = (await db.scalars(select(FolderRow).where(wanted))).all()
            shared = await rights.grants(db)
        rows = [r for r in every if rights.sees(self.user, r, shared)]
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


def seen_by(user: User) -> ColumnElement[bool]:
    """As `access.sees`, for rows of sessions."""
    if access.is_admin(user):
        return true()
    return or_(SessionRow.user == user.name, SessionRow.project.in_(user.projects))


def _used(session: LiveSession, until: datetime) -> float:
    """Device-seconds since it started to run."""
    if session.started is None or session.ended is not None:
        return 0.0
    return max(0.0, (until - session.started).total_seconds()) * max(session.gpu, session.cpu / CORES_PER_DEVICE)


def nearest(ref: str, names: Any, limit: int = 3) -> list[str]:
    """Existing names most like `ref`, best first."""
    return [name for name, score, _ in process.extract(ref, list(names), limit=limit) if score >= 60]
