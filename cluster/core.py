"""The cluster itself: one database, one clock, one place where operations are carried out and passes are run.

execute ──► operations ──► rows, events, audit, inverse ┐
                            └► plan(snapshot) ──► places ┴─ one transaction, committed or rolled back
"""

import asyncio
import contextlib
import hashlib
import json
import secrets
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path

import structlog
from sqlalchemy import select

from cluster import access, consequences, records
from cluster.agency import Agency
from cluster.clock import Clock
from cluster.consequences import People
from cluster.db.engine import Database
from cluster.db.tables import AuditRow, FolderRow, KeyRow, MemberRow, Meta, SessionRow, TokenRow, UserRow
from cluster.errors import ClusterError, NotAuthenticated, NotFound
from cluster.lifecycle import ENDED, HOLDING, LIVE, WAITING, overdue
from cluster.models import (
    Effect,
    Operation,
    OperationRequest,
    Outcome,
    Reason,
    Session,
    SessionResult,
    SessionState,
    User,
)
from cluster.operations import apply, folders
from cluster.operations.undo import audit_id
from cluster.reads import Reads
from cluster.scheduler import Plan, plan
from cluster.sentence import S
from cluster.storage.volumes import Volumes
from cluster.transaction import Done, Refused, Transaction

log = structlog.get_logger(__name__)

SYSTEM = User(name="system", role="admin")
WORDY = ("waits", "held", "delayed", "sooner")
"""Kinds of effects whose wording is not part of what a person agrees to."""
TICK = 1.0
"""Seconds between two looks at time limits, when nothing else wakes the core."""


class Core:
    """Open one with `Core.open`; `run_forever` keeps it going where no simulator drives it."""

    def __init__(self, db: Database, clock: Clock, data_dir: Path, name: str, simulated: bool) -> None:
        self.db = db
        self.clock = clock
        self.data_dir = data_dir
        self.name = name
        self.simulated = simulated
        self.same_host = not simulated
        self.volumes = None if simulated else Volumes(data_dir / "volumes")
        self.wake = asyncio.Event()
        """Set after every commit that may let something start or stop."""
        self.waiting = 0
        """How many wait for news just now (long polls and followers of events)."""
        self._told = asyncio.Event()
        self.agents = Agency(self)
        self.reads = Reads(self)

    @classmethod
    async def open(cls, path: Path, *, clock: Clock, data_dir: Path, name: str, simulated: bool = False) -> "Core":
        """Open or make the database at `path`; migrates it, and puts the folders in step with their rows."""
        core = cls(await Database.open(path, durable=not simulated), clock, data_dir, name, simulated)
        (data_dir / "logs").mkdir(parents=True, exist_ok=True)
        if core.volumes is not None:
            async with core.db.read() as db:
                rows = list(await db.scalars(select(FolderRow)))
            await asyncio.to_thread(folders.reconcile, rows, core.volumes)
        await core.agents.fresh_grace()
        return core

    async def close(self) -> None:
        await self.db.close()

    # ── people ───────────────────────────────────────────────────────────────────────────────────

    async def user(self, name: str) -> User:
        async with self.db.read() as db:
            row = await db.get(UserRow, name)
            if row is None or not row.active:
                raise NotFound(S("There is no user {name}.", name=name))
            projects = await db.scalars(
                select(MemberRow.project).where(MemberRow.user == name).order_by(MemberRow.project)
            )
            return User(name=row.name, email=row.email, role=row.role, projects=list(projects), active=row.active)

    async def token_for(self, owner: str) -> str:
        """A new token of a user's ("" for the agents'); only its hash is kept."""
        token = secrets.token_urlsafe(24)
        async with self.db.write() as db:
            db.add(TokenRow(digest=_hashed(token), owner=owner))
        return token

    async def owner_of(self, token: str) -> str:
        """Whose the token is; "" for the agents'. Raises `NotAuthenticated`."""
        async with self.db.read() as db:
            row = await db.get(TokenRow, _hashed(token))
        if row is None:
            raise NotAuthenticated(S("This token is not known here; log in again or restart `helmsman`."))
        return row.owner

    async def meta(self, key: str, value: str | None = None) -> str | None:
        """Read, or with `value` write, a fact about the cluster."""
        if value is None:
            async with self.db.read() as db:
                row = await db.get(Meta, key)
                return row.value if row else None
        async with self.db.write() as db:
            await db.merge(Meta(key=key, value=value))
        return value

    # ── operations ───────────────────────────────────────────────────────────────────────────────

    async def execute(self, user: User, request: OperationRequest) -> Outcome:
        """Do it, or with `dry_run` find out what it would do. A refusal is an outcome; nothing was changed then."""
        try:
            outcome = await self._execute(user, request)
        except Refused as e:
            return _refusal(request, e.reasons)
        except ClusterError as e:
            return _refusal(request, [_reason(e)])
        if not request.dry_run:
            await self.news()
        return outcome

    async def _execute(self, user: User, request: OperationRequest) -> Outcome:
        tx: Transaction | None = None
        try:
            async with self.db.write() as db:
                tx = Transaction(db, user, self.clock.now(), self.volumes, request.dry_run, self.same_host)
                if request.key and (known := await db.get(KeyRow, (user.name, request.key))):
                    return _as_before(known, request)
                outcome = await self._carry_out(tx, request)
                if request.dry_run:
                    raise _Preview(outcome)
                if request.key:
                    db.add(KeyRow(user=user.name, key=request.key, outcome=outcome.model_dump_json(), at=tx.now))
                await tx.db.flush()
                await tx.touch_disk()
                return outcome
        except _Preview as preview:
            return preview.outcome
        except Exception:
            if tx is not None:
                await tx.put_back_disk()
            raise

    async def _carry_out(self, tx: Transaction, request: OperationRequest) -> Outcome:
        before = await tx.plan()
        stopping = await _stopping(tx)
        done = await apply(tx, request.operation)
        outcome = await self._outcome(tx, request, before, stopping, done)
        if request.expect is not None and request.expect != outcome.digest:
            message = S("Things have changed since the plan was shown; look at it again.")
            raise Refused(Reason(code="state_changed", message=message))
        outcome.audit_id = await _journal(tx, request.operation, done)
        return outcome

    async def _outcome(
        self, tx: Transaction, request: OperationRequest, before: Plan, stopping: set[str], done: Done
    ) -> Outcome:
        await tx.db.flush()
        snapshot = await records.snapshot(tx.db, tx.now)
        after = plan(snapshot)
        people = await _people(tx)
        effects = list(done.effects)
        if done.session is not None:
            effects += consequences.own(done.session, after, people)
        effects += consequences.others(before, after, people, done.session.id if done.session else None)
        effects += consequences.once_stopped(snapshot, stopping, await _stopping(tx), after, people)
        await tx.commit_plan(after)
        await tx.db.flush()
        session = await self._session(tx, done.session)
        return Outcome(
            operation=request.operation,
            dry_run=request.dry_run,
            effects=effects,
            warnings=done.warnings,
            quota_left=consequences.quota_left(snapshot, after, done.session) if done.session else None,
            undo=done.undo,
            digest=_digest(request.operation, effects),
            session=session,
        )

    async def _session(self, tx: Transaction, row: SessionRow | None) -> Session | None:
        return None if row is None else records.session(row, await tx.allocations(row.id))

    # ── passes ───────────────────────────────────────────────────────────────────────────────────

    async def schedule_pass(self) -> bool:
        """One look at everything that waits or is late. True if something changed."""
        async with self.db.write() as db:
            tx = Transaction(db, SYSTEM, self.clock.now(), self.volumes)
            late = await self._out_of_time(tx)
            broken = await self._broken_dependencies(tx)
            placed = await tx.commit_plan(await tx.plan())
            changed = late or broken or placed
        if changed:
            await self.news()
        return changed

    async def _out_of_time(self, tx: Transaction) -> bool:
        """Lost nodes, states that lasted too long, folders whose days in the trash are over."""
        lost = await self.agents.lose_silent(tx)
        stuck = False
        for row in await tx.db.scalars(select(SessionRow).where(SessionRow.state.in_([s.value for s in HOLDING]))):
            then = overdue(row, tx.now)
            if then is None or await self.agents.unreachable(tx, row):
                continue
            if then is SessionState.PENDING and await tx.handed_out(row):
                then = SessionState.ERROR
            if then is SessionState.ERROR:
                row.reasons = [_stuck(row).model_dump(mode="json")]
            stuck = True
            await tx.move(row, then)
        return bool(lost) or stuck or await self._purge(tx)

    async def _purge(self, tx: Transaction) -> bool:
        until = tx.now - timedelta(days=records.TRASH_DAYS)
        rows = (await tx.db.scalars(select(FolderRow).where(FolderRow.trashed_at < until))).all()
        for row in rows:
            if self.volumes is not None and row.trash_id:
                await asyncio.to_thread(self.volumes.purge, row.trash_id)
            tx.event(
                "folder_purged",
                row.name,
                S("{name} was in the trash for {days} days and is gone.", name=row.name, days=records.TRASH_DAYS),
            )
            await tx.db.delete(row)
        return bool(rows)

    async def _broken_dependencies(self, tx: Transaction) -> bool:
        """A session whose dependency did not end well is cancelled, with the reason: it never waits for ever."""
        changed = False
        for row in await tx.db.scalars(select(SessionRow).where(SessionRow.state.in_([s.value for s in WAITING]))):
            for ident in row.depends_on:
                other = await tx.db.get(SessionRow, ident)
                if other is None or (other.state in ENDED and other.result != SessionResult.SUCCESS):
                    name = other.name if other else ident
                    reason = Reason(
                        code="dependency",
                        message=S("{name} depends on {other}, which did not succeed.", name=row.name, other=name),
                    )
                    row.reasons = [reason.model_dump(mode="json")]
                    await tx.move(row, SessionState.CANCELLED)
                    changed = True
                    break
        return changed

    async def run_forever(self) -> None:
        """Passes as soon as something happened, and every `TICK` for what only time brings."""
        while True:
            try:
                await self.schedule_pass()
            except ClusterError as e:
                log.error("pass failed", why=str(e))
            except Exception:
                log.exception("pass failed")  # a bug; the cluster must go on
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.wake.wait(), TICK)
            self.wake.clear()

    async def news(self) -> None:
        """Tell everybody who waits that something was committed."""
        self.wake.set()
        told, self._told = self._told, asyncio.Event()
        told.set()

    async def wait_for(self, look: Callable[[], Awaitable[bool]], seconds: float) -> None:
        """Until `look` says so after some commit, or `seconds` of real time are over."""

        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        self.waiting += 1
        try:
            while True:
                told = self._told
                if await look() or loop.time() >= end:
                    return
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(told.wait(), end - loop.time())
        finally:
            self.waiting -= 1


class _Preview(Exception):
    """Ends a dry run's transaction, with what it found."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__()
        self.outcome = outcome


def _hashed(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def _refusal(request: OperationRequest, reasons: list[Reason]) -> Outcome:
    return Outcome(operation=request.operation, dry_run=request.dry_run, refused=reasons)


def _as_before(known: KeyRow, request: OperationRequest) -> Outcome:
    """The outcome that this key had; refused when it was of something else."""
    outcome = Outcome.model_validate_json(known.outcome)
    if outcome.operation != request.operation:
        message = S("The key {key} belongs to another operation; nothing was done.", key=known.key)
        raise Refused(Reason(code="conflict", message=message))
    return outcome


def _stuck(row: SessionRow) -> Reason:
    """Why a session was given up that was too long in a state in between."""
    message = S(
        "{name} was {state} for too long; its agent did not say what became of it.", name=row.name, state=row.state
    )
    return Reason(code="unavailable", message=message)


def _reason(e: ClusterError) -> Reason:
    known = {"not_found", "ambiguous", "not_allowed", "conflict", "invalid", "storage_full", "unavailable"}
    code = e.code if e.code in known else "invalid"
    return Reason.model_validate({"code": code, "message": e.sentence, "candidates": e.candidates})


def _digest(operation: Operation, effects: list[Effect]) -> str:
    """Of what a person agreed to: the operation and its effects, without those that move with the clock only.

    Who waits counts, but not in which words: how much is short changes all the time, and the answer stays the same.
    """
    told = [(e.kind, e.target, "" if e.kind in WORDY else str(e.message)) for e in effects if e.stable]
    text = json.dumps([operation.model_dump(mode="json"), list(dict.fromkeys(told))], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


async def _journal(tx: Transaction, operation: Operation, done: Done) -> str:
    row = AuditRow(
        at=tx.now,
        user=tx.user.name,
        action=operation.op,
        operation=operation.model_dump(mode="json"),
        targets=done.targets,
        inverse=dict(done.inverse) if done.inverse else None,
    )
    tx.db.add(row)
    await tx.db.flush()
    if done.undoes is not None:
        done.undoes.undone_by = row.id
    return audit_id(row.id)


async def _people(tx: Transaction) -> People:
    live = SessionRow.state.in_([s.value for s in LIVE])
    rows = (await tx.db.scalars(select(SessionRow).where(live))).all()
    visible = {r.id for r in rows if access.sees(tx.user, r.user, r.project)}
    return People({r.id: (r.name, r.user) for r in rows}, visible, tx.user.name)


async def _stopping(tx: Transaction) -> set[str]:
    """Ids of the sessions that are being stopped."""
    await tx.db.flush()
    return set(await tx.db.scalars(select(SessionRow.id).where(SessionRow.state == SessionState.TERMINATING.value)))
