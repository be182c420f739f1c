"""Drives runs towards their end, pass after pass, from what is written of them; nothing is remembered between two."""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import structlog
from sqlalchemy import delete, select

from cluster.db.tables import FolderRow, RunRow, SessionRow, StepRow
from cluster.errors import ClusterError, StorageFull, Unavailable
from cluster.lifecycle import WAITING
from cluster.live import LiveSession
from cluster.models import Reason, StepState
from cluster.operations import pipelines
from cluster.pipelines import steps
from cluster.pipelines.moves import Begin, Finish, Move, Settle, Step, Work, next_look, next_moves
from cluster.pipelines.steps import Run
from cluster.sentence import S
from cluster.transaction import Refused, Transaction, reasons_of

if TYPE_CHECKING:
    from cluster.core import Core

ASK_EVERY = timedelta(seconds=10)
"""Whether a waiting step could still start is asked so often, and whenever people or quotas change."""
KEPT_FOR = timedelta(days=90)
"""Ended runs are kept for so long."""
CLEAR_EVERY = timedelta(hours=1)
BITE = 200
"""Sessions begun in one look, and runs cleared away at a time."""

log = structlog.get_logger(__name__)


class RunKeeper:
    """A `Keeper`. What it knows is a copy of the rows, read again when they have changed."""

    def __init__(self, core: "Core") -> None:
        self._core = core
        self._runs: list[tuple[Run, list[Step]]] = []
        """Those that have not ended, with their steps as they are judged."""
        self._stale = True
        self._asked: dict[str, datetime] = {}
        self._known: object = None
        self._cleared: datetime | None = None

    def changed(self) -> None:
        """Rows of runs are being changed; said inside the transaction that does it."""
        self._stale = True

    async def load(self) -> None:
        self._stale = True

    async def close(self) -> None:
        """It runs nothing in the background."""

    def due(self) -> datetime | None:
        now = self._core.clock.now()
        times = [t for run, parts in self._runs for t in next_look(run.state, run.row.state_since, parts)]
        return min((t for t in times if t > now), default=None)

    async def step(self) -> bool:
        changed = False
        if self._stale:
            await self._read()
        for run, moves in await self._judged():
            changed = await self._carry_out(run, moves) or changed
        await self._clear()
        return changed

    # ── looking ──────────────────────────────────────────────────────────────────────────────────

    async def _read(self) -> None:
        self._stale = False
        async with self._core.still(), self._core.db.read() as db:
            rows = (await db.scalars(select(RunRow).where(RunRow.ended.is_(None)).order_by(RunRow.created))).all()
            mine = select(StepRow).where(StepRow.run.in_([row.id for row in rows])).order_by(StepRow.place)
            parts = (await db.scalars(mine)).all() if rows else []
        by_run: dict[str, list[StepRow]] = {}
        for part in parts:
            by_run.setdefault(part.run, []).append(part)
        runs = [Run.of(row, by_run.get(row.id, [])) for row in rows]
        self._runs = [(run, run.steps()) for run in runs]
        self._asked = {ident: at for ident, at in self._asked.items() if ident in self._core.ledger.waiting}

    async def _judged(self) -> list[tuple[Run, list[Move]]]:
        """Every run that something can be done about, with what. At one moment, between two commits."""
        if not self._runs:
            return []
        async with self._core.still():
            now = self._core.clock.now()
            sessions = await self._sessions(now)
            judged = [
                (run, next_moves(run.state, run.row.state_since, parts, sessions, now)) for run, parts in self._runs
            ]
        return [(run, moves) for run, moves in judged if moves]

    async def _sessions(self, now: datetime) -> dict[str, Work]:
        """Of all running steps, by id."""
        running = [row for run, _ in self._runs for row in run.rows.values() if row.state == StepState.RUNNING]
        live = self._core.ledger.sessions
        wanted = [row.session for row in running if row.session and row.session not in live]
        found = {ident: steps.work(live[ident]) for row in running if (ident := row.session or "") in live}
        found |= await self._ended(wanted)
        return found | await self._hopeless([live[ident] for ident in found if ident in live], now)

    async def _ended(self, idents: Sequence[str]) -> dict[str, Work]:
        table = SessionRow.__table__
        found: dict[str, Work] = {}
        for start in range(0, len(idents), 500):
            async with self._core.db.read() as db:
                rows = await db.execute(select(table).where(table.c.id.in_(idents[start : start + 500])))
                found |= {row["id"]: steps.work(LiveSession.of(row)) for row in rows.mappings()}
        return found

    # ── whether a step that waits could still start ──────────────────────────────────────────────

    async def _hopeless(self, live: Sequence[LiveSession], now: datetime) -> dict[str, Work]:
        """Those whose session waits for what will not come."""
        if self._known is not self._core.directory:
            self._known, self._asked = self._core.directory, {}
        waiting = [s for s in live if s.state in WAITING and self._due_to_ask(s, now)]
        if not waiting:
            return {}
        folders = await self._folders() if any(session.mounts for session in waiting) else set()
        found = {}
        for session in waiting:
            self._asked[session.id] = now
            if reasons := self._never(session, folders, now):
                found[session.id] = Work(session.name, ended=False, never=reasons)
        return found

    def _due_to_ask(self, session: LiveSession, now: datetime) -> bool:
        asked = self._asked.get(session.id)
        return asked is None or now - asked >= ASK_EVERY

    async def _folders(self) -> set[str]:
        async with self._core.db.read() as db:
            rows = await db.execute(select(FolderRow.project, FolderRow.name).where(FolderRow.trash_id.is_(None)))
            return {f"{project}/{name}" for project, name in rows}

    def _never(self, session: LiveSession, folders: set[str], now: datetime) -> tuple[Reason, ...]:
        user = self._core.directory.users.get(session.user)
        if user is None or not user.active:
            return (steps.inactive(session.user),)
        gone = [mount for mount in session.mounts if mount not in folders]
        if gone:
            said = S("There is no folder {name}.", name=gone[0])
            return (Reason(code="not_found", message=said),)
        return self._core.outlook.never(session, session.resource_group, now)

    # ── doing ────────────────────────────────────────────────────────────────────────────────────

    async def _carry_out(self, run: Run, moves: Sequence[Move]) -> bool:
        """What only writes rows at once; each beginning alone, so that one that fails is the only one that does."""
        rest = [move for move in moves if not isinstance(move, Begin)]
        changed = await self._write(run, rest) if rest else False
        for move in [move for move in moves if isinstance(move, Begin)][:BITE]:
            try:
                changed = await self._write(run, [move]) or changed
            except (StorageFull, Unavailable):
                raise
            except (Refused, ClusterError) as e:
                failed = Settle(move.step, StepState.FAILED, tuple(reasons_of(e)))
                changed = await self._write(run, [failed]) or changed
        return changed

    async def _write(self, seen: Run, moves: Sequence[Move]) -> bool:
        """The moves in one transaction, if what they follow from is still so."""

        async def work(tx: Transaction) -> Callable[[], bool]:
            run = await steps.load(tx, seen.row.id)
            self.changed()
            if run is None or not all(_holds(seen, run, move) and _still_waits(tx, run, move) for move in moves):
                return lambda: False
            await steps.carry_out(tx, run, moves)
            return lambda: True

        return await self._core.writer.alone(self._core.system, work)

    # ── clearing away ────────────────────────────────────────────────────────────────────────────

    async def _clear(self) -> None:
        """Runs that ended long ago; the latest stays, since the next number follows from it."""
        now = self._core.clock.now()
        if self._cleared is not None and timedelta(0) <= now - self._cleared < CLEAR_EVERY:
            return
        self._cleared = now
        async with self._core.db.read() as db:
            latest = select(RunRow.id).order_by(pipelines.NUMBER.desc()).limit(1).scalar_subquery()
            old = select(RunRow.id).where(RunRow.ended < now - KEPT_FOR, RunRow.id != latest)
            idents = list(await db.scalars(old.order_by(RunRow.ended).limit(BITE)))
        if not idents:
            return

        async def clears(tx: Transaction) -> Callable[[], None]:
            await tx.db.execute(delete(StepRow).where(StepRow.run.in_(idents)))
            await tx.db.execute(delete(RunRow).where(RunRow.id.in_(idents)))
            return lambda: None

        await self._core.writer.alone(self._core.system, clears)


def _holds(seen: Run, run: Run, move: Move) -> bool:
    """What `move` follows from is as it was seen."""
    if (run.state, run.row.state_since) != (seen.state, seen.row.state_since):
        return False
    names = list(run.rows) if isinstance(move, Finish) else [move.step]
    return all(_same(seen.rows[name], run.rows[name]) for name in names)


def _still_waits(tx: Transaction, run: Run, move: Move) -> bool:
    """The session that is to be taken out of the queue is in it."""
    if not isinstance(move, Settle) or not move.stop:
        return True
    session = tx.ledger.sessions.get(run.rows[move.step].session or "")
    return session is not None and session.state in WAITING


def _same(seen: StepRow, row: StepRow) -> bool:
    return (seen.state, seen.tries, seen.session) == (row.state, row.tries, row.session)
