"""The database as the core uses it, whichever program keeps it: a SQLite file, or a PostgreSQL server."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from sqlalchemy import URL, event, func, select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlalchemy.orm import Session, UOWTransaction
from sqlalchemy.orm.attributes import instance_state

from cluster.db.backend import BEGIN, COMMIT, BackEnd
from cluster.db.log import Statement
from cluster.db.postgres import Postgres
from cluster.db.sqlite import Sqlite
from cluster.db.tables import AuditRow, EventRow
from cluster.errors import ClusterError

Where = Path | URL
"""A file of SQLite's, or where a database of PostgreSQL's is (`cluster.db.address`)."""


class Database:
    """Writers come one after another (`writing`), readers see the last commit (`read`).

    Two ways to write: rows of the ORM (`write`, `begin`), and the ledger's many rows at once (`append`).
    """

    def __init__(self, where: Where, end: BackEnd) -> None:
        self.where = where
        self._end = end
        self.writing = asyncio.Lock()
        """Held by whoever writes, and by those who read what is between two commits."""
        self.touched: set[type] = set()
        """Classes of the rows that the ORM has changed, until somebody takes note."""
        self.doubtful = False
        """It was lost while something was written: what is in memory has to be read again before anything is done."""
        kind = type("Watched", (Session,), {})
        event.listen(kind, "before_flush", _number)
        event.listen(kind, "after_flush", self._note)
        self._changes = async_sessionmaker(end.writing, expire_on_commit=False, sync_session_class=kind)
        self._looks = async_sessionmaker(end.reading, expire_on_commit=False)

    @classmethod
    async def open(cls, where: Where, durable: bool = True, alone: bool = False) -> "Database":
        """Create or migrate what is at `where`, all or nothing; raises `Unavailable` when it can't be used.

        `durable`: a commit is on the disk when it returns. Without, what a power cut may undo is faster.
        `alone`: on a PostgreSQL server, be the only one who has it so; the second one is refused. A file is guarded by
        its folder's lock (`cluster.server.locked`).
        """
        end: BackEnd = Sqlite(where, durable) if isinstance(where, Path) else Postgres(where, durable, alone)
        try:
            await end.open()
        except BaseException:
            await end.close()
            raise
        return cls(where, end)

    async def close(self) -> None:
        await self._end.close()

    def _note(self, db: Session, _flush: UOWTransaction) -> None:
        self.touched.update(type(row) for rows in (db.new, db.dirty, db.deleted) for row in rows)

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncSession]:
        """One moment of the database, however long the reading takes."""
        try:
            async with self._looks() as db:
                await self._end.begin_reading(db)
                yield db
        except DBAPIError as e:
            told = self._end.told(e)
            if told is None:
                raise
            raise told from e

    @asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncSession]:
        """A transaction that has the write lock from its start; commits at the end, rolls back on any exception."""
        async with self.writing, self.begin() as db:
            yield db

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[AsyncSession]:
        """As `write`, for one that holds `writing` already."""
        try:
            async with self._changes() as db:
                await self._end.begin_writing(db)
                yield db
                await db.commit()
        except DBAPIError as e:
            told = self._noticed(e)
            if told is None:
                raise
            raise told from e

    async def append(self, statements: Sequence[Statement], to: AsyncSession | None = None) -> None:
        """Write the rows: into the transaction `to`, else as one of their own. The caller holds `writing`."""
        if to is not None:
            await self._end.write(statements, to)
            return
        try:
            await self._say(BEGIN)
            await self._end.write(statements)
            await self._say(COMMIT)
        except Exception as e:
            await self._end.give_up()
            told = self._noticed(e)
            if told is None:
                raise
            raise told from e

    def _noticed(self, e: Exception) -> ClusterError | None:
        """What the caller is told of an error while something was written, if there are words for it."""
        lost = self._end.lost(e)
        self.doubtful = self.doubtful or lost is not None
        return lost or self._end.told(e)

    async def _say(self, what: str) -> None:
        await self._end.say(what)


NUMBERED = ((EventRow, EventRow.seq), (AuditRow, AuditRow.id))
"""Rows that the ledger numbers. PostgreSQL's own counters know nothing of that, and are not used."""


def _number(db: Session, _flush: UOWTransaction, _which: object) -> None:
    """Those that the ORM writes without a number get the next ones, in the order in which they were added."""
    for kind, number in NUMBERED:
        new = [row for row in db.new if type(row) is kind and getattr(row, number.key) is None]
        if new:
            last = db.connection().scalar(select(func.max(number))) or 0
            for value, row in enumerate(sorted(new, key=lambda row: instance_state(row).insert_order or 0), last + 1):
                setattr(row, number.key, value)
