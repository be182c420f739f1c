"""Short first: what is learned of run times from sessions that have ended, and where those that wait stand by it.

Follows what is committed, for the resource groups whose policy is `short_first`. What was learned is found again in the
database after a restart.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from sqlalchemy import select

from cluster.db.tables import SessionRow
from cluster.lifecycle import WAITING
from cluster.models import SessionResult, SessionState
from cluster.scheduler.learned import ShortFirst

if TYPE_CHECKING:
    from cluster.core import Core

POLICY = "short_first"
LOOK_EVERY = timedelta(seconds=10)
"""Standings grow slowly while nothing happens."""
SOON = timedelta(seconds=1)
"""When something new came, they are worked out this much after the last time at the earliest."""
HISTORY = 2000
"""So many of the latest ended sessions of a group are learned from at the start."""
TELLING = (SessionResult.SUCCESS.value, SessionResult.FAILURE.value)
"""Results that say how long such a session runs; one that was stopped says nothing."""


class Standings:
    """Looks at the ledger now and then, and tells the scheduler where each session stands."""

    def __init__(self, core: "Core") -> None:
        self._core = core
        self._short: dict[str, ShortFirst] = {}
        self._known: dict[str, str] = {}
        """Session -> its group, of those that were live at the last look."""
        self._running: set[str] = set()
        """Those of them that ran."""
        self._looked: datetime | None = None

    async def look(self) -> None:
        """If it is time. Called before a pass."""
        groups = {g.name for g in (await self._core.fresh_directory()).groups.values() if g.policy == POLICY}
        if not groups and not self._short:
            return
        now = self._core.clock.now()
        if not self._due(groups, now):
            return
        async with self._core.still():
            await self._follow_groups(groups)
            await self._ended()
            self._follow(now)
            self._looked = now
            stand: dict[str, float] = {}
            for short in self._short.values():
                stand |= short.standings(now.timestamp())
            self._core.outlook.stand(stand)

    async def _follow_groups(self, groups: set[str]) -> None:
        for name in groups - self._short.keys():
            self._short[name] = await self._learned(name)
        for name in self._short.keys() - groups:
            del self._short[name]
            for ident in [ident for ident, group in self._known.items() if group == name]:
                del self._known[ident]
                self._running.discard(ident)

    def _due(self, groups: set[str], now: datetime) -> bool:
        if self._looked is None or groups != self._short.keys() or now < self._looked:
            return True
        since = now - self._looked
        return since >= LOOK_EVERY or (since >= SOON and self._changed(groups))

    def _changed(self, groups: set[str]) -> bool:
        """Somebody came or went."""
        live = self._core.ledger.sessions
        gone = any(ident not in live for ident in self._known)
        return gone or any(s.resource_group in groups and s.id not in self._known for s in live.values())

    async def _learned(self, group: str) -> ShortFirst:
        short = ShortFirst()
        for row in reversed(await self._rows(SessionRow.resource_group == group)):
            short.run_times.observe(row.gpu, row.submitted.timestamp(), (row.ended - row.started).total_seconds())
        return short

    async def _rows(self, wanted: Any) -> list[Any]:
        """Ended sessions that tell how long they ran, the latest first."""
        columns = SessionRow.id, SessionRow.gpu, SessionRow.submitted, SessionRow.started, SessionRow.ended
        telling = SessionRow.result.in_(TELLING), SessionRow.started.is_not(None), SessionRow.ended.is_not(None)
        query = select(*columns).where(wanted, *telling).order_by(SessionRow.ended.desc()).limit(HISTORY)
        async with self._core.db.read() as db:
            return list((await db.execute(query)).all())

    async def _ended(self) -> None:
        """Learn from what has ended since the last look."""
        live = self._core.ledger.sessions
        gone = [ident for ident in self._known if ident not in live]
        told: Mapping[str, Any] = {}
        if gone and self._looked is not None:
            rows = await self._rows(SessionRow.ended >= self._looked - LOOK_EVERY)
            told = {row.id: row for row in rows}
        for ident in gone:
            ran = ident in self._running
            self._running.discard(ident)
            short = self._short.get(self._known.pop(ident))
            if short is None:
                continue
            if (row := told.get(ident)) is None:
                short.forget(ident)
                continue
            if not ran:  # it began since
                short.started(ident, row.started.timestamp())
            short.ended(ident, row.ended.timestamp())

    def _follow(self, now: datetime) -> None:
        """Who is new, who has begun, who waits again."""
        for session in self._core.ledger.sessions.values():
            if (short := self._short.get(session.resource_group)) is None:
                continue
            ident, runs = session.id, session.state == SessionState.RUNNING
            if ident not in self._known:
                short.submitted(ident, session.gpu, session.node_count, session.submitted.timestamp())
                self._known[ident] = session.resource_group
            if runs and ident not in self._running:
                short.started(ident, (session.started or now).timestamp())
                self._running.add(ident)
            elif session.state in WAITING and ident in self._running:
                short.stopped(ident, now.timestamp())
                self._running.discard(ident)
