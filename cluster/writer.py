"""The one writer: what is asked at the same time is done in one round and committed at once (group commit).

Each piece of work has its own mark on the draft, so that a refusal takes back its own changes only. Then one
scheduling pass for all, one commit, and only then the answers: nobody is told what a crash could undo.
"""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import structlog
from sqlalchemy import select, tuple_

from cluster.db.tables import KeyRow
from cluster.errors import ClusterError, StorageFull, Unavailable
from cluster.models import User
from cluster.transaction import Refused, Transaction

if TYPE_CHECKING:
    from cluster.core import Core

T = TypeVar("T")
Key = tuple[str, str]
"""A user and an idempotency key of theirs."""
Work = Callable[[Transaction], Awaitable[Callable[[], T]]]
"""Does its part, and returns what makes the answer when the round's pass is done."""
MOST = 500
"""Pieces of work in a round."""

log = structlog.get_logger(__name__)


@dataclass(eq=False, slots=True)
class Entry:
    """One piece of work in the inbox."""

    user: User
    work: Work[Any]
    answer: asyncio.Future[Any]
    alone: bool = False
    dry_run: bool = False
    plans: bool = False
    """It wants a scheduling pass."""
    key: Key | None = None
    tx: Transaction | None = None
    finish: Callable[[], Any] | None = None
    said: Any = None
    error: Exception | None = None

    def tell(self) -> None:
        """Answer whoever asked, unless they are gone."""
        if self.answer.done():
            return
        if self.error is not None:
            self.answer.set_exception(self.error)
        else:
            self.answer.set_result(self.said)


class _Preview(Exception):
    """Ends a dry run's transaction."""


class Writer:
    """Takes work, and does it in rounds as long as there is some."""

    def __init__(self, core: "Core") -> None:
        self._core = core
        self._inbox: deque[Entry] = deque()
        self._rounds: asyncio.Task[None] | None = None

    async def together(self, user: User, work: Work[T], *, plans: bool = False, key: Key | None = None) -> T:
        """Do `work` on the ledger, in one round with what others ask; the answer comes after its commit."""
        said: T = await self._put(Entry(user, work, _future(), plans=plans, key=key))
        return said

    async def alone(self, user: User, work: Work[T], *, dry_run: bool = False) -> T:
        """Do `work` in a transaction of its own, in which it may change rows as well; a dry run is taken back."""
        said: T = await self._put(Entry(user, work, _future(), alone=True, dry_run=dry_run))
        return said

    async def rest(self) -> None:
        """Return when all work is done."""
        while self._rounds is not None and not self._rounds.done():
            await asyncio.wait([self._rounds])

    async def _put(self, entry: Entry) -> Any:
        self._inbox.append(entry)
        if self._rounds is None or self._rounds.done():
            self._rounds = asyncio.create_task(self._work())
        return await entry.answer

    async def _work(self) -> None:
        while self._inbox:
            async with self._core.db.writing:
                entries = self._next()
                try:
                    await self._core.refresh()
                    await self._weigh_mounts()
                    await (self._alone(entries[0]) if entries[0].alone else self._round(entries))
                except ClusterError as e:
                    _fail(entries, e)
                except Exception as e:
                    log.exception("round failed")
                    _fail(entries, e)
                for entry in entries:
                    entry.tell()
            await asyncio.sleep(0)  # those who were answered may ask on, in the same round

    async def _weigh_mounts(self) -> None:
        """In a round of its own, before anything can be handed out: who may still use what they mount."""
        mounts = self._core.mounts
        if not mounts.due():
            return
        entry = Entry(self._core.system, mounts.weigh, _future())
        await self._round([entry])
        if entry.error is None:
            mounts.settled()

    def _next(self) -> list[Entry]:
        """One that wants to be alone; or as many as can share a commit, in their order, no key twice."""
        entries = [self._inbox.popleft()]
        keys = {entries[0].key}
        while self._inbox and not entries[0].alone and len(entries) < MOST:
            entry = self._inbox[0]
            if entry.alone or (entry.key is not None and entry.key in keys):
                break
            keys.add(entry.key)
            entries.append(self._inbox.popleft())
        return entries

    # ── together ─────────────────────────────────────────────────────────────────────────────────

    async def _round(self, entries: Sequence[Entry]) -> None:
        """All of them with one commit; one by one when that fails for a reason that may be one's alone."""
        try:
            await self._together(entries)
        except (StorageFull, Unavailable) as e:
            _fail(entries, e)
        except Exception as e:
            if len(entries) == 1:
                _fail(entries, e)
                return
            log.warning("round repeated one by one", why=repr(e))
            for entry in entries:
                await self._round([entry])

    async def _together(self, entries: Sequence[Entry]) -> None:
        core = self._core
        try:
            known = await self._known([entry.key for entry in entries if entry.key])
            await core.idents.stock(len(entries))
            for entry in entries:
                await self._begin(entry, known)
            if any(entry.plans for entry in entries):
                self._plan([entry for entry in entries if entry.tx is not None])
            for entry in entries:
                if entry.error is None and entry.finish is not None:
                    entry.said = entry.finish()
            orders = core.agents.orders_for_polls(self._transaction(core.system))
            await self._commit()
        except BaseException:
            core.draft.abandon()
            raise
        core.agents.answer_polls(orders)

    async def _begin(self, entry: Entry, known: dict[Key, str]) -> None:
        """Its part of the round; what a refused one has changed is taken back."""
        entry.said, entry.error, entry.finish = None, None, None
        entry.tx = self._transaction(entry.user)
        if entry.key is not None:
            entry.tx.known = known.get(entry.key)
        self._core.draft.mark()
        try:
            entry.finish = await entry.work(entry.tx)
        except (Refused, ClusterError) as e:
            self._core.draft.back()
            entry.error = e

    def _plan(self, entries: Sequence[Entry]) -> None:
        """One scheduling pass, of which all are told."""
        tx = self._transaction(self._core.system)
        self._core.draft.mark()
        decided = self._core.outlook.plan(tx.now)
        placed = tx.carry_out(decided)
        for entry in entries:
            if entry.tx is not None:
                entry.tx.decided, entry.tx.placed = decided, placed

    async def _commit(self) -> None:
        core = self._core
        statements, events = core.draft.statements(), core.draft.events
        if statements:
            with core.metrics.commits.time():
                await core.db.append(statements)
        core.draft.settle()
        if statements:
            core.news(events > 0)

    async def _known(self, keys: Sequence[Key]) -> dict[Key, str]:
        """The outcomes that these keys had already."""
        if not keys:
            return {}
        query = select(KeyRow.user, KeyRow.key, KeyRow.outcome).where(tuple_(KeyRow.user, KeyRow.key).in_(keys))
        async with self._core.db.read() as db:
            return {(user, key): outcome for user, key, outcome in await db.execute(query)}

    # ── alone ────────────────────────────────────────────────────────────────────────────────────

    async def _alone(self, entry: Entry) -> None:
        core = self._core
        tx = self._transaction(entry.user)
        tx.dry_run = entry.dry_run
        core.draft.mark()
        await core.idents.stock(1)
        try:
            async with core.db.begin() as tx.rows:
                entry.said = (await entry.work(tx))()
                if entry.dry_run:
                    raise _Preview
                began = time.perf_counter()
                await tx.rows.flush()  # before anything is handed out: from here on it is known what was changed
                orders = core.agents.orders_for_polls(tx)
                events = core.draft.events
                await core.db.append(core.draft.statements(), tx.rows)
                await tx.touch_disk()
        except _Preview:
            core.draft.abandon()
        except Exception as e:
            core.draft.abandon()
            await tx.put_back_disk()
            entry.error = e
        else:
            core.metrics.commits.observe(time.perf_counter() - began)
            core.draft.settle()
            core.agents.answer_polls(orders)
            core.news(events > 0)
        finally:
            core.outlook.settle(core.directory)

    def _transaction(self, user: User) -> Transaction:
        return Transaction(self._core, user, self._core.clock.now())


def _future() -> asyncio.Future[Any]:
    return asyncio.get_running_loop().create_future()


def _fail(entries: Sequence[Entry], e: Exception) -> None:
    for entry in entries:
        entry.error = e
