"""SQLite: one file, in WAL mode. A second connection writes the ledger's rows, without the ORM and its threads."""

import asyncio
import sqlite3
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from alembic.util import CommandError
from sqlalchemy import URL, event, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine

from cluster.db.backend import BEGIN
from cluster.db.log import Statement
from cluster.db.schema import migrate
from cluster.errors import ClusterError, StorageFull, Unavailable
from cluster.sentence import S

PRAGMAS = ("journal_mode=WAL", "foreign_keys=ON", "busy_timeout=10000")


class Sqlite:
    """The file at `path`. `durable`: a commit is on the disk when it returns; without, a power cut may undo it."""

    def __init__(self, path: Path, durable: bool) -> None:
        self._path = path
        self._durable = durable
        self._prepare = partial(_prepare, synchronous="FULL" if durable else "OFF")
        self.writing = self.reading = self._engine()
        self._log: sqlite3.Connection | None = None

    def _engine(self) -> AsyncEngine:
        # who waits for the writer has a connection in hand, and the writer needs one: there is always one more
        engine = create_async_engine(URL.create("sqlite+aiosqlite", database=str(self._path)), max_overflow=-1)
        event.listen(engine.sync_engine, "connect", self._prepare)
        return engine

    async def open(self) -> None:
        await self._bring_up()
        self._log = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
        self._prepare(self._log, None)

    async def close(self) -> None:
        if self._log is not None:
            self._log.close()
        await self.writing.dispose()

    async def begin_reading(self, db: AsyncSession) -> None:
        await db.execute(text("BEGIN"))

    async def begin_writing(self, db: AsyncSession) -> None:
        await db.execute(text("BEGIN IMMEDIATE"))

    async def say(self, what: str) -> None:
        """What may wait for the disk or another program waits in a thread; the rows in between only touch memory, and
        a thread would lose the interpreter at each of them."""
        sql = "BEGIN IMMEDIATE" if what == BEGIN else what
        if self._durable:
            await asyncio.to_thread(self._connection.execute, sql)
        else:
            self._connection.execute(sql)

    async def write(self, statements: Sequence[Statement], to: AsyncSession | None = None) -> None:
        if to is None:
            for sql, rows in statements:
                self._connection.executemany(sql, rows)
            return
        connection = await to.connection()
        for sql, rows in statements:
            await connection.exec_driver_sql(sql, [tuple(row) for row in rows])

    async def give_up(self) -> None:
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")

    @property
    def _connection(self) -> sqlite3.Connection:
        assert self._log is not None, "it is open"
        return self._log

    def told(self, e: Exception) -> ClusterError | None:
        why = str(getattr(e, "orig", e))
        if "disk is full" in why or "disk I/O" in why:
            return StorageFull(S("The disk of the cluster's database is full. Nothing was changed; free some space."))
        if "database is locked" in why:
            return Unavailable(
                S("Another program has had the cluster's database locked for 10 s. Nothing was changed; close it.")
            )
        return None

    def lost(self, e: Exception) -> ClusterError | None:
        return None

    async def _bring_up(self) -> None:
        path = self._path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            async with self.writing.begin() as connection:
                await connection.exec_driver_sql("BEGIN IMMEDIATE")  # a migration that is killed leaves nothing behind
                await connection.run_sync(migrate)
        except CommandError as e:
            raise Unavailable(
                S("The database {path} was made by a newer Helmsman; update this one to use it.", path=str(path))
            ) from e
        except (OSError, OperationalError, sqlite3.Error) as e:
            why = str(e.__cause__ or e)
            raise Unavailable(
                S(
                    "The cluster's database {path} can't be opened ({why}). Check that its folder is writable.",
                    path=str(path),
                    why=why,
                )
            ) from e


def _prepare(connection: Any, _record: Any, synchronous: str) -> None:
    connection.isolation_level = None  # we say BEGIN ourselves
    cursor = connection.cursor()
    for pragma in (*PRAGMAS, f"synchronous={synchronous}"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()
