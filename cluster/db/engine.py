"""Opening the database: SQLite in WAL mode, brought up to date by Alembic."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import URL, event, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import Session, UOWTransaction

from cluster.db.log import Statement
from cluster.errors import ClusterError, StorageFull, Unavailable
from cluster.sentence import S

PRAGMAS = ("journal_mode=WAL", "foreign_keys=ON", "busy_timeout=10000")


class Database:
    """One SQLite file. Writers come one after another (`writing`), readers see the last commit (`read`).

    Two ways to write: rows of the ORM (`write`, `begin`), and the ledger's many rows at once (`append`).
    """

    def __init__(self, engine: AsyncEngine, log: sqlite3.Connection, durable: bool) -> None:
        self._engine = engine
        self._log = log
        self._durable = durable
        self.writing = asyncio.Lock()
        """Held by whoever writes, and by those who read what is between two commits."""
        self.touched: set[type] = set()
        """Classes of the rows that the ORM has changed, until somebody takes note."""
        kind = type("Watched", (Session,), {})
        event.listen(kind, "after_flush", self._note)
        self._session = async_sessionmaker(engine, expire_on_commit=False, sync_session_class=kind)

    @classmethod
    async def open(cls, path: Path, durable: bool = True) -> "Database":
        """Create or migrate the file at `path`, all or nothing; raises `Unavailable` when it can't be used.

        `durable`: a commit is on the disk when it returns. Without, what a power cut may undo is faster.
        """
        engine = create_async_engine(URL.create("sqlite+aiosqlite", database=str(path)))
        synchronous = "FULL" if durable else "OFF"
        event.listen(engine.sync_engine, "connect", partial(_prepare, synchronous=synchronous))
        try:
            await _bring_up(engine, path)
        except BaseException:
            await engine.dispose()
            raise
        log = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        _prepare(log, None, synchronous)
        return cls(engine, log, durable)

    async def close(self) -> None:
        self._log.close()
        await self._engine.dispose()

    def _note(self, db: Session, _flush: UOWTransaction) -> None:
        self.touched.update(type(row) for rows in (db.new, db.dirty, db.deleted) for row in rows)

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncSession]:
        """One moment of the database, however long the reading takes."""
        async with self._session() as db:
            await db.execute(text("BEGIN"))
            yield db

    @asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncSession]:
        """A transaction that has the write lock from its start; commits at the end, rolls back on any exception."""
        async with self.writing, self.begin() as db:
            yield db

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[AsyncSession]:
        """As `write`, for one that holds `writing` already."""
        async with self._session() as db:
            try:
                await db.execute(text("BEGIN IMMEDIATE"))
                yield db
                await db.commit()
            except OperationalError as e:
                await db.rollback()
                told = _told(str(e.orig))
                if told is None:
                    raise
                raise told from e

    async def append(self, statements: Sequence[Statement], to: AsyncSession | None = None) -> None:
        """Write the rows: into the transaction `to`, else as one of their own. The caller holds `writing`."""
        if to is not None:
            connection = await to.connection()
            for sql, rows in statements:
                await connection.exec_driver_sql(sql, [tuple(row) for row in rows])
            return
        try:
            await self._say("BEGIN IMMEDIATE")
            for sql, rows in statements:
                self._log.executemany(sql, rows)
            await self._say("COMMIT")
        except sqlite3.Error as e:
            if self._log.in_transaction:
                self._log.execute("ROLLBACK")
            told = _told(str(e))
            if told is None:
                raise
            raise told from e

    async def _say(self, sql: str) -> None:
        """What may wait for the disk or another program waits in a thread; the rows in between only touch memory, and
        a thread would lose the interpreter at each of them."""
        if self._durable:
            await asyncio.to_thread(self._log.execute, sql)
        else:
            self._log.execute(sql)


def _told(why: str) -> ClusterError | None:
    """What a person can do something about."""
    if "disk is full" in why or "disk I/O" in why:
        return StorageFull(S("The disk of the cluster's database is full. Nothing was changed; free some space."))
    if "database is locked" in why:
        return Unavailable(
            S("Another program has had the cluster's database locked for 10 s. Nothing was changed; close it.")
        )
    return None


async def _bring_up(engine: AsyncEngine, path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        async with engine.begin() as connection:
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


def migrate(connection: Any) -> None:
    """Bring the schema up to date (Alembic, batch mode)."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
