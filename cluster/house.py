"""What only time brings: lost nodes, states that lasted too long, broken dependencies, and what is cleared away."""

from collections.abc import Callable
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING

from sqlalchemy import ColumnElement, delete, func, select, tuple_

from cluster import records
from cluster.db.tables import Base, EventRow, FolderRow, KeyRow
from cluster.lifecycle import ENDED, overdue
from cluster.live import LiveSession
from cluster.models import Reason, SessionResult, SessionState
from cluster.sentence import S
from cluster.storage.volumes import Volumes
from cluster.transaction import Transaction

if TYPE_CHECKING:
    from cluster.core import Core

LOOK_EVERY = timedelta(seconds=1)
"""Silent nodes and late sessions are looked for so often."""
CLEAR_EVERY = timedelta(minutes=1)
KEYS_FOR = timedelta(days=7)
"""An idempotency key is known for so long."""
HISTORY_FOR = timedelta(days=90)
"""Events and the journal are kept for so long."""
HISTORY = (("events", "seq", HISTORY_FOR),)
BITE = 1000
"""So many rows of each kind are cleared away at a time."""


class House:
    """`look` with every pass, `clear` now and then."""

    def __init__(self, core: "Core") -> None:
        self._core = core
        self._looked: datetime | None = None
        self._cleared: datetime | None = None

    def look(self, tx: Transaction) -> bool:
        """What is due by now. True when something changed."""
        changed = self._broken_dependencies(tx)
        if self._looked is not None and timedelta(0) <= tx.now - self._looked < LOOK_EVERY:
            return changed
        self._looked = tx.now
        lost = self._core.agents.lose_silent(tx)
        stuck = [self._stuck(tx, session) for session in [*tx.ledger.holding.values()]]
        return changed or bool(lost) or any(stuck)

    def _stuck(self, tx: Transaction, session: LiveSession) -> bool:
        """A session that was too long in a state in between goes on."""
        then = overdue(session, tx.now)
        if then is None or self._core.agents.unreachable(session):
            return False
        tx.edit(session)
        if then is SessionState.PENDING and tx.handed_out(session):
            then = SessionState.ERROR
        if then is SessionState.ERROR:
            session.reasons = [_too_long(session).model_dump(mode="json")]
        tx.move(session, then)
        return True

    def _broken_dependencies(self, tx: Transaction) -> bool:
        """A session whose dependency did not end well is cancelled, with the reason: it never waits for ever.

        One that had its place once, and waits again, has what it depends on behind it.
        """
        broken: dict[str, str] = {}
        for ident, waiting in tx.ledger.dependents.items():
            other = tx.ledger.dependency(ident)
            if other is None or (other.state in ENDED and other.result != SessionResult.SUCCESS):
                broken |= dict.fromkeys((i for i in waiting if not waiting[i].attempt), other.name if other else ident)
        for ident, name in broken.items():
            session = tx.ledger.waiting[ident]
            message = S("{name} depends on {other}, which did not succeed.", name=session.name, other=name)
            tx.edit(session).reasons = [Reason(code="dependency", message=message).model_dump(mode="json")]
            tx.move(session, SessionState.CANCELLED)
        return bool(broken)

    # ── clearing away ────────────────────────────────────────────────────────────────────────────

    async def clear(self) -> bool:
        """Folders whose days in the trash are over; old keys, events and audit rows. True when a folder went."""
        now = self._core.clock.now()
        if self._cleared is not None and timedelta(0) <= now - self._cleared < CLEAR_EVERY:
            return False
        self._cleared = now

        async def clears(tx: Transaction) -> Callable[[], bool]:
            purged = await self._purge(tx)
            await _forget(tx)
            await self._core.journal.clear(tx, tx.now - HISTORY_FOR, BITE)
            return lambda: purged

        return await self._core.writer.alone(self._core.system, clears)

    async def _purge(self, tx: Transaction) -> bool:
        until = tx.now - timedelta(days=records.TRASH_DAYS)
        rows = (await tx.db.scalars(select(FolderRow).where(FolderRow.trashed_at < until))).all()
        for row in rows:
            if row.trash_id:
                tx.on_disk(partial(_discard, row.trash_id), partial(_take_back, row.trash_id))
            tx.event(
                "folder_purged",
                row.name,
                S("{name} was in the trash for {days} days and is gone.", name=row.name, days=records.TRASH_DAYS),
                owner=row.owner,
                project=row.project,
            )
            await tx.db.delete(row)
            self._core.purges.look_again()
        return bool(rows)


def _discard(trash_id: str, volumes: Volumes) -> None:
    volumes.discard(trash_id)


def _take_back(trash_id: str, volumes: Volumes) -> None:
    volumes.take_back(trash_id)


async def _forget(tx: Transaction) -> None:
    """The oldest rows, a bite at a time, if they are old enough.

    The last event stays, since the next number follows from it.
    """
    keys = KeyRow.__table__.c
    oldest = select(keys.user, keys.key).where(keys.at < tx.now - KEYS_FOR).order_by(keys.at).limit(BITE)
    await _drop(tx, KeyRow, tuple_(keys.user, keys.key).in_(oldest))
    events = EventRow.__table__.c
    last = select(func.max(events.seq)).scalar_subquery()
    first = select(events.seq).where(events.seq < last).order_by(events.seq).limit(BITE)
    await _drop(tx, EventRow, events.at < tx.now - HISTORY_FOR, events.seq.in_(first))


async def _drop(tx: Transaction, kind: type[Base], *which: ColumnElement[bool]) -> None:
    await tx.db.execute(delete(kind).where(*which).execution_options(synchronize_session=False))


def _too_long(session: LiveSession) -> Reason:
    """Why a session was given up that was too long in a state in between."""
    words = {"name": session.name, "state": session.state}
    message = S("{name} was {state} for too long; its agent did not say what became of it.", **words)
    return Reason(code="unavailable", message=message)
